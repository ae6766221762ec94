"""The plots: what is drawn where, and how the files are written."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from scipy.special import ndtr

from speechbrain_hyperbolic.evaluation.metrics import eer, min_dcf
from speechbrain_hyperbolic.evaluation.plots import (
    plot_det,
    plot_score_histogram,
)


def normal(n_target, n_nontarget, distance, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(distance, 1, n_target), rng.normal(0, 1, n_nontarget)


SYSTEMS = {
    "two trials": ([1], [0]),
    "50 trials": normal(25, 25, 2),
    "large": normal(100_000, 100_000, 4),
    "perfect": ([3, 4, 5], [0, 1, 2]),
    "inverted": ([0, 1, 2], [3, 4, 5]),
    "all tied": ([1, 1], [1, 1, 1]),
    "step across the EER": ([1, 1, 1, 2], [0, 0, 1, 2]),
}


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Calls a plot, and returns its figure."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda self, *a, **k: (figures.append(self), save(self, *a, **k)),
    )

    def draw(plot, *args, **options):
        options = {"title": "title"} | options
        plot(*args, path=tmp_path / "plot.png", **options)
        return figures.pop()

    return draw


@pytest.fixture
def det(drawn):
    """The axes of the plot of one system, its curve, and its marks."""

    def draw(scores):
        axes = drawn(plot_det, {"name": scores}).axes[0]
        _, curve, *marks = axes.lines
        rates = {m.get_marker(): ndtr(np.ravel(m.get_data())) for m in marks}
        return axes, curve, rates

    return draw


def test_files(tmp_path):
    folder = tmp_path / "new folder"
    name = r"$\frac$ is no formula"
    plot_det({name: SYSTEMS["50 trials"]}, str(folder / "det.png"), name)
    histogram = folder / "scores.png"
    plot_score_histogram(*SYSTEMS["two trials"], histogram, name, 0.25, name)
    assert imread(folder / "det.png").shape[:2] == (1100, 1200)
    assert imread(histogram).shape[:2] == (750, 1200)
    assert len(list(folder.iterdir())) == 2


def test_marks_are_the_metrics(det):
    target, nontarget = normal(3000, 3000, 3)
    axes, curve, marks = det((target, nontarget))
    value, _ = eer(target, nontarget)
    _, threshold = min_dcf(target, nontarget)
    p_fa = np.mean(nontarget > threshold)
    p_miss = np.mean(target <= threshold)
    np.testing.assert_allclose(marks["o"], [value, value])
    np.testing.assert_allclose(marks["D"], [p_fa, p_miss])
    assert {line.get_color() for line in axes.lines[1:]} == {curve.get_color()}


def test_the_curve_of_two_normal_classes_is_the_theoretical_line(det):
    _, curve, _ = det(normal(100_000, 100_000, 3))
    x, y = np.array(curve.get_data())
    middle = (x > -2.5) & (x < -0.5)
    # probit(p_miss) + probit(p_fa) = -distance
    assert middle.sum() > 100
    np.testing.assert_allclose((x + y)[middle], -3, atol=0.1)


@pytest.mark.parametrize("name", SYSTEMS)
def test_axes_show_the_marks(name, det):
    axes, _, marks = det(SYSTEMS[name])
    for limits, i in ((axes.get_xlim(), 0), (axes.get_ylim(), 1)):
        low, high = ndtr(limits)
        assert low <= 0.01 and high >= 0.499
        for point in marks.values():
            assert low * 0.999 <= point[i] <= high * 1.001


def test_the_legend_names_every_system_with_its_figures(drawn):
    systems = {f"b{i}": SYSTEMS["step across the EER"] for i in range(10)}
    (legend,) = drawn(plot_det, systems).legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[1].startswith("b1: EER 37.50 %, minDCF ")
    looks = {
        (line.get_color(), line.get_linestyle())
        for line in legend.get_lines()[:10]
    }
    assert len(texts) == 12 and len(looks) == 10


def test_histograms_are_the_densities(drawn):
    scores = normal(100_000, 50_000, 3)
    figure = drawn(plot_score_histogram, *scores, threshold=9.25, xlabel="s")
    (axes,) = figure.axes
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [
        "target, 100000 trials",
        "nontarget, 50000 trials",
        "threshold 9.25",
    ]
    assert axes.lines[0].get_xdata() == [9.25, 9.25]
    outlines = [patch for patch in axes.patches if not patch.get_fill()]
    for patch, mean in zip(outlines, (3, 0), strict=True):
        density, edges, _ = patch.get_data()
        assert edges[0] <= min(map(np.min, scores))
        assert edges[-1] >= max(map(np.max, scores))
        exact = np.diff(ndtr(edges - mean)) / np.diff(edges)
        np.testing.assert_allclose(density, exact, atol=0.02)
    assert len({patch.get_edgecolor() for patch in outlines}) == 2
