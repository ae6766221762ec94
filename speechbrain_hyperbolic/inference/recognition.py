"""Who speaks: verification and identification with an exported model."""

import functools
import numbers
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import tqdm
from speechbrain.dataio.preprocess import AudioNormalizer
from speechbrain.inference.speaker import SpeakerRecognition
from speechbrain.processing.features import InputNormalization

from speechbrain_hyperbolic.dataio import audio as audio_files
from speechbrain_hyperbolic.dataio.corpus import SILENCE
from speechbrain_hyperbolic.dataio.windows import (
    is_long,
    read_windows,
    split_windows,
)
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.inference.model_folder import (
    fingerprint as model_fingerprint,
)
from speechbrain_hyperbolic.inference.model_folder import load_model
from speechbrain_hyperbolic.inference.voiceprints import VoiceprintStore
from speechbrain_hyperbolic.scoring import similarity
from speechbrain_hyperbolic.scoring.cache import Cache, identity
from speechbrain_hyperbolic.scoring.extraction import (
    SHORTEST,
    Encoder,
    extract,
)

_MAX_CHANNELS = 64
# Of floats; resampling and mixing go somewhat beyond 1, unscaled integers far.
_MAX_AMPLITUDE = 8.0


class Embedding(NamedTuple):
    """The embedding of an utterance.

    Arguments
    ---------
    vector : np.ndarray
        float32, shape [D], not normalised.
    radius : float
        Its Euclidean norm, before the clip: a confidence, higher is surer.
        What it is worth differs between models, and is to be measured on
        trials: ``scoring.calibration`` does, as the quality "radius".
    seconds : float
        Of audio.
    """

    vector: np.ndarray
    radius: float
    seconds: float


class Identification(NamedTuple):
    """Who an utterance is by, among enrolled speakers.

    Arguments
    ---------
    name : str
        None: unknown, no speaker's score is above the threshold.
    score : float
        The best.
    threshold : float
    ranking : list of (str, float)
        The best speakers and their scores, best first.
    """

    name: str | None
    score: float
    threshold: float
    ranking: list


class HyperbolicSpeakerRecognition(SpeakerRecognition):
    """The stock SpeakerRecognition with the score and the thresholds of its
    model, enrolment and identification.

    It is made by ``from_pretrained``. The stock ``from_hparams`` works too; a
    model loaded so has the score "cosine", and its thresholds are unknown.

    Audio is a path, or an array or tensor, [time] or [channels, time], of
    floats in [-1, 1] or int16. Channels are averaged, any sample rate is
    resampled. Audio longer than 60 s is embedded in windows of 30 s: silent
    ones are left out, and the embedding is the mean of the length-normalised
    embeddings, times their mean norm.

    Arguments
    ---------
    modules : dict
        As the stock class.
    hparams : dict
        As the stock class; and "model_config", a ``ModelConfig``.
    **kwargs : dict
        As the stock class.

    Example
    -------
    >>> from speechbrain_hyperbolic.inference import model_folder
    >>> config = model_folder.ModelConfig(
    ...     16000, 80, "xvector", {"in_channels": 80, "lin_neurons": 8},
    ...     thresholds=model_folder.Thresholds(0.3, {"0.01": 0.5}),
    ... )
    >>> encoder = model_folder.build_modules(config)["embedding_model"]
    >>> folder = getfixture("tmpdir")
    >>> model_folder.save_model(folder, config, encoder.state_dict())
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
        self.config = (hparams or {}).get("model_config")
        self.sample_rate = self.audio_normalizer.sample_rate
        self.clip_c = self.config.clip_c if self.config else 3.0
        self._score = similarity.make_score(
            self.config.score if self.config else "cosine", self.clip_c
        )
        self._encoder = _Encoder(
            self.mods.compute_features,
            self.mods.mean_var_norm,
            self.mods.embedding_model,
            self.device,
        )

    @classmethod
    def from_pretrained(
        cls,
        source: str | pathlib.Path,
        revision: str | None = None,
        run_opts: dict | None = None,
        cache_dir: str | pathlib.Path | None = None,
        token: str | None = None,
    ) -> "HyperbolicSpeakerRecognition":
        """Loads a model from JSON and safetensors: none of its files can run
        code.

        Arguments
        ---------
        source : str or pathlib.Path
            A folder, as the export writes it; else the id of a repository of
            the Hugging Face Hub.
        revision : str
            Of the repository: a branch, a tag or a commit.
        run_opts : dict
            As the stock class, e.g. {"device": "cuda"}.
        cache_dir : str or pathlib.Path
            Where repositories are kept; None: where huggingface_hub has them.
        token : str
            For a private repository; None: that of the login.

        Returns
        -------
        model : HyperbolicSpeakerRecognition

        Raises
        ------
        InputError
            If there is no such model, a file of it is corrupted, or the device
            is CUDA and there is none.
        """
        device = (run_opts or {}).get("device") or "cpu"
        if str(device).split(":")[0] not in ("cpu", "cuda"):
            raise InputError(f"device is {device}, expected cpu or cuda")
        device = str(device)
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise InputError(
                f"device is {device}, but PyTorch finds no CUDA: pass cpu"
            )
        if os.path.isfile(source):
            raise InputError(f"{source} is a file, expected a model's folder")
        if os.path.isdir(source) and revision is not None:
            raise InputError(
                f"{source} is a folder, which has no revision {revision}"
            )
        if not os.path.isdir(source):
            # The Hub's client is for those who ask for it.
            from speechbrain_hyperbolic.hub.transfer import fetch_model

            try:
                source = fetch_model(str(source), revision, cache_dir, token)
            except InputError as error:
                raise InputError(
                    f"{source} is no folder, and from the Hub: {error}"
                ) from error
        config, modules = load_model(source)
        # The stock class asks for it, and uses it where it's told to.
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

    @functools.cached_property
    def fingerprint(self) -> str:
        """str: tells this model from all others; ``from_hparams`` gives another
        one than ``from_pretrained``.
        """
        if self.config is None:
            return self._encoder.fingerprint()
        state = self.mods.embedding_model.state_dict()
        return model_fingerprint(self.config, state)

    def threshold_at(self, false_accepts: float | None = None) -> float:
        """The threshold that was measured on the model's trials.

        Arguments
        ---------
        false_accepts : float
            The rate of false accepts to keep to; None: where it equals the
            rate of false rejections (EER).

        Returns
        -------
        threshold : float
            A score above it is accepted.

        Raises
        ------
        InputError
            If it was not measured; it lists the rates that were.
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
            f"{false_accepts}, expected one of: {rates}; or leave it out for "
            "that at the EER"
        )

    def load_audio(
        self, path: str | pathlib.Path, savedir: str | None = None
    ) -> torch.Tensor:
        """Reads an audio file.

        Arguments
        ---------
        path : str or pathlib.Path
            Of a local file.
        savedir : str
            Not used; the stock class has it.

        Returns
        -------
        waveform : torch.Tensor
            float32, shape [time], at the model's sample rate, on its device.

        Raises
        ------
        InputError
            If it can't be decoded, or is empty or truncated.
        """
        return audio_files.load(path, self.sample_rate).to(self.device)

    def embed(
        self,
        audio: str | pathlib.Path | np.ndarray | torch.Tensor,
        sample_rate: int | None = None,
    ) -> Embedding:
        """Embeds an utterance, or a recording of hours.

        Arguments
        ---------
        audio : str, pathlib.Path, np.ndarray or torch.Tensor
        sample_rate : int
            Of an array, in Hz; None: the model's.

        Returns
        -------
        embedding : Embedding

        Raises
        ------
        InputError
            If it is no audio, empty, silent, or holds NaN.
        """
        if isinstance(audio, (str, os.PathLike)):
            name = os.fspath(audio)
            count, windows = read_windows(name, self.sample_rate)
        else:
            name = "the audio"
            waveform = self._waveform(audio, sample_rate)
            count, windows = split_windows(waveform, self.sample_rate)
        directions, norms, samples = 0.0, [], 0
        bar = tqdm.tqdm(
            windows,
            desc="Embedding",
            total=count,
            unit="window",
            disable=count == 1,
            delay=3,
            dynamic_ncols=True,
        )
        for window in bar:
            samples += len(window)
            window = self._long_enough(window)
            if not _is_silent(window):
                vector = self._encoder(window[None])[0].numpy()
                # Summed, not kept: between the large arrays that come and go,
                # small ones that stay would keep memory from being used again.
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
        paths: list[str | pathlib.Path],
        cache_folder: str | pathlib.Path | None = None,
    ) -> list[Embedding]:
        """Embeds many files, with a progress bar.

        Arguments
        ---------
        paths : list of (str or pathlib.Path)
        cache_folder : str or pathlib.Path
            Where embeddings are kept, for the next time or after an
            interruption; None: nowhere.

        Returns
        -------
        embeddings : list of Embedding
            In the order of paths.

        Raises
        ------
        InputError
            As ``embed``; it names the file. What was embedded before is in
            the cache.
        """
        if isinstance(paths, (str, os.PathLike)):
            raise InputError(f"paths is {paths}, expected a list of paths")
        names = [os.fspath(path) for path in paths]
        short: list[str] = []
        long: list[str] = []
        for path in dict.fromkeys(names):
            header = audio_files.info(path)
            some = long if is_long(header.frames, header.sample_rate) else short
            some.append(path)
        found = self._embed_long(long, cache_folder) if long else {}
        if short:
            found |= self._embed_short(short, cache_folder)
        return [found[path] for path in names]

    def verify_batch(
        self,
        wavs1: torch.Tensor,
        wavs2: torch.Tensor,
        wav1_lens: torch.Tensor | None = None,
        wav2_lens: torch.Tensor | None = None,
        threshold: float | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compares pairs of waveforms.

        Arguments
        ---------
        wavs1 : torch.Tensor
            Shape [batch, time], at the model's sample rate.
        wavs2 : torch.Tensor
            Shape [batch, time].
        wav1_lens : torch.Tensor
            Lengths relative to the longest, shape [batch]; None: all are 1.
        wav2_lens : torch.Tensor
            Shape [batch].
        threshold : float
            None: the model's at the EER.

        Returns
        -------
        score : torch.Tensor
            Shape [batch, 1].
        decision : torch.Tensor
            bool, shape [batch, 1]: whether both are of one speaker.

        Raises
        ------
        InputError
            If a waveform is silent or holds NaN, or the thresholds were not
            measured.
        """
        if threshold is None:
            threshold = self.threshold_at()
        enrol, test = (
            self._score.prepare(self._encode_checked(name, wavs, lengths))
            for name, wavs, lengths in (
                ("wavs1", wavs1, wav1_lens),
                ("wavs2", wavs2, wav2_lens),
            )
        )
        score = self._score.pairs(enrol, test).unsqueeze(1)
        return score, score > threshold

    def verify_files(
        self,
        path_x: str | pathlib.Path,
        path_y: str | pathlib.Path,
        threshold: float | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compares two audio files.

        Arguments
        ---------
        path_x : str or pathlib.Path
        path_y : str or pathlib.Path
        threshold : float
            None: the model's at the EER.
        **kwargs : dict
            Not used; the stock class gives them to ``load_audio``.

        Returns
        -------
        score : torch.Tensor
            Shape [1].
        decision : torch.Tensor
            bool, shape [1]: whether both are of one speaker.

        Raises
        ------
        InputError
            As ``embed``, and if the thresholds were not measured.
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
        """Compares two embeddings or voiceprints.

        Arguments
        ---------
        a : Embedding, np.ndarray or torch.Tensor
            A vector of shape [D].
        b : Embedding, np.ndarray or torch.Tensor

        Returns
        -------
        score : float
            The model's, higher for the same speaker.

        Raises
        ------
        InputError
            If they are no vectors of one size.
        """
        return float(self._scores([_vector(a)], [_vector(b)]))

    def enrol(
        self, audios: list, sample_rate: int | None = None, how: str = "mean"
    ) -> np.ndarray:
        """Makes one voiceprint of several utterances of a speaker.

        Arguments
        ---------
        audios : list
            Of what ``embed`` takes.
        sample_rate : int
            Of arrays, in Hz; None: the model's.
        how : str
            "mean" or "midpoint", see ``scoring.similarity.enrol``.

        Returns
        -------
        vector : np.ndarray
            float32, shape [D].

        Raises
        ------
        InputError
            As ``embed``; or if there are no utterances, or no such way.
        """
        similarity.check_enrolment(how)
        if not isinstance(audios, (list, tuple)) or not audios:
            raise InputError(
                "the utterances to enrol are none, or no list: give a list of "
                "one or more paths or arrays"
            )
        vectors = [self.embed(audio, sample_rate).vector for audio in audios]
        views = torch.from_numpy(np.stack(vectors)).unsqueeze(1)
        members = [range(len(vectors))]
        models = similarity.enrol(views, members, how, self.clip_c)
        return models[0, 0].numpy()

    def identify(
        self,
        audio: str | pathlib.Path | np.ndarray | torch.Tensor,
        store: VoiceprintStore,
        threshold: float | None = None,
        sample_rate: int | None = None,
        top: int = 5,
    ) -> Identification:
        """Looks for the speaker of an utterance among those enrolled.

        The threshold was measured on pairs: among N enrolled speakers, one
        who isn't enrolled is taken for one of them up to N times as often.

        Arguments
        ---------
        audio : str, pathlib.Path, np.ndarray or torch.Tensor
        store : VoiceprintStore
        threshold : float
            None: the model's at the EER.
        sample_rate : int
            Of an array, in Hz; None: the model's.
        top : int
            How many speakers the ranking has at most, 1 or more.

        Returns
        -------
        identification : Identification

        Raises
        ------
        InputError
            As ``embed``; or if the store is empty or of another model.
        """
        if store.model_fingerprint != self.fingerprint:
            raise InputError(
                "the voiceprint store was made by another model, whose "
                "vectors mean nothing to this one: enrol its speakers again"
            )
        if len(store) == 0:
            raise InputError("the voiceprint store is empty: enrol a speaker")
        if threshold is None:
            threshold = self.threshold_at()
        vector = self.embed(audio, sample_rate).vector
        scores = self._scores(list(store.vectors), [vector])[:, 0]
        best = torch.argsort(-scores, stable=True)[: max(1, top)]
        names = store.names
        ranking = [(names[i], float(scores[i])) for i in best]
        name, score = ranking[0]
        if score <= threshold:
            name = None
        return Identification(name, score, threshold, ranking)

    def _scores(
        self, enrol: Sequence[np.ndarray], test: Sequence[np.ndarray]
    ) -> torch.Tensor:
        """Shape [enrol, test], of vectors; float64."""
        enrolled, tested = (
            torch.from_numpy(np.stack(vectors)).double().unsqueeze(1)
            for vectors in (enrol, test)
        )
        if enrolled.shape[2] != tested.shape[2]:
            raise InputError(
                f"the vectors have {enrolled.shape[2]} and {tested.shape[2]} "
                "entries: are they of one model?"
            )
        prepare = self._score.prepare
        return self._score.matrix(prepare(enrolled), prepare(tested))

    def _encode_checked(
        self, name: str, wavs: torch.Tensor, lengths: torch.Tensor | None
    ) -> torch.Tensor:
        """Embeddings of a batch, shape [batch, 1, D]."""
        wavs = (wavs[None] if wavs.ndim == 1 else wavs).float()
        if wavs.ndim != 2 or wavs.numel() == 0:
            raise InputError(
                f"{name} has shape {tuple(wavs.shape)}, expected (batch, time)"
            )
        if lengths is not None and lengths.shape != wavs.shape[:1]:
            raise InputError(
                f"the lengths of {name} have shape {tuple(lengths.shape)}, "
                f"expected ({len(wavs)},)"
            )
        for index, wav in enumerate(wavs):
            if not wav.isfinite().all():
                raise InputError(
                    f"{name}: waveform {index} holds NaN or infinite samples"
                )
            share = 1.0 if lengths is None else float(lengths[index])
            if _is_silent(wav[: max(1, round(share * len(wav)))]):
                raise InputError(f"{name}: waveform {index} is silent")
        embeddings = self.encode_batch(wavs, lengths)
        # The stock ResNet gives [batch, D].
        return embeddings.reshape(len(wavs), 1, -1)

    def _embed_short(
        self, paths: list[str], cache_folder: str | pathlib.Path | None
    ) -> dict[str, Embedding]:
        try:
            _, views, durations = extract(
                self._encoder,
                {path: path for path in paths},
                self.sample_rate,
                cache_folder=cache_folder,
            )
        except _SilenceError:
            # A batch doesn't know its files.
            for path in paths:
                waveform = audio_files.load(path, self.sample_rate)
                if _is_silent(self._long_enough(waveform)):
                    raise InputError(
                        f"{path} is silent: replace or leave it out"
                    ) from None
            raise
        return {
            path: _embedding(view, seconds)
            for path, view, seconds in zip(
                paths, views[:, 0].numpy(), durations, strict=True
            )
        }

    def _embed_long(
        self, paths: list[str], cache_folder: str | pathlib.Path | None
    ) -> dict[str, Embedding]:
        paths = tqdm.tqdm(
            paths, desc="Embedding long files", unit="file", dynamic_ncols=True
        )
        if cache_folder is None:
            return {path: self.embed(path) for path in paths}
        found = {}
        setting = f"{self.sample_rate}-windows"
        with Cache(cache_folder, self.fingerprint, setting) as cache:
            known = {
                key: _embedding(view[0], seconds)
                for shard in cache.shards()
                for key, view, seconds in zip(*shard, strict=True)
            }
            for path in paths:
                key = identity(path, cache.folder.name)
                if key not in known:
                    known[key] = self.embed(path)
                    vector, _, seconds = known[key]
                    cache.add([key], vector[None, None], [seconds])
                found[path] = known[key]
        return found

    def _waveform(
        self, audio: np.ndarray | torch.Tensor, sample_rate: int | None
    ) -> torch.Tensor:
        """An array as a mono waveform at the model's rate."""
        if isinstance(audio, torch.Tensor):
            audio = audio.detach().cpu().resolve_neg()
            audio = audio.float() if audio.is_floating_point() else audio
            audio = audio.numpy()
        if not isinstance(audio, np.ndarray):
            raise InputError(
                f"the audio is of type {type(audio).__name__}, expected a "
                "path, an array or a tensor"
            )
        # By kind and size: of any byte order.
        is_int16 = (audio.dtype.kind, audio.dtype.itemsize) == ("i", 2)
        if audio.dtype.kind != "f" and not is_int16:
            raise InputError(
                f"the audio is of {audio.dtype}, expected floats in [-1, 1] or "
                "int16"
            )
        with np.errstate(over="ignore"):  # what overflows is found below
            audio = torch.from_numpy(np.array(audio, np.float32, order="C"))
        if is_int16:
            audio /= 2**15
        if audio.ndim not in (1, 2) or (
            audio.ndim == 2 and len(audio) > _MAX_CHANNELS
        ):
            raise InputError(
                f"the audio has shape {tuple(audio.shape)}, expected (time,) "
                f"or (channels, time), of {_MAX_CHANNELS} channels at most"
            )
        if audio.numel() == 0:
            raise InputError("the audio has no samples")
        if not audio.isfinite().all():
            raise InputError("the audio holds NaN or infinite samples")
        if audio.abs().max() > _MAX_AMPLITUDE:
            raise InputError(
                f"the audio has samples up to {float(audio.abs().max()):g}, "
                "expected floats in [-1, 1]: divide integers by their range"
            )
        if sample_rate is None:
            sample_rate = self.sample_rate
        low, high = audio_files.SAMPLE_RATES
        integral = isinstance(sample_rate, numbers.Integral)
        if not integral or not low <= sample_rate <= high:
            raise InputError(
                f"sample_rate is {sample_rate!r}, expected an integer from "
                f"{low} to {high}, in Hz"
            )
        if audio.ndim == 2:
            audio = audio.mean(0)
        return audio_files.resample(audio, int(sample_rate), self.sample_rate)

    def _long_enough(self, waveform: torch.Tensor) -> torch.Tensor:
        # As ``extract`` does it.
        shortest = int(SHORTEST * self.sample_rate)
        if len(waveform) < shortest:
            return audio_files.repeat_to(waveform, shortest)
        return waveform


class _SilenceError(InputError):
    """Something in a batch is silent."""


class _Encoder(Encoder):
    """An encoder that refuses silence."""

    def __call__(self, waveforms: torch.Tensor) -> torch.Tensor:
        if (waveforms.abs().mean(1) < SILENCE).any():
            raise _SilenceError("an utterance is silent")
        return super().__call__(waveforms)


def _is_silent(waveform: torch.Tensor) -> bool:
    return bool(waveform.abs().mean() < SILENCE)


def _embedding(vector: np.ndarray, seconds: float) -> Embedding:
    return Embedding(vector, float(np.linalg.norm(vector)), float(seconds))


def _vector(value: Any) -> np.ndarray:
    if isinstance(value, Embedding):
        value = value.vector
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    value = np.asarray(value)
    if value.ndim != 1 or value.size == 0 or value.dtype.kind != "f":
        raise InputError(
            f"the vector to score is {value.dtype} of shape {value.shape}, "
            "expected floats in one dimension"
        )
    if not np.isfinite(value).all():
        raise InputError("the vector to score is NaN or infinite")
    return value
