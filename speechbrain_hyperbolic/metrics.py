"""Error rates of a speaker-verification system, and how sure they are.

A trial is a score and a label: target (one speaker) or nontarget (two). It is
accepted when its score is above the threshold, as in
``speechbrain.utils.metric_stats``. All rates are fractions, not per cent.
"""

import numpy as np

from speechbrain_hyperbolic.errors import InputError

P_TARGETS = (0.01, 0.05)
MIN_SPEAKERS = 10


def error_rates(target_scores, nontarget_scores):
    """Miss and false-alarm rates at every operating point.

    There are K + 1 points for K distinct scores: accept everything (threshold
    -inf), then one per distinct score. The last one rejects everything. Costs
    O(N log N) for N trials.

    Arguments
    ---------
    target_scores : array_like
        Scores of the target trials, shape (T,), finite.
    nontarget_scores : array_like
        Scores of the nontarget trials, shape (U,), finite.

    Returns
    -------
    thresholds : np.ndarray
        Increasing, shape (K + 1,), the first is -inf.
    p_miss : np.ndarray
        Fraction of target scores <= threshold, from 0 up to 1.
    p_fa : np.ndarray
        Fraction of nontarget scores > threshold, from 1 down to 0.

    Raises
    ------
    InputError
        If either class is empty, not one-dimensional, or holds a score that is
        NaN or infinite.

    Example
    -------
    >>> thresholds, p_miss, p_fa = error_rates([2, 3], [1, 2])
    >>> thresholds.tolist()
    [-inf, 1.0, 2.0, 3.0]
    >>> p_miss.tolist(), p_fa.tolist()
    ([0.0, 0.0, 0.5, 1.0], [1.0, 0.5, 0.0, 0.0])
    """
    target = np.sort(_class_scores("target", target_scores))
    nontarget = np.sort(_class_scores("nontarget", nontarget_scores))
    thresholds, n_missed, n_rejected = _operating_points(target, nontarget)
    p_miss = n_missed / target.size
    p_fa = (nontarget.size - n_rejected) / nontarget.size
    return thresholds, p_miss, p_fa


def eer(target_scores, nontarget_scores):
    """Equal error rate: where the miss and false-alarm rates cross.

    Let (m0, f0) and (m1, f1) be the (p_miss, p_fa) of the two neighbouring
    operating points with m0 < f0 and m1 >= f1. The straight line between them
    meets p_miss = p_fa at

        eer = m0 + (m1 - m0) * (f0 - m0) / ((m1 - m0) + (f0 - f1))

    Arguments
    ---------
    target_scores : array_like
        Scores of the target trials, shape (T,), finite.
    nontarget_scores : array_like
        Scores of the nontarget trials, shape (U,), finite.

    Returns
    -------
    eer : float
        The equal error rate, a fraction.
    threshold : float
        The threshold of whichever of the two points has the smaller
        |p_miss - p_fa|; on a tie the upper one, so it is always finite.

    Raises
    ------
    InputError
        As `error_rates`.

    Example
    -------
    >>> eer([2, 3, 4, 5], [0, 1, 2, 3])
    (0.25, 2.0)
    """
    thresholds, p_miss, p_fa = error_rates(target_scores, nontarget_scores)
    value, index = _crossing(p_miss, p_fa)
    return value, float(thresholds[index])


def min_dcf(
    target_scores, nontarget_scores, p_target=0.01, c_miss=1.0, c_fa=1.0
):
    """Minimum of the normalised detection cost over all thresholds.

    The cost is that of the NIST speaker recognition evaluations,

        c_miss * p_target * p_miss + c_fa * (1 - p_target) * p_fa

    divided by that of the better system that ignores the speech,
    min(c_miss * p_target, c_fa * (1 - p_target)). The result is at most 1.
    ``speechbrain.utils.metric_stats.minDCF`` does not divide.

    Arguments
    ---------
    target_scores : array_like
        Scores of the target trials, shape (T,), finite.
    nontarget_scores : array_like
        Scores of the nontarget trials, shape (U,), finite.
    p_target : float
        Prior probability of a target trial, inside (0, 1).
    c_miss : float
        Cost of a miss, above 0.
    c_fa : float
        Cost of a false alarm, above 0.

    Returns
    -------
    min_dcf : float
        The minimum, in [0, 1].
    threshold : float
        The lowest threshold that reaches it; -inf if that is to accept
        everything.

    Raises
    ------
    InputError
        As `error_rates`; also for a prior or a cost out of range.

    Example
    -------
    >>> min_dcf([2, 3, 4, 5], [0, 1, 2, 3], p_target=0.5)
    (0.5, 1.0)
    """
    _check_costs(p_target, c_miss, c_fa)
    thresholds, p_miss, p_fa = error_rates(target_scores, nontarget_scores)
    cost = _dcf(p_miss, p_fa, p_target, c_miss, c_fa)
    index = cost.argmin()
    return float(cost[index]), float(thresholds[index])


def bootstrap_intervals(
    scores,
    labels,
    enrol_speakers,
    test_speakers,
    p_targets=P_TARGETS,
    replicates=1000,
    level=0.95,
    seed=0,
):
    """Percentile intervals by a bootstrap over speakers.

    Trials that share a speaker are not independent, so what is drawn anew is
    the speakers: each replicate draws as many as there are, with replacement.
    With w_s the number of times that speaker s was drawn, a trial of speakers
    a and b counts w_a * w_b times, or w_a times if a = b. This is the
    pigeonhole bootstrap of Owen (Annals of Applied Statistics 1(2), 2007) for
    one kind of unit on both sides of the trial. Replicates that leave a class
    without trials are skipped. A system without any error gets (0, 0): draws
    of these trials cannot show errors that none of them has.

    Arguments
    ---------
    scores : array_like
        Shape (N,), finite.
    labels : array_like
        Shape (N,): 1 (or True) for a target trial, 0 for a nontarget trial.
    enrol_speakers : array_like
        Shape (N,): identifier of the speaker on the enrolment side.
    test_speakers : array_like
        Shape (N,): identifier of the speaker on the test side, from the same
        set of identifiers.
    p_targets : sequence of float
        Priors of the detection costs, each inside (0, 1).
    replicates : int
        Number of bootstrap replicates, above 0.
    level : float
        Nominal coverage, inside (0, 1).
    seed : int
        Seed of the draws. The same trials, in any order, and the same seed
        give the same intervals.

    Returns
    -------
    intervals : dict or None
        ``(low, high)`` for "eer" and for each "min_dcf_<p_target>". None if
        there are fewer than `MIN_SPEAKERS` (10) speakers: too few for their
        draws to say anything about speakers at large.

    Raises
    ------
    InputError
        As `evaluate`; also if no replicate has trials of both classes.

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> enrol, test = rng.integers(20, size=(2, 500))
    >>> scores = rng.normal(size=500) + 3 * (enrol == test)
    >>> intervals = bootstrap_intervals(
    ...     scores, enrol == test, enrol, test, replicates=50
    ... )
    >>> sorted(intervals)
    ['eer', 'min_dcf_0.01', 'min_dcf_0.05']
    >>> low, high = intervals["eer"]
    >>> 0 <= low < high < 0.5
    True
    """
    scores, is_target = _trials(scores, labels)
    for p_target in p_targets:
        _check_costs(p_target)
    if replicates < 1:
        raise InputError(f"replicates is {replicates}: give 1 or more.")
    _check_inside_unit("level", level)
    n_speakers, enrol, test = _speaker_indices(
        enrol_speakers, test_speakers, scores.size
    )
    if n_speakers < MIN_SPEAKERS:
        return None

    # A trial within one speaker takes its second factor from the constant 1
    # that `draw` ends with.
    test = np.where(enrol == test, n_speakers, test)
    targets, nontargets = (
        mask.nonzero()[0][np.argsort(scores[mask])]
        for mask in (is_target, ~is_target)
    )
    _, n_missed, n_rejected = _operating_points(
        scores[targets], scores[nontargets]
    )
    target_sides = enrol[targets], test[targets]
    nontarget_sides = enrol[nontargets], test[nontargets]

    rng = np.random.default_rng(seed)
    chances = np.full(n_speakers, 1 / n_speakers)
    values = {name: [] for name in ("eer", *map(_dcf_name, p_targets))}
    for _ in range(replicates):
        draw = np.append(rng.multinomial(n_speakers, chances), 1.0)
        missed = _cumulative_weight(draw, *target_sides)
        rejected = _cumulative_weight(draw, *nontarget_sides)
        if missed[-1] == 0 or rejected[-1] == 0:
            continue
        p_miss = missed[n_missed] / missed[-1]
        p_fa = (rejected[-1] - rejected[n_rejected]) / rejected[-1]
        values["eer"].append(_crossing(p_miss, p_fa)[0])
        for p_target in p_targets:
            cost = _dcf(p_miss, p_fa, p_target)
            values[_dcf_name(p_target)].append(cost.min())
    if not values["eer"]:
        raise InputError(
            f"none of {replicates} bootstrap replicates has trials of both "
            "classes: give more replicates, or trials of more speakers."
        )
    tails = [(1 - level) / 2, (1 + level) / 2]
    return {
        name: tuple(np.quantile(drawn, tails).tolist())
        for name, drawn in values.items()
    }


def evaluate(
    scores,
    labels,
    enrol_speakers=None,
    test_speakers=None,
    p_targets=P_TARGETS,
    replicates=1000,
    level=0.95,
    seed=0,
):
    """The metrics of one list of trials, with intervals if speakers are given.

    Arguments
    ---------
    scores : array_like
        Shape (N,), finite.
    labels : array_like
        Shape (N,): 1 (or True) for a target trial, 0 for a nontarget trial.
    enrol_speakers : array_like, optional
        As `bootstrap_intervals`.
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

    Returns
    -------
    summary : dict
        "n_target", "n_nontarget" (int), "eer", "eer_threshold" and for each
        prior "min_dcf_<p_target>" (float), and "intervals": what
        `bootstrap_intervals` returns, or None without speakers.

    Raises
    ------
    InputError
        If a class has no trials, a score is NaN or infinite, a label is
        neither 0 nor 1, lengths differ, the speakers of only one side are
        given, or `p_targets`, `replicates` or `level` is out of range.

    Example
    -------
    >>> summary = evaluate([0.1, 0.3, 0.2, 0.4], [0, 0, 1, 1])
    >>> summary["n_target"], summary["eer"], summary["min_dcf_0.01"]
    (2, 0.5, 0.5)
    """
    trials, is_target = _trials(scores, labels)
    target, nontarget = trials[is_target], trials[~is_target]
    value, threshold = eer(target, nontarget)
    summary = {
        "n_target": target.size,
        "n_nontarget": nontarget.size,
        "eer": value,
        "eer_threshold": threshold,
    }
    for p_target in p_targets:
        cost, _ = min_dcf(target, nontarget, p_target)
        summary[_dcf_name(p_target)] = cost
    if (enrol_speakers is None) != (test_speakers is None):
        raise InputError(
            "the speakers of only one side are given: give both "
            "enrol_speakers and test_speakers, or neither."
        )
    summary["intervals"] = None
    if enrol_speakers is not None:
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


def _operating_points(target, nontarget):
    """Thresholds, and how many of each class's sorted scores are <= them."""
    scores = np.unique(np.concatenate([target, nontarget]))
    thresholds = np.append(-np.inf, scores)
    n_missed = np.searchsorted(target, thresholds, side="right")
    n_rejected = np.searchsorted(nontarget, thresholds, side="right")
    return thresholds, n_missed, n_rejected


def _cumulative_weight(draw, enrol, test):
    """Total weight of the first 0, 1, ..., n trials."""
    return np.append(0.0, np.cumsum(draw[enrol] * draw[test]))


def _crossing(p_miss, p_fa):
    """The equal error rate, and the index of the nearer operating point."""
    after = int(np.argmax(p_miss >= p_fa))
    before = after - 1
    m0, f0 = p_miss[before], p_fa[before]
    m1, f1 = p_miss[after], p_fa[after]
    value = m0 + (m1 - m0) * (f0 - m0) / ((m1 - m0) + (f0 - f1))
    return float(value), after if m1 - f1 <= f0 - m0 else before


def _dcf(p_miss, p_fa, p_target, c_miss=1.0, c_fa=1.0):
    """Normalised detection cost at each operating point."""
    miss, fa = c_miss * p_target, c_fa * (1 - p_target)
    blind = min(miss, fa)
    return miss / blind * p_miss + fa / blind * p_fa


def _dcf_name(p_target):
    return f"min_dcf_{p_target:g}"


def _trials(scores, labels):
    """Scores as float64 and a mask of the target trials, both checked."""
    scores = _column("scores", scores)
    labels = _column("labels", labels)
    _check_length("labels", labels, scores.size)
    wrong = np.flatnonzero((labels != 0) & (labels != 1))
    if wrong.size:
        raise InputError(
            f"{wrong.size} labels are neither 0 nor 1, the first at index "
            f"{wrong[0]}: use 1 for target trials and 0 for nontarget trials."
        )
    is_target = labels == 1
    for name, mask in (("target", is_target), ("nontarget", ~is_target)):
        if not mask.any():
            raise _no_trials(name)
    return _finite("scores", scores), is_target


def _class_scores(name, scores):
    scores = _column(f"{name} scores", scores)
    if not scores.size:
        raise _no_trials(name)
    return _finite(f"{name} scores", scores)


def _no_trials(name):
    return InputError(
        f"there are no {name} trials: error rates need trials of both "
        "classes, so check the labels and the trial list."
    )


def _column(name, values, dtype=np.float64):
    try:
        values = np.asarray(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} cannot be read as one value per trial: {error}"
        ) from error
    if values.ndim != 1:
        raise InputError(
            f"{name} has shape {values.shape}: give one dimension, with one "
            "entry per trial."
        )
    return values


def _finite(name, scores):
    wrong = np.flatnonzero(~np.isfinite(scores))
    if wrong.size:
        raise InputError(
            f"{name}: {wrong.size} of {scores.size} are NaN or infinite, the "
            f"first at index {wrong[0]}: check the embeddings of that trial."
        )
    return scores


def _speaker_indices(enrol_speakers, test_speakers, n_trials):
    """How many speakers there are, and the index of each side's speaker."""
    sides = []
    for name, speakers in (
        ("enrol_speakers", enrol_speakers),
        ("test_speakers", test_speakers),
    ):
        sides.append(_column(name, speakers, dtype=None))
        _check_length(name, sides[-1], n_trials)
    speakers, indices = np.unique(np.concatenate(sides), return_inverse=True)
    return speakers.size, indices[:n_trials], indices[n_trials:]


def _check_length(name, values, n_trials):
    if values.size != n_trials:
        raise InputError(
            f"{name} has {values.size} entries but there are {n_trials} "
            "scores: give one entry per trial, in the same order."
        )


def _check_costs(p_target, c_miss=1.0, c_fa=1.0):
    _check_inside_unit("p_target", p_target)
    for name, cost in (("c_miss", c_miss), ("c_fa", c_fa)):
        if not 0 < cost < np.inf:
            raise InputError(f"{name} is {cost}: give a cost above 0.")


def _check_inside_unit(name, value):
    if not 0 < value < 1:
        raise InputError(
            f"{name} is {value}: give a fraction above 0 and below 1."
        )
