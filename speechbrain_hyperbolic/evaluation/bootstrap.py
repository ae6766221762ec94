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
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import tqdm
from scipy.special import stdtrit

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
_JACKKNIFE_GROUPS = 100
_TAILS = (0.025, 0.975)
# With fewer of either, simulated intervals hold the truth in less than 85 % of
# cases (benchmarks/intervals.py): they are not given for too few errors, and
# said to be too narrow for too few speakers.
MIN_ERRORS = 5
MIN_ERRORS_OF_EER = 2  # which is no minimum, and so less biased
ENOUGH_SPEAKERS = 30


def metric_names(p_targets: Sequence[float] = P_TARGETS) -> list[str]:
    """The metrics that have intervals."""
    return ["eer", *(f"min_dcf_{p:g}" for p in p_targets)]


def bootstrap_intervals(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    enroll_speakers: npt.ArrayLike,
    test_speakers: npt.ArrayLike,
    replicates: int = 1000,
    seed: int = 0,
    p_targets: Sequence[float] = P_TARGETS,
) -> dict | None:
    """95 % intervals of "eer" and each "min_dcf_<p_target>".

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
    system = _System(scores, is_target, sides, p_targets)
    (drawn,) = _bootstrap([system], n_speakers, replicates, seed)
    everyone = np.ones(n_speakers)
    found = system.error_rates(everyone)
    groups = np.arange(n_speakers) % min(n_speakers, _JACKKNIFE_GROUPS)
    without = np.array(
        [system.error_rates(groups != group) for group in np.unique(groups)]
    )
    return {
        name: _interval(drawn[:, i], found[i], without[:, i], n_speakers)
        if errors >= (MIN_ERRORS if i else MIN_ERRORS_OF_EER)
        else None
        for i, (name, errors) in enumerate(
            zip(system.metrics, system.fewest_errors(n_speakers), strict=True)
        )
    }


def compare_systems(
    scores_a: npt.ArrayLike,
    scores_b: npt.ArrayLike,
    labels: npt.ArrayLike,
    enroll_speakers: npt.ArrayLike,
    test_speakers: npt.ArrayLike,
    replicates: int = 1000,
    seed: int = 0,
    p_targets: Sequence[float] = P_TARGETS,
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
    systems = [
        _System(scores, is_target, sides, p_targets)
        for scores in (scores_a, scores_b)
    ]
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
            "interval": tuple(np.quantile(drawn[:, i], _TAILS).tolist()),
            "p_value": p_value(drawn[:, i]),
        }
        for i, name in enumerate(systems[0].metrics)
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
        p_targets: Sequence[float],
    ) -> None:
        self.p_targets = p_targets
        self.metrics = metric_names(p_targets)
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
        curve = self._curve(draw)
        if curve is None:
            return [np.nan] * len(self.metrics)
        costs = (detection_cost(*curve, p).min() for p in self.p_targets)
        return [equal_error(*curve)[0], *map(float, costs)]

    def fewest_errors(self, n_speakers: int) -> list[int]:
        """At each metric's threshold the number of speakers who are missed or
        of pairs of speakers who are falsely accepted, whichever is smaller."""
        curve = self._curve(np.ones(n_speakers))
        assert curve is not None
        costs = (detection_cost(*curve, p).argmin() for p in self.p_targets)
        (a, b, missed), (c, d, refused) = self.classes
        return [
            min(
                _distinct(a[: missed[i]], b[: missed[i]]),
                _distinct(c[refused[i] :], d[refused[i] :]),
            )
            for i in (equal_error(*curve)[1], *costs)
        ]

    def _curve(self, draw: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Miss and false-alarm rates at the corners."""
        draw = np.append(draw, 1.0)
        rejected = []
        for enroll, test, count in self.classes:
            weight = np.append(0.0, np.cumsum(draw[enroll] * draw[test]))
            if weight[-1] == 0:
                return None
            rejected.append((weight[count], weight[-1]))
        (missed, n_target), (refused, n_nontarget) = rejected
        return missed / n_target, (n_nontarget - refused) / n_nontarget


def _distinct(enroll: np.ndarray, test: np.ndarray) -> int:
    """The number of different pairs of speakers."""
    return np.unique(np.sort([enroll, test], axis=0), axis=1).shape[1]


def _bootstrap(
    systems: Sequence[_System], n_speakers: int, replicates: int, seed: int
) -> np.ndarray:
    """Metrics of shape [systems, usable replicates, metrics]."""
    rng = np.random.default_rng(seed)
    chances = np.full(n_speakers, 1 / n_speakers)
    values = np.empty((len(systems), replicates, len(systems[0].metrics)))
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


def _interval(
    drawn: np.ndarray, found: float, without: np.ndarray, n_speakers: int
) -> tuple[float, float]:
    """A 95 % interval: percentiles that are corrected for bias and skewness.

    The bias is how often draws are below the value ``found``, the skewness that
    of the values ``without`` some speakers: BCa of Efron (Journal of the
    American Statistical Association 82(397), 1987). For few speakers the
    percentiles lie further out, by Student's t: Hesterberg (The American
    Statistician 69(4), 2015).
    """
    normal = NormalDist()
    drawn, found = np.round(drawn, 12), round(found, 12)
    below = np.mean(drawn < found) / 2 + np.mean(drawn <= found) / 2
    smallest = 0.5 / drawn.size
    bias = normal.inv_cdf(float(np.clip(below, smallest, 1 - smallest)))
    pull = without.mean() - without
    spread = 6 * np.sum(pull**2) ** 1.5
    skewness = np.sum(pull**3) / spread if spread > 0 else 0.0
    width = stdtrit(n_speakers - 1, _TAILS[1])
    width *= (n_speakers / (n_speakers - 1)) ** 0.5
    ends = [bias + sign * width for sign in (-1, 1)]
    chances = [normal.cdf(bias + end / (1 - skewness * end)) for end in ends]
    low, high = np.quantile(drawn, chances)
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
