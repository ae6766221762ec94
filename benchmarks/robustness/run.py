"""Embeds the utterances in each condition by each model, and scores them."""

import csv
import os
import platform
from importlib.metadata import version
from itertools import groupby, product

import numpy as np
import torch
import tqdm

from benchmarks.measure import commit
from benchmarks.robustness.conditions import CONDITIONS, VERSION
from benchmarks.robustness.corpus import cached, features
from benchmarks.robustness.models import load_model
from benchmarks.robustness.results import add_result, open_results
from benchmarks.robustness.scoring import evaluate
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.scoring.extraction import Encoder

_BATCH = 64  # utterances of one length
_PACKAGES = ("torch", "speechbrain", "av")


class System:
    """A model and its embeddings of a corpus, which are kept in files."""

    def __init__(self, folder, corpus, cache_folder, device):
        self.folder = folder
        self.model = load_model(folder)
        modules = self.model.modules
        # What it is given are features.
        self.encoder = Encoder(
            torch.nn.Identity(),
            modules["mean_var_norm"],
            modules["embedding_model"],
            device,
        )
        self.fingerprint = self.encoder.fingerprint()[:16]
        self.corpus, self.cache_folder = corpus, cache_folder

    def embed(self, condition):
        """Embeddings of all utterances, shape [N, D], and their seconds."""
        name = f"{self.fingerprint}-{self.corpus.digest()}-{condition}"
        path = self.cache_folder / f"embeddings-v{VERSION}-{name}.npz"
        arrays = cached(path, lambda: self._embed(condition))
        return torch.from_numpy(arrays["embeddings"]), arrays["seconds"]

    def _embed(self, condition):
        frames, seconds = features(
            self.corpus, condition, self.model.front_end, self.cache_folder
        )
        order = sorted(range(len(frames)), key=lambda i: len(frames[i]))
        groups = groupby(order, key=lambda index: len(frames[index]))
        embedded = [
            self.encoder(batch)
            for _, of_length in groups
            for batch in torch.stack([frames[i] for i in of_length]).split(
                _BATCH
            )
        ]
        embeddings = torch.cat(embedded)[np.argsort(order)]
        broken = ~embeddings.isfinite().all(1)
        if broken.any():
            utterance = [*self.corpus.paths][int(broken.nonzero()[0])]
            raise InputError(
                f"{self.folder}: the embedding of {utterance} is not finite: "
                "its training has diverged"
            )
        return {"embeddings": embeddings, "seconds": seconds}


def run(systems, corpus, path, conditions=CONDITIONS, matched=False):
    """Measures what the file of results does not have yet.

    Arguments
    ---------
    systems : list of System
    corpus : Corpus
    path : str or pathlib.Path
        The file of results, to which a line is added for each model and
        condition.
    conditions : iterable of str
        Of the test utterances.
    matched : bool
        Enrol in the same condition; else clean.
    """
    results, file = open_results(path)
    wanted = {
        "enrolment": "matched" if matched else "clean",
        "corpus": corpus.name,
        "data": corpus.digest(),
    }
    about = describe()
    there = {
        (r["model"], r["weights"], r["condition"])
        for r in results
        if all(r[key] == value for key, value in wanted.items())
    }
    todo = [
        (condition, system)
        for condition, system in product(conditions, systems)
        if (system.model.name, system.fingerprint, condition) not in there
    ]
    with file:
        for condition, system in tqdm.tqdm(todo, "scoring", dynamic_ncols=True):
            test, _ = system.embed(condition)
            enrol = test if matched else system.embed("clean")[0]
            add_result(
                file,
                {
                    "model": system.model.name,
                    "loss": system.model.loss,
                    "seed": system.model.seed,
                    "weights": system.fingerprint,
                    "condition": condition,
                    **wanted,
                    **evaluate(enrol, test, corpus.speakers, corpus.sexes),
                    "n_speakers": len(set(corpus.speakers)),
                    "n_utterances": len(corpus.paths),
                    "utterances_per_speaker": corpus.utterances_per_speaker,
                    **about,
                },
            )


def write_radii(systems, maps, corpus, path, conditions=CONDITIONS):
    """Writes how long each embedding is, and where the map puts it.

    Columns: ``seconds`` of audio; ``snr`` that was asked for, in dB;
    ``likeness``, the cosine with the mean of the speaker's other utterances
    as recorded; ``norm`` of the embedding; and of models with a hyperbolic head
    ``scaled_norm``, what the map is given; ``radius``, the hyperbolic one
    that it gives (curvature -1); and ``cap``, the largest that it would.

    Arguments
    ---------
    systems : list of System
    maps : list of HyperbolicSimilarity
        Of each system, as ``models.load_map`` gives.
    corpus : Corpus
    path : str or pathlib.Path
        A CSV file, which appears when it is whole.
    conditions : iterable of str
    """
    header = (
        *("model", "loss", "seed", "utterance", "speaker", "condition"),
        *("seconds", "snr", "likeness"),
        *("norm", "scaled_norm", "radius", "cap"),
    )
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        for system, similarity in zip(systems, maps, strict=True):
            model = system.model
            others = _others(system.embed("clean")[0], corpus.speakers)
            for condition in conditions:
                embeddings, seconds = system.embed(condition)
                likeness = torch.cosine_similarity(embeddings, others)
                for utterance, speaker, length, like, numbers in zip(
                    corpus.paths,
                    corpus.speakers,
                    seconds.tolist(),
                    likeness.tolist(),
                    _radii(embeddings, similarity),
                    strict=True,
                ):
                    writer.writerow(
                        [model.name, model.loss, model.seed, utterance, speaker]
                        + [condition, length, CONDITIONS[condition].snr]
                        + [f"{number:.6g}" for number in (like, *numbers)]
                    )


def _others(embeddings, speakers):
    """Of each utterance the sum of its speaker's others."""
    unit = torch.nn.functional.normalize(embeddings)
    names = np.asarray(speakers)
    same = torch.from_numpy(names[:, None] == names).fill_diagonal_(False)
    return same.to(unit.dtype) @ unit


@torch.no_grad()
def _radii(embeddings, similarity):
    """Of each embedding its norm, and those that the map gives it."""
    norm = embeddings.norm(dim=1)
    if similarity is None:
        return norm.unsqueeze(1).tolist()
    scaled = norm * similarity.embedding_scale
    _, radius = similarity.stretch_and_radius(scaled)
    cap = torch.full_like(norm, similarity.cap)
    return torch.stack([norm, scaled, radius, cap], 1).tolist()


def describe():
    """The commit of this repository, and the machine."""
    packages = [f"{name} {version(name)}" for name in _PACKAGES]
    packages.append(f"Python {platform.python_version()}")
    return {
        "commit": commit(),
        "machine": f"{', '.join(packages)}; {os.cpu_count()} cores",
    }
