"""The Poincare disk: what is true of the layout, and what is drawn."""

import io
import xml.etree.ElementTree

import numpy as np
import pytest
import torch

from speechbrain_hyperbolic.disk import draw_disk, lay_out
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.geometry import (
    Points,
    exponential_map,
    paired_distance,
    pairwise_distance,
)


def some_points(n, dimensions, seed=0):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(
        n, dimensions, generator=generator, dtype=torch.float64
    )
    return exponential_map(vectors / dimensions**0.5)


def unit(points):
    vectors = points.vectors.numpy()
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def disk_distance(z, w):
    """Of the disk's own formula."""
    square = abs(z - w) ** 2 / ((1 - abs(z) ** 2) * (1 - abs(w) ** 2))
    return np.arccosh(1 + 2 * square)


def pair(points, i, j):
    """The distance in all dimensions."""
    first, second = (Points(*(f[k] for f in points)) for k in (i, j))
    return float(paired_distance(first, second))


def test_radii_are_kept():
    points = some_points(20, 50)
    layout = lay_out(points, [3, 7])
    np.testing.assert_array_equal(layout.radius, points.radius)
    np.testing.assert_allclose(
        2 * np.arctanh(abs(layout.disk)), points.radius, rtol=1e-12
    )


@pytest.mark.parametrize("highlights", [[0, 1], [7, 3]])
def test_distance_of_two_highlights_is_true(highlights):
    points = some_points(20, 50)
    layout = lay_out(points, highlights)
    np.testing.assert_allclose(layout.share[highlights], 1)
    assert disk_distance(*layout.disk[highlights]) == pytest.approx(
        pair(points, *highlights), rel=1e-9
    )
    # Upright, the first on the left.
    first, second = layout.disk[highlights]
    angle = layout.angle[highlights]
    assert first.real < 0 < second.real
    assert angle[0] == pytest.approx(-angle[1])


def test_share_and_angle_are_of_the_projection():
    points = some_points(20, 50)
    layout = lay_out(points, [3, 7])
    directions = unit(points)
    plane = directions[[3, 7]].T
    weights, *_ = np.linalg.lstsq(plane, directions.T, rcond=None)
    projected = (plane @ weights).T
    length = np.linalg.norm(projected, axis=1)
    np.testing.assert_allclose(layout.share, length)
    cosine = projected @ directions[3] / length
    np.testing.assert_allclose(np.cos(layout.angle - layout.angle[3]), cosine)


def test_without_highlights_the_plane_holds_most_of_the_directions():
    points = some_points(20, 6)
    directions = unit(points)
    largest = np.linalg.eigvalsh(directions.T @ directions)[-2:]
    share = lay_out(points).share
    assert np.sum(share**2) == pytest.approx(largest.sum())


def test_parallel_highlights_leave_an_axis_to_the_rest():
    points = some_points(20, 6)
    points.vectors[1] = 2 * points.vectors[0]
    share = lay_out(points, [0, 1]).share
    directions = unit(points)
    along = directions @ directions[0]
    rest = directions - np.outer(along, directions[0])
    largest = np.linalg.eigvalsh(rest.T @ rest)[-1]
    assert np.sum(share**2) == pytest.approx(np.sum(along**2) + largest)


def test_two_dimensions_are_drawn_as_they_are():
    points = some_points(12, 2)
    layout = lay_out(points, [5, 2])
    np.testing.assert_allclose(layout.share, 1)
    z = layout.disk
    np.testing.assert_allclose(
        disk_distance(z[:, None], z[None]),
        pairwise_distance(points, points),
        atol=1e-6,
    )


def test_rotated_space_gives_the_same_picture():
    points = some_points(20, 50)
    rotation, _ = torch.linalg.qr(some_points(50, 50, seed=1).vectors)
    rotated = points._replace(vectors=points.vectors @ rotation)
    for highlights in ([], [4], [4, 9]):
        np.testing.assert_allclose(
            lay_out(rotated, highlights).disk,
            lay_out(points, highlights).disk,
            atol=1e-9,
        )


def test_few_points_and_dimensions():
    origin = exponential_map(torch.zeros(1, 3))
    assert lay_out(origin).disk == 0
    assert lay_out(origin, [0]).share == 1
    line = exponential_map(torch.tensor([[1.0], [-2.0]]))
    np.testing.assert_allclose(
        lay_out(line, [0, 1]).disk, 1j * np.tanh([0.5, -1]), atol=1e-7
    )


BAD = torch.full((2, 3), torch.nan)


@pytest.mark.parametrize(
    "points, highlights, error",
    [
        (exponential_map(torch.zeros(0, 3)), [], "at least one point"),
        (exponential_map(torch.zeros(3)), [], "expected .N, D."),
        (exponential_map(BAD), [], "NaN or infinite"),
        (some_points(2, 3), [2], "indices of 2 points"),
        (some_points(2, 3), [-1], "indices of 2 points"),
    ],
)
def test_wrong_points(points, highlights, error):
    with pytest.raises(InputError, match=error):
        lay_out(points, highlights)


def test_wrong_names_and_highlights():
    with pytest.raises(InputError, match="1 names of 2 points"):
        draw_disk(some_points(2, 3), ["a"])
    with pytest.raises(InputError, match="give 2 at most"):
        draw_disk(some_points(3, 3), "abc", [0, 1, 2])


def drawn(points, names, highlights, **how):
    """The axes, the lines and marks by their label, and the legend's text."""
    figure = draw_disk(points, names, highlights, **how)
    figure.canvas.draw()
    (axes,) = figure.axes
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    lines = {line.get_label(): line for line in axes.lines}
    return axes, lines, texts, legend.get_title().get_text()


def numbers(line):
    x, y = line.get_data()
    return np.asarray(x) + 1j * np.asarray(y)


def test_marks_crowd_and_cap_are_where_they_should_be():
    points = some_points(20, 50)
    names = [f"name {i}" for i in range(20)]
    axes, lines, legend, note = drawn(points, names, [3, 7], cap=1.317)
    z = lay_out(points, [3, 7]).disk
    assert numbers(lines["name 3"]) == z[3]
    assert numbers(lines["name 7"]) == z[7]
    (crowd,) = axes.collections
    np.testing.assert_allclose(
        crowd.get_offsets() @ [1, 1j], np.delete(z, [3, 7])
    )
    circle = numbers(lines["cap of the radius, 1.32"])
    np.testing.assert_allclose(2 * np.arctanh(abs(circle)), 1.317)
    assert {"name 3", "name 7", "18 enrolled"} < set(legend)
    assert note.startswith("50 dimensions seen in 2")
    assert "projection" in note and "fainter" in note


def test_line_between_the_two_is_the_shortest():
    points = some_points(9, 50)
    _, lines, _, _ = drawn(points, "abcdefghi", [0, 5])
    expected = pair(points, 0, 5)
    line = numbers(lines[f"{expected:.2f} apart"])
    start, end = lay_out(points, [0, 5]).disk[[0, 5]]
    assert line[0] == pytest.approx(start) and line[-1] == pytest.approx(end)
    total = disk_distance(start, line) + disk_distance(line, end)
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_points_off_the_plane_are_fainter():
    vectors = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0.1], [0.1, 0.1, 1]])
    axes, _, _, _ = drawn(exponential_map(vectors), "abcd", [0, 1])
    (crowd,) = axes.collections
    near, far = crowd.get_alpha()
    assert 0.2 < far < 0.5 < 0.9 < near <= 1
    _, _, _, note = drawn(exponential_map(vectors[:2]), "ab", [0, 1])
    assert "fainter" not in note


@pytest.mark.parametrize("n", [2, 30, 300])
def test_names_cover_no_other(n):
    points = some_points(n, 192)
    names = [f"speaker {i:03}" for i in range(n)]
    axes, _, _, _ = drawn(points, names, [0, 1])
    assert {"speaker 000", "speaker 001"} <= {t.get_text() for t in axes.texts}
    boxes = [text.get_window_extent() for text in axes.texts]
    for i, box in enumerate(boxes):
        assert box.count_overlaps(boxes[:i]) == 0


def test_two_highlights_in_one_place_are_both_named():
    points = some_points(1, 192)
    twice = Points(*(torch.cat([field, field]) for field in points))
    axes, _, legend, _ = drawn(twice, ["first", "second"], [0, 1])
    left, right = (text.get_window_extent() for text in axes.texts)
    assert left.x1 < right.x0
    assert "0.00 apart" in legend


def test_names_are_text_whatever_they_are():
    names = ["<script>alert(1)</script>", r"$\frac$", "-->&amp;", "Zoë"]
    figure = draw_disk(some_points(4, 4), names, [0, 1])
    file = io.BytesIO()
    figure.savefig(file, format="svg")
    root = xml.etree.ElementTree.fromstring(file.getvalue())
    assert not [node for node in root.iter() if "script" in str(node.tag)]
    (axes,) = figure.axes
    assert {text.get_text() for text in axes.texts} <= set(names)
