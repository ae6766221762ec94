"""How sure error rates are, and whether two systems differ.

What is drawn anew is the speakers of the trials, so this holds for other
speakers of the same kind. It says nothing of another training run: compare
runs of several seeds for that.

Run as a module, it compares two systems by their score files:

    python -m speechbrain_hyperbolic.significance A/scores.txt B/scores.txt
"""

import argparse
import pathlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tqdm

from speechbrain_hyperbolic.dataio.corpus import speaker_of
from speechbrain_hyperbolic.dataio.scores import ScoreTable, read_score_table
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.metrics import (
    P_TARGETS,
    detection_cost,
    eer,
    equal_error,
    min_dcf,
    operating_points,
    split_trials,
    trial_column,
)

MIN_SPEAKERS = 10


def bootstrap_intervals(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    enrol_speakers: npt.ArrayLike,
    test_speakers: npt.ArrayLike,
    p_targets: Sequence[float] = P_TARGETS,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict | None:
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
        As `metrics.split_trials`; also if a prior, `replicates` or `level` is
        out of range, or no replicate has trials of both classes.

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
    _check_draws(replicates, level)
    scores, is_target = split_trials(scores, labels)
    n_speakers, sides = _speaker_sides(
        enrol_speakers, test_speakers, scores.size
    )
    if n_speakers < MIN_SPEAKERS:
        return None
    system = _Resampled(scores, is_target, sides)
    (values,) = _bootstrap([system], n_speakers, p_targets, replicates, seed)
    return {
        name: _interval(drawn, level)
        for name, drawn in zip(_names(p_targets), values, strict=True)
    }


def compare_systems(
    scores_a: npt.ArrayLike,
    scores_b: npt.ArrayLike,
    labels: npt.ArrayLike,
    enrol_speakers: npt.ArrayLike,
    test_speakers: npt.ArrayLike,
    p_targets: Sequence[float] = P_TARGETS,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict:
    """Whether two systems differ on one list of trials.

    Each replicate of the bootstrap over speakers (see `bootstrap_intervals`)
    draws the same speakers for both systems, so what both find hard cancels
    in the difference. The two-sided p-value inverts the percentile interval
    of the difference d (Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993, chapters 13 and 15). Over R replicates,

        p = min(1, 2 * (1 + min(#(d <= 0), #(d >= 0))) / (R + 1))

    where the ones keep it above 0 (Davison and Hinkley, Bootstrap Methods and
    their Application, 1997, chapter 4). The smallest is 2 / (R + 1). With
    several metrics or pairs of systems, some are below 0.05 by chance.

    Arguments
    ---------
    scores_a : array_like
        Scores of system A, shape (N,), finite.
    scores_b : array_like
        Those of system B for the same trials, in the same order.
    labels : array_like
        As `bootstrap_intervals`.
    enrol_speakers : array_like
        As `bootstrap_intervals`.
    test_speakers : array_like
        As `bootstrap_intervals`.
    p_targets : sequence of float
        As `bootstrap_intervals`.
    replicates : int
        As `bootstrap_intervals`.
    level : float
        Nominal coverage of the intervals, inside (0, 1).
    seed : int
        As `bootstrap_intervals`.

    Returns
    -------
    comparison : dict
        For "eer" and for each "min_dcf_<p_target>" a dict: "a" and "b", the
        values of both; "difference", b - a: below 0 where B is better; its
        "interval" (low, high); and its "p_value".

    Raises
    ------
    InputError
        As `bootstrap_intervals`; also if there are fewer than `MIN_SPEAKERS`
        (10) speakers.

    Example
    -------
    >>> rng = np.random.default_rng(0)
    >>> enrol, test = rng.integers(20, size=(2, 500))
    >>> target = enrol == test
    >>> noise = rng.normal(size=500)
    >>> found = compare_systems(
    ...     noise + 2 * target, noise + 4 * target, target, enrol, test
    ... )
    >>> found["eer"]["difference"] < 0, found["eer"]["p_value"] < 0.01
    (True, True)
    """
    _check_draws(replicates, level)
    scores_a, is_target = split_trials(scores_a, labels, "scores_a")
    scores_b = trial_column("scores_b", scores_b, scores_a.size)
    scores_b, _ = split_trials(scores_b, labels, "scores_b")
    n_speakers, sides = _speaker_sides(
        enrol_speakers, test_speakers, scores_a.size
    )
    if n_speakers < MIN_SPEAKERS:
        raise InputError(
            f"the trials are of {n_speakers} speakers: it takes {MIN_SPEAKERS} "
            "or more to compare systems by draws of speakers."
        )
    a, b = (
        _values(scores[is_target], scores[~is_target], p_targets)
        for scores in (scores_a, scores_b)
    )
    drawn_a, drawn_b = _bootstrap(
        [_Resampled(s, is_target, sides) for s in (scores_a, scores_b)],
        n_speakers,
        p_targets,
        replicates,
        seed,
    )
    # Rates that are equal may differ in the last digits.
    drawn = np.round(drawn_b - drawn_a, 12)
    return {
        name: {
            "a": a[i],
            "b": b[i],
            "difference": b[i] - a[i],
            "interval": _interval(drawn[i], level),
            "p_value": p_value(drawn[i]),
        }
        for i, name in enumerate(_names(p_targets))
    }


class _Resampled:
    """A system whose trials count as often as their speakers are drawn.

    Of its operating points only the corners are kept. Between two corners all
    trials are of one class; so one rate is constant and the other moves one
    way, whatever the draw, and neither the least cost nor the crossing of the
    rates needs the points between.
    """

    def __init__(
        self,
        scores: np.ndarray,
        is_target: np.ndarray,
        sides: tuple[np.ndarray, np.ndarray],
    ) -> None:
        sorted_trials = [
            mask.nonzero()[0][np.argsort(scores[mask])]
            for mask in (is_target, ~is_target)
        ]
        _, *counts = operating_points(*(scores[t] for t in sorted_trials))
        moves = [np.diff(count) > 0 for count in counts]
        kind = moves[0] + 2 * moves[1]
        turns = (kind[1:] != kind[:-1]) | (kind[1:] == 3)
        corners = np.concatenate([[True], turns, [True]])
        enrol, test = sides
        self.classes = [
            (enrol[trials], test[trials], count[corners])
            for trials, count in zip(sorted_trials, counts, strict=True)
        ]

    def rates(self, draw: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """p_miss and p_fa, or None if a class has no trials in this draw."""
        rejected = []
        for enrol, test, count in self.classes:
            weight = np.append(0.0, np.cumsum(draw[enrol] * draw[test]))
            if weight[-1] == 0:
                return None
            rejected.append((weight[count], weight[-1]))
        (missed, n_targets), (rightly, n_nontargets) = rejected
        return missed / n_targets, (n_nontargets - rightly) / n_nontargets


def _bootstrap(
    systems: Sequence["_Resampled"],
    n_speakers: int,
    p_targets: Sequence[float],
    replicates: int,
    seed: int,
) -> np.ndarray:
    """Values of shape (systems, metrics, replicates that could be used)."""
    rng = np.random.default_rng(seed)
    chances = np.full(n_speakers, 1 / n_speakers)
    drawn = []
    for _ in tqdm.trange(
        replicates, desc="Bootstrap", delay=5, dynamic_ncols=True
    ):
        draw = np.append(rng.multinomial(n_speakers, chances), 1.0)
        rates = [system.rates(draw) for system in systems]
        usable = [rate for rate in rates if rate is not None]
        if len(usable) == len(rates):
            drawn.append(
                [
                    [
                        equal_error(p_miss, p_fa)[0],
                        *(
                            detection_cost(p_miss, p_fa, p).min()
                            for p in p_targets
                        ),
                    ]
                    for p_miss, p_fa in usable
                ]
            )
    if not drawn:
        raise InputError(
            f"none of {replicates} bootstrap replicates has trials of both "
            "classes: give more replicates, or trials of more speakers."
        )
    return np.moveaxis(np.array(drawn), 0, -1)


def _names(p_targets: Sequence[float]) -> list[str]:
    return ["eer", *(f"min_dcf_{p:g}" for p in p_targets)]


def _values(
    target: np.ndarray, nontarget: np.ndarray, p_targets: Sequence[float]
) -> list[float]:
    costs = (min_dcf(target, nontarget, p)[0] for p in p_targets)
    return [eer(target, nontarget)[0], *costs]


def _interval(drawn: np.ndarray, level: float) -> tuple[float, float]:
    tails = [(1 - level) / 2, (1 + level) / 2]
    return tuple(np.quantile(drawn, tails).tolist())


def p_value(differences: np.ndarray) -> float:
    """Two-sided, of draws of what is 0 where there is nothing to find.

    See ``compare_systems`` for the formula. Draws that are 0 but for rounding
    are to be rounded first.

    Arguments
    ---------
    differences : np.ndarray
        Shape [replicates].

    Returns
    -------
    p_value : float
        In (0, 1].

    Example
    -------
    >>> p_value(np.array([1.0, 2.0, 3.0]))
    0.5
    """
    least = min(np.sum(differences <= 0), np.sum(differences >= 0))
    return min(1.0, float(2 * (1 + least) / (1 + differences.size)))


def _check_draws(replicates: int, level: float) -> None:
    if replicates < 1:
        raise InputError(f"replicates is {replicates}: give 1 or more.")
    if not 0 < level < 1:
        raise InputError(
            f"level is {level}: give a fraction above 0 and below 1."
        )


def _speaker_sides(
    enrol_speakers: npt.ArrayLike, test_speakers: npt.ArrayLike, n_trials: int
) -> tuple[int, tuple[np.ndarray, np.ndarray]]:
    """How many speakers there are, and for each side what to take of a draw.

    A trial within one speaker takes its second factor from the constant 1
    that a draw ends with.
    """
    both_sides = [
        trial_column("enrol_speakers", enrol_speakers, n_trials, dtype=None),
        trial_column("test_speakers", test_speakers, n_trials, dtype=None),
    ]
    speakers, indices = np.unique(
        np.concatenate(both_sides), return_inverse=True
    )
    enrol, test = indices[:n_trials], indices[n_trials:]
    test = np.where(enrol == test, speakers.size, test)
    return speakers.size, (enrol, test)


def compare_score_files(
    path_a: str | pathlib.Path,
    path_b: str | pathlib.Path,
    replicates: int = 1000,
    seed: int = 0,
) -> dict:
    """Compares two systems by their score files.

    Arguments
    ---------
    path_a : str or pathlib.Path
        Scores of system A, see `dataio.scores.read_score_table`.
    path_b : str or pathlib.Path
        Those of system B for the same trials, in any order. A trial that is
        listed twice needs both files in one order.
    replicates : int
        As `bootstrap_intervals`.
    seed : int
        As `bootstrap_intervals`.

    Returns
    -------
    comparison : dict
        Of `compare_systems`.

    Raises
    ------
    InputError
        As `read_score_table` and `compare_systems`; also if the files differ
        in a trial, which is named.
    """
    table = read_score_table(path_a)
    # A model of an enrolment map has any name; its targets say whose it is.
    speakers = {
        model: speaker_of(utterance)
        for model, utterance, label in zip(
            table.enrol, table.test, table.labels, strict=True
        )
        if label
    }
    return compare_systems(
        table.scores,
        _scores_as_in(path_a, table, path_b),
        table.labels,
        [speakers.get(m) or speaker_of(m) for m in table.enrol],
        [speaker_of(utterance) for utterance in table.test],
        replicates=replicates,
        seed=seed,
    )


def _scores_as_in(
    path_a: str | pathlib.Path, table_a: ScoreTable, path_b: str | pathlib.Path
) -> np.ndarray:
    """The scores of one file in the order of another's trials."""
    table_b = read_score_table(path_b)
    trials_a, trials_b = (
        [
            f"{enrol} {test} {label}"
            for enrol, test, label in zip(*table[:3], strict=True)
        ]
        for table in (table_a, table_b)
    )
    if trials_a == trials_b:
        return table_b.scores
    rows_a = _rows(trials_a, path_a)
    rows_b = _rows(trials_b, path_b)
    for rows, others, path, other in (
        (rows_a, rows_b, path_a, path_b),
        (rows_b, rows_a, path_b, path_a),
    ):
        missing = [trial for trial in rows if trial not in others]
        if missing:
            raise InputError(
                f"{other} has no trial '{missing[0]}', which {path} has "
                f"({len(missing)} of {len(rows)} are missing): score one trial "
                "list with both systems"
            )
    return table_b.scores[[rows_b[trial] for trial in trials_a]]


def _rows(trials: list[str], path: str | pathlib.Path) -> dict[str, int]:
    """The row of each trial."""
    rows: dict[str, int] = {}
    for row, trial in enumerate(trials):
        if rows.setdefault(trial, row) != row:
            raise InputError(
                f"{path} has the trial '{trial}' twice: give each once, or "
                "both files in the same order"
            )
    return rows


def format_comparison(comparison: dict) -> str:
    """A table for people.

    Arguments
    ---------
    comparison : dict
        Of `compare_systems`.

    Returns
    -------
    table : str
        Markdown.

    Example
    -------
    >>> eer = {"a": 0.02, "b": 0.01, "difference": -0.01}
    >>> eer |= {"interval": (-0.015, 0.002), "p_value": 0.0821}
    >>> print(format_comparison({"eer": eer}))
    |  | A | B | B - A | p |
    | --- | --- | --- | --- | --- |
    | EER % | 2.00 | 1.00 | -1.00 [-1.50, +0.20] | 0.082 |
    """
    rows = [["", "A", "B", "B - A", "p"], ["---"] * 5]
    for name, found in comparison.items():
        label, factor, digits = "EER %", 100, 2
        if name != "eer":
            label = f"minDCF({name.removeprefix('min_dcf_')})"
            factor, digits = 1, 3
        a, b = (f"{factor * found[key]:.{digits}f}" for key in "ab")
        difference, low, high = (
            f"{factor * value:+.{digits}f}"
            for value in (found["difference"], *found["interval"])
        )
        p_value = f"{found['p_value']:.2g}"
        rows.append([label, a, b, f"{difference} [{low}, {high}]", p_value])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m speechbrain_hyperbolic.significance",
        description="Compare two systems that scored the same trials.",
    )
    help_of_path = "scores of system %s, 'enrol test label score' a line"
    parser.add_argument("path_a", metavar="A", help=help_of_path % "A")
    parser.add_argument("path_b", metavar="B", help=help_of_path % "B")
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    try:
        comparison = compare_score_files(**options)
    except InputError as error:
        parser.error(str(error))
    print(format_comparison(comparison))
    print(
        f"\nA is {options['path_a']}, B is {options['path_b']}; in brackets "
        "95 % intervals, and two-sided p, by bootstrap over speakers"
    )


if __name__ == "__main__":
    main()
