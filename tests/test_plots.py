"""The plots: what is drawn where, and how the files are written."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from scipy.special import ndtr

from speechbrain_hyperbolic import plots
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.metrics import eer, min_dcf


def normal(n_target, n_nontarget, distance, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(distance, 1, n_target), rng.normal(0, 1, n_nontarget)


SYSTEMS = {
    "two trials": ([1], [0]),
    "50 trials": normal(25, 25, 2),
    "300 trials": normal(150, 150, 3),
    "large": normal(100_000, 100_000, 4),
    "perfect": ([3, 4, 5], [0, 1, 2]),
    "inverted": ([0, 1, 2], [3, 4, 5]),
    "chance": normal(1000, 1000, 0),
    "all tied": ([1, 1], [1, 1, 1]),
    "lists with ties": ([1, 2, 2, 3], [0, 1, 1, 2]),
    "step across the EER": ([1, 1, 1, 2], [0, 0, 1, 2]),
}


def drawn(scores):
    """The axes of a plot of one system, its curve, and its marks."""
    axes = plots._draw({"name": scores}, None).axes[0]
    _, curve, *marks = axes.lines
    rates = {m.get_marker(): ndtr(np.ravel(m.get_data())) for m in marks}
    return axes, curve, rates


@pytest.mark.parametrize("name", SYSTEMS)
def test_png_of_each_kind_of_system(tmp_path, name):
    path = tmp_path / "new folder" / "det.png"
    plots.plot_det(
        {name: SYSTEMS[name]}, str(path), title=r"$\frac$ is no formula"
    )
    image = imread(path)
    assert image.shape[:2] == (1100, 1200)
    assert image[..., :3].std() > 0.01
    assert [p.name for p in path.parent.iterdir()] == ["det.png"]


def test_marks_are_the_metrics():
    target, nontarget = normal(3000, 3000, 3)
    axes, curve, marks = drawn((target, nontarget))
    value, _ = eer(target, nontarget)
    _, threshold = min_dcf(target, nontarget)
    p_fa = np.mean(nontarget > threshold)
    p_miss = np.mean(target <= threshold)
    assert 0 < p_fa < p_miss < 1
    np.testing.assert_allclose(marks["o"], [value, value])
    np.testing.assert_allclose(marks["D"], [p_fa, p_miss])
    assert {line.get_color() for line in axes.lines[1:]} == {curve.get_color()}


@pytest.mark.parametrize("name", ["300 trials", "step across the EER"])
def test_eer_mark_is_on_the_diagonal_and_the_curve(name):
    axes, curve, marks = drawn(SYSTEMS[name])
    assert marks["o"][0] == marks["o"][1]
    # Turned by 45 degrees the curve is a function, and the mark is at 0.
    x, y = np.array(curve.get_data())[:, ::-1]
    assert np.all(np.diff(x - y) >= 0)
    crossing = np.interp(0, x - y, x + y) / 2
    np.testing.assert_allclose(ndtr(crossing), marks["o"][0], rtol=0.01)


def test_curve_of_two_normal_classes_is_the_theoretical_line():
    _, curve, _ = drawn(normal(100_000, 100_000, 3))
    x, y = np.array(curve.get_data())
    middle = (x > -2.5) & (x < -0.5)
    # probit(p_miss) + probit(p_fa) = -distance
    assert middle.sum() > 100
    np.testing.assert_allclose((x + y)[middle], -3, atol=0.1)


def test_many_trials_are_thinned_without_moving_the_curve(monkeypatch):
    scores = normal(100_000, 100_000, 3)
    _, thin, _ = drawn(scores)
    monkeypatch.setattr(plots, "_thin", lambda line: line)
    axes, full, _ = drawn(scores)
    assert len(thin.get_xdata()) < 20_000 < len(full.get_xdata())
    # Turned by 45 degrees, the curve moves by under a pixel.
    to_pixels = axes.transData.transform
    (thin_x, thin_y), (x, y) = (
        to_pixels(np.transpose(line.get_data()))[::-1].T
        for line in (thin, full)
    )
    inside = np.abs(x - y) < 1000
    moved = np.interp(x - y, thin_x - thin_y, thin_x + thin_y) - (x + y)
    assert inside.sum() > 10_000
    assert np.abs(moved[inside]).max() < 1


@pytest.mark.parametrize("name", SYSTEMS)
def test_axes_show_the_marks(name):
    axes, _, marks = drawn(SYSTEMS[name])
    for limits, i in ((axes.get_xlim(), 0), (axes.get_ylim(), 1)):
        low, high = ndtr(limits)
        assert low <= 0.01 and high >= 0.499
        for point in marks.values():
            assert low * 0.999 <= point[i] <= high * 1.001


def test_axes_adapt_to_the_trials():
    def limits(*scores):
        axes, _, _ = drawn(scores)
        return ndtr([axes.get_xlim(), axes.get_ylim()])

    usual = limits(*normal(5000, 5000, 3.5, seed=1))
    np.testing.assert_allclose(usual, [[0.001, 0.5]] * 2)
    few = limits(*normal(25, 25, 2.5))
    np.testing.assert_allclose(few[:, 0], 0.01)
    many = limits(*normal(400_000, 400_000, 4))
    assert many[:, 0].max() < 0.0002
    bad = limits(*normal(5000, 5000, -1))
    assert bad[:, 1].min() > 0.7


def test_useless_operating_point_is_not_marked():
    _, _, marks = drawn(SYSTEMS["chance"])
    assert set(marks) == {"o"} or marks["D"].max() < 1
    _, _, marks = drawn(SYSTEMS["all tied"])
    assert set(marks) == {"o"}


def test_perfect_system_is_in_the_corner():
    axes, _, marks = drawn(SYSTEMS["perfect"])
    corner = [ndtr(axes.get_xlim()[0]), ndtr(axes.get_ylim()[0])]
    np.testing.assert_allclose(marks["o"], corner)
    np.testing.assert_allclose(marks["D"], corner)


def test_legend_names_every_system_with_its_figures():
    systems = {r"$\frac$": SYSTEMS["50 trials"]}
    systems |= {f"b{i}": SYSTEMS["lists with ties"] for i in range(9)}
    figure = plots._draw(systems, None)
    figure.canvas.draw()
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    value, _ = eer(*SYSTEMS["50 trials"])
    cost, _ = min_dcf(*SYSTEMS["50 trials"])
    figures = f"EER {100 * value:.2f} %, minDCF {cost:.3f}"
    assert texts[0] == rf"$\frac$: {figures}"
    assert texts[1].startswith("b0: EER 25.00 %")
    assert len(texts) == 12
    looks = {
        (line.get_color(), line.get_linestyle())
        for line in legend.get_lines()[:10]
    }
    assert len(looks) == 10


@pytest.mark.parametrize("name", SYSTEMS)
def test_png_of_each_kind_of_histogram(tmp_path, name):
    path = tmp_path / "new folder" / "scores.png"
    plots.plot_score_histogram(
        *SYSTEMS[name], str(path), r"$\frac$ is no formula", 0.25, r"$\frac$"
    )
    image = imread(path)
    assert image.shape[:2] == (750, 1200)
    assert image[..., :3].std() > 0.01
    assert [p.name for p in path.parent.iterdir()] == ["scores.png"]


def histogram(scores, threshold=None):
    figure = plots._draw_histogram(*scores, None, threshold, "score")
    figure.canvas.draw()
    (axes,) = figure.axes
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    return axes, legend


def test_histograms_are_the_densities():
    scores = normal(100_000, 50_000, 3)
    axes, legend = histogram(scores)
    assert legend == ["target, 100000 trials", "nontarget, 50000 trials"]
    outlines = [patch for patch in axes.patches if not patch.get_fill()]
    for patch, of, mean in zip(outlines, scores, (3, 0), strict=True):
        density, edges, _ = patch.get_data()
        assert edges[0] <= min(map(np.min, scores))
        assert edges[-1] >= max(map(np.max, scores))
        assert np.sum(density * np.diff(edges)) == pytest.approx(1)
        count = np.sum((edges[40] <= of) & (of < edges[41]))
        share = density[40] * (edges[41] - edges[40])
        assert share * of.size == pytest.approx(count)
        exact = np.diff(ndtr(edges - mean)) / np.diff(edges)
        np.testing.assert_allclose(density, exact, atol=0.02)
    assert len({patch.get_edgecolor() for patch in outlines}) == 2
    assert axes.get_ylim()[0] == 0


def test_few_trials_are_in_few_bins():
    for n_trials, bins in ((1, 10), (400, 20), (100_000, 100)):
        axes, _ = histogram(normal(n_trials, 100_000, 3))
        assert all(len(p.get_data().values) == bins for p in axes.patches)


def test_threshold_is_a_line():
    scores = SYSTEMS["50 trials"]
    axes, legend = histogram(scores, np.float64(9.25))
    (line,) = axes.lines
    assert line.get_xdata() == [9.25, 9.25]
    assert axes.get_xlim()[1] > 9.25
    assert legend[2] == "threshold 9.25"
    axes, legend = histogram(scores)
    assert not axes.lines and len(legend) == 2


WRITERS = {
    "det": lambda path: plots.plot_det({"a": ([1], [0])}, path),
    "histogram": lambda path: plots.plot_score_histogram([1], [0], path),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch, writer):
    path = tmp_path / "plot.png"
    path.write_bytes(b"old")

    def fail(self, file, **kwargs):
        with open(file, "wb") as partial:
            partial.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        WRITERS[writer](path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    WRITERS[writer](path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_bad_systems_are_named(tmp_path):
    path = tmp_path / "det.png"
    with pytest.raises(InputError, match="no systems"):
        plots.plot_det({}, path)
    with pytest.raises(InputError, match="system b: there are no nontarget"):
        plots.plot_det({"a": ([1], [0]), "b": ([1], [])}, path)
    assert not path.exists()


@pytest.mark.parametrize(
    "scores, threshold, message",
    [
        (([], [1]), None, "no target trials"),
        (([1], []), None, "no nontarget trials"),
        (([1], [0, np.nan]), None, "nontarget scores: 1 of 2 are NaN"),
        (([[1]], [0]), None, "target scores has shape"),
        (([1], [0]), -np.inf, "threshold is -inf"),
        (([1], [0]), np.nan, "threshold is nan"),
        (([1], [0]), "0.5", "threshold is 0.5"),
    ],
)
def test_bad_histograms_are_refused(tmp_path, scores, threshold, message):
    path = tmp_path / "scores.png"
    with pytest.raises(InputError, match=message):
        plots.plot_score_histogram(*scores, path, threshold=threshold)
    assert not path.exists()
