"""Who speaks: verification and identification with a trained model."""

import functools
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from speechbrain.dataio.preprocess import AudioNormalizer
from speechbrain.inference.speaker import SpeakerRecognition
from speechbrain.processing.features import InputNormalization

from speechbrain_hyperbolic.dataio.audio import repeat_to
from speechbrain_hyperbolic.dataio.files import StrPath
from speechbrain_hyperbolic.dataio.speech import is_silent, speech_windows
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation import scores
from speechbrain_hyperbolic.evaluation.calibration import (
    Calibration,
    features,
)
from speechbrain_hyperbolic.evaluation.extraction import SHORTEST
from speechbrain_hyperbolic.inference import model as model_files
from speechbrain_hyperbolic.inference.config import MODULES, ModelConfig
from speechbrain_hyperbolic.inference.download import explain_errors
from speechbrain_hyperbolic.inference.voiceprints import VoiceprintStore
from speechbrain_hyperbolic.inference.waveforms import Audio, read_audio

_CARD = """\
---
{{ card_data }}
---

A speaker model of speechbrain-hyperbolic:

    model = HyperbolicSpeakerRecognition.from_pretrained("user/model")
    score, same = model.verify_files("a.wav", "b.wav")
"""
# Less says next to nothing about a speaker.
MIN_SECONDS = 0.5
_SHOWN = 5  # speakers of a ranking


class Embedding(NamedTuple):
    """The embedding of an utterance."""

    vector: np.ndarray  # float32, shape [D], not normalized
    seconds: float  # of audio

    @property
    def radius(self) -> float:
        """The vector's Euclidean norm, before the clip."""
        return float(np.linalg.norm(self.vector))


class Identification(NamedTuple):
    """The speaker of an utterance, among those enrolled."""

    name: str | None  # None: unknown, no score is above the threshold
    score: float  # the highest
    threshold: float
    ranking: list[tuple[str, float]]  # the best speakers, best first


class HyperbolicSpeakerRecognition(
    SpeakerRecognition,
    ModelHubMixin,
    library_name="speechbrain",
    pipeline_tag="audio-classification",
    tags=["speaker-verification", "speechbrain-hyperbolic"],
    model_card_template=_CARD,
):
    """The stock SpeakerRecognition with measured thresholds, enrollment and
    identification.

    ``from_pretrained`` loads a model without running any of its code. The stock
    ``from_hparams``, which runs the model's YAML file, gives the same object.
    ``save_pretrained`` and ``push_to_hub`` are those of ModelHubMixin.

    Audio is a path, a file object, "-" for the standard input, or an array or
    tensor, [time], [channels, time] or [time, channels], of floats in [-1, 1]
    or of integers, at any sample rate. Channels are averaged, unless the
    attribute ``channel`` is the number of one, from 0. Of audio longer than
    60 s, windows of 30 s are embedded: the mean of their directions, times
    that of their norms.

    Pauses longer than 1.5 s are cut out, and audio without speech is refused.
    Set the attribute ``vad`` to False for the results of the stock class.

    Arguments
    ---------
    **kwargs : dict
        As for the stock class; ``hparams`` has "model_config", the fields of
        config.json.

    Example
    -------
    >>> from speechbrain_hyperbolic.inference import model as files
    >>> config = files.ModelConfig(
    ...     {"class": "speechbrain.lobes.features.Fbank", "n_mels": 40},
    ...     {"class": "speechbrain.processing.features.InputNormalization",
    ...      "norm_type": "sentence"},
    ...     {"class": "speechbrain.lobes.models.Xvector.Xvector"},
    ...     thresholds=files.Thresholds(0.3, {"0.01": 0.5}),
    ... )
    >>> encoder = files.build_modules(config)["embedding_model"]
    >>> folder = getfixture("tmp_path")
    >>> files.save_model(folder, config, encoder.state_dict())
    >>> model = HyperbolicSpeakerRecognition.from_pretrained(folder)
    >>> model.vad = False  # since this is no speech
    >>> noise = np.random.default_rng(0).uniform(-0.1, 0.1, 16000)
    >>> model.embed(noise).vector.shape
    (512,)
    >>> model.threshold_at(), model.threshold_at(0.01)
    (0.3, 0.5)
    """

    vad = True
    channel: int | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # A model of SpeechBrain's own has none.
        fields = getattr(self.hparams, "model_config", None)
        config = ModelConfig.from_dict(fields) if fields else self._stock()
        self.config: ModelConfig = config
        self.sample_rate = config.sample_rate
        self._score = scores.make_score(config.score, config.clip_c)

    def _stock(self) -> ModelConfig:
        """The classes of the modules, without arguments or thresholds."""
        rate = getattr(self.hparams, "sample_rate", None)
        kinds = (type(self.mods[name]) for name in MODULES)
        classes = [f"{kind.__module__}.{kind.__qualname__}" for kind in kinds]
        bands, norm, encoder = ({"class": name} for name in classes)
        rate = rate or self.audio_normalizer.sample_rate
        return ModelConfig(bands, norm, encoder, sample_rate=rate)

    # The mixin's own method reads config.json unchecked.
    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: StrPath,
        *,
        run_opts: dict | None = None,
        trusted: Iterable[str] = (),
        **hub_options: Any,
    ) -> "HyperbolicSpeakerRecognition":
        """Loads a model from its config.json and model.safetensors alone.

        The first argument is a model folder, or "user/model" on the Hugging
        Face Hub; ``hub_options`` are those of ``snapshot_download``, such as
        revision. ``run_opts`` is as for the stock class: {"device": "cuda"}.
        ``trusted`` names classes of your own, such as "my_package.MyEncoder".
        """
        source = str(pretrained_model_name_or_path)
        model_files.check_device((run_opts or {}).get("device"))
        if not os.path.exists(source):
            problem = f"{source} is not a folder, and can't be downloaded"
            with explain_errors(problem):
                source = snapshot_download(
                    source,
                    allow_patterns=[model_files.CONFIG, model_files.WEIGHTS],
                    library_name="speechbrain-hyperbolic",
                    **hub_options,
                )
        config, modules = model_files.load_model(source, trusted)
        # The stock class requires it, and uses it only on request.
        norm = InputNormalization(norm_type="global", std_norm=False)
        return cls(
            modules={**modules, "mean_var_norm_emb": norm},
            hparams={
                "model_config": config.to_dict(),
                "mean_var_norm_emb": norm,
                "audio_normalizer": AudioNormalizer(config.sample_rate),
            },
            run_opts=run_opts,
        )

    def _save_pretrained(self, save_directory: pathlib.Path) -> None:
        state = self.mods.embedding_model.state_dict()
        model_files.save_model(save_directory, self.config, state)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A sha256 that tells this model from all others."""
        state = self.mods.embedding_model.state_dict()
        return model_files.fingerprint(self.config, state)

    def threshold_at(self, false_accepts: float | None = None) -> float:
        """The threshold measured at a rate of false accepts, such as 0.01, or
        at the equal error rate; scores above it are accepted."""
        thresholds = self.config.thresholds
        if thresholds is None:
            raise InputError(
                "the model's thresholds have not been measured: pass one, or "
                "verify the model (recipes/VoxCeleb/speaker_verification.py, "
                "--n_crops=0) and export it again"
            )
        if false_accepts is None:
            return thresholds.eer
        return thresholds.at(false_accepts)

    def embed(self, audio: Audio, sample_rate: int | None = None) -> Embedding:
        """Embeds an utterance, or a recording of hours.

        ``sample_rate`` is that of an array, in Hz; None means the model's.
        Audio that is unreadable, without speech or too short raises InputError.
        """
        rate = self.sample_rate
        name, windows = read_audio(audio, sample_rate, rate, self.channel)
        samples, silent = 0, True

        def heard() -> Iterator[torch.Tensor]:
            nonlocal samples, silent
            for window in windows:
                samples += len(window)
                # The embedding of silence would look like any other.
                if not is_silent(window, rate):
                    silent = False
                    yield window

        shortest = int(SHORTEST * rate)
        directions, norms = 0.0, []
        for window in speech_windows(heard(), rate) if self.vad else heard():
            window = repeat_to(window, max(len(window), shortest))
            embedded = self.encode_batch(window[None]).detach().flatten()
            vector = embedded.float().cpu().numpy()
            # Summed, since kept small arrays would fragment the memory
            norms.append(float(np.linalg.norm(vector)))
            directions = directions + np.float64(vector) / norms[-1]
        seconds = samples / rate
        if seconds < MIN_SECONDS:
            raise InputError(
                f"{name} has {seconds:.2g} s of audio, expected {MIN_SECONDS} "
                "s or more: record a longer one"
            )
        if not norms:
            what = "is silent" if silent else "has no speech"
            raise InputError(f"{name} {what}: replace or leave it out")
        mean = directions / len(norms) * np.mean(norms)
        return Embedding(np.asarray(mean, np.float32), seconds)

    def verify_batch(
        self,
        wavs1: torch.Tensor,
        wavs2: torch.Tensor,
        wav1_lens: torch.Tensor | None = None,
        wav2_lens: torch.Tensor | None = None,
        threshold: float | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compares pairs of waveforms [batch, time], as the stock method.

        ``threshold`` None means the model's at the EER. Returns scores, and
        whether both are of the same speaker, [batch, 1].
        """
        if threshold is None:
            threshold = self.threshold_at()
        batches = ((wavs1, wav1_lens), (wavs2, wav2_lens))
        enroll, test = (
            # The ResNet gives [batch, D], the others [batch, 1, D].
            self._score.prepare(self.encode_batch(*batch).flatten(1)[:, None])
            for batch in batches
        )
        score = self._score.pairs(enroll, test).unsqueeze(1)
        return score, score > threshold

    def verify_files(
        self, path_x: StrPath, path_y: StrPath, threshold: float | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``verify_batch``, for two files; the results are [1]."""
        if threshold is None:
            threshold = self.threshold_at()
        score = self.score(self.embed(path_x), self.embed(path_y))
        return torch.tensor([score]), torch.tensor([score > threshold])

    def score(
        self,
        a: Embedding | np.ndarray | torch.Tensor,
        b: Embedding | np.ndarray | torch.Tensor,
    ) -> float:
        """Compares two embeddings or voiceprints; higher means more alike."""
        vectors = (x.vector if isinstance(x, Embedding) else x for x in (a, b))
        enrolled, tested = (torch.as_tensor(x).detach() for x in vectors)
        return float(self.score_matrix(enrolled[None], tested[None])[0, 0])

    def log_likelihood_ratio(self, a: Embedding, b: Embedding) -> float | None:
        """How many times likelier two utterances are of one speaker than of
        two, as a natural logarithm; None if the model is not calibrated."""
        if self.config.calibration is None:
            return None
        calibration = Calibration(**self.config.calibration)
        sides = {
            "duration": np.array([[a.seconds], [b.seconds]]),
            "radius": np.array([[a.radius], [b.radius]]),
        }
        scored = np.array([self.score(a, b)])
        return float(
            calibration(features(scored, sides, calibration.quality))[0]
        )

    def enroll(
        self, audios: Sequence[Audio], sample_rate: int | None = None
    ) -> np.ndarray:
        """A voiceprint, float32 [D]: the mean direction of utterances."""
        return self.voiceprint(
            [self.embed(audio, sample_rate).vector for audio in audios]
        )

    def voiceprint(self, vectors: Sequence[np.ndarray]) -> np.ndarray:
        """As ``enroll``, of embeddings [D] that are there already."""
        views = torch.from_numpy(np.stack(vectors)).unsqueeze(1)
        return scores.enroll(views, [range(len(vectors))])[0, 0].numpy()

    def identify(
        self,
        audio: Audio,
        store: VoiceprintStore,
        threshold: float | None = None,
        sample_rate: int | None = None,
    ) -> Identification:
        """Looks for the speaker of an utterance among those enrolled.

        ``threshold`` None means the model's at the EER. It was measured on
        pairs: someone unknown is taken for one of N enrolled speakers up to N
        times as often.
        """
        store.check_model(self.fingerprint)
        if len(store) == 0:
            raise InputError("the voiceprint store is empty: enroll a speaker")
        if threshold is None:
            threshold = self.threshold_at()
        vector = self.embed(audio, sample_rate).vector
        found = self.score_matrix(store.vectors, vector[None])[:, 0]
        best = np.argsort(-found, kind="stable")[:_SHOWN]
        ranking = [(store.names[i], float(found[i])) for i in best]
        name, score = ranking[0]
        known = name if score > threshold else None
        return Identification(known, score, threshold, ranking)

    def score_matrix(
        self, enroll: np.ndarray | torch.Tensor, test: np.ndarray | torch.Tensor
    ) -> np.ndarray:
        """Scores of all pairs of vectors [N, D] and [M, D], float64 [N, M]."""
        enrolled, tested = (
            self._score.prepare(torch.as_tensor(x).cpu().double().unsqueeze(1))
            for x in (enroll, test)
        )
        return self._score.matrix(enrolled, tested).numpy()
