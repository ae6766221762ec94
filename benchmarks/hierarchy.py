"""How tree-like trained speaker spaces are, from the folders of trainings.

> python -m benchmarks.hierarchy OUTPUT_FOLDER [OUTPUT_FOLDER ...] \
      --speakers=speakers.csv

Runs of one name before the seed (loss.1, loss.2) are one row: the mean, and
the standard deviation. A speaker of several centres is at their mean.
"Own" distances are those of the head, hyperbolic or cosine; as the angle is
what cosine scoring uses, each is measured by angles too. A folder of
benchmarks.losses has embeddings of speakers who did not train as well.
"""

import argparse
import pathlib
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.losses.cells import EMBEDDINGS
from benchmarks.measure import commit, machine, row, title
from benchmarks.robustness.models import loss_and_seed
from speechbrain_hyperbolic.analysis.trained import read_trained
from speechbrain_hyperbolic.dataio.corpus import (
    read_speaker_table,
    speaker_of,
)
from speechbrain_hyperbolic.errors import InputError, exit_on_input_error
from speechbrain_hyperbolic.geometry import pairwise_distance
from speechbrain_hyperbolic.hierarchy.dendrograms import (
    chance,
    cophenetic_correlation,
    dendrogram,
    dendrogram_purity,
)
from speechbrain_hyperbolic.hierarchy.four_points import gromov_delta
from speechbrain_hyperbolic.hierarchy.planes import (
    embed_in_disk,
    embed_in_plane,
    plane_distortion,
)
from speechbrain_hyperbolic.hierarchy.references import (
    hyperbolic_sample,
    sphere_sample,
    tree_sample,
)
from speechbrain_hyperbolic.hierarchy.trees import (
    LEVELS,
    tree_correlation,
    tree_distances,
)

LABELS = ("sex", "age_group")


class Space(NamedTuple):
    """Speakers and how far they are from each other.

    Arguments
    ---------
    speakers : list of str
    own : np.ndarray
        By the head's distance, shape [N, N]; a Euclidean head's is the chord.
    angle : np.ndarray
        In radians, shape [N, N].
    """

    speakers: list
    own: np.ndarray
    angle: np.ndarray


def main():
    """Reads the command line, measures, prints tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hierarchy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", metavar="OUTPUT_FOLDER")
    parser.add_argument("--speakers", required=True, help="speakers.csv")
    options = parser.parse_args()
    table = read_speaker_table(options.speakers)
    centres, unseen = {}, {}
    for folder in map(pathlib.Path, options.folders):
        run = read_trained(folder)
        system, _ = loss_and_seed(folder.resolve().name)
        centres.setdefault(system, []).append(of_centres(run))
        if (folder / EMBEDDINGS).is_file():
            unseen.setdefault(system, []).append(of_embeddings(run, folder))
    print(f"{machine()}; commit {commit()}")
    groups = {"centres": centres}
    if unseen:
        groups["speakers who did not train"] = unseen
    for what, systems in groups.items():
        check_known(systems, table, options.speakers)
        deltas(what, systems)
    references(len(next(iter(centres.values()))[0].speakers))
    for name in LABELS:
        if all(of.get(name) for of in table.values()):
            for what, systems in groups.items():
                recovery(name, systems, what, table)
    planes(centres)
    if all(of.get(level) for of in table.values() for level in LEVELS):
        for what, systems in groups.items():
            trees(systems, what, table)


def check_known(systems, table, path):
    """Refuses a table that lacks a speaker."""
    for spaces in systems.values():
        for speaker in spaces[0].speakers:
            if speaker not in table:
                raise InputError(f"{path} has no row of speaker {speaker}")


def of_centres(run):
    """The centres of a training, one of each speaker."""
    speakers = np.array(run.speakers)
    names = sorted(set(run.speakers))
    means = torch.stack([run.centres[speakers == n].mean(0) for n in names])
    return space(run, names, means, embeddings=False)


def of_embeddings(run, folder):
    """The mean embeddings of speakers who did not train."""
    with np.load(folder / EMBEDDINGS, allow_pickle=False) as file:
        utterances, vectors = file["utterances"], file["embeddings"]
    speakers = np.array([speaker_of(utterance) for utterance in utterances])
    names = sorted(set(speakers))
    means = np.stack([vectors[speakers == n].mean(0) for n in names])
    means = torch.from_numpy(means).double()
    return space(run, names, means, embeddings=True)


@torch.no_grad()
def space(run, speakers, vectors, embeddings):
    """Both distances between speakers, given by centres or embeddings."""
    unit = torch.nn.functional.normalize(vectors)
    cosine = (unit @ unit.T).clamp(-1, 1).numpy()
    angle = np.arccos(cosine)
    own = np.sqrt(np.maximum(2 - 2 * cosine, 0))
    if run.has_radius:
        points = run.similarity.points(vectors, embeddings)
        own = pairwise_distance(points, points).numpy()
    for distances in (own, angle):
        np.fill_diagonal(distances, 0)
    return Space(speakers, own, angle)


def over_runs(values, digits=3):
    """The mean, and of several the standard deviation."""
    text = f"{np.mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {np.std(values, ddof=1):.{digits}f}"
    return text


def deltas(what, systems):
    """Gromov delta of each system."""
    title(
        f"Relative Gromov delta of {what}: mean, worst",
        "loss",
        "runs",
        "own distance",
        "angle",
    )
    for name, spaces in systems.items():
        cells = []
        for of in ("own", "angle"):
            found = [gromov_delta(getattr(space, of)) for space in spaces]
            worst, average = zip(*found, strict=True)
            cells.append(f"{over_runs(average)}, {np.mean(worst):.3f}")
        row(name, len(spaces), *cells)


def references(n):
    """What the delta is of points whose shape is known."""
    title(f"References, {n} points at random", "points", "delta: mean, worst")
    known = {
        "leaves of a tree": tree_sample(n, 3),
        "hyperbolic plane, radius 6": hyperbolic_sample(n, 2, 6.0),
        "hyperbolic, 192 dimensions, radius 1.317": hyperbolic_sample(
            n, 192, 1.317
        ),
        "sphere in 3 dimensions": sphere_sample(n, 3),
        "sphere in 192 dimensions": sphere_sample(n, 192),
    }
    for name, distances in known.items():
        worst, average = gromov_delta(distances)
        row(name, f"{average:.3f}, {worst:.3f}")


def recovery(label, systems, what, table):
    """How well a dendrogram has the labels together."""
    title(
        f"{label} in the dendrogram of {what} (average linkage)",
        "loss",
        "purity, own distance",
        "by angle",
        "by chance (95 %)",
        "cophenetic correlation, own",
        "by angle",
    )
    for name, spaces in systems.items():
        measured = []
        for of in spaces:
            labels = [table[speaker][label] for speaker in of.speakers]
            own, angle = dendrogram(of.own), dendrogram(of.angle)
            by_chance = chance(
                lambda drawn, own=own: dendrogram_purity(own, drawn), labels
            )
            measured.append(
                (
                    dendrogram_purity(own, labels),
                    dendrogram_purity(angle, labels),
                    by_chance.mean,
                    by_chance.high,
                    cophenetic_correlation(of.own, own),
                    cophenetic_correlation(of.angle, angle),
                )
            )
        own, angle, expected, high, *correlations = zip(*measured, strict=True)
        row(
            name,
            over_runs(own),
            over_runs(angle),
            f"{np.mean(expected):.3f} ({np.mean(high):.3f})",
            *(over_runs(values, 2) for values in correlations),
        )


def planes(systems):
    """What distances between centres lose in two dimensions."""
    title(
        "Centres in 2-D (first seed): stress, mean relative error",
        "loss",
        "own distance, Poincare disk",
        "Euclidean plane",
        "angle, Poincare disk",
        "Euclidean plane",
    )
    for name, spaces in systems.items():
        cells = []
        for of in ("own", "angle"):
            for embed in (embed_in_disk, embed_in_plane):
                # One run: it takes seconds.
                distances = getattr(spaces[0], of)
                planar = embed(distances).distances
                lost = plane_distortion(distances, planar)
                cells.append(f"{lost.stress:.3f}, {lost.mean:.3f}")
        row(name, *cells)


def trees(systems, what, table):
    """Whether distances follow a tree that is known."""
    title(
        f"Known tree of {what} ({' > '.join(LEVELS)}): Spearman correlation",
        "loss",
        "own distance, largest p",
        "angle",
    )
    for name, spaces in systems.items():
        cells = []
        for of in ("own", "angle"):
            found = [
                tree_correlation(
                    getattr(s, of),
                    tree_distances(
                        [
                            tuple(table[speaker][level] for level in LEVELS)
                            + (speaker,)
                            for speaker in s.speakers
                        ]
                    ),
                )
                for s in spaces
            ]
            rho = over_runs([f.rho for f in found])
            cells.append(f"{rho}, {max(f.p_value for f in found):.3f}")
        row(name, *cells)


if __name__ == "__main__":
    with exit_on_input_error():
        main()
