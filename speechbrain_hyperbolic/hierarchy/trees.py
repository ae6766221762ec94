"""Trees that are known, and whether distances follow them."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import tqdm
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

from speechbrain_hyperbolic.dataio.corpus import read_speakers
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hierarchy.checks import (
    check_number,
    check_same_points,
    checked_distances,
    varied,
)
from speechbrain_hyperbolic.hierarchy.correlation import unit

# From coarse to fine, the columns of a synthetic corpus's speakers.csv.
LEVELS = ("accent", "family", "variant", "pitch")


def read_paths(
    data_folder: str | pathlib.Path,
    speakers: Sequence[str],
    levels: Sequence[str] = LEVELS,
) -> list[tuple]:
    """Where speakers are in the known tree of a corpus.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        With a ``speakers.csv``; one folder, or several separated by commas.
    speakers : sequence of str
        In the order of the points.
    levels : sequence of str
        Columns of ``speakers.csv``, from coarse to fine; of a synthetic
        corpus by default.

    Returns
    -------
    paths : list of tuple
        For ``tree_distances``.

    Raises
    ------
    InputError
        If a speaker or a column is not there.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> rows = "spk_id,sex,accent\\nann,f,rp\\nbob,m,rp\\n"
    >>> _ = folder.join("speakers.csv").write(rows)
    >>> read_paths(str(folder), ["bob", "ann"], ["accent", "sex"])
    [('rp', 'm'), ('rp', 'f')]
    """
    rows = read_speakers(data_folder)
    paths = []
    for speaker in speakers:
        if speaker not in rows:
            raise InputError(
                f"speakers.csv of {data_folder} has no speaker {speaker}: add "
                "the row, or leave the speaker out"
            )
        missing = [name for name in levels if rows[speaker].get(name) is None]
        if missing:
            raise InputError(
                f"speakers.csv of {data_folder} has no {missing[0]} of "
                f"{speaker}: give levels that are columns of it"
            )
        paths.append(tuple(rows[speaker][name] for name in levels))
    return paths


def tree_distances(paths: list[tuple]) -> np.ndarray:
    """Number of edges between nodes of a tree.

    Arguments
    ---------
    paths : list of tuple
        N names of nodes from below the root down, in lengths that may
        differ. A name counts below its parent: ("rp", "m1") and ("us", "m1")
        are apart. Two equal paths are one node: end them with the speaker's
        name where they should not be.

    Returns
    -------
    distances : np.ndarray
        int, shape [N, N].

    Example
    -------
    >>> tree_distances([("rp", "m1"), ("rp", "m2"), ("us", "m1")])
    array([[0, 2, 4],
           [2, 0, 4],
           [4, 4, 0]])
    """
    length = np.array([len(path) for path in paths], int)
    shared = np.zeros((len(paths), len(paths)), int)
    for depth in range(1, length.max(initial=0) + 1):
        codes: dict[tuple, int] = {}
        # A path that has ended shares this depth with none.
        nodes = np.array(
            [
                codes.setdefault(tuple(path[:depth]), len(codes))
                if len(path) >= depth
                else -1
                for path in paths
            ]
        )
        shared += (nodes[:, None] == nodes) & (nodes >= 0)
    return length[:, None] + length - 2 * shared


class TreeCorrelation(NamedTuple):
    """Rank correlation of distances with those in a tree.

    Arguments
    ---------
    rho : float
        Spearman's, over pairs of points.
    p_value : float
        Of a rho as high by chance, one-sided.
    """

    rho: float
    p_value: float


def tree_correlation(
    distances: npt.ArrayLike,
    tree: npt.ArrayLike,
    draws: int = 1000,
    seed: int = 0,
) -> TreeCorrelation:
    """Whether points that are close in a tree are close.

    Pairs of points are not independent, so the p-value is by Mantel's test:
    the points of the tree are shuffled. Over R draws it is

        p = (1 + #(rho of a draw >= rho)) / (R + 1)

    Source: Mantel, "The detection of disease clustering and a generalized
    regression approach", Cancer Research 27, 1967.

    Arguments
    ---------
    distances : array_like
        Shape [N, N].
    tree : array_like
        Of the same points, see ``tree_distances``.
    draws : int
        Number of shuffles, above 0.
    seed : int
        Of the shuffles.

    Returns
    -------
    correlation : TreeCorrelation

    Raises
    ------
    InputError
        If either has no distances, or all equal ones, they differ in the
        number of points, or ``draws`` is out of range.

    Example
    -------
    >>> tree = tree_distances([(a, b) for a in range(5) for b in range(4)])
    >>> found = tree_correlation(tree**2, tree)
    >>> round(found.rho, 9), found.p_value < 0.01
    (1.0, True)
    """
    check_number("draws", draws, 1)
    near = squareform(checked_distances(distances))
    in_tree = squareform(checked_distances(tree, name="tree"))
    check_same_points(near, in_tree, "tree")
    near, in_tree = (
        squareform(unit(rankdata(varied(pairs, name))))
        for pairs, name in ((near, "the distances"), (in_tree, "the tree's"))
    )
    rho = np.vdot(near, in_tree) / 2
    rng = np.random.default_rng(seed)
    higher = 0
    for _ in tqdm.trange(draws, desc="Mantel", delay=5, dynamic_ncols=True):
        order = rng.permutation(len(near))
        shuffled = in_tree[np.ix_(order, order)]
        # Sums in another order may differ in the last digits.
        higher += np.vdot(near, shuffled) / 2 >= rho - 1e-12
    return TreeCorrelation(float(rho), float((1 + higher) / (1 + draws)))
