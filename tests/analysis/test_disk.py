"""The figures: what is true of the layout, and what is drawn."""

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import linkage, to_tree
from scipy.spatial.distance import squareform

from speechbrain_hyperbolic.analysis.disk import (
    distance_matrix,
    draw_disk,
    place_by_tree,
)
from speechbrain_hyperbolic.analysis.groups import columns_of
from speechbrain_hyperbolic.analysis.radii import draw_radii
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.geometry import (
    Points,
    midpoint,
    paired_distance,
)
from tests.analysis.conftest import SPEAKERS, disk_distance, some_points


def select(points, indices):
    return Points(*(field[torch.as_tensor(indices)] for field in points))


def true_distance(points, i, j):
    return float(paired_distance(select(points, i), select(points, j)))


def test_the_distance_of_two_points_alone_is_true():
    points = select(some_points(dimensions=50), [7, 3])
    disk, _ = place_by_tree(points)
    expected = true_distance(points, 0, 1)
    assert disk_distance(*disk[:2]) == pytest.approx(expected, rel=1e-9)
    # Around the top
    assert np.angle(disk[0] / 1j) == pytest.approx(-np.angle(disk[1] / 1j))


def test_tree_is_that_of_scipy_and_its_nodes_are_midpoints():
    points = some_points(60)
    disk, parent = place_by_tree(points)
    square = distance_matrix(points)
    assert square[5, 9] == pytest.approx(true_distance(points, 5, 9))
    below = [{i} for i in range(60)] + [set() for _ in range(59)]
    for child, above in enumerate(parent[:-1]):
        below[above] |= below[child]
    nodes = to_tree(linkage(squareform(square), "average"), rd=True)[1]
    assert {frozenset(node.pre_order()) for node in nodes} == set(
        map(frozenset, below)
    )
    radius = 2 * np.arctanh(abs(disk))
    np.testing.assert_allclose(radius[:60], points.radius, rtol=1e-9)
    for node in (60, 80, 110, 118):
        middle = midpoint(select(points, sorted(below[node])))
        assert radius[node] == pytest.approx(float(middle.radius), rel=1e-6)
    # Each branch is a sector: its leaves are neighbors in the order of angles.
    place = np.argsort(np.argsort(np.angle(disk[:60] / 1j)))
    for leaves in below:
        assert np.ptp(place[list(leaves)]) == len(leaves) - 1
    with pytest.raises(InputError, match="draw 1 points: expected two or more"):
        place_by_tree(some_points(1))


def drawn(*args, **options):
    """Axes, and what is drawn by its label, as complex numbers."""
    figure = draw_disk(*args, **options)
    figure.draw_without_rendering()
    (axes,), (legend,) = figure.axes, figure.legends
    found = {line.get_label(): line.get_xydata() for line in axes.lines}
    for collection in axes.collections:
        found[collection.get_label()] = collection.get_offsets()
    texts = [text.get_text() for text in legend.get_texts()]
    return axes, {key: np.asarray(found[key]) @ [1, 1j] for key in texts}


def test_highlights_geodesic_and_cap():
    points = some_points(20)
    names = [f"name {i}" for i in range(20)]
    _, found = drawn(points, names, [3, 7], 1.317)
    z = place_by_tree(points)[0][:20]
    assert found["name 3"] == z[3] and found["name 7"] == z[7]
    np.testing.assert_allclose(found["enrolled (18)"], np.delete(z, [3, 7]))
    circle = found["cap of the radius, 1.32"]
    np.testing.assert_allclose(2 * np.arctanh(abs(circle)), 1.317)
    line = found[f"{true_distance(points, 3, 7):.2f} apart"]
    assert line[0] == pytest.approx(z[3]) and line[-1] == pytest.approx(z[7])
    total = disk_distance(z[3], line) + disk_distance(line, z[7])
    np.testing.assert_allclose(total, disk_distance(z[3], z[7]), rtol=1e-6)
    twice = select(points, [0, 0])
    assert "0.00 apart" in drawn(twice, ["first", "second"], [0, 1])[1]


def test_names_cover_no_other():
    names = [rf"$\frac$ {i:03}" for i in range(300)]
    axes, _ = drawn(some_points(300), names, [0, 1])
    texts = [text for text in axes.texts if text.get_text() in names]
    assert len(texts) > 5
    boxes = [text.get_window_extent() for text in texts]
    for i, box in enumerate(boxes):
        assert box.count_overlaps(boxes[:i]) == 0


def test_speakers_are_drawn_in_the_color_of_their_group(table):
    points, column = some_points(), columns_of(table, SPEAKERS)[0]
    _, found = drawn(points, SPEAKERS, column=column)
    z = place_by_tree(points)[0][:30]
    assert list(found) == ["f (15)", "m (14)", "unknown (1)"]
    for label, group in zip(found, ("f", "m", "unknown"), strict=True):
        np.testing.assert_allclose(found[label], z[column.groups == group])


def test_the_rarest_of_many_categories_are_others():
    values = dict(enumerate([*"abcdefgh", *"hgfed", "", "d "]))
    table = {key: {"spk_id": "a", "x": x} for key, x in values.items()}
    (column,) = columns_of(table, list(values))
    assert list(column.styles) == [*"defgh", "other", "unknown"]
    assert column.groups.tolist() == [
        *("other", "other", "other", *"defgh", *"hgfed", "unknown", "d")
    ]


def test_histograms_are_shares():
    rng = np.random.default_rng(0)
    centers = np.append(rng.uniform(0.8, 1.2, 75), np.full(25, 1.3))
    radii = {"centers": centers, "embeddings": np.full(9, 1.3, np.float32)}
    (axes,) = draw_radii(radii, 1.3).axes
    for patch, values in zip(axes.patches, radii.values(), strict=True):
        share, edges, _ = patch.get_data()
        assert share.sum() == pytest.approx(100)
        inside = (edges[3] <= values) & (values < edges[4])
        assert share[3] == pytest.approx(100 * inside.mean())
    lines = [line.get_xdata()[0] for line in axes.lines]
    np.testing.assert_allclose(lines, [np.median(centers), 1.3, 1.3])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        f"centers: median {np.median(centers):.2f}, 25% on the cap",
        "embeddings: median 1.30, 100% on the cap",
        "cap of the radius, 1.30",
    ]
