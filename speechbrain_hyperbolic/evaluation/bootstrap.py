"""How certain error rates are, and whether two systems differ.

Speakers are resampled, not trials: trials that share a speaker are not
independent. So the intervals hold for other speakers of the same kind; they say
nothing about another training run. To compare losses, train several seeds.

Run as a module, it compares two systems by their score files:

    python -m speechbrain_hyperbolic.evaluation.bootstrap A.txt B.txt
"""

import argparse
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tqdm

from speechbrain_hyperbolic.dataio.corpus import speaker_of
from speechbrain_hyperbolic.dataio.files import StrPath
from speechbrain_hyperbolic.dataio.scores import read_score_table
from speechbrain_hyperbolic.errors import InputError, exit_on_error
from speechbrain_hyperbolic.evaluation.metrics import (
    P_TARGETS,
    detection_cost,
    equal_error,
    markdown,
    metric_cell,
    operating_points,
    split_trials,
)

# Draws of fewer speakers say nothing about speakers at large.
MIN_SPEAKERS = 10
METRICS = ("eer", *(f"min_dcf_{p:g}" for p in P_TARGETS))


def bootstrap_intervals(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    enroll_speakers: npt.ArrayLike,
    test_speakers: npt.ArrayLike,
    replicates: int = 1000,
    seed: int = 0,
) -> dict | None:
    """95 % percentile intervals of "eer" and each "min_dcf_<p_target>".

    Each replicate draws as many speakers as there are, with replacement. With
    w_s the number of times that speaker s was drawn, a trial of speakers a and
    b counts w_a * w_b times, or w_a times if a = b: the pigeonhole bootstrap
    of Owen (Annals of Applied Statistics 1(2), 2007) for one kind of unit on
    both sides of the trial. Replicates that leave a class without trials are
    skipped. The result is None for fewer than ``MIN_SPEAKERS`` speakers.
    """
    scores, is_target = split_trials(scores, labels)
    n_speakers, sides = _speaker_sides(
        enroll_speakers, test_speakers, scores.size
    )
    if n_speakers < MIN_SPEAKERS:
        return None
    system = _System(scores, is_target, sides)
    (drawn,) = _bootstrap([system], n_speakers, replicates, seed)
    return {
        name: _interval(values)
        for name, values in zip(METRICS, drawn.T, strict=True)
    }


def compare_systems(
    scores_a: npt.ArrayLike,
    scores_b: npt.ArrayLike,
    labels: npt.ArrayLike,
    enroll_speakers: npt.ArrayLike,
    test_speakers: npt.ArrayLike,
    replicates: int = 1000,
    seed: int = 0,
) -> dict:
    """Whether two systems differ on one list of trials.

    Each replicate draws the same speakers for both, so what is hard for both
    cancels in the difference. Returns, for each metric of
    ``bootstrap_intervals``, a dict of "a", "b", "difference" (b - a, below 0
    where B is better), its "interval" and its "p_value".
    """
    scores_a, is_target = split_trials(scores_a, labels, "scores_a")
    scores_b, _ = split_trials(scores_b, labels, "scores_b")
    n_speakers, sides = _speaker_sides(
        enroll_speakers, test_speakers, scores_a.size
    )
    if n_speakers < MIN_SPEAKERS:
        raise InputError(
            f"the trials have {n_speakers} speakers: comparing systems by "
            f"resampling speakers takes {MIN_SPEAKERS} or more"
        )
    systems = [_System(s, is_target, sides) for s in (scores_a, scores_b)]
    everyone = np.ones(n_speakers)
    a, b = (system.error_rates(everyone) for system in systems)
    drawn_a, drawn_b = _bootstrap(systems, n_speakers, replicates, seed)
    # Equal rates may differ in the last digits.
    drawn = np.round(drawn_b - drawn_a, 12)
    return {
        name: {
            "a": a[i],
            "b": b[i],
            "difference": b[i] - a[i],
            "interval": _interval(drawn[:, i]),
            "p_value": p_value(drawn[:, i]),
        }
        for i, name in enumerate(METRICS)
    }


class _System:
    """A system whose trials count as often as their speakers are drawn.

    Only the corners of its error curve are kept. Between two corners all trials
    belong to one class: one rate is constant and the other monotonic in any
    draw, so the least cost and the crossing of the rates need no point between.
    """

    def __init__(
        self,
        scores: np.ndarray,
        is_target: np.ndarray,
        sides: tuple[np.ndarray, np.ndarray],
    ) -> None:
        trials_by_score = [
            mask.nonzero()[0][np.argsort(scores[mask])]
            for mask in (is_target, ~is_target)
        ]
        _, *counts = operating_points(*(scores[t] for t in trials_by_score))
        moves = [np.diff(count) > 0 for count in counts]
        kind = moves[0] + 2 * moves[1]
        turns = (kind[1:] != kind[:-1]) | (kind[1:] == 3)
        corners = np.concatenate([[True], turns, [True]])
        enroll, test = sides
        self.classes = [
            (enroll[trials], test[trials], count[corners])
            for trials, count in zip(trials_by_score, counts, strict=True)
        ]

    def error_rates(self, draw: np.ndarray) -> list[float]:
        """The metrics, NaN if a class has no trials in this draw."""
        draw = np.append(draw, 1.0)
        rejected = []
        for enroll, test, count in self.classes:
            weight = np.append(0.0, np.cumsum(draw[enroll] * draw[test]))
            if weight[-1] == 0:
                return [np.nan] * len(METRICS)
            rejected.append((weight[count], weight[-1]))
        (missed, n_target), (refused, n_nontarget) = rejected
        p_miss = missed / n_target
        p_fa = (n_nontarget - refused) / n_nontarget
        costs = (detection_cost(p_miss, p_fa, p).min() for p in P_TARGETS)
        return [equal_error(p_miss, p_fa)[0], *map(float, costs)]


def _bootstrap(
    systems: Sequence[_System], n_speakers: int, replicates: int, seed: int
) -> np.ndarray:
    """Metrics of shape [systems, usable replicates, metrics]."""
    rng = np.random.default_rng(seed)
    chances = np.full(n_speakers, 1 / n_speakers)
    values = np.empty((len(systems), replicates, len(METRICS)))
    for i in tqdm.trange(replicates, desc="Bootstrap", delay=5):
        draw = rng.multinomial(n_speakers, chances)
        values[:, i] = [system.error_rates(draw) for system in systems]
    usable = np.isfinite(values).all(axis=(0, 2))
    if not usable.any():
        raise InputError(
            f"none of {replicates} bootstrap replicates has trials of both "
            "classes: use more replicates, or trials of more speakers"
        )
    return values[:, usable]


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def p_value(differences: np.ndarray) -> float:
    """Two-sided p-value of resampled differences d, in (0, 1].

    It inverts the percentile interval (Efron and Tibshirani, An Introduction
    to the Bootstrap, 1993, chapters 13 and 15); the ones keep it above 0
    (Davison and Hinkley, Bootstrap Methods and their Application, 1997, chapter
    4). Round differences that are 0 but for floating-point error first.
    """
    least = min(np.sum(differences <= 0), np.sum(differences >= 0))
    return min(1.0, float(2 * (1 + least) / (1 + differences.size)))


def _speaker_sides(
    enroll_speakers: npt.ArrayLike, test_speakers: npt.ArrayLike, n_trials: int
) -> tuple[int, tuple[np.ndarray, np.ndarray]]:
    """The number of speakers, and each trial's two indices into a draw."""
    both_sides = np.stack([enroll_speakers, test_speakers]).ravel()
    speakers, indices = np.unique(both_sides, return_inverse=True)
    enroll, test = indices[:n_trials], indices[n_trials:]
    # A trial within one speaker takes the constant 1 at the end of a draw.
    test = np.where(enroll == test, speakers.size, test)
    return speakers.size, (enroll, test)


def compare_score_files(
    path_a: StrPath, path_b: StrPath, replicates: int = 1000, seed: int = 0
) -> dict:
    """``compare_systems`` for score files of the same trials, in any order."""
    (trials, scores_a), (trials_b, scores_b) = map(_sorted, (path_a, path_b))
    different = Counter(trials)
    different.subtract(trials_b)
    wrong = [trial for trial, count in different.items() if count]
    if wrong:
        raise InputError(
            f"{path_a} and {path_b} differ in {len(wrong)} trials, such as "
            f"'{' '.join(map(str, wrong[0]))}': score one trial list with both "
            "systems"
        )
    # The name of a model may not tell its speaker; its target trials do.
    speakers = {
        model: speaker_of(test) for model, test, label in trials if label
    }
    return compare_systems(
        scores_a,
        scores_b,
        [label for _, _, label in trials],
        [speakers.get(model) or speaker_of(model) for model, _, _ in trials],
        [speaker_of(test) for _, test, _ in trials],
        replicates=replicates,
        seed=seed,
    )


def _sorted(path: StrPath) -> tuple[list[tuple], list[float]]:
    """A score file's trials (enroll, test, label) in order, their scores."""
    table = read_score_table(path)
    trials = list(
        zip(table.enroll, table.test, table.labels.tolist(), strict=True)
    )
    order = sorted(range(len(trials)), key=trials.__getitem__)
    return [trials[i] for i in order], table.scores[order].tolist()


def format_comparison(comparison: dict) -> str:
    """A Markdown table of what ``compare_systems`` returns."""
    rows = [["", "A", "B", "B - A", "p"]]
    for name, found in comparison.items():
        title, a = metric_cell(name, found["a"])
        _, b = metric_cell(name, found["b"])
        _, difference = metric_cell(
            name, found["difference"], found["interval"], sign="+"
        )
        rows.append([title, a, b, difference, f"{found['p_value']:.2g}"])
    return markdown(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m speechbrain_hyperbolic.evaluation.bootstrap",
        description="Compare two systems that scored the same trials.",
    )
    path_help = "score file of system %s, lines 'enroll test label score'"
    parser.add_argument("path_a", metavar="A", help=path_help % "A")
    parser.add_argument("path_b", metavar="B", help=path_help % "B")
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(format_comparison(compare_score_files(**vars(options))))
    print(
        f"\nA is {options.path_a}, B is {options.path_b}. In brackets the 95 % "
        "interval of the difference, p is two-sided; both by bootstrap over "
        "speakers."
    )


if __name__ == "__main__":
    with exit_on_error():
        main()
