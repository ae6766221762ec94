"""Known trees against shortest paths and all permutations."""

import itertools

import numpy as np
import pytest
from scipy.sparse.csgraph import shortest_path
from scipy.stats import spearmanr

from speechbrain_hyperbolic.dataio.synthetic import make_synthetic_corpus
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hierarchy.trees import (
    LEVELS,
    read_paths,
    tree_correlation,
    tree_distances,
)
from tests.hierarchy.cases import FAR, assert_refused, some_distances

PATHS = [("a", "x"), ("a", "y"), ("b", "x"), ("b",), ("a",), (), ("b", "x", 1)]


def test_tree_distances_are_shortest_paths():
    nodes = sorted({p[:k] for p in PATHS for k in range(len(p) + 1)}, key=str)
    graph = [[float(b[:-1] == a != b) for b in nodes] for a in nodes]
    lengths = shortest_path(np.array(graph), directed=False)
    rows = [nodes.index(path) for path in PATHS]
    np.testing.assert_array_equal(
        tree_distances(PATHS), lengths[np.ix_(rows, rows)]
    )


def test_equal_paths_are_one_node():
    assert not tree_distances([("a", "b")] * 2).any()
    assert tree_distances([]).shape == (0, 0)


def test_rho_with_the_tree_is_that_of_all_pairs():
    distances = some_distances(12)
    paths = list(itertools.product(range(3), range(2), range(2)))
    tree = tree_distances(paths)
    upper = np.triu_indices(12, 1)
    expected = spearmanr(distances[upper], tree[upper]).statistic
    found = tree_correlation(distances, tree, draws=10)
    assert found.rho == pytest.approx(expected)


def test_mantel_p_is_that_of_all_permutations():
    distances = some_distances(6, seed=4)
    tree = tree_distances([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)])
    upper = np.triu_indices(6, 1)

    def rho(order):
        shuffled = tree[np.ix_(order, order)]
        return spearmanr(distances[upper], shuffled[upper]).statistic

    every = [rho(order) for order in itertools.permutations(range(6))]
    expected = np.mean(np.array(every) >= every[0] - 1e-9)
    assert 0.1 < expected < 0.9
    found = tree_correlation(distances, tree, draws=4000)
    assert found.p_value == pytest.approx(expected, abs=0.03)


def test_points_of_a_tree_correlate_with_it():
    tree = tree_distances(list(itertools.product(*[range(3)] * 3)))
    noise = some_distances(27)
    found = tree_correlation(tree + noise, tree, draws=200)
    assert found.rho > 0.3 and found.p_value == pytest.approx(1 / 201)
    turned = (10 - tree) * (1 - np.eye(27))
    assert tree_correlation(turned, tree).p_value == 1


def test_tree_of_a_synthetic_corpus(tmp_path):
    folder = make_synthetic_corpus(
        tmp_path / "corpus",
        progress=False,
        n_train=8,
        n_test=4,
        utterances=(1, 1),
    )
    names = sorted(path.name for path in folder.glob("spk*"))[::-1]
    lines = (folder / "speakers.csv").read_text().splitlines()
    header = lines[0].split(",")
    rows = [dict(zip(header, line.split(","), strict=True)) for line in lines]
    expected = {
        row["spk_id"]: tuple(row[level] for level in LEVELS) for row in rows
    }
    paths = read_paths(folder, names)
    assert paths == [expected[name] for name in names]
    tree = tree_distances(paths)
    assert np.unique(tree[~np.eye(len(tree), dtype=bool)]).tolist() == [2, 8]


def test_speaker_or_level_that_is_not_there(tmp_path):
    (tmp_path / "speakers.csv").write_text("spk_id,sex\nann,f\n")
    with pytest.raises(InputError, match="no speaker bob"):
        read_paths(tmp_path, ["ann", "bob"], ["sex"])
    with pytest.raises(InputError, match="no accent of ann"):
        read_paths(tmp_path, ["ann"])


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: tree_correlation(FAR, some_distances(4)),
            "tree is of another",
        ),
        (
            lambda: tree_correlation(FAR, 1 - np.eye(3)),
            "the tree's are all equal",
        ),
        (lambda: tree_correlation(FAR, FAR, draws=0), "draws is 0"),
    ],
)
def test_refused_in_one_line(call, message):
    assert_refused(call, message)
