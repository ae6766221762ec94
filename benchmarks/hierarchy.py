"""How tree-like the speaker centers of trained models are.

> python -m benchmarks.hierarchy OUTPUT_FOLDER... --speakers=speakers.csv

Runs whose names differ only after the last dot (ham.1, ham.2) are one row: the
mean, and the standard deviation. A speaker with several centers is at their
mean. "Own" distances are those of the head, hyperbolic or the chord; the angle
is what cosine scoring uses. The last row has random points of the same number
and dimension, which have no hierarchy: in many dimensions they are nearly
equidistant, and a star is a tree, so no figure means much by itself.
"""

import collections
import pathlib

import numpy as np
import torch
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist, squareform

from benchmarks import make_parser, table
from benchmarks.draws import mean_text
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
    own, angle = distances(centers)
    if is_hyperbolic(run.head):
        own = distance_matrix(run.head.similarity.points(centers))
    return names, own, angle


def distances(vectors):
    """Chords and angles between directions."""
    chord = squareform(pdist(torch.nn.functional.normalize(vectors)))
    return chord, 2 * np.arcsin((chord / 2).clip(max=1))


def gromov_delta(distances, quadruples=10**6):
    """How far distances are from a tree's, by Gromov's four-point condition.

    Four points have three sums of two opposite distances. Their delta is half
    the difference of the two largest, which is 0 in a tree. Returns twice the
    mean delta of random quadruples over the diameter (Khrulkov et al.,
    "Hyperbolic Image Embeddings", CVPR 2020, have the largest, which depends on
    a single quadruple). It grows with N: compare sets of one size.
    """
    random = np.random.default_rng(0)
    points = np.sort(random.integers(len(distances), size=(4, quadruples)), 0)
    a, b, c, d = points[:, (np.diff(points, axis=0) > 0).all(0)]
    pairs = ((a, b), (c, d)), ((a, c), (b, d)), ((a, d), (b, c))
    sums = np.sort([distances[x] + distances[y] for x, y in pairs], axis=0)
    return np.mean(sums[2] - sums[1]) / distances.max()


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


def measure(distances, labels):
    """Delta, and each label's purity in the dendrogram (average linkage) with
    the 95 % quantile of what chance gives.
    """
    found = {"Gromov delta": gromov_delta(distances)}
    linkage = hierarchy.linkage(squareform(distances), "average")
    random = np.random.default_rng(0)
    for name, values in labels.items():
        shuffled = (random.permutation(values) for _ in range(100))
        chance = [dendrogram_purity(linkage, values) for values in shuffled]
        found[f"{name}, purity"] = dendrogram_purity(linkage, values)
        found[f"{name}, by chance"] = np.quantile(chance, 0.95)
    return found


def main():
    parser = make_parser(__doc__)
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
    shape = len(space[0]), run.head.weight.shape[1]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(shape, generator=generator).double()
    systems["random"] = [(space[0], *distances(noise))]
    given = [n for n in LABELS if all(of.get(n) for of in known.values())]
    for kind, title in enumerate(("own distance", "angle"), 1):
        rows = []
        for name, spaces in systems.items():
            found = collections.defaultdict(list)
            for space in spaces:
                labels = {
                    label: np.array([known[s][label] for s in space[0]])
                    for label in given
                }
                for key, value in measure(space[kind], labels).items():
                    found[key].append(value)
            texts = {key: mean_text(of, 3) for key, of in found.items()}
            rows.append({"loss": name, "runs": len(spaces)} | texts)
        print(f"\n### By {title}, {shape[0]} centers\n\n{table(rows)}")


if __name__ == "__main__":
    with exit_on_error():
        main()
