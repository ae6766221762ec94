"""The Poincare disk: what is true of the layout, and what is drawn."""

import io
import xml.etree.ElementTree

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import linkage, to_tree
from scipy.spatial.distance import squareform

from speechbrain_hyperbolic.analysis.columns import columns_of
from speechbrain_hyperbolic.analysis.disk import (
    distance_matrix,
    draw_disk,
    explain,
    lay_out,
)
from speechbrain_hyperbolic.dataio.corpus import read_speaker_table
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.geometry import (
    Points,
    exponential_map,
    midpoint,
    paired_distance,
)
from tests.analysis.conftest import SPEAKERS, disk_distance, some_points


def normal_points(n, dimensions, seed=0):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(n, dimensions, generator=generator).double()
    return exponential_map(vectors / dimensions**0.5)


def select(points, indices):
    return Points(*(field[torch.as_tensor(indices)] for field in points))


def true_distance(points, i, j):
    return float(paired_distance(select(points, i), select(points, j)))


@pytest.fixture(scope="module")
def laid_out():
    points = some_points(60)
    return points, distance_matrix(points), lay_out(points)


@pytest.mark.parametrize("highlights", [[], [4], [4, 9]])
@pytest.mark.parametrize("dimensions", [2, 50])
def test_radii_are_true(highlights, dimensions):
    points = normal_points(20, dimensions)
    disk = lay_out(points, highlights).disk[:20]
    radius = 2 * np.arctanh(abs(disk))
    np.testing.assert_allclose(radius, points.radius, rtol=1e-9)


@pytest.mark.parametrize("highlights", [[0, 1], [7, 3]])
def test_distance_of_two_highlights_is_true(highlights):
    points = normal_points(20, 50)
    layout = lay_out(points, highlights)
    first, second = layout.disk[highlights]
    expected = true_distance(points, *highlights)
    assert disk_distance(first, second) == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(layout.share[highlights], 1)
    # Upright, the first on the left
    assert first.real < 0 < second.real
    assert np.angle(first / 1j) == pytest.approx(-np.angle(second / 1j))


def test_share_and_angle_are_of_the_projection():
    points = normal_points(20, 50)
    layout = lay_out(points, [3, 7])
    directions = torch.nn.functional.normalize(points.vectors).numpy()
    plane = directions[[3, 7]].T
    weights, *_ = np.linalg.lstsq(plane, directions.T, rcond=None)
    projected = (plane @ weights).T
    length = np.linalg.norm(projected, axis=1)
    np.testing.assert_allclose(layout.share, length)
    angle = np.angle(layout.disk / layout.disk[3])
    np.testing.assert_allclose(
        np.cos(angle), projected @ directions[3] / length
    )


def test_parallel_highlights_leave_an_axis_to_the_others():
    points = normal_points(20, 6)
    points.vectors[1] = 2 * points.vectors[0]
    share = lay_out(points, [0, 1]).share
    directions = torch.nn.functional.normalize(points.vectors).numpy()
    along = directions @ directions[0]
    rest = directions - np.outer(along, directions[0])
    largest = np.linalg.eigvalsh(rest.T @ rest)[-1]
    assert np.sum(share**2) == pytest.approx(np.sum(along**2) + largest)


def test_few_points_and_dimensions():
    origin = exponential_map(torch.zeros(1, 3))
    assert lay_out(origin).disk == 0 and lay_out(origin).share == 1
    line = exponential_map(torch.tensor([[1.0], [-2.0]]))
    disk = lay_out(line, [0, 1]).disk
    assert disk_distance(*disk) == pytest.approx(3, rel=1e-6)
    same = select(some_points(1), [0, 0, 0, 0])
    assert np.isfinite(lay_out(same).disk).all()
    for points in (some_points(0), exponential_map(torch.full((2, 3), np.nan))):
        with pytest.raises(InputError, match="no points, or some are not"):
            lay_out(points, [0])


def test_tree_is_that_of_scipy_and_its_nodes_are_midpoints(laid_out):
    points, square, layout = laid_out
    upper = np.triu_indices(60, 1)
    true = [true_distance(points, i, j) for i, j in zip(*upper, strict=True)]
    np.testing.assert_allclose(square[upper], true, rtol=1e-6)
    below = [{i} for i in range(60)] + [set() for _ in range(59)]
    for child, parent in enumerate(layout.parent[:-1]):
        below[parent] |= below[child]
    assert layout.parent[-1] == -1
    nodes = to_tree(linkage(squareform(square), "average"), rd=True)[1]
    assert {frozenset(node.pre_order()) for node in nodes} == {
        frozenset(leaves) for leaves in below
    }
    for node in (60, 80, 110, 118):
        middle = midpoint(select(points, sorted(below[node])))
        radius = 2 * np.arctanh(abs(layout.disk[node]))
        assert radius == pytest.approx(float(middle.radius), rel=1e-6)


def test_branches_are_sectors_of_close_points(laid_out):
    _, square, layout = laid_out
    turn = -np.angle(layout.disk[:60] / 1j) % (2 * np.pi)
    order = np.argsort(turn)
    steps = np.diff(turn[order])
    np.testing.assert_allclose(steps, steps[0])
    # The first and the last are not next to each other.
    assert 2 * np.pi - np.ptp(turn) > 1.4 * steps[0]
    assert square[order[:-1], order[1:]].mean() < 0.7 * square.mean()
    place = np.argsort(order)
    below = [[p] for p in place] + [[] for _ in range(59)]
    for child, parent in enumerate(layout.parent[:-1]):
        below[parent] = below[parent] + below[child]
    for leaves in below:
        assert np.ptp(leaves) == len(leaves) - 1


def test_the_text_says_how_many_neighbors_are_kept(laid_out):
    points, square, layout = laid_out
    z = layout.disk[:60]
    shares = []
    for i in range(60):
        on_disk, true = (
            set(sorted(set(range(60)) - {i}, key=lambda j, d=d: d[j])[:5])
            for d in (disk_distance(z[i], z), square[i])
        )
        shares.append(len(on_disk & true) / 5)
    assert f"5 nearest, {np.mean(shares):.0%} are" in explain(points, layout)


def drawn(*args, **how):
    """Axes, and what is drawn by its label: complex numbers and a color."""
    figure = draw_disk(*args, **how)
    figure.canvas.draw()
    (axes,), (legend,) = figure.axes, figure.legends
    found = {line.get_label(): line.get_xydata() for line in axes.lines}
    for collection in axes.collections:
        found[collection.get_label()] = collection.get_offsets()
    numbers = {key: np.asarray(v) @ [1, 1j] for key, v in found.items()}
    texts = [text.get_text() for text in legend.get_texts()]
    return axes, numbers, texts, legend.get_title().get_text()


def test_highlights_geodesic_cap_and_crowd():
    points = normal_points(20, 50)
    names = [f"name {i}" for i in range(20)]
    axes, found, legend, note = drawn(points, names, [3, 7], 1.317)
    z = lay_out(points, [3, 7]).disk
    assert found["name 3"] == z[3] and found["name 7"] == z[7]
    np.testing.assert_allclose(found["enrolled (18)"], np.delete(z, [3, 7]))
    circle = found["cap of the radius, 1.32"]
    np.testing.assert_allclose(2 * np.arctanh(abs(circle)), 1.317)
    line = found[f"{true_distance(points, 3, 7):.2f} apart"]
    assert line[0] == pytest.approx(z[3]) and line[-1] == pytest.approx(z[7])
    total = disk_distance(z[3], line) + disk_distance(line, z[7])
    np.testing.assert_allclose(total, true_distance(points, 3, 7), rtol=1e-6)
    shade = axes.collections[-1].get_alpha()
    order = np.argsort(np.delete(lay_out(points, [3, 7]).share, [3, 7]))
    assert 0.2 < shade[order[0]] < shade[order[-1]] <= 1
    assert {"name 3", "name 7", "enrolled (18)"} < set(legend)
    assert "50 dimensions" in note and "fainter" in note
    _, found, _, _ = drawn(points, names, [3, 7], 14.0)  # too far out
    assert not any("cap" in label for label in found)


@pytest.mark.parametrize("n", [2, 30, 300])
def test_names_cover_no_other(n):
    points = normal_points(n, 192)
    names = [f"speaker {i:03}" for i in range(n)]
    axes, _, _, _ = drawn(points, names, [0, 1])
    texts = [t for t in axes.texts if t.get_text().startswith("speaker")]
    assert {"speaker 000", "speaker 001"} <= {t.get_text() for t in texts}
    boxes = [text.get_window_extent() for text in texts]
    for i, box in enumerate(boxes):
        assert box.count_overlaps(boxes[:i]) == 0


def test_two_highlights_in_one_place_are_both_named():
    twice = select(normal_points(1, 192), [0, 0])
    axes, _, legend, _ = drawn(twice, ["first", "second"], [0, 1])
    named = {t.get_text(): t.get_window_extent() for t in axes.texts}
    assert not named["first"].overlaps(named["second"])
    assert "0.00 apart" in legend


def test_names_are_text_whatever_they_are():
    names = ["<script>alert(1)</script>", r"$\frac$", "-->&amp;", "Zoë"]
    figure = draw_disk(normal_points(4, 4), names, [0, 1], title=r"$\frac$")
    file = io.BytesIO()
    figure.savefig(file, format="svg")
    root = xml.etree.ElementTree.fromstring(file.getvalue())
    assert not [node for node in root.iter() if "script" in str(node.tag)]


def test_speakers_are_drawn_in_their_color(table):
    points, column = some_points(), columns_of(table, SPEAKERS)["sex"]
    axes, found, legend, note = drawn(
        points, SPEAKERS, cap=1.317, column=column, title="t"
    )
    z = lay_out(points).disk[:30]
    for name, count in (("f", 15), ("m", 14), ("unknown", 1)):
        label = f"{name} ({count})"
        assert label in legend
        np.testing.assert_allclose(found[label], z[column.groups == name])
    assert "tree" in note and "8 dimensions" in note
    assert {t.get_text() for t in axes.texts} > set(SPEAKERS[:5])
    many = ["a name that is rather long"] * 500
    _, found, _, note = drawn(some_points(500), many, has_radius=False)
    assert len(found["all (500)"]) == 500 and "no radius" in note


def column_of(values):
    speakers = [str(i) for i in range(len(values))]
    table = {s: {"x": v} for s, v in zip(speakers, values, strict=True)}
    return columns_of(table, speakers)["x"]


def test_few_values_are_categories_and_many_numbers_are_ranges():
    few = column_of(["2", "1", "", "2 "])
    assert few.groups.tolist() == ["2", "1", "unknown", "2"]
    assert list(few.styles) == ["1", "2", "unknown"]
    ages = column_of([str(i) for i in range(101)] + [""])
    assert list(ages.styles) == [
        *("0 to 20", "20 to 40", "40 to 60", "60 to 80", "80 to 100"),
        "unknown",
    ]
    assert ages.groups[[0, 19, 20, 100, 101]].tolist() == [
        *("0 to 20", "0 to 20", "20 to 40", "80 to 100", "unknown"),
    ]


@pytest.mark.parametrize("odd", ["nan", "inf", "no number"])
def test_the_rarest_of_many_categories_are_others(odd):
    many = column_of([*"abcdefgh", *"hgfed", odd])
    assert list(many.styles) == [*"defgh", "other"]
    assert (many.groups == "other").sum() == 4  # a, b, c and the odd one


def test_real_table_and_spreadsheets(speechocean):
    table = read_speaker_table(speechocean / "speakers.csv")
    columns = columns_of(table, list(table))
    assert set(columns["sex"].styles) == {"f", "m"}
    assert len(columns["age"].styles) == 5
    assert columns_of(table, ["nobody"]) == {}
    # "spk_id,sex," as a header, and a blank before a comma
    columns = columns_of({"a": {"spk_id": "a", "sex": "f ", "": ""}}, ["a"])
    assert list(columns) == ["sex"] and columns["sex"].values == ["f"]
