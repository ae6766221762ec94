"""How tree-like a set of points is: speaker centres, or embeddings.

All is told from the distances [N, N] between the points, in any unit, so it's
the same for Euclidean, spherical and hyperbolic points. A matrix of distances
is symmetric with zeros on the diagonal, up to 1 % of the largest distance, as
float32 may round it; it is then made so to the last bit. Float64 is better.

A caution: in many dimensions points at random are nearly all as far from each
other, which is a tree too, a star. A figure says something only beside the
same one of points without a hierarchy, see ``sphere_sample``, or of labels at
random, see ``chance``.
"""

import numbers
from typing import NamedTuple

import numpy as np
import torch
import tqdm
from scipy.cluster import hierarchy
from scipy.optimize import minimize
from scipy.spatial.distance import squareform
from scipy.special import comb
from scipy.stats import rankdata

from speechbrain_hyperbolic.dataio.corpus import read_speakers
from speechbrain_hyperbolic.errors import InputError, is_finite
from speechbrain_hyperbolic.geometry import (
    exponential_map,
    pairwise_distance,
    to_ball,
)
from speechbrain_hyperbolic.significance import MIN_SPEAKERS

# From coarse to fine, the columns of a synthetic corpus's speakers.csv.
LEVELS = ("accent", "family", "variant", "pitch")
METHODS = ("average", "complete", "single", "weighted")
# Up to this many points ``gromov_delta`` is exact: N^4 / 24 quadruples.
EXACT_POINTS = 256
# Further out, distances on the disk drown in rounding.
MAX_RADIUS = 14.0

# Of a matrix of distances, relative to the largest.
_TOLERANCE = 1e-2
_TIE = 1e-9
# Diameters on the plane, in units of curvature -1, that a fit starts from.
_SPREADS = (1, 5, 15)
_JITTER = 0.03  # of the diameter


class GromovDelta(NamedTuple):
    """How far distances are from those of a tree, see ``gromov_delta``.

    Arguments
    ---------
    worst : float
        Of the worst quadruple: 0 for a tree, 1 at most for a metric.
    mean : float
        Over the quadruples, which a single point or error hardly moves.
    """

    worst: float
    mean: float


def gromov_delta(distances, samples=None, seed=0):
    """Relative delta hyperbolicity, by Gromov's four-point condition.

    Four points have three sums of two opposite distances. Their delta is half
    of what the largest sum has over the second: none in a tree. It is given
    as 2 delta / diameter, which has no unit.

    With all base points it's exact, in O(N^4) time: 1 s for 250 points. With
    some, ``worst`` and ``mean`` are over the quadruples that hold one of
    those points, in O(N^3) each: 1 s a base point of 1000. ``worst`` is then
    at least half the exact one, of a metric. It grows with N: compare sets of
    one size.

    Source: Khrulkov et al., "Hyperbolic Image Embeddings", CVPR 2020, who
    take the maximum over one base point; Gromov, "Hyperbolic groups", 1987.

    Arguments
    ---------
    distances : array_like
        Shape [N, N], of 4 points or more. The triangle inequality is not
        checked.
    samples : int
        Number of base points, drawn at random; None: all up to 256 points, 4
        of more.
    seed : int
        Of the draw.

    Returns
    -------
    delta : GromovDelta

    Raises
    ------
    InputError
        If these are no distances of 4 points, all points coincide, or
        ``samples`` is out of range.

    Example
    -------
    >>> square = [[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1], [1, 2, 1, 0]]
    >>> gromov_delta(square)
    GromovDelta(worst=1.0, mean=1.0)
    """
    distances = _checked(distances, least=4)
    n = len(distances)
    if samples is None:
        samples = n if n <= EXACT_POINTS else 4
    _check_number("samples", samples, 1, n)
    if samples == n:
        # Each quadruple once, at its last point.
        parts = [(base, np.arange(base)) for base in range(3, n)]
    else:
        drawn = np.random.default_rng(seed).choice(n, samples, replace=False)
        parts = [(base, np.delete(np.arange(n), base)) for base in drawn]
    found = [
        _delta_at(distances, *part)
        for part in tqdm.tqdm(parts, "Delta", delay=5, dynamic_ncols=True)
    ]
    worst, total = np.max(found, axis=0)[0], np.sum(found, axis=0)[1]
    quadruples = sum(comb(len(others), 3) for _, others in parts)
    factor = 2 / distances.max()
    return GromovDelta(
        float(factor * worst), float(factor * total / quadruples)
    )


def _delta_at(distances, base, others):
    """Largest delta, and the sum, over quadruples of a point and 3 others.

    By Gromov products at the base, which are the sums of distances but for a
    sign and a constant, delta is the middle one of three less the smallest.
    """
    out = distances[base, others]
    products = (out[:, None] + out - distances[np.ix_(others, others)]) / 2
    # So that y = z, which is no quadruple, has delta 0.
    np.fill_diagonal(products, np.inf)
    worst, total = 0.0, 0.0
    for x in range(len(others) - 2):
        of_x = products[x, x + 1 :]
        delta = np.maximum(of_x[:, None], of_x)
        np.minimum(delta, products[x + 1 :, x + 1 :], out=delta)
        delta -= np.minimum(of_x[:, None], of_x)
        np.abs(delta, out=delta)
        worst = max(worst, delta.max())
        total += delta.sum() / 2
    return worst, total


def dendrogram(distances, method="average"):
    """Agglomerative clustering.

    Arguments
    ---------
    distances : array_like
        Shape [N, N].
    method : str
        Distance of two clusters: "average", "complete", "single" or
        "weighted" (see ``scipy.cluster.hierarchy.linkage``, whose other
        methods are for Euclidean distances alone).

    Returns
    -------
    linkage : np.ndarray
        As scipy's, shape [N - 1, 4].

    Raises
    ------
    InputError
        If these are no distances, all points coincide, or the method is none
        of these.

    Example
    -------
    >>> dendrogram([[0, 1, 4], [1, 0, 6], [4, 6, 0]])[:, 2]
    array([1., 5.])
    """
    if method not in METHODS:
        raise InputError(
            f"method is {method}, expected one of {', '.join(METHODS)}"
        )
    return hierarchy.linkage(squareform(_checked(distances)), method)


def cophenetic_correlation(distances, linkage):
    """How well a dendrogram keeps the distances.

    Arguments
    ---------
    distances : array_like
        Shape [N, N].
    linkage : np.ndarray
        Of ``dendrogram``, of these points.

    Returns
    -------
    correlation : float
        Pearson's, over pairs, of the distances and the heights at which the
        two points join: 1 for an ultrametric.

    Raises
    ------
    InputError
        If these are no distances, the linkage is of other points, or either
        is all equal.

    Example
    -------
    >>> ultrametric = [[0, 1, 5], [1, 0, 5], [5, 5, 0]]
    >>> cophenetic_correlation(ultrametric, dendrogram(ultrametric))
    1.0
    """
    pairs = squareform(_checked(distances))
    joined = hierarchy.cophenet(linkage)
    if joined.size != pairs.size:
        raise InputError(
            f"the linkage is of {len(linkage) + 1} points, the distances of "
            f"{len(distances)}: give that of the same points"
        )
    return _correlation(
        _varied(pairs, "the distances"),
        _varied(joined, "the heights of the dendrogram"),
    )


def purity(linkage, labels, clusters=None):
    """Share of the points that have the commonest label of their cluster.

    Where merges tie in height, scipy's order decides which are cut.

    Arguments
    ---------
    linkage : np.ndarray
        Of ``dendrogram``.
    labels : array_like
        Shape [N], of two kinds or more.
    clusters : int
        How many to cut the dendrogram into; None: as many as kinds of labels.

    Returns
    -------
    purity : float
        In (0, 1]; at least the share of the commonest label.

    Raises
    ------
    InputError
        If the labels are all the same or of another number than the points,
        or ``clusters`` is out of range.

    Example
    -------
    >>> linkage = dendrogram([[0, 1, 4], [1, 0, 6], [4, 6, 0]])
    >>> purity(linkage, ["f", "f", "m"])
    1.0
    """
    counts = _cut(linkage, labels, clusters)
    return float(counts.max(1).sum() / counts.sum())


def adjusted_rand(linkage, labels, clusters=None):
    """Adjusted Rand index of the clusters and the labels.

    Source: Hubert and Arabie, "Comparing partitions", Journal of
    Classification 2, 1985.

    Arguments
    ---------
    linkage : np.ndarray
        As ``purity``.
    labels : array_like
        As ``purity``.
    clusters : int
        As ``purity``.

    Returns
    -------
    index : float
        1 where they are the same, 0 on average by chance.

    Raises
    ------
    InputError
        As ``purity``.

    Example
    -------
    >>> linkage = dendrogram([[0, 1, 4], [1, 0, 6], [4, 6, 0]])
    >>> round(adjusted_rand(linkage, ["f", "m", "m"]), 3)
    -0.5
    """
    counts = _cut(linkage, labels, clusters)
    both = comb(counts, 2).sum()
    in_cluster, in_class = (comb(counts.sum(axis), 2).sum() for axis in (1, 0))
    expected = in_cluster * in_class / comb(counts.sum(), 2)
    most = (in_cluster + in_class) / 2
    if most == expected:
        return 1.0  # all points are alone, in the clusters and the classes
    return float((both - expected) / (most - expected))


def dendrogram_purity(linkage, labels):
    """How pure the subtrees are that join points of one label.

    Over all pairs of two points with one label, the mean share of that label
    in the smallest subtree that holds both; exact, in O(N) per label. Merges
    of one subtree at the same height are taken as one.

    Source: Heller and Ghahramani, "Bayesian hierarchical clustering", ICML
    2005.

    Arguments
    ---------
    linkage : np.ndarray
        Of ``dendrogram``.
    labels : array_like
        Shape [N], of two kinds or more.

    Returns
    -------
    purity : float
        In (0, 1]: 1 where each label has a subtree of its own. See ``chance``
        for that of labels at random.

    Raises
    ------
    InputError
        As ``purity``; also if no two labels are the same.

    Example
    -------
    >>> linkage = dendrogram([[0, 1, 4], [1, 0, 6], [4, 6, 0]])
    >>> round(dendrogram_purity(linkage, ["f", "m", "m"]), 3)
    0.667
    """
    linkage, counts = _class_counts(linkage, labels)
    n = len(linkage) + 1
    children, height = linkage[:, :2].astype(int), linkage[:, 2]
    pairs = counts[children[:, 0]] * counts[children[:, 1]]
    if not pairs.any():
        raise InputError("no two labels are the same: give labels of groups")
    whole = np.arange(2 * n - 1)
    for row in range(n - 2, -1, -1):
        for child in children[row]:
            if child >= n and height[row] <= height[child - n] * (1 + _TIE):
                whole[child] = whole[n + row]
    subtrees = counts[whole[n:]]
    shares = subtrees / subtrees.sum(1, keepdims=True)
    return float((pairs * shares).sum() / pairs.sum())


def _cut(linkage, labels, clusters):
    """Points by cluster and class, shape [clusters, classes]."""
    linkage, counts = _class_counts(linkage, labels)
    n, classes = len(linkage) + 1, counts.shape[1]
    if clusters is None:
        clusters = classes
    _check_number("clusters", clusters, 1, n)
    merged = linkage[: n - clusters, :2].astype(int)
    return counts[np.setdiff1d(np.arange(2 * n - clusters), merged)]


def _class_counts(linkage, labels):
    """The linkage, and of each of its nodes how many points of each class.

    Nodes are numbered as in the linkage: shape [2 N - 1, classes].
    """
    linkage = np.asarray(linkage, dtype=np.float64)
    hierarchy.is_valid_linkage(linkage, throw=True)
    n = len(linkage) + 1
    labels = np.asarray(labels)
    if labels.shape != (n,):
        raise InputError(
            f"labels have shape {labels.shape}, the linkage is of {n} points: "
            "give one label a point, in the same order"
        )
    kinds, classes = np.unique(labels, return_inverse=True)
    if len(kinds) < 2:
        raise InputError(
            f"all labels are {kinds[0]}: it takes two kinds to tell clusters"
        )
    counts = np.zeros((2 * n - 1, len(kinds)), int)
    counts[np.arange(n), classes] = 1
    for node, (first, second) in enumerate(linkage[:, :2].astype(int), n):
        counts[node] = counts[first] + counts[second]
    return linkage, counts


class Chance(NamedTuple):
    """What labels at random give.

    Arguments
    ---------
    mean : float
    high : float
        The 95 % quantile.
    """

    mean: float
    high: float


def chance(function, labels, draws=100, seed=0):
    """What a measure is of labels that are shuffled among the points.

    Arguments
    ---------
    function : callable
        Labels -> float.
    labels : array_like
        Shape [N].
    draws : int
        Number of shuffles, above 0.
    seed : int
        Of the shuffles.

    Returns
    -------
    chance : Chance

    Raises
    ------
    InputError
        If ``draws`` is out of range.

    Example
    -------
    >>> linkage = dendrogram([[0, 1, 4], [1, 0, 6], [4, 6, 0]])
    >>> of_chance = chance(
    ...     lambda labels: dendrogram_purity(linkage, labels), ["f", "m", "m"]
    ... )
    >>> 2 / 3 < of_chance.mean < of_chance.high
    True
    """
    _check_number("draws", draws, 1)
    rng = np.random.default_rng(seed)
    found = [function(rng.permutation(labels)) for _ in range(draws)]
    return Chance(float(np.mean(found)), float(np.quantile(found, 0.95)))


class RankCorrelation(NamedTuple):
    """Spearman's rank correlation.

    Arguments
    ---------
    rho : float
    interval : tuple of float
        Of 95 %: (low, high).
    p_value : float
        Of rho = 0, two-sided.
    """

    rho: float
    interval: tuple
    p_value: float


def rank_correlation(x, y, replicates=1000, seed=0, groups=None):
    """Spearman's rank correlation, with a bootstrap over groups.

    Utterances of a speaker are not independent: with speakers as groups, each
    replicate draws as many speakers as there are, with replacement, and all
    utterances of each. The interval is that of the percentiles, and the
    p-value inverts it, as ``significance.compare_systems`` does. Replicates
    in which x or y is all equal are skipped.

    Arguments
    ---------
    x : array_like
        Shape [N], finite.
    y : array_like
        Shape [N], finite.
    replicates : int
        Above 0; the smallest p-value is 2 / (replicates + 1).
    seed : int
        Of the draws.
    groups : array_like
        Shape [N]: identifier of the speaker; None: each its own.

    Returns
    -------
    correlation : RankCorrelation

    Raises
    ------
    InputError
        If x or y is all equal, not finite or of another length, there are
        fewer than 10 groups, or ``replicates`` is out of range.

    Example
    -------
    >>> x = np.arange(20)
    >>> found = rank_correlation(x, x**2, groups=x // 2)
    >>> round(found.rho, 9), found.p_value < 0.01
    (1.0, True)
    """
    _check_number("replicates", replicates, 1)
    x = _varied(_column("x", x), "x")
    y = _varied(_column("y", y, x.size), "y")
    if groups is None:
        groups = np.arange(x.size)
    groups = _column("groups", groups, x.size, dtype=None)
    names, members = np.unique(groups, return_inverse=True)
    if len(names) < MIN_SPEAKERS:
        raise InputError(
            f"there are {len(names)} groups: a bootstrap needs "
            f"{MIN_SPEAKERS} or more"
        )
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in tqdm.trange(
        replicates, desc="Bootstrap", delay=5, dynamic_ncols=True
    ):
        counts = rng.multinomial(
            len(names), np.full(len(names), 1 / len(names))
        )
        rows = np.repeat(np.arange(x.size), counts[members])
        if np.ptp(x[rows]) > 0 and np.ptp(y[rows]) > 0:
            drawn.append(_spearman(x[rows], y[rows]))
    if not drawn:
        raise InputError(
            f"x or y is all equal in each of {replicates} bootstrap "
            "replicates: give more replicates, or more groups"
        )
    low, high = np.quantile(drawn, [0.025, 0.975])
    # What is 0 may differ from it in the last digits.
    drawn = np.round(drawn, 12)
    least = min(np.sum(drawn <= 0), np.sum(drawn >= 0))
    p_value = min(1.0, float(2 * (1 + least) / (1 + drawn.size)))
    return RankCorrelation(_spearman(x, y), (float(low), float(high)), p_value)


class PlaneDistortion(NamedTuple):
    """What distances lose on a plane, see ``plane_distortion``.

    Arguments
    ---------
    mean : float
        Mean relative error of a distance, 0 where all are kept.
    worst : float
        Of the ratios of new and old distance the largest over the smallest,
        1 where all are kept; infinite where points are merged.
    stress : float
        Root of the squared errors' sum over that of the squared distances,
        in [0, 1].
    """

    mean: float
    worst: float
    stress: float


def plane_distortion(distances, planar_distances):
    """How far distances are from others, whatever the unit of these.

    The others are multiplied by a factor: ``mean`` and ``stress`` each by
    what makes it least. Pairs of points that coincide in the first have no
    relative error; they count in the stress alone.

    Arguments
    ---------
    distances : array_like
        Shape [N, N].
    planar_distances : array_like
        Shape [N, N].

    Returns
    -------
    distortion : PlaneDistortion

    Raises
    ------
    InputError
        If either has no distances, all its points coincide, or they differ in
        the number of points.

    Example
    -------
    >>> star = [[0, 2, 2], [2, 0, 2], [2, 2, 0]]
    >>> line = [[0, 1, 1], [1, 0, 2], [1, 2, 0]]
    >>> found = plane_distortion(star, line)
    >>> round(found.mean, 3), found.worst, round(found.stress, 3)
    (0.333, 2.0, 0.333)
    """
    true = squareform(_checked(distances))
    planar = squareform(_checked(planar_distances, name="planar_distances"))
    _check_same_points(true, planar, "planar_distances")
    apart = true > 0
    if not planar[apart].any():
        raise InputError(
            "planar_distances are 0 wherever the distances are not: they are "
            "of other points"
        )
    # From the largest: |f r - 1| is least in sum where f is the median of
    # the 1 / r, of weights r.
    ratio = np.sort(planar[apart] / true[apart])[::-1]
    weight = np.cumsum(ratio)
    factor = 1 / ratio[np.searchsorted(weight, weight[-1] / 2)]
    with np.errstate(divide="ignore"):
        worst = ratio[0] / ratio[-1]
    closest = (true @ planar) / (planar @ planar)
    stress = np.linalg.norm(true - closest * planar) / np.linalg.norm(true)
    return PlaneDistortion(
        float(abs(factor * ratio - 1).mean()), float(worst), float(stress)
    )


class Embedding(NamedTuple):
    """Points on a plane.

    Arguments
    ---------
    points : np.ndarray
        As complex numbers, shape [N]; on the disk, of absolute value below 1.
    scale : float
        Distance on the plane of what is 1 in the distances that were given.
    distances : np.ndarray
        Between the points, over the scale: shape [N, N].
    """

    points: np.ndarray
    scale: float
    distances: np.ndarray


def embed_in_disk(distances, steps=500, seed=0):
    """Points on the Poincare disk of curvature -1 that fit distances.

    They and the scale are fitted by gradient descent (L-BFGS) for the least
    stress, see ``plane_distortion``, from three scales with classical
    scaling; the best fit is kept. The larger the scale, the more of the
    curvature is used; where it goes to 0 the disk is the Euclidean plane, so
    but for local minima it fits no worse than ``embed_in_plane``, and what
    tells is how much better. Radii are at most 14, which bounds how well a
    tree is fitted. It takes 6 s for 250 points on one core, O(N^2) a step.

    Arguments
    ---------
    distances : array_like
        Shape [N, N].
    steps : int
        Of the descent, at most, of each of three.
    seed : int
        Of the start. Another finds another minimum: the stress may differ by
        a fifth on the disk, and by a twentieth on the plane.

    Returns
    -------
    embedding : Embedding

    Raises
    ------
    InputError
        If these are no distances, all points coincide, or ``steps`` is out of
        range.

    Example
    -------
    >>> star = 2 * (1 - np.eye(4))
    >>> plane_distortion(star, embed_in_plane(star).distances).stress > 0.1
    True
    >>> plane_distortion(star, embed_in_disk(star).distances).stress < 0.02
    True
    """
    distances = _checked(distances)

    def distance_of(vectors):
        points = exponential_map(vectors, max_radius=MAX_RADIUS)
        return pairwise_distance(points, points)

    vectors, scale = _fit(distances, distance_of, steps, seed)
    x, y = to_ball(exponential_map(vectors, max_radius=MAX_RADIUS)).T.numpy()
    planar = _checked(distance_of(vectors).numpy())
    return Embedding(x + 1j * y, scale, planar / scale)


def embed_in_plane(distances, steps=500, seed=0):
    """Points on the Euclidean plane that fit distances.

    By the same descent, to the same stress, as ``embed_in_disk``.

    Arguments
    ---------
    distances : array_like
        As ``embed_in_disk``.
    steps : int
        As ``embed_in_disk``.
    seed : int
        As ``embed_in_disk``.

    Returns
    -------
    embedding : Embedding
        Its scale is 1.

    Raises
    ------
    InputError
        As ``embed_in_disk``.

    Example
    -------
    >>> embed_in_plane([[0, 3, 4], [3, 0, 5], [4, 5, 0]]).distances.round(3)
    array([[0., 3., 4.],
           [3., 0., 5.],
           [4., 5., 0.]])
    """
    distances = _checked(distances)
    vectors, scale = _fit(distances, _plane_distances, steps, seed)
    vectors = vectors / scale
    x, y = vectors.T.numpy()
    return Embedding(x + 1j * y, 1.0, _plane_distances(vectors).numpy())


def _plane_distances(vectors):
    return torch.cdist(
        vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist"
    )


def _fit(distances, distance_of, steps, seed):
    """Vectors [N, 2] and the scale of the least stress that was found."""
    _check_number("steps", steps, 1)
    n, diameter = len(distances), distances.max()
    target = torch.from_numpy(distances / diameter)
    apart = 1 - torch.eye(n, dtype=torch.float64)

    def stress(flat):
        flat = torch.tensor(flat, requires_grad=True)
        planar = distance_of(flat[:-1].view(n, 2)) * apart
        errors = planar * (-flat[-1]).exp() - target
        value = errors.square().sum() / target.square().sum()
        (gradient,) = torch.autograd.grad(value, flat)
        return value.item(), gradient.numpy()

    rng = np.random.default_rng(seed)
    placed = _classical_scaling(target.numpy())
    fits = []
    for spread in _SPREADS:
        # Off points that coincide, which nothing drives apart.
        noise = _JITTER * rng.standard_normal((n, 2))
        start = np.append(spread * (placed + noise), np.log(spread))
        fits.append(
            minimize(
                stress,
                start,
                jac=True,
                method="L-BFGS-B",
                options={
                    "maxiter": steps,
                    "maxfun": 2 * steps,
                    "maxcor": 20,
                    "ftol": 1e-10,
                    "gtol": 1e-9,
                },
            )
        )
    best = min(fits, key=lambda fit: fit.fun).x
    return torch.from_numpy(best[:-1].reshape(n, 2)), float(
        np.exp(best[-1]) / diameter
    )


def _classical_scaling(distances):
    """Torgerson's, in two dimensions."""
    square = distances**2
    mean = square.mean(0)
    centred = (mean[:, None] + mean - mean.mean() - square) / 2
    values, vectors = np.linalg.eigh(centred)
    return vectors[:, -2:] * np.sqrt(values[-2:].clip(min=0))


def read_paths(data_folder, speakers, levels=LEVELS):
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


def tree_distances(paths):
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
        numbers = {}
        # A path that has ended shares this depth with none.
        nodes = np.array(
            [
                numbers.setdefault(tuple(path[:depth]), len(numbers))
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


def tree_correlation(distances, tree, draws=1000, seed=0):
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
    _check_number("draws", draws, 1)
    near = squareform(_checked(distances))
    in_tree = squareform(_checked(tree, name="tree"))
    _check_same_points(near, in_tree, "tree")
    near, in_tree = (
        squareform(_unit(rankdata(_varied(pairs, name))))
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


def sphere_sample(n, dimension, seed=0):
    """Points at random on the unit sphere: without any hierarchy.

    Arguments
    ---------
    n : int
        At least 2.
    dimension : int
        Number of coordinates, as of an embedding: at least 2.
    seed : int

    Returns
    -------
    distances : np.ndarray
        Along great circles, in radians, shape [n, n].

    Raises
    ------
    InputError
        If a number is out of range.

    Example
    -------
    >>> gromov_delta(sphere_sample(50, 3)).worst > 0.5
    True
    """
    rng = np.random.default_rng(seed)
    directions = _directions(n, dimension, rng)
    angles = np.arccos((directions @ directions.T).clip(-1, 1))
    np.fill_diagonal(angles, 0)
    return angles


def tree_sample(n, branching, seed=0):
    """The leaves of a tree at random: of delta 0.

    From the leaves up, nodes are drawn and joined until one is left; edges
    are of length 0 to 1, at random.

    Arguments
    ---------
    n : int
        Number of leaves, at least 2.
    branching : int
        How many nodes are joined at once, at least 2 (the root may have
        fewer).
    seed : int

    Returns
    -------
    distances : np.ndarray
        Lengths of paths, shape [n, n].

    Raises
    ------
    InputError
        If a number is out of range.

    Example
    -------
    >>> gromov_delta(tree_sample(50, 3)).worst < 1e-9
    True
    """
    _check_number("n", n, 2)
    _check_number("branching", branching, 2)
    rng = np.random.default_rng(seed)
    distances = np.zeros((n, n))
    depth = np.zeros(n)  # below the node that now stands for a leaf
    nodes = [np.array([leaf]) for leaf in range(n)]
    while len(nodes) > 1:
        order = rng.permutation(len(nodes))
        joined = [nodes[index] for index in order[:branching]]
        nodes = [nodes[index] for index in order[branching:]]
        for place, leaves in enumerate(joined):
            depth[leaves] += rng.random()
            for others in joined[:place]:
                paths = depth[leaves][:, None] + depth[others]
                distances[np.ix_(leaves, others)] = paths
                distances[np.ix_(others, leaves)] = paths.T
        nodes.append(np.concatenate(joined))
    return distances


def hyperbolic_sample(n, dimension, radius, seed=0):
    """Points at random in a ball of hyperbolic space, alike by volume.

    Arguments
    ---------
    n : int
        At least 2.
    dimension : int
        Of the space, at least 2.
    radius : float
        Of the ball, at curvature -1: above 0, at most 14.
    seed : int

    Returns
    -------
    distances : np.ndarray
        Shape [n, n].

    Raises
    ------
    InputError
        If a number is out of range.

    Example
    -------
    >>> near, far = (hyperbolic_sample(50, 2, radius) for radius in (1, 10))
    >>> gromov_delta(near).worst > 2 * gromov_delta(far).worst
    True
    """
    if not (is_finite(radius) and 0 < radius <= MAX_RADIUS):
        raise InputError(
            f"radius is {radius}, expected a number above 0, at most "
            f"{MAX_RADIUS:g}"
        )
    rng = np.random.default_rng(seed)
    directions = _directions(n, dimension, rng)
    # The volume within a radius, which grows as the integral of sinh^(D - 1).
    grid = np.linspace(0, radius, 10001)
    middle = (grid[1:] + grid[:-1]) / 2
    shell = np.exp(
        (dimension - 1) * (np.log(np.sinh(middle) / np.sinh(radius)))
    )
    volume = np.append(0, np.cumsum(shell))
    radii = np.interp(rng.random(n) * volume[-1], volume, grid)
    points = exponential_map(
        torch.from_numpy(radii[:, None] * directions), max_radius=MAX_RADIUS
    )
    return _checked(pairwise_distance(points, points).numpy())


def _directions(n, dimension, rng):
    _check_number("n", n, 2)
    _check_number("dimension", dimension, 2)
    vectors = rng.standard_normal((n, dimension))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _spearman(x, y):
    return _correlation(rankdata(x), rankdata(y))


def _correlation(x, y):
    # Of equal columns the product may be off 1 in the last digit.
    return float(np.clip(_unit(x) @ _unit(y), -1, 1))


def _unit(values):
    """Of mean 0 and length 1."""
    values = values - values.mean()
    return values / np.linalg.norm(values)


def _varied(values, name):
    if np.ptp(values) == 0:
        raise InputError(f"{name} are all equal: nothing correlates with them")
    return values


def _check_number(name, value, least, most=None):
    whole = isinstance(value, numbers.Integral)
    if not (whole and value >= least and (most is None or value <= most)):
        limit = "" if most is None else f", at most {most}"
        raise InputError(
            f"{name} is {value}, expected a whole number >= {least}{limit}"
        )


def _check_same_points(pairs, others, name):
    if pairs.size != others.size:
        raise InputError(
            f"{name} is of another number of points than the distances: give "
            "both of the same points, in the same order"
        )


def _column(name, values, n=None, dtype=np.float64):
    values = np.asarray(values, dtype=dtype)
    if values.ndim != 1 or n not in (None, values.size):
        raise InputError(
            f"{name} has shape {values.shape}, expected ({n or 'N'},): give "
            "one value a point"
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(
            f"{name} is {values[~np.isfinite(values)][0]} at index "
            f"{np.flatnonzero(~np.isfinite(values))[0]}: leave that point out"
        )
    return values


def _checked(distances, least=2, name="distances"):
    """A copy in float64, symmetric and with zeros on the diagonal."""
    distances = np.array(distances, dtype=np.float64)
    if distances.ndim != 2 or len(distances) != distances.shape[1]:
        raise InputError(
            f"{name} have shape {distances.shape}, expected (N, N)"
        )
    if len(distances) < least:
        raise InputError(
            f"{name} are of {len(distances)} points: give {least} or more"
        )
    wrong = np.argwhere(~(np.isfinite(distances) & (distances >= 0)))
    if len(wrong):
        i, j = wrong[0]
        raise InputError(
            f"{name}[{i}, {j}] is {distances[i, j]}, expected a finite number "
            ">= 0: leave that point out"
        )
    largest = distances.max()
    mended = (distances + distances.T) / 2
    np.fill_diagonal(mended, 0)
    if mended.max() == 0:
        raise InputError(f"{name} are all 0: the points coincide")
    i, j = divmod(int(abs(distances - mended).argmax()), len(distances))
    if abs(distances - mended)[i, j] > _TOLERANCE * largest:
        fault = (
            "expected 0: are these similarities?"
            if i == j
            else f"but [{j}, {i}] is {distances[j, i]:g}: expected the same"
        )
        raise InputError(f"{name}[{i}, {j}] is {distances[i, j]:g}, {fault}")
    return mended
