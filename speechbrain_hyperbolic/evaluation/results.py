"""All error rates of a system on a trial list, as a dict, JSON or a table."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speechbrain_hyperbolic.dataio.corpus import Corpus
from speechbrain_hyperbolic.dataio.files import StrPath
from speechbrain_hyperbolic.dataio.trials import TrialList
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation import bootstrap, metrics


def locate(
    trials: TrialList, corpus: Corpus, trial_list: StrPath
) -> dict[str, str]:
    """The audio file of each utterance of a trial list; all must exist."""
    found = {name: corpus.find(name) for name in trials.utterances}
    if trials.missing:
        raise InputError(
            f"{trial_list}: {trials.missing[0]} is not in data_folder {corpus} "
            f"({len(trials.missing)} of {len(found)} utterances are missing): "
            "complete the folder, remove their trials, or pass an "
            "enrollment_file if these are models of several utterances"
        )
    return {name: r.path for name, r in found.items() if r}


def check_both_classes(trials: TrialList, trial_list: StrPath) -> None:
    """Refuses a list without error rates before hours of scoring."""
    targets = int((trials.labels == 1).sum())
    if targets in (0, len(trials)):
        kind = "target" if targets else "nontarget"
        raise InputError(
            f"{trial_list} has {len(trials)} {kind} trials and no others: "
            "error rates need both labels, 1 and 0"
        )


def evaluate(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    enroll_speakers: npt.ArrayLike,
    test_speakers: npt.ArrayLike,
    replicates: int = 1000,
    calibrated: bool = False,
    p_targets: Sequence[float] = metrics.P_TARGETS,
) -> dict:
    """Error rates by name, and their "intervals".

    Scores that are ``calibrated``, natural log-likelihood ratios, also get
    "act_dcf_<p_target>" and "cllr".
    """
    scores, is_target = metrics.split_trials(scores, labels)
    classes = scores[is_target], scores[~is_target]
    value, threshold = metrics.eer(*classes)
    summary: dict = {
        "n_target": classes[0].size,
        "n_nontarget": classes[1].size,
        "n_speakers": np.unique([enroll_speakers, test_speakers]).size,
        "eer": value,
        "eer_threshold": threshold,
    }
    for p in p_targets:
        summary[f"min_dcf_{p:g}"], _ = metrics.min_dcf(*classes, p)
    if calibrated:
        for p in p_targets:
            summary[f"act_dcf_{p:g}"] = metrics.act_dcf(*classes, p)
        summary["cllr"] = metrics.cllr(*classes)
    summary["intervals"] = bootstrap.bootstrap_intervals(
        scores,
        labels,
        enroll_speakers,
        test_speakers,
        replicates,
        p_targets=p_targets,
    )
    return summary


def evaluate_trials(
    trials: TrialList,
    scores: np.ndarray,
    speakers: dict | None = None,
    **options: Any,
) -> dict:
    """``evaluate`` for "all trials" and, where known, "same-sex trials"."""
    enroll, test = trials.speakers()
    subsets = {"all trials": np.ones(len(trials), bool)}
    sex = {s: row.get("sex") or "" for s, row in (speakers or {}).items()}
    enroll_sex, test_sex = (
        np.array([sex.get(speaker, "") for speaker in side])
        for side in (enroll, test)
    )
    same = (enroll_sex == test_sex) & (enroll_sex != "")
    if len(np.unique(trials.labels[same])) == 2:
        subsets["same-sex trials"] = same
    return {
        name: evaluate(
            scores[chosen],
            trials.labels[chosen],
            enroll[chosen],
            test[chosen],
            **options,
        )
        for name, chosen in subsets.items()
    }


def read_results(path: StrPath) -> dict:
    """What ``evaluate_trials`` returned, from the JSON of a verification."""
    return json.loads(pathlib.Path(path).read_text())


def metrics_of(result: dict) -> list[str]:
    """The metrics of a result that may have intervals."""
    return ["eer", *(name for name in result if name.startswith("min_dcf_"))]


def format_results(results: dict) -> str:
    """A Markdown table with a row for each named result of ``evaluate``."""
    first = next(iter(results.values()))
    names = metrics_of(first)
    names += [name for name in first if name.startswith(("act_dcf_", "cllr"))]
    titles = [metrics.metric_cell(name, 0)[0] for name in names]
    rows = [["", "trials", *titles]]
    for subset, result in results.items():
        row = [subset, f"{result['n_target']} + {result['n_nontarget']}"]
        for name in names:
            bounds = (result["intervals"] or {}).get(name)
            row.append(metrics.metric_cell(name, result[name], bounds)[1])
        rows.append(row)
    return metrics.markdown(rows)


def interval_note(results: dict) -> str:
    """What a reader needs to know about the intervals of a table."""
    if not all(result["intervals"] for result in results.values()):
        return "too few speakers for intervals"
    note = "in brackets 95 % intervals by bootstrap over speakers"
    fewest = min(result["n_speakers"] for result in results.values())
    if fewest < bootstrap.ENOUGH_SPEAKERS:
        note += f", too narrow for as few as {fewest} speakers"
    if any(None in result["intervals"].values() for result in results.values()):
        note += (
            f"; none where fewer than {bootstrap.MIN_ERRORS} speakers are "
            "missed or pairs of speakers falsely accepted at any threshold"
        )
    return note
