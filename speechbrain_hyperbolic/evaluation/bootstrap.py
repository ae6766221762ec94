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
from speechbrain_hyperbolic.evaluation import metrics

# Draws of fewer speakers say nothing about speakers at large.
MIN_SPEAKERS = 10
_JACKKNIFE_GROUPS = 100
_TAILS = (0.025, 0.975)
# Speakers missed, and pairs of speakers accepted, that make a rate credible
MIN_ERRORS = 3
# Of fewer, intervals are said to be too narrow (benchmarks/intervals.py).
ENOUGH_SPEAKERS = 30


def metric_names(p_targets: Sequence[float] = metrics.P_TARGETS) -> list[str]:
    """The metrics that have intervals."""
    return ["eer", *(f"min_dcf_{p:g}" for p in p_targets)]


def bootstrap_intervals(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    enroll_speakers: npt.ArrayLike,
    test_speakers: npt.ArrayLike,
    replicates: int = 1000,
    seed: int = 0,
    p_targets: Sequence[float] = metrics.P_TARGETS,
) -> dict | None:
    """95 % intervals of "eer" and each "min_dcf_<p_target>".

    The result is None for few speakers, and an interval for few errors. No
    threshold costs less than the true minimum, so the interval of a minDCF ends
    no lower than that of the least cost at thresholds with enough errors.
    """
    system = System(scores, labels, enroll_speakers, test_speakers, p_targets)
    count = system.n_speakers
    if count < MIN_SPEAKERS:
        return None
    (drawn,) = draw_rates([system], replicates, seed)
    found = system.rates(np.ones(count))
    groups = np.arange(count) % min(count, _JACKKNIFE_GROUPS)
    without = np.array(
        [system.rates(groups != group) for group in np.unique(groups)]
    )
    intervals = [
        _interval(drawn[:, i], found[i], without[:, i], count)
        for i in range(len(found))
    ]
    names = metric_names(p_targets)
    for i, (_, high) in enumerate(intervals[len(names) :], 1):
        intervals[i] = intervals[i][0], max(intervals[i][1], high)
    enough = system.sure.size > 1
    return {n: intervals[i] if enough else None for i, n in enumerate(names)}


def compare_systems(
    scores_a: npt.ArrayLike,
    scores_b: npt.ArrayLike,
    labels: npt.ArrayLike,
    enroll_speakers: npt.ArrayLike,
    test_speakers: npt.ArrayLike,
    replicates: int = 1000,
    seed: int = 0,
) -> dict:
    """Whether two systems differ on one list of trials, for each metric.

    Each replicate draws the same speakers for both, so what is hard for both
    cancels in the difference, b - a.
    """
    systems = [
        System(scores, labels, enroll_speakers, test_speakers)
        for scores in (scores_a, scores_b)
    ]
    count = systems[0].n_speakers
    if count < MIN_SPEAKERS:
        raise InputError(
            f"the trials have {count} speakers: comparing systems by "
            f"resampling speakers takes {MIN_SPEAKERS} or more"
        )
    a, b = (system.rates(np.ones(count)) for system in systems)
    drawn_a, drawn_b = draw_rates(systems, replicates, seed)
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
        for i, name in enumerate(metric_names())
    }


class System:
    """A system whose trials count as often as their speakers are drawn.

    If speaker s was drawn w_s times, a trial of a and b counts w_a * w_b times,
    or w_a times if a = b: the pigeonhole bootstrap of Owen (Annals of Applied
    Statistics 1(2), 2007).
    """

    def __init__(
        self,
        scores: npt.ArrayLike,
        labels: npt.ArrayLike,
        enroll_speakers: npt.ArrayLike,
        test_speakers: npt.ArrayLike,
        p_targets: Sequence[float] = metrics.P_TARGETS,
    ) -> None:
        scores, is_target = metrics.split_trials(scores, labels)
        self.p_targets = p_targets
        speakers, indices = np.unique(
            np.stack([enroll_speakers, test_speakers]), return_inverse=True
        )
        self.n_speakers = speakers.size
        enroll, test = indices.reshape(2, -1)
        # A trial within one speaker takes the constant 1 at the end of a draw.
        test = np.where(enroll == test, self.n_speakers, test)
        trials_by_score = [
            mask.nonzero()[0][np.argsort(scores[mask])]
            for mask in (is_target, ~is_target)
        ]
        _, *counts = metrics.operating_points(
            *(scores[t] for t in trials_by_score)
        )
        pairs = [(enroll[trials], test[trials]) for trials in trials_by_score]
        missed = _distinct(*pairs[0])[counts[0]]
        accepted = _distinct(*(side[::-1] for side in pairs[1]))
        accepted = accepted[counts[1][-1] - counts[1]]
        sure = np.minimum(missed, accepted) >= MIN_ERRORS
        # Where trials of one class follow each other, the rates and costs are
        # least or cross at an end, whatever the draw: only ends are kept.
        targets, nontargets = (np.diff(count) > 0 for count in counts)
        kinds = targets + 2 * nontargets
        kept = np.ones(sure.size, bool)
        kept[1:-1] = (kinds[1:] != kinds[:-1]) | (kinds[1:] == 3)
        kept[:-1] |= sure[:-1] != sure[1:]
        kept[1:] |= sure[:-1] != sure[1:]
        # The last threshold rejects everything; its cost is known.
        self.sure = np.append(np.flatnonzero(sure[kept]), -1)
        # The speakers of a class's trials, and how many a threshold rejects
        self.classes = [
            (*speakers, count[kept])
            for speakers, count in zip(pairs, counts, strict=True)
        ]

    def rates(self, draw: np.ndarray) -> list[float]:
        """The metrics, and the least costs where errors are enough; NaN if a
        class has no trials in this draw.
        """
        draw = np.append(draw, 1.0)
        rejected = []
        for enroll, test, count in self.classes:
            weight = np.append(0.0, np.cumsum(draw[enroll] * draw[test]))
            if weight[-1] == 0:
                return [np.nan] * (1 + 2 * len(self.p_targets))
            rejected.append((weight[count], weight[-1]))
        (missed, n_target), (refused, n_nontarget) = rejected
        curve = missed / n_target, (n_nontarget - refused) / n_nontarget
        sure = curve[0][self.sure], curve[1][self.sure]
        costs = [
            metrics.least_cost(*some, p)[0]
            for some in (curve, sure)
            for p in self.p_targets
        ]
        return [metrics.equal_error(*curve)[0], *costs]


def _distinct(enroll: np.ndarray, test: np.ndarray) -> np.ndarray:
    """How many pairs of speakers are in the first 0, 1, 2, ... trials."""
    low, high = np.sort([enroll, test], axis=0)
    pairs = low * (high.max() + 1) + high
    new = np.zeros(pairs.size + 1, int)
    new[1 + np.unique(pairs, return_index=True)[1]] = 1
    return new.cumsum()


def draw_rates(
    systems: Sequence[System], replicates: int, seed: int
) -> np.ndarray:
    """Metrics of shape [systems, usable replicates, metrics]."""
    rng = np.random.default_rng(seed)
    count = systems[0].n_speakers
    chances = np.full(count, 1 / count)
    draws = rng.multinomial(count, chances, size=replicates)
    bar = tqdm.tqdm(draws, "Bootstrap", delay=5)
    values = np.array([[s.rates(draw) for s in systems] for draw in bar])
    return values[np.isfinite(values).all(axis=(1, 2))].swapaxes(0, 1)


def _interval(
    drawn: np.ndarray, found: float, without: np.ndarray, n_speakers: int
) -> tuple[float, float]:
    """A 95 % interval: percentiles that are corrected for bias and skewness.

    BCa of Efron (Journal of the American Statistical Association 82(397),
    1987), widened for few speakers by Student's t: Hesterberg (The American
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
    """Two-sided: Davison and Hinkley, Bootstrap Methods, 1997, chapter 4."""
    least = min(np.sum(differences <= 0), np.sum(differences >= 0))
    return min(1.0, float(2 * (1 + least) / (1 + differences.size)))


def compare_score_files(path_a: StrPath, path_b: StrPath) -> dict:
    """``compare_systems`` for score files of the same trials, in any order."""
    rows_a, rows_b = (
        sorted(zip(*read_score_table(path), strict=True))
        for path in (path_a, path_b)
    )
    trials, trials_b = ([row[:3] for row in rows] for rows in (rows_a, rows_b))
    if trials != trials_b:
        here, there = Counter(trials), Counter(trials_b)
        wrong = [*(here - there), *(there - here)]
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
        [row[3] for row in rows_a],
        [row[3] for row in rows_b],
        [label for _, _, label in trials],
        [speakers.get(model) or speaker_of(model) for model, _, _ in trials],
        [speaker_of(test) for _, test, _ in trials],
    )


def format_comparison(comparison: dict) -> str:
    """A Markdown table of what ``compare_systems`` returns."""
    rows = [["", "A", "B", "B - A", "p"]]
    for name, found in comparison.items():
        title, a = metrics.metric_cell(name, found["a"])
        _, b = metrics.metric_cell(name, found["b"])
        _, difference = metrics.metric_cell(
            name, found["difference"], found["interval"], sign="+"
        )
        rows.append([title, a, b, difference, f"{found['p_value']:.2g}"])
    return metrics.markdown(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m speechbrain_hyperbolic.evaluation.bootstrap",
        description="Compare two systems that scored the same trials.",
    )
    path_help = "score file of system %s, lines 'enroll test label score'"
    parser.add_argument("path_a", metavar="A", help=path_help % "A")
    parser.add_argument("path_b", metavar="B", help=path_help % "B")
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
