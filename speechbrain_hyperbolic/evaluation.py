"""All error rates of a system on one list of trials."""

from collections.abc import Sequence

import numpy.typing as npt

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.metrics import (
    P_TARGETS,
    act_dcf,
    cllr,
    eer,
    min_cllr,
    min_dcf,
    split_trials,
)
from speechbrain_hyperbolic.significance import bootstrap_intervals


def evaluate(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    enrol_speakers: npt.ArrayLike | None = None,
    test_speakers: npt.ArrayLike | None = None,
    p_targets: Sequence[float] = P_TARGETS,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    calibrated: bool = False,
) -> dict:
    """The metrics of one list of trials, with intervals if speakers are given.

    Arguments
    ---------
    scores : array_like
        Shape (N,), finite.
    labels : array_like
        Shape (N,): 1 (or True) for a target trial, 0 for a nontarget trial.
    enrol_speakers : array_like, optional
        As `significance.bootstrap_intervals`.
    test_speakers : array_like, optional
        As `bootstrap_intervals`.
    p_targets : sequence of float
        Priors of the detection costs, each inside (0, 1).
    replicates : int
        As `bootstrap_intervals`.
    level : float
        As `bootstrap_intervals`.
    seed : int
        As `bootstrap_intervals`.
    calibrated : bool
        Whether the scores are natural log-likelihood ratios, which are judged
        as such too.

    Returns
    -------
    summary : dict
        "n_target", "n_nontarget" (int), "eer", "eer_threshold" and for each
        prior "min_dcf_<p_target>" (float), and "intervals": what
        `bootstrap_intervals` returns, or None without speakers. If
        `calibrated`, also "act_dcf_<p_target>", "cllr" and "min_cllr" (float).

    Raises
    ------
    InputError
        As `metrics.split_trials`; also if the speakers of only one side are
        given, or `p_targets`, `replicates` or `level` is out of range.

    Example
    -------
    >>> summary = evaluate([0.1, 0.3, 0.2, 0.4], [0, 0, 1, 1])
    >>> summary["n_target"], summary["eer"], summary["min_dcf_0.01"]
    (2, 0.5, 0.5)
    """
    scores, is_target = split_trials(scores, labels)
    classes = scores[is_target], scores[~is_target]
    value, threshold = eer(*classes)
    summary = {
        "n_target": classes[0].size,
        "n_nontarget": classes[1].size,
        "eer": value,
        "eer_threshold": threshold,
    }
    for p_target in p_targets:
        summary[f"min_dcf_{p_target:g}"], _ = min_dcf(*classes, p_target)
    if calibrated:
        for p_target in p_targets:
            summary[f"act_dcf_{p_target:g}"] = act_dcf(*classes, p_target)
        summary["cllr"] = cllr(*classes)
        summary["min_cllr"] = min_cllr(*classes)
    if (enrol_speakers is None) != (test_speakers is None):
        raise InputError(
            "the speakers of only one side are given: give both "
            "enrol_speakers and test_speakers, or neither."
        )
    summary["intervals"] = None
    if enrol_speakers is not None and test_speakers is not None:
        summary["intervals"] = bootstrap_intervals(
            scores,
            labels,
            enrol_speakers,
            test_speakers,
            p_targets,
            replicates,
            level,
            seed,
        )
    return summary
