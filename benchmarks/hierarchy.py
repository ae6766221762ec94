"""How tree-like the speaker centers of trained models are.

> python -m benchmarks.hierarchy OUTPUT_FOLDER... --speakers=speakers.csv

Runs whose names differ only after the last dot (ham.1, ham.2) are one row: the
mean, and the standard deviation. A speaker with several centers is at their
mean. "Own" distances are those of the head, hyperbolic or the chord; the angle
is what cosine scoring uses. The first table ends with random points of the same
number and dimension, which have no hierarchy: in many dimensions they are
nearly equidistant, and a star is a tree, so no figure means much by itself.
"""

import argparse
import collections
import math
import pathlib

import numpy as np
import torch
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist, squareform
from scipy.stats import permutation_test

from speechbrain_hyperbolic.analysis.disk import distance_matrix
from speechbrain_hyperbolic.analysis.runs import is_hyperbolic, read_run
from speechbrain_hyperbolic.dataio.corpus import read_speaker_table
from speechbrain_hyperbolic.errors import InputError, exit_on_error

LABELS = ("sex", "age_group")


@torch.no_grad()
def read_space(run):
    """Speakers [N]; own distances and angles [N, N] between their centers."""
    speakers = np.array(run.speakers)
    names = sorted(set(run.speakers))
    weight = run.head.weight.double()
    centers = torch.stack([weight[speakers == n].mean(0) for n in names])
    angle, own = angles(centers)
    if is_hyperbolic(run.head):
        own = distance_matrix(run.head.similarity.points(centers))
    return names, own, angle


def angles(vectors):
    """Angles and chords between directions."""
    chord = squareform(pdist(torch.nn.functional.normalize(vectors)))
    return 2 * np.arcsin((chord / 2).clip(max=1)), chord


def row(*cells):
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def table(title, columns, systems, measure):
    """Prints a measure of the own distances, then of the angles."""
    print(f"\n### {title}\n")
    kinds = ("own distance", "angle")
    names = [f"{column}, {kind}" for kind in kinds for column in columns]
    row("loss", "runs", *names)
    row(*["---"] * (2 + len(names)))
    for system, spaces in systems.items():
        found = [
            [*measure(own, speakers), *measure(angle, speakers)]
            for speakers, own, angle in spaces
        ]
        cells = [f"{mean:.3f}" for mean in np.mean(found, 0)]
        if len(spaces) > 1:
            pairs = zip(cells, np.std(found, 0, ddof=1), strict=True)
            cells = [f"{cell} ± {std:.3f}" for cell, std in pairs]
        row(system, len(spaces), *cells)


def gromov_delta(distances, max_points=256, seed=0):
    """How far distances are from a tree's, by Gromov's four-point condition.

    Four points have three sums of two opposite distances. Their delta is half
    the difference of the two largest, which is 0 in a tree. Returns twice the
    largest delta over the diameter (Khrulkov et al., "Hyperbolic Image
    Embeddings", CVPR 2020), then the same of the mean delta, which hardly
    depends on a single point. The cost is O(N^4), so of more than
    ``max_points`` points a random subset of that size is used. Both figures
    grow with N: compare sets of one size.
    """
    n = len(distances)
    if n > max_points:
        subset = np.random.default_rng(seed).choice(n, max_points, False)
        distances, n = distances[np.ix_(subset, subset)], max_points
    worst = total = 0.0
    for last in range(3, n):
        # But for a sign and a constant, Gromov products are the sums of
        # distances: delta is the middle one of three less the smallest.
        from_last = distances[last, :last]
        products = from_last[:, None] + from_last - distances[:last, :last]
        products /= 2
        np.fill_diagonal(products, np.inf)  # y = z: delta is 0
        for x in range(last - 2):
            y = products[x, x + 1 :]
            z = y[:, None]
            middle = np.minimum(np.maximum(y, z), products[x + 1 :, x + 1 :])
            delta = abs(middle - np.minimum(y, z))
            worst = max(worst, delta.max())
            total += delta.sum() / 2
    scale = 2 / distances.max()
    return scale * worst, scale * total / math.comb(n, 4)


def dendrogram(distances):
    """Average linkage of the points, in the form of ``scipy.cluster``."""
    return hierarchy.linkage(squareform(distances), "average")


def cophenetic_correlation(distances):
    """Correlation of distances with the heights at which points join.

    It is 1 for an ultrametric, whose dendrogram keeps every distance.
    """
    linkage = dendrogram(distances)
    return hierarchy.cophenet(linkage, squareform(distances))[0]


def dendrogram_purity(linkage, labels):
    """How pure the subtrees are that join points of one label.

    It is the mean, over all pairs of points with one label, of that label's
    share in the smallest subtree that holds both (Heller and Ghahramani,
    "Bayesian hierarchical clustering", ICML 2005). Merges at the same height
    are one subtree. 1: each label has a subtree of its own.
    """
    heights = squareform(hierarchy.cophenet(linkage))
    shares = []
    for index, row in enumerate(heights):
        same = np.flatnonzero(labels == labels[index])
        joined = row[same[same != index]] * (1 + 1e-9)
        inside = np.searchsorted(np.sort(row[same]), joined, side="right")
        shares += list(inside / np.searchsorted(np.sort(row), joined, "right"))
    return np.mean(shares)


def purity(distances, labels):
    """Dendrogram purity of labels, and its 95 % quantile by chance."""
    linkage = dendrogram(distances)
    test = permutation_test(
        (np.arange(len(labels)),),
        lambda order: dendrogram_purity(linkage, labels[order]),
        permutation_type="pairings",
        n_resamples=100,
        random_state=0,
    )
    return [test.statistic, np.quantile(test.null_distribution, 0.95)]


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hierarchy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", metavar="OUTPUT_FOLDER")
    parser.add_argument("--speakers", required=True, help="speakers.csv")
    options = parser.parse_args()
    known = read_speaker_table(options.speakers)
    systems = collections.defaultdict(list)
    for folder in map(pathlib.Path, options.folders):
        run = read_run(folder)
        if missing := set(run.speakers) - set(known):
            raise InputError(f"{options.speakers} has no {min(missing)}")
        name, space = folder.resolve().name, read_space(run)
        systems[name.rpartition(".")[0] or name].append(space)

    n, dimensions = len(space[0]), run.head.weight.shape[1]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(n, dimensions, generator=generator).double()
    angle, chord = angles(noise)
    table(
        f"Relative Gromov delta of {n} centers, and cophenetic correlation",
        ["worst", "mean", "cophenetic"],
        {**systems, "random": [([], chord, angle)]},
        lambda distances, _: [
            *gromov_delta(distances),
            cophenetic_correlation(distances),
        ],
    )
    for name in LABELS:
        if all(of.get(name) for of in known.values()):
            table(
                f"{name} in the dendrogram (average linkage)",
                ["purity", "by chance (95 %)"],
                systems,
                lambda distances, speakers, name=name: purity(
                    distances, np.array([known[s][name] for s in speakers])
                ),
            )


if __name__ == "__main__":
    with exit_on_error():
        main()
