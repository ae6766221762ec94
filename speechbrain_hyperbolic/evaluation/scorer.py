"""From trial lists and audio files to scores."""

import pathlib
import random
from collections.abc import Callable

import numpy as np
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.files import StrPath, existing
from speechbrain_hyperbolic.dataio.tables import read_table
from speechbrain_hyperbolic.dataio.trials import TrialList, trial_speakers
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.extraction import Embeddings
from speechbrain_hyperbolic.evaluation.normalization import (
    Statistics,
    cohort_statistics,
    normalize,
)
from speechbrain_hyperbolic.evaluation.scores import (
    Hyperbolic,
    Score,
    Table,
    enroll,
)
from speechbrain_hyperbolic.geometry import cap_norm

logger = get_logger(__name__)


def read_cohort(csv_file: StrPath, per_speaker: int) -> dict[str, str]:
    """Path -> speaker: up to ``per_speaker`` files of each in a train.csv."""
    csv_file = existing(csv_file, "cohort_file, a training's train.csv")
    files: dict[str, set[str]] = {}
    # The stock recipe lists pieces of a file in rows of their own.
    for _, row in read_table(csv_file, ("wav", "spk_id")):
        files.setdefault(row["spk_id"], set()).add(row["wav"])
    generator = random.Random(0)
    cohort: dict[str, str] = {}
    for speaker, wavs in sorted(files.items()):
        count = min(len(wavs), per_speaker)
        own = generator.sample(sorted(wavs), count)
        cohort |= dict.fromkeys(own, speaker)
    return cohort


class Scorer:
    """Scores trial lists: enrollment, comparison, normalization.

    ``embed`` maps a dict of paths to ``Embeddings``, as
    ``functools.partial(extract, encoder)`` does.
    """

    def __init__(
        self,
        embed: Callable[[dict], Embeddings],
        score: Score,
        enrollment: str = "mean",
        clip_c: float = 3.0,
        normalization: str | None = None,
        cohort: dict[str, str] | None = None,
        top_k: int = 300,
    ) -> None:
        self.embed = embed
        self.score = score
        self.enrollment = enrollment
        self.clip_c = clip_c
        self.normalization = normalization
        self.top_k = top_k if normalization == "as-norm" else None
        self.cohort: Table = ()
        if normalization:
            # Errors should come before hours of embedding.
            cohort = cohort or {}
            size = len(set(cohort.values()))
            if size < 2:
                raise InputError(
                    f"the cohort has {size} speakers, expected 2 or more, and "
                    "at best hundreds: pass a cohort_file with more"
                )
            if self.top_k and size < self.top_k:
                logger.warning(
                    f"the cohort has {size} speakers, fewer than top_k = "
                    f"{top_k}: as-norm uses all of them, as s-norm does"
                )
                self.top_k = size
            views = embed({path: path for path in cohort}).views
            members: dict[str, list[int]] = {}
            for row, speaker in enumerate(cohort.values()):
                members.setdefault(speaker, []).append(row)
            self.cohort = score.prepare(enroll(views, [*members.values()]))

    def __call__(
        self, trials: TrialList, paths: dict
    ) -> tuple[np.ndarray, dict]:
        """Scores [N] of trials, and measure -> its values (enroll, test)."""
        embeddings = self.embed({u: paths[u] for u in trials.utterances})
        if isinstance(self.score, Hyperbolic):
            _tell_of_the_cap(embeddings, self.score.c)
        test = self.score.prepare(embeddings.views)
        if all(len(rows) == 1 for rows in trials.members):
            # Models are utterances: they share the table and the statistics.
            models = test
            enroll_rows = np.concatenate(trials.members)[trials.enroll]
        else:
            views = enroll(
                embeddings.views, trials.members, self.enrollment, self.clip_c
            )
            models = self.score.prepare(views)
            enroll_rows = trials.enroll
        scores = self.score.trials(models, test, enroll_rows, trials.test)
        if self.normalization:
            of_test = self._statistics(test)
            of_models = of_test if models is test else self._statistics(models)
            scores = normalize(
                self.normalization,
                scores,
                enroll_rows,
                trials.test,
                of_models,
                of_test,
            )
        return scores, _sides(trials, embeddings)

    def _statistics(self, table: Table) -> Statistics:
        return cohort_statistics(self.score, table, self.cohort, self.top_k)


def _tell_of_the_cap(embeddings: Embeddings, c: float) -> None:
    """Says why hyperbolic scores may give the error rates of the cosine."""
    norms = embeddings.views.norm(dim=-1)
    share = 100 * float((norms >= cap_norm(c)).double().mean())
    logger.info(
        f"{share:.4g} % of the embeddings lie on the cap of clip_c = {c:g}, "
        "where the distance is a function of the cosine: if all do, error "
        "rates without crops, normalization and several utterances of a model "
        "are those of --score=cosine"
    )


def _sides(
    trials: TrialList, embeddings: Embeddings
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A model has its utterances' total duration and their mean radius."""
    durations = embeddings.durations
    radii = embeddings.views[:, 0].norm(dim=-1).double().numpy()
    model_durations = np.array([durations[m].sum() for m in trials.members])
    model_radii = np.array([radii[m].mean() for m in trials.members])
    return {
        "duration": (model_durations[trials.enroll], durations[trials.test]),
        "radius": (model_radii[trials.enroll], radii[trials.test]),
    }


def check_held_out(calibration: TrialList, trials: TrialList) -> None:
    """Refuses to calibrate on speakers of the trials themselves."""
    shared = trial_speakers(calibration) & trial_speakers(trials)
    if shared:
        raise InputError(
            f"calibration_file shares {len(shared)} speakers with "
            f"verification_file, such as {min(shared)}: calibrate on a list of "
            "other speakers"
        )


def warn_of_training_speakers(csv_file: StrPath, **lists: TrialList) -> None:
    """Warns of speakers in trials whom the encoder's train.csv has too."""
    if not pathlib.Path(csv_file).is_file():
        return
    trained = {row["spk_id"] for _, row in read_table(csv_file, ["spk_id"])}
    for key, trials in lists.items():
        shared = trained & trial_speakers(trials)
        if shared:
            logger.warning(
                f"{len(shared)} speakers of {key}, such as {min(shared)}, are "
                f"training speakers ({csv_file}): its error rates will be too "
                "low"
            )
