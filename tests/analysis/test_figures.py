"""The figures: what is drawn where."""

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.image import imread

from speechbrain_hyperbolic.analysis.columns import columns_of
from speechbrain_hyperbolic.analysis.curves import (
    Curves,
    draw_curves,
    group_by_seed,
)
from speechbrain_hyperbolic.analysis.disk_figure import draw_speakers
from speechbrain_hyperbolic.analysis.figures import looks, save
from speechbrain_hyperbolic.analysis.layout import (
    choose_branch,
    distances,
    lay_out_tree,
    select,
)
from speechbrain_hyperbolic.analysis.radii import draw_radii
from speechbrain_hyperbolic.analysis.trained import read_trained
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.geometry import midpoint, paired_distance
from tests.analysis.runs import SPEAKERS, some_points, write_run

NAMES = [rf"$\frac{i}$" for i in range(30)]  # no formula


def dots(axes):
    """Offsets by face colour."""
    return {
        tuple(collection.get_facecolor()[0]): np.asarray(
            collection.get_offsets()
        )
        for collection in axes.collections
        if isinstance(collection, PathCollection)
    }


def test_speakers_are_drawn_at_their_radius_in_their_colour(table, tmp_path):
    points = some_points()
    column = columns_of(table, SPEAKERS)["sex"]
    figure = draw_speakers(points, NAMES, r"$\frac$", column, cap=1.317)
    left, right = figure.axes
    drawn = dots(left)
    groups = column.groups()
    assert len(drawn) == len(groups) == 3
    for name, (colour, _) in looks(groups).items():
        offsets = drawn[to_rgba(colour)]
        radius = 2 * np.arctanh(np.hypot(*offsets.T))
        np.testing.assert_allclose(
            radius, points.radius.numpy()[groups[name]], rtol=1e-9
        )
    layout = lay_out_tree(points, distances(points))
    branch = layout.leaves(choose_branch(layout))
    inside = np.concatenate(list(dots(right).values()))
    moved = select(points, branch)
    middle = midpoint(moved).unsqueeze(-1)
    np.testing.assert_allclose(
        np.sort(2 * np.arctanh(np.hypot(*inside.T))),
        np.sort(paired_distance(moved, middle)),
        rtol=1e-6,
    )
    texts = [text.get_text() for text in right.texts]
    assert set(NAMES[i] for i in branch) <= set(texts)
    assert any(text.get_text() == "cap 1.32" for text in left.texts)
    path = save(figure, tmp_path / "new folder" / "disk.png")
    assert imread(path).shape[:2] == (855, 1350)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["f (15)", "m (14)", "unknown (1)"]


def test_numbers_have_a_colour_bar(table, tmp_path):
    column = columns_of(table, SPEAKERS)["age"]
    figure = draw_speakers(some_points(), NAMES, None, column)
    left, _, bar = figure.axes
    assert bar.get_xlim() == (20, 48)
    (shaded,) = [c for c in left.collections if c.get_array() is not None]
    np.testing.assert_array_equal(shaded.get_array(), column.numbers[:-1])
    save(figure, tmp_path / "disk.png")


def test_a_cap_far_out_is_not_drawn():
    def labels(cap):
        figure = draw_speakers(some_points(), NAMES, cap=cap)
        return [text.get_text() for text in figure.axes[0].texts]

    assert "cap 1.40" in labels(1.4) and "cap 14.00" not in labels(14.0)


@pytest.mark.parametrize("count", [2, 9, 1500])
def test_disk_of_few_and_many(tmp_path, count):
    points = some_points(count)
    names = [f"a name that is rather long {i}" for i in range(count)]
    figure = draw_speakers(points, names, "t")
    path = save(figure, tmp_path / "disk.png")
    assert imread(path)[..., :3].std() > 0.01


def test_names_of_the_branch_stay_in_the_picture_and_apart(tmp_path):
    figure = draw_speakers(some_points(300, 16), ["spk00000"] * 300)
    figure.canvas.draw()
    right = figure.axes[1]
    boxes = [
        text.get_window_extent()
        for text in right.texts
        if text.get_text() == "spk00000"
    ]
    assert 8 <= len(boxes) <= 20
    inside = figure.bbox
    for box in boxes:
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1


def test_without_a_radius_it_says_so():
    figure = draw_speakers(some_points(), NAMES, has_radius=False)
    text = " ".join(" ".join(t.get_text() for t in figure.texts).split())
    assert "this head has no radius" in text


def outlines(axes):
    return [p.get_data() for p in axes.patches if not p.get_fill()]


def test_histograms_are_shares():
    rng = np.random.default_rng(0)
    radii = np.concatenate([rng.uniform(0.8, 1, 900), rng.uniform(1, 1.2, 100)])
    which = np.arange(1000) < 900
    groups = {"f": which, "m": ~which}
    cap = 1.3
    figure = draw_radii({"centres": (radii, groups)}, cap, r"$\frac$")
    (axes,) = figure.axes
    for data, values in zip(
        outlines(axes), (radii[:900], radii[900:]), strict=True
    ):
        share, edges, _ = data
        assert share.sum() == pytest.approx(100)
        inside = (edges[3] <= values) & (values < edges[4])
        assert share[3] == pytest.approx(100 * inside.mean())
    medians = [line.get_xdata()[0] for line in axes.lines]
    np.testing.assert_allclose(
        medians, [np.median(radii[:900]), np.median(radii[900:]), cap]
    )


def test_points_on_the_cap_are_counted(tmp_path):
    radii = torch.tensor([1.3, 1.3, 1.3, 0.8])
    figure = draw_radii({"a": (radii, {}), "b": (radii[:3], {})}, cap=1.3)
    labels = [
        axes.get_legend().get_texts()[0].get_text() for axes in figure.axes
    ]
    assert labels == [
        "all: 4, median 1.30, 75 % on the cap",
        "all: 3, median 1.30, 100 % on the cap",
    ]
    for axes in figure.axes:
        assert outlines(axes)[0].values.sum() == pytest.approx(100)
    save(figure, tmp_path / "radii.png")


@pytest.mark.parametrize("radii", [[], [1.0, np.nan]])
def test_bad_radii_are_refused(radii):
    with pytest.raises(InputError, match="the centres have no radii"):
        draw_radii({"centres": (radii, {})})


def test_seeds_are_joined_and_losses_are_not(tmp_path):
    for name, head, seed, epochs in (
        ("ham-seed1", "ham", 1, 3),
        ("ham-seed2", "ham", 2, 2),
        ("am", "am", 1, 3),
        ("joint", "joint", 1, 3),
    ):
        write_run(tmp_path / name, head, seed, epochs)
    runs = [
        read_trained(tmp_path / name)
        for name in ("ham-seed1", "am", "ham-seed2", "joint")
    ]
    curves = group_by_seed(runs)
    assert [c.name for c in curves] == ["ham (2 seeds)", "am", "joint"]
    # The third epoch is of one seed only.
    np.testing.assert_allclose(
        curves[0].mean("train loss"), [15, 7.5, 3.33], rtol=1e-3
    )
    figure = draw_curves(curves, r"$\frac$")
    panels = {axes.get_title().split("\n")[0]: axes for axes in figure.axes}
    assert len(panels) == 6
    errors = panels["validation error (%)"]
    means = [line for line in errors.lines if line.get_linewidth() > 1]
    for line in means:
        np.testing.assert_allclose(line.get_ydata(), [50, 25, 16.7])
    assert len(errors.lines) == len(means) + 2
    # Of a joint head the statistics of the hyperbolic one, without a prefix.
    last = panels["radius of centres"].lines[-1]
    np.testing.assert_allclose(last.get_ydata(), [0.1, 0.2, 0.3])
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [c.name for c in curves]
    save(figure, tmp_path / "curves.png")


def test_panels_without_anything_are_left_out():
    log = {"epoch": np.array([1.0]), "valid loss": np.array([3.0])}
    figure = draw_curves([Curves("a", [log])])
    (axes,) = figure.axes
    assert axes.get_title() == "validation loss"
    with pytest.raises(InputError, match="no log has"):
        draw_curves([Curves("a", [{"epoch": np.array([1.0])}])])


def test_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "plot.png"
    path.write_bytes(b"old")

    def fail(self, file, **kwargs):
        with open(file, "wb") as partial:
            partial.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        save(draw_radii({"a": ([1.0], {})}), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
