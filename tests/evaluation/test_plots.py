"""The plots: what is drawn where, and how the files are written."""

import numpy as np
import pytest
from matplotlib.image import imread
from scipy.special import ndtr

from speechbrain_hyperbolic.evaluation import plots
from speechbrain_hyperbolic.evaluation.metrics import eer, min_dcf
from speechbrain_hyperbolic.evaluation.plots import (
    plot_det,
    plot_score_histogram,
)


def normal(n_target, n_nontarget, distance):
    rng = np.random.default_rng(0)
    return rng.normal(distance, 1, n_target), rng.normal(0, 1, n_nontarget)


SYSTEMS = {
    "two trials": ([1], [0]),
    "large": normal(100_000, 100_000, 4),
    "inverted": ([0, 1, 2], [3, 4, 5]),
    "all tied": ([1, 1], [1, 1, 1]),
    "step across the EER": ([1, 1, 1, 2], [0, 0, 1, 2]),
}


@pytest.fixture
def drawn(monkeypatch):
    """Calls a plot, and returns its figure instead of saving it."""
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda f, path: figures.append(f))

    def draw(plot, *args, **options):
        plot(*args, path=None, title="title", **options)
        figures[-1].draw_without_rendering()
        return figures[-1]

    return draw


def test_files(tmp_path):
    folder = tmp_path / "new folder"
    name = r"$\frac$ is no formula"
    plot_det({name: SYSTEMS["inverted"]}, str(folder / "det.png"), name)
    histogram = folder / "scores.png"
    plot_score_histogram(*SYSTEMS["two trials"], histogram, name, 0.25, name)
    assert imread(folder / "det.png").shape[:2] == (1100, 1200)
    assert imread(histogram).shape[:2] == (750, 1200)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("name", SYSTEMS)
def test_marks_are_the_metrics_and_are_shown(name, drawn):
    target, nontarget = map(np.asarray, SYSTEMS[name])
    axes = drawn(plot_det, {"name": (target, nontarget)}).axes[0]
    curve, *marks, _ = axes.lines
    marks = {m.get_marker(): ndtr(np.ravel(m.get_data())) for m in marks}
    value, _ = eer(target, nontarget)
    _, threshold = min_dcf(target, nontarget)
    rates = np.mean(nontarget > threshold), np.mean(target <= threshold)
    expected = {"o": (value, value), "D": rates}
    assert "o" in marks
    for limits, i in ((axes.get_xlim(), 0), (axes.get_ylim(), 1)):
        low, high = ndtr(limits)
        assert low <= 0.01 and high >= 0.499
        for mark, point in marks.items():
            shown = np.clip(expected[mark][i], low, high)
            assert point[i] == pytest.approx(shown, rel=2e-3)
    assert {line.get_color() for line in axes.lines[:-1]} == {curve.get_color()}
    if name == "large":  # probit(p_miss) + probit(p_fa) = -distance
        x, y = np.array(curve.get_data())
        middle = (x > -3) & (x < -1)
        np.testing.assert_allclose((x + y)[middle], -4, atol=0.1)


def test_the_legend_names_every_system_with_its_figures(drawn):
    systems = {f"b{i}": SYSTEMS["step across the EER"] for i in range(6)}
    (legend,) = drawn(plot_det, systems).legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[1].startswith("b1: EER 37.50 %, minDCF ")
    colors = {line.get_color() for line in legend.get_lines()[:6]}
    assert len(texts) == 8 and len(colors) == 6


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
    for bars, mean in zip(axes.containers, (3, 0), strict=True):
        left = np.array([bar.get_x() for bar in bars])
        width = bars[0].get_width()
        exact = (ndtr(left + width - mean) - ndtr(left - mean)) / width
        np.testing.assert_allclose(bars.datavalues, exact, atol=0.02)
