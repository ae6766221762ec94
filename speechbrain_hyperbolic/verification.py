"""Scores trials with an encoder, and says how well.

Every utterance is embedded once, whole and on its own, so a score does not
depend on what else is in the list.
"""

import json
import pathlib

import numpy as np
import torch
import tqdm
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.corpus import find_audio, speaker_of
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.geometry import clip_to_ball, paired_distance
from speechbrain_hyperbolic.metrics import P_TARGETS, evaluate

logger = get_logger(__name__)

SCORES = ("cosine", "hyperbolic")
# An encoder's convolutions need some frames: shorter utterances are repeated.
SHORTEST = 0.1  # seconds


def check_score(score):
    """Checks the name of a score.

    Arguments
    ---------
    score : str

    Raises
    ------
    InputError
        If there is no such score.
    """
    if score not in SCORES:
        raise InputError(f"score is {score!r}, expected one of {SCORES}")


def locate(trials, data_folder, trial_list):
    """The audio file of each utterance of a trial list.

    Arguments
    ---------
    trials : list of Trial
    data_folder : str or pathlib.Path
    trial_list : str or pathlib.Path
        Where the trials are from, for the message.

    Returns
    -------
    paths : dict
        Utterance id -> path.

    Raises
    ------
    InputError
        Names the first missing utterance and how many there are.
    """
    first_use = {}
    for number, trial in enumerate(trials, start=1):
        for utterance in (trial.enrol, trial.test):
            first_use.setdefault(utterance, number)
    paths = find_audio(data_folder, first_use)
    missing = [utterance for utterance, path in paths.items() if path is None]
    if missing:
        raise InputError(
            f"{trial_list}, trial {first_use[missing[0]]}: {missing[0]} is "
            f"not in data_folder {data_folder} ({len(missing)} of "
            f"{len(paths)} utterances are missing): complete the folder or "
            "remove those trials"
        )
    return paths


class Encoder:
    """From waveforms to embeddings, in evaluation mode.

    Arguments
    ---------
    compute_features : torch.nn.Module
        Called with waveforms [1, time].
    mean_var_norm : torch.nn.Module
        Called with (features, lengths).
    embedding_model : torch.nn.Module
        Called with (features, lengths); gives [1, 1, D].
    device : str
    """

    def __init__(
        self, compute_features, mean_var_norm, embedding_model, device="cpu"
    ):
        self.device = torch.device(device)
        self.modules = [
            module.to(self.device).eval()
            for module in (compute_features, mean_var_norm, embedding_model)
        ]

    @torch.no_grad()
    def __call__(self, waveform):
        """Embeds one utterance.

        Arguments
        ---------
        waveform : torch.Tensor
            Shape [time], at the sample rate of training.

        Returns
        -------
        embedding : torch.Tensor
            float32 on the CPU, shape [D], not normalised.
        """
        compute_features, mean_var_norm, embedding_model = self.modules
        length = torch.ones(1, device=self.device)
        features = compute_features(waveform.to(self.device).unsqueeze(0))
        features = mean_var_norm(features, length)
        return embedding_model(features, length).flatten().float().cpu()


def embed(encoder, paths, sample_rate=16000):
    """Embeds utterances, with a progress bar.

    Arguments
    ---------
    encoder : Encoder
    paths : dict
        Utterance id -> path.
    sample_rate : int
        Of training, in Hz.

    Returns
    -------
    embeddings : dict
        Utterance id -> tensor of shape [D].
    """
    bar = tqdm.tqdm(
        paths.items(), desc="Embedding", unit="utterance", dynamic_ncols=True
    )
    shortest = int(SHORTEST * sample_rate)
    embeddings = {}
    for utterance, path in bar:
        waveform = audio.load(path, sample_rate)
        if len(waveform) < shortest:
            waveform = audio.repeat_to(waveform, shortest)
        embeddings[utterance] = encoder(waveform)
    return embeddings


def score_trials(trials, embeddings, score="cosine", c=3.0):
    """Scores of trials, higher for the same speaker.

    Arguments
    ---------
    trials : list of Trial
    embeddings : dict
        Utterance id -> tensor of shape [D].
    score : str
        "cosine", or "hyperbolic": minus the distance, after the clip of
        training.
    c : float
        Of that clip.

    Returns
    -------
    scores : np.ndarray
        float64, shape [trials].

    Raises
    ------
    InputError
        If there is no such score, or an embedding is not finite.
    """
    check_score(score)
    rows = {utterance: row for row, utterance in enumerate(embeddings)}
    matrix = torch.stack(list(embeddings.values())).double()
    broken = ~matrix.isfinite().all(1)
    if broken.any():
        worst = list(embeddings)[int(broken.nonzero()[0])]
        raise InputError(
            f"the embedding of {worst} is not finite ({int(broken.sum())} of "
            f"{len(matrix)}): the model's training has diverged"
        )
    enrol = torch.tensor([rows[t.enrol] for t in trials])
    test = torch.tensor([rows[t.test] for t in trials])
    blocks = [
        _score(matrix[e], matrix[t], score, c)
        for e, t in zip(enrol.split(65536), test.split(65536), strict=True)
    ]
    return torch.cat(blocks).numpy()


def _score(enrol, test, score, c):
    if score == "cosine":
        return torch.nn.functional.cosine_similarity(enrol, test, dim=-1)
    return -paired_distance(clip_to_ball(enrol, c), clip_to_ball(test, c))


def evaluate_trials(trials, scores, speakers=None, replicates=1000):
    """Error rates over all trials, and over those of speakers of one sex.

    Arguments
    ---------
    trials : list of Trial
    scores : np.ndarray
        Shape [trials].
    speakers : dict
        Speaker -> dict with "sex", as ``read_speakers`` gives; the second row
        needs it.
    replicates : int
        Of the bootstrap over speakers.

    Returns
    -------
    results : dict
        "all trials" and, where known, "same-sex trials" -> what
        ``metrics.evaluate`` gives.
    """
    labels = np.array([t.label for t in trials])
    enrol = np.array([speaker_of(t.enrol) for t in trials])
    test = np.array([speaker_of(t.test) for t in trials])

    subsets = {"all trials": np.ones(len(trials), bool)}
    sex = {s: row.get("sex") for s, row in (speakers or {}).items()}
    same = np.array(
        [
            bool(sex.get(a)) and sex.get(a) == sex.get(b)
            for a, b in zip(enrol, test, strict=True)
        ]
    )
    if len(np.unique(labels[same])) == 2:
        subsets["same-sex trials"] = same
    return {
        name: evaluate(
            scores[chosen],
            labels[chosen],
            enrol[chosen],
            test[chosen],
            replicates=replicates,
        )
        for name, chosen in subsets.items()
    }


def write_scores(trials, scores, path):
    """Writes ``enrol test label score`` a line, as the stock script does.

    Arguments
    ---------
    trials : list of Trial
    scores : np.ndarray
        Shape [trials].
    path : str or pathlib.Path
    """
    with atomic_path(path) as temporary:
        temporary.write_text(
            "".join(
                f"{t.enrol} {t.test} {t.label} {s:f}\n"
                for t, s in zip(trials, scores, strict=True)
            ),
            encoding="utf-8",
        )


def read_scores(path):
    """Reads what ``write_scores``, or the stock script, wrote.

    Arguments
    ---------
    path : str or pathlib.Path

    Returns
    -------
    scores : np.ndarray
        Shape [trials].
    labels : np.ndarray
        Integers, shape [trials].
    """
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    labels, scores = zip(*(line.split()[2:] for line in lines), strict=True)
    return np.array(scores, float), np.array(labels, int)


def write_results(results, path):
    """Writes what ``evaluate_trials`` gave, as JSON.

    Arguments
    ---------
    results : dict
    path : str or pathlib.Path
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(results, indent=2) + "\n")


def read_results(path):
    """Reads what ``write_results`` wrote.

    Arguments
    ---------
    path : str or pathlib.Path

    Returns
    -------
    results : dict
    """
    return json.loads(pathlib.Path(path).read_text())


def format_results(results):
    """A table for people.

    Arguments
    ---------
    results : dict
        Name -> what ``metrics.evaluate`` gives.

    Returns
    -------
    table : str
        Markdown; 95 % intervals by bootstrap over speakers in brackets, of
        ten speakers or more.
    """
    costs = [f"min_dcf_{p:g}" for p in P_TARGETS]
    header = ["", "trials", "EER %", *(f"minDCF({p:g})" for p in P_TARGETS)]
    rows = [header]
    for name, result in results.items():
        low_high = result["intervals"] or {}
        rows.append(
            [
                name,
                f"{result['n_target']} + {result['n_nontarget']}",
                _with_interval(result["eer"], low_high.get("eer"), 100, 2),
                *(
                    _with_interval(result[k], low_high.get(k), 1, 3)
                    for k in costs
                ),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| "
        + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True))
        + " |"
        for row in rows
    )


def interval_note(results):
    """What is to be said of the intervals of a table.

    Arguments
    ---------
    results : dict
        Name -> what ``metrics.evaluate`` gives.

    Returns
    -------
    note : str
    """
    if all(result["intervals"] for result in results.values()):
        return "in brackets 95 % intervals by bootstrap over speakers"
    return "too few speakers for intervals"


def _with_interval(value, interval, factor, digits):
    text = f"{factor * value:.{digits}f}"
    if interval:
        low, high = (f"{factor * bound:.{digits}f}" for bound in interval)
        text += f" [{low}, {high}]"
    return text
