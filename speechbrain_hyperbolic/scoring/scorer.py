"""From trial lists and audio files to scores.

Each utterance is embedded once and measured against the cohort once, however
many trials it is in.
"""

import functools
import pathlib
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.tables import read_table
from speechbrain_hyperbolic.dataio.trials import TrialList, trial_speakers
from speechbrain_hyperbolic.errors import InputError, shown
from speechbrain_hyperbolic.scoring.calibration import (
    Calibration,
    check_quality,
    quality_measures,
)
from speechbrain_hyperbolic.scoring.extraction import Embeddings
from speechbrain_hyperbolic.scoring.normalisation import (
    check_normalisation,
    cohort_statistics,
    normalise,
    speaker_means,
)
from speechbrain_hyperbolic.scoring.similarity import Score, enrol

logger = get_logger(__name__)


class Cohort(NamedTuple):
    """Utterances of many speakers, best none of whom is in a trial.

    Arguments
    ---------
    paths : dict
        Utterance id -> path.
    speakers : list of str
        Of each utterance.
    """

    paths: dict
    speakers: list


def read_cohort(
    csv_file: str | pathlib.Path, per_speaker: int, seed: int = 0
) -> Cohort:
    """Draws utterances of each speaker of a training annotation.

    Arguments
    ---------
    csv_file : str or pathlib.Path
        In the columns of the stock recipe, e.g. train.csv.
    per_speaker : int
        At most, drawn at random where there are more.
    seed : int

    Returns
    -------
    cohort : Cohort

    Raises
    ------
    InputError
        If there is no such file, it is not as ``read_table`` wants it, or has
        an audio file of two speakers.

    Example
    -------
    >>> path = pathlib.Path(getfixture("tmpdir")) / "train.csv"
    >>> _ = path.write_text("ID,wav,spk_id\\na/1,1.wav,a\\na/2,2.wav,a\\n")
    >>> read_cohort(path, per_speaker=1).speakers
    ['a']
    """
    csv_file = pathlib.Path(csv_file)
    if not csv_file.is_file():
        raise InputError(
            f"cohort_file {csv_file} is missing: pass the train.csv of the "
            "training run as --cohort_file"
        )
    owners: dict[str, str] = {}  # each file once: the stock's rows are pieces
    for line, row in read_table(csv_file, ("wav", "spk_id")):
        wav, speaker = row["wav"], row["spk_id"]
        if owners.setdefault(wav, speaker) != speaker:
            raise InputError(
                f"{csv_file}, line {line}: {shown(wav)} is of {shown(speaker)} "
                f"and of {shown(owners[wav])}: remove one of the rows"
            )
    files: dict[str, list[str]] = {}
    for wav, speaker in owners.items():
        files.setdefault(speaker, []).append(wav)
    generator = random.Random(seed)
    paths: dict[str, pathlib.Path] = {}
    speakers = []
    for speaker in sorted(files):
        own = sorted(files[speaker])
        if len(own) > per_speaker:
            own = sorted(generator.sample(own, per_speaker))
        paths.update((wav, pathlib.Path(wav)) for wav in own)
        speakers += [speaker] * len(own)
    return Cohort(paths, speakers)


class Scorer:
    """Scores trial lists: enrolment, comparison, normalisation.

    Arguments
    ---------
    embed : callable
        From a dict of paths to ``Embeddings``, see ``extraction.extract``.
    score : speechbrain_hyperbolic.scoring.similarity.Score
    enrolment : str
        "mean" or "midpoint", see ``similarity.enrol``.
    clip_c : float
        For the midpoint.
    normalisation : str
        See ``normalisation.NORMALISATIONS``; None: raw scores.
    cohort : Cohort
        For the normalisation.
    top_k : int
        Of the cohort, for as-norm.
    """

    def __init__(
        self,
        embed: Callable,
        score: Score,
        enrolment: str = "mean",
        clip_c: float = 3.0,
        normalisation: str | None = None,
        cohort: Cohort | None = None,
        top_k: int = 300,
    ) -> None:
        self.embed = embed
        self.score = score
        self.enrolment = enrolment
        self.clip_c = clip_c
        self.normalisation = normalisation
        self.top_k = top_k if normalisation == "as-norm" else None
        self.cohort = None
        if normalisation is not None:
            if cohort is None:
                raise InputError(
                    f"{normalisation} needs a cohort: give one, or no "
                    "normalisation"
                )
            check_normalisation(normalisation, self.top_k)
            # Before hours of embedding, for what can be known now.
            _check_size(len(set(cohort.speakers)), self.top_k)
            embeddings = embed(cohort.paths)
            means = speaker_means(embeddings.views, cohort.speakers)
            self.cohort = score.prepare(means)

    def __call__(
        self, trials: TrialList, paths: dict
    ) -> tuple[np.ndarray, dict]:
        """Scores a trial list.

        Arguments
        ---------
        trials : TrialList
        paths : dict
            Utterance id -> path, of all of its utterances.

        Returns
        -------
        scores : np.ndarray
            float64, shape [N].
        sides : dict
            For ``calibration.quality_measures``: measure -> (enrol, test),
            its values in each trial.
        """
        embeddings = self.embed({u: paths[u] for u in trials.utterances})
        test = self.score.prepare(embeddings.views)
        if all(len(rows) == 1 for rows in trials.members):
            # Models are utterances: no second table, and no second cohort.
            models = test
            enrol_rows = np.concatenate(trials.members)[trials.enrol]
        else:
            models = self.score.prepare(
                enrol(
                    embeddings.views,
                    trials.members,
                    self.enrolment,
                    self.clip_c,
                )
            )
            enrol_rows = trials.enrol
        scores = self.score.trials(models, test, enrol_rows, trials.test)
        if self.normalisation is not None and self.cohort is not None:
            statistics = functools.partial(
                cohort_statistics,
                self.score,
                cohort=self.cohort,
                top_k=self.top_k,
            )
            of_test = statistics(test)
            of_models = of_test if models is test else statistics(models)
            scores = normalise(
                self.normalisation,
                scores,
                enrol_rows,
                trials.test,
                of_models,
                of_test,
            )
        return scores, _sides(trials, embeddings)


def _check_size(speakers: int, top_k: int | None) -> None:
    if speakers < (top_k or 2):
        raise InputError(
            f"the cohort has {speakers} speakers, expected at least "
            f"{top_k or 2}: pass a cohort_file with more, or a smaller --top_k"
        )


def _sides(
    trials: TrialList, embeddings: Embeddings
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of a model of several utterances, all their speech, and their mean
    radius.
    """
    durations = embeddings.durations
    radii = embeddings.views[:, 0].norm(dim=-1).double().numpy()
    model_durations = np.array([durations[m].sum() for m in trials.members])
    model_radii = np.array([radii[m].mean() for m in trials.members])
    return {
        "duration": (model_durations[trials.enrol], durations[trials.test]),
        "radius": (model_radii[trials.enrol], radii[trials.test]),
    }


def check_held_out(calibration: TrialList, trials: TrialList) -> None:
    """Refuses to calibrate on speakers of the trials themselves.

    Arguments
    ---------
    calibration : TrialList
    trials : TrialList

    Raises
    ------
    InputError
        If they share a speaker.
    """
    shared = trial_speakers(calibration) & trial_speakers(trials)
    if shared:
        raise InputError(
            f"calibration_file shares {len(shared)} speakers with "
            f"verification_file, e.g. {min(shared)}: calibrate on a list of "
            "other speakers"
        )


def warn_of_training_speakers(
    csv_file: str | pathlib.Path, **lists: TrialList
) -> None:
    """Warns of trials whose speakers trained the encoder.

    Arguments
    ---------
    csv_file : str or pathlib.Path
        The train.csv of its training; nothing is known without.
    **lists : TrialList
        By the name of their key.
    """
    if not pathlib.Path(csv_file).is_file():
        return
    trained = set(read_cohort(csv_file, per_speaker=1).speakers)
    for key, trials in lists.items():
        shared = trained & trial_speakers(trials)
        if shared:
            logger.warning(
                f"{len(shared)} speakers of {key}, e.g. {min(shared)}, "
                f"trained the encoder ({csv_file}): its figures flatter"
            )


def calibrate(
    scorer: Scorer,
    trials: TrialList,
    paths: dict,
    quality: Sequence[str],
    p_target: float = 0.01,
) -> Calibration:
    """Fits a calibration on a trial list.

    Arguments
    ---------
    scorer : Scorer
    trials : TrialList
    paths : dict
        Utterance id -> path.
    quality : sequence of str
        See ``calibration.QUALITY``.
    p_target : float
        Where it is to be best.

    Returns
    -------
    calibration : Calibration
    """
    check_quality(quality)
    scores, sides = scorer(trials, paths)
    return Calibration.fit(
        features(scores, sides, quality), trials.labels, quality, p_target
    )


def features(
    scores: np.ndarray, sides: dict, quality: Sequence[str]
) -> np.ndarray:
    """What a calibration takes: the scores and quality measures of trials.

    Arguments
    ---------
    scores : np.ndarray
        Shape [N].
    sides : dict
        As ``Scorer`` gives them.
    quality : sequence of str
        Those of them to use.

    Returns
    -------
    features : np.ndarray
        Shape [N, F].
    """
    if not quality:
        return scores[:, None]
    chosen = quality_measures({name: sides[name] for name in quality})
    return np.column_stack([scores, chosen])
