"""Who speaks: verification and identification with a trained model."""

import functools
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import tqdm
from huggingface_hub import ModelHubMixin, snapshot_download
from speechbrain.dataio.preprocess import AudioNormalizer
from speechbrain.inference.speaker import SpeakerRecognition
from speechbrain.processing.features import InputNormalization

from speechbrain_hyperbolic.dataio.windows import read_windows, split_windows
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation import scores
from speechbrain_hyperbolic.evaluation.cache import Cache, identity
from speechbrain_hyperbolic.evaluation.extraction import Encoder
from speechbrain_hyperbolic.inference import model as model_files
from speechbrain_hyperbolic.inference.download import explain_errors
from speechbrain_hyperbolic.inference.model import ModelConfig
from speechbrain_hyperbolic.inference.voiceprints import VoiceprintStore
from speechbrain_hyperbolic.inference.waveforms import (
    Audio,
    is_silent,
    long_enough,
    to_waveform,
)

_CARD = """\
---
{{ card_data }}
---

A speaker model of speechbrain-hyperbolic, for speaker verification:

    from speechbrain_hyperbolic import HyperbolicSpeakerRecognition

    model = HyperbolicSpeakerRecognition.from_pretrained("user/model")
    score, same = model.verify_files("a.wav", "b.wav")
"""


class Embedding(NamedTuple):
    """The embedding of an utterance."""

    vector: np.ndarray  # float32, shape [D], not normalized
    radius: float  # its Euclidean norm, before the clip
    seconds: float  # of audio


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

    ``from_pretrained`` loads a model folder, or a model on the Hugging Face
    Hub, without running any of its code. The stock ``from_hparams``, which runs
    the model's YAML file, gives the same object. ``save_pretrained`` and
    ``push_to_hub`` are those of ``huggingface_hub.ModelHubMixin``.

    Audio is a path, or an array or tensor, [time] or [channels, time], of
    floats in [-1, 1] or int16. Channels are averaged, and any sample rate is
    resampled. Audio longer than 60 s is embedded in windows of 30 s: silent
    windows are left out, and the embedding is the mean of the length-normalized
    embeddings, times their mean norm.

    Arguments
    ---------
    modules : dict
        See the stock class.
    hparams : dict
        See the stock class; "model_config" is a ModelConfig or a dict of its
        fields. Without it the score is the cosine, without thresholds.
    **kwargs : dict
        See the stock class.

    Example
    -------
    >>> from speechbrain_hyperbolic.inference import model as files
    >>> config = files.ModelConfig(
    ...     {"class": "speechbrain.lobes.features.Fbank", "n_mels": 24},
    ...     {"class": "speechbrain.processing.features.InputNormalization",
    ...      "norm_type": "sentence"},
    ...     {"class": "speechbrain.lobes.models.Xvector.Xvector",
    ...      "in_channels": 24, "lin_neurons": 8},
    ...     thresholds=files.Thresholds(0.3, {"0.01": 0.5}),
    ... )
    >>> encoder = files.build_modules(config)["embedding_model"]
    >>> folder = getfixture("tmp_path")
    >>> files.save_model(folder, config, encoder.state_dict())
    >>> model = HyperbolicSpeakerRecognition.from_pretrained(folder)
    >>> noise = np.random.default_rng(0).uniform(-0.1, 0.1, 16000)
    >>> model.embed(noise).vector.shape
    (8,)
    >>> model.threshold_at(), model.threshold_at(0.01)
    (0.3, 0.5)
    """

    def __init__(
        self,
        modules: dict | None = None,
        hparams: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(modules=modules, hparams=hparams, **kwargs)
        config = (hparams or {}).get("model_config")
        if isinstance(config, dict):
            config = ModelConfig.from_dict(config)
        self.config: ModelConfig | None = config
        self.sample_rate = self.audio_normalizer.sample_rate
        self.clip_c = config.clip_c if config else 3.0
        name = config.score if config else "cosine"
        self._score = scores.make_score(name, self.clip_c)
        self._encoder = Encoder(
            self.mods.compute_features,
            self.mods.mean_var_norm,
            self.mods.embedding_model,
            self.device,
        )

    # The mixin's own reads config.json before it could be checked.
    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | pathlib.Path,
        *,
        revision: str | None = None,
        run_opts: dict | None = None,
        trusted: Iterable[str] = (),
        **hub_options: Any,
    ) -> "HyperbolicSpeakerRecognition":
        """Loads a model from its config.json and model.safetensors alone.

        The first argument is a model folder, or "user/model" on the Hugging
        Face Hub, with a ``revision`` and other options of the mixin: cache_dir,
        token, force_download, local_files_only. ``run_opts`` is as in the stock
        class, e.g. {"device": "cuda"}. ``trusted`` has the full names of
        classes to build besides the stock ones, such as "my_package.MyEncoder";
        name only code that you trust with arguments from this model's author.

        An InputError says why a model can't be loaded.
        """
        source = str(pretrained_model_name_or_path)
        _check_device((run_opts or {}).get("device") or "cpu")
        if os.path.isfile(source):
            raise InputError(f"{source} is a file, expected a model folder")
        if not os.path.isdir(source):
            with explain_errors(source):
                source = snapshot_download(
                    source,
                    revision=revision,
                    allow_patterns=[model_files.CONFIG, model_files.WEIGHTS],
                    library_name="speechbrain-hyperbolic",
                    **hub_options,
                )
        elif revision is not None:
            raise InputError(
                f"{source} is a folder, which has no revision {revision}"
            )
        config, modules = model_files.load_model(source, trusted)
        # The stock class needs it, and uses it only if told to.
        norm = InputNormalization(norm_type="global", std_norm=False)
        return cls(
            modules={**modules, "mean_var_norm_emb": norm},
            hparams={
                "model_config": config,
                "mean_var_norm_emb": norm,
                "audio_normalizer": AudioNormalizer(config.sample_rate),
            },
            run_opts=run_opts,
        )

    def _save_pretrained(self, save_directory: pathlib.Path) -> None:
        if self.config is None:
            raise InputError(
                "the model has no config to save: it was made by the stock "
                "from_hparams from a folder of another package"
            )
        state = self.mods.embedding_model.state_dict()
        model_files.save_model(save_directory, self.config, state)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A sha256 that tells this model from all others."""
        if self.config is None:
            return self._encoder.fingerprint()
        state = self.mods.embedding_model.state_dict()
        return model_files.fingerprint(self.config, state)

    def threshold_at(self, false_accepts: float | None = None) -> float:
        """The threshold measured on the model's trials; higher scores are
        accepted.

        ``false_accepts`` is the rate of false accepts to keep to, such as 0.01;
        None means the rate that equals that of false rejections (EER).
        """
        thresholds = self.config.thresholds if self.config else None
        if thresholds is None:
            raise InputError(
                "the model's thresholds have not been measured: pass a "
                "threshold, or export the model with its verification results"
            )
        if false_accepts is None:
            return thresholds.eer
        for rate, threshold in thresholds.false_accepts.items():
            if float(rate) == false_accepts:
                return threshold
        rates = ", ".join(thresholds.false_accepts) or "none"
        raise InputError(
            f"no threshold was measured at a false-accept rate of "
            f"{false_accepts}, expected one of: {rates}; or leave it out to "
            "use the threshold at the EER"
        )

    def embed(self, audio: Audio, sample_rate: int | None = None) -> Embedding:
        """Embeds an utterance, or a recording of hours.

        ``sample_rate`` is that of an array, in Hz; None means the model's.
        Audio that is unreadable, empty, silent, or holds NaN raises an
        InputError.
        """
        if isinstance(audio, (str, os.PathLike)):
            name = os.fspath(audio)
            count, windows = read_windows(name, self.sample_rate)
        else:
            name = "the audio"
            waveform = to_waveform(audio, sample_rate, self.sample_rate)
            count, windows = split_windows(waveform, self.sample_rate)
        directions, norms, samples = 0.0, [], 0
        bar = tqdm.tqdm(
            windows, "Embedding", count, disable=count == 1, delay=3
        )
        for window in bar:
            samples += len(window)
            window = long_enough(window, self.sample_rate)
            if not is_silent(window):
                vector = self._encoder(window[None])[0].numpy()
                # Summed, not kept: small arrays that stay between the large
                # ones that come and go would fragment the memory.
                norms.append(float(np.linalg.norm(vector)))
                directions = directions + np.float64(vector) / norms[-1]
        if not norms:
            raise InputError(f"{name} is silent: replace or leave it out")
        if len(norms) > 1:
            mean = directions / len(norms) * np.mean(norms)
            vector = np.asarray(mean, np.float32)
        if not np.isfinite(vector).all():
            raise InputError(
                f"the embedding of {name} is not finite: the model's training "
                "has diverged"
            )
        return _embedding(vector, samples / self.sample_rate)

    def embed_files(
        self,
        paths: Sequence[str | pathlib.Path],
        cache_folder: str | pathlib.Path | None = None,
    ) -> list[Embedding]:
        """Embeds many files, with a progress bar.

        Embeddings are kept in ``cache_folder``, for the next time or after an
        interruption. Errors are those of ``embed`` and name the file.
        """
        if isinstance(paths, (str, os.PathLike)):
            raise InputError(f"paths is {paths}, expected a list of paths")
        bar = tqdm.tqdm(paths, "Embedding", unit="file")
        if cache_folder is None:
            return [self.embed(path) for path in bar]
        setting = f"{self.sample_rate}-whole"
        with Cache(cache_folder, self.fingerprint, setting) as cache:
            keys = [identity(path, cache.folder.name) for path in paths]
            known = cache.find(keys)
            for key, path in zip(keys, bar, strict=True):
                if key not in known:
                    vector, _, seconds = self.embed(path)
                    known[key] = vector[None], seconds
                    cache.add([key], vector[None, None], [seconds])
        pairs = [known[key] for key in keys]
        return [_embedding(views[0], seconds) for views, seconds in pairs]

    def verify_batch(
        self,
        wavs1: torch.Tensor,
        wavs2: torch.Tensor,
        wav1_lens: torch.Tensor | None = None,
        wav2_lens: torch.Tensor | None = None,
        threshold: float | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compares pairs of waveforms [batch, time] at the model's sample rate.

        Lengths [batch] are relative to the longest. ``threshold`` None means
        the model's at the EER. Returns scores, and whether both are of the same
        speaker, [batch, 1].
        """
        if threshold is None:
            threshold = self.threshold_at()
        enroll, test = (
            self._score.prepare(self._encode_checked(name, wavs, lengths))
            for name, wavs, lengths in (
                ("wavs1", wavs1, wav1_lens),
                ("wavs2", wavs2, wav2_lens),
            )
        )
        score = self._score.pairs(enroll, test).unsqueeze(1)
        return score, score > threshold

    def verify_files(
        self,
        path_x: str | pathlib.Path,
        path_y: str | pathlib.Path,
        threshold: float | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compares two audio files.

        ``threshold`` None means the model's at the EER; other arguments of the
        stock class are not used. Returns the score, and whether both are of the
        same speaker, [1].
        """
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
        return float(self._scores([_vector(a)], [_vector(b)]))

    def enroll(
        self,
        audios: Sequence[Audio],
        sample_rate: int | None = None,
        how: str = "mean",
    ) -> np.ndarray:
        """A voiceprint, float32 [D], of several utterances of a speaker.

        ``how`` is "mean" or "midpoint", see ``evaluation.scores.enroll``. The
        rest is as for ``embed``.
        """
        scores.check_enrollment(how)
        if not isinstance(audios, (list, tuple)) or not audios:
            raise InputError(
                f"the utterances to enroll are {type(audios).__name__}, "
                "expected a list of one or more paths or arrays"
            )
        vectors = [self.embed(audio, sample_rate).vector for audio in audios]
        views = torch.from_numpy(np.stack(vectors)).unsqueeze(1)
        members = [range(len(vectors))]
        return scores.enroll(views, members, how, self.clip_c)[0, 0].numpy()

    def identify(
        self,
        audio: Audio,
        store: VoiceprintStore,
        threshold: float | None = None,
        sample_rate: int | None = None,
        top: int = 5,
    ) -> Identification:
        """Looks for the speaker of an utterance among those enrolled.

        ``threshold`` None means the model's at the EER. It was measured on
        pairs: someone unknown is taken for one of N enrolled speakers up to N
        times as often. ``top`` limits the ranking.
        """
        if store.model_fingerprint != self.fingerprint:
            raise InputError(
                "the voiceprint store was made by another model, and can't be "
                "compared with this one's embeddings: enroll its speakers again"
            )
        if len(store) == 0:
            raise InputError("the voiceprint store is empty: enroll a speaker")
        if threshold is None:
            threshold = self.threshold_at()
        vector = self.embed(audio, sample_rate).vector
        found = self._scores(list(store.vectors), [vector])[:, 0]
        best = torch.argsort(-found, stable=True)[: max(1, top)]
        ranking = [(store.names[i], float(found[i])) for i in best]
        name, score = ranking[0]
        known = name if score > threshold else None
        return Identification(known, score, threshold, ranking)

    def _scores(
        self, enroll: Sequence[np.ndarray], test: Sequence[np.ndarray]
    ) -> torch.Tensor:
        """Scores of all pairs of vectors, float64 [enroll, test]."""
        enrolled, tested = (
            torch.from_numpy(np.stack(vectors)).double().unsqueeze(1)
            for vectors in (enroll, test)
        )
        if enrolled.shape[2] != tested.shape[2]:
            raise InputError(
                f"the vectors have {enrolled.shape[2]} and {tested.shape[2]} "
                "entries, expected embeddings of the same model"
            )
        prepare = self._score.prepare
        return self._score.matrix(prepare(enrolled), prepare(tested))

    def _encode_checked(
        self, name: str, wavs: torch.Tensor, lengths: torch.Tensor | None
    ) -> torch.Tensor:
        """Embeddings [batch, 1, D] of waveforms that hold sound."""
        wavs = torch.atleast_2d(wavs).float()
        shares = [1.0] * len(wavs) if lengths is None else lengths.tolist()
        for index, (wav, share) in enumerate(zip(wavs, shares, strict=True)):
            sound = wav[: max(1, round(share * len(wav)))]
            if not sound.isfinite().all() or is_silent(sound):
                raise InputError(
                    f"{name}: waveform {index} is silent, or holds NaN or "
                    "infinite samples"
                )
        embeddings = self.encode_batch(wavs, lengths)
        return embeddings.reshape(len(wavs), 1, -1)  # the ResNet's are [B, D]


def _embedding(vector: np.ndarray, seconds: float) -> Embedding:
    return Embedding(vector, float(np.linalg.norm(vector)), float(seconds))


def _vector(value: Any) -> np.ndarray:
    if isinstance(value, Embedding):
        value = value.vector
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    value = np.asarray(value)
    is_vector = value.ndim == 1 and value.dtype.kind == "f"
    if not (is_vector and np.isfinite(value).all()):
        raise InputError(
            f"the vector to score is {value.dtype} of shape {value.shape}, "
            "expected finite floats of shape (D,)"
        )
    return value


def _check_device(device: str) -> None:
    if str(device).split(":")[0] not in ("cpu", "cuda"):
        raise InputError(f"device is {device}, expected cpu or cuda")
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise InputError(
            f"device is {device}, but PyTorch finds no CUDA: pass cpu"
        )
