"""Embeds every utterance of a list, whole and in crops.

A batch has utterances of one length: none is padded, and an embedding does not
depend on the rest of the list.
"""

import collections
import concurrent.futures
import contextlib
import functools
import hashlib
import itertools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import tqdm
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.files import StrPath
from speechbrain_hyperbolic.dataio.speech import speech_segments
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.cache import Cache, arithmetic, identity

logger = get_logger(__name__)

# An encoder's convolutions need some frames: shorter utterances are repeated.
SHORTEST = 0.1  # seconds
# Raise it when the same model, file and setting come to give other embeddings.
_VERSION = 2
_READERS = 4  # threads
_BATCHES_AHEAD = 2  # read while another batch is embedded


class Embeddings(NamedTuple):
    """Embeddings of U utterances, not normalized."""

    views: torch.Tensor  # float32 [U, V, D]: the whole, then its crops
    durations: np.ndarray  # seconds [U]


class Encoder:
    """From waveforms to embeddings, by the modules of a stock YAML file."""

    def __init__(
        self,
        compute_features: torch.nn.Module,
        mean_var_norm: torch.nn.Module,
        embedding_model: torch.nn.Module,
        device: str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.modules = [
            module.to(self.device).eval()
            for module in (compute_features, mean_var_norm, embedding_model)
        ]

    @torch.no_grad()
    def __call__(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Embeddings [B, D], float32 on the CPU, of waveforms [B, time]."""
        compute_features, mean_var_norm, embedding_model = self.modules
        lengths = torch.ones(len(waveforms), device=self.device)
        features = compute_features(waveforms.to(self.device))
        features = mean_var_norm(features, lengths)
        return embedding_model(features, lengths).flatten(1).float().cpu()

    def fingerprint(self) -> str:
        """A sha256 of all that decides the embeddings, whatever the device."""
        return weights_fingerprint(
            {
                f"{number} {name}": value
                for number, module in enumerate(self.modules)
                for name, value in _state(module)
            }
        )


def weights_fingerprint(state: dict) -> str:
    """A sha256 of a state dict, which may also have settings."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        content: Any
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().contiguous()
            label = f"{value.dtype} {tuple(value.shape)}"
            content = value.flatten().view(torch.uint8).numpy()
        else:
            label, content = "setting", repr(value).encode()
        digest.update(f"\n{name} {label} ".encode())
        digest.update(content)
    return digest.hexdigest()


def _state(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    yield "", repr(module)
    yield from module.named_parameters()
    yield from module.named_buffers()
    # The stock features keep settings, such as the number of mel bands, and
    # tensors in plain attributes.
    plain = torch.Tensor | bool | int | float | str
    for name, part in module.named_modules():
        for key, value in vars(part).items():
            hidden = key.startswith("_") or "device" in key
            if isinstance(value, plain) and not hidden:
                yield f"{name}.{key}", value


def extract(
    encoder: Encoder,
    paths: dict,
    sample_rate: int = 16000,
    n_crops: int = 0,
    crop_length: float = 3.0,
    cache_folder: StrPath | None = None,
    batch_seconds: float | None = None,
    vad: bool = False,
) -> Embeddings:
    """Embeds utterances, given as id -> path, with a progress bar.

    Crops are evenly spaced from the start to the end of an utterance, which is
    repeated if it is shorter. ``batch_seconds`` limits the audio in a batch,
    unless that is one longer utterance. With ``vad``, only speech is embedded;
    durations are of all audio.
    """
    if batch_seconds is None:
        batch_seconds = 600.0 if encoder.device.type == "cuda" else 60.0
    valid = isinstance(n_crops, int) and n_crops > 0
    if n_crops and not (valid and crop_length >= SHORTEST):
        raise InputError(
            f"n_crops is {n_crops} and crop_length is {crop_length}, expected "
            f"0 or more crops of {SHORTEST} s or more"
        )
    crop = round(crop_length * sample_rate) if n_crops else 0
    files = list(paths.values())
    done: dict[int, tuple] = {}  # row -> views, seconds
    cache = None
    with (
        concurrent.futures.ThreadPoolExecutor(_READERS) as pool,
        contextlib.ExitStack() as stack,
    ):
        if cache_folder is not None:
            name = f"v{_VERSION}-{encoder.fingerprint()[:32]}"
            name += f"-{sample_rate}-{n_crops}x{crop}{'-vad' * vad}"
            name += f"-{arithmetic(encoder.device)}"
            cache = Cache(pathlib.Path(cache_folder) / name)
            stack.callback(cache.flush)  # also after a failure
            keys = list(pool.map(identity, files))
            found = cache.find(keys)
            done = {i: found[key] for i, key in enumerate(keys) if key in found}
            logger.info(
                f"{len(done)} of {len(files)} embeddings are in the cache "
                f"{cache.folder}"
            )
        todo = [row for row in range(len(files)) if row not in done]
        headers = pool.map(audio.info, [files[row] for row in todo])
        seconds = [
            header.frames / header.sample_rate
            for header in tqdm.tqdm(headers, "Reading lengths", len(todo))
        ]
        batches = _batches(
            sorted(zip(seconds, todo, strict=True), reverse=True),
            n_crops * crop / sample_rate,
            batch_seconds,
        )
        load = functools.partial(_load, sample_rate=sample_rate, vad=vad)
        with tqdm.tqdm(
            desc="Embedding", total=len(files), initial=len(done), unit="file"
        ) as bar:
            for rows, loaded in _read_ahead(
                batches, lambda row: pool.submit(load, files[row])
            ):
                waveforms = [waveform for waveform, _ in loaded]
                try:
                    views = _embed(
                        encoder, waveforms, sample_rate, n_crops, crop
                    )
                except torch.OutOfMemoryError as error:
                    raise InputError(
                        "the GPU's memory does not suffice for "
                        f"{batch_seconds:g} s of audio at a time: lower "
                        "batch_seconds, or use --device=cpu"
                    ) from error
                broken = ~np.isfinite(views).all((1, 2))
                if broken.any():
                    first = list(paths)[rows[broken.argmax()]]
                    raise InputError(
                        f"the embedding of {first} is not finite "
                        f"({broken.sum()} of {len(rows)} of its batch): the "
                        "model's training has diverged"
                    )
                for row, (_, seconds_of_all), own in zip(
                    rows, loaded, views, strict=True
                ):
                    done[row] = own, seconds_of_all
                if cache:
                    cache.add({keys[row]: done[row] for row in rows})
                bar.update(len(rows))
    views, durations = zip(*map(done.get, range(len(files))), strict=True)
    return Embeddings(torch.from_numpy(np.stack(views)), np.array(durations))


def _batches(
    seconds_and_rows: list[tuple[float, int]], least: float, limit: float
) -> Iterator[list[int]]:
    """Runs of rows within the limit; each row counts as ``least`` or more."""
    batch: list[int] = []
    total = 0.0
    for seconds, row in seconds_and_rows:
        seconds = max(seconds, least)
        if batch and total + seconds > limit:
            yield batch
            batch, total = [], 0.0
        batch.append(row)
        total += seconds
    if batch:
        yield batch


def _read_ahead(
    batches: Iterator[list[int]],
    submit: Callable[[int], concurrent.futures.Future],
) -> Iterator[tuple[list[int], list]]:
    """Yields (rows, what was read) while the next batches are read."""
    queue: collections.deque = collections.deque()
    # The empty ones at the end make room for the last batches to leave.
    for rows in itertools.chain(batches, [[]] * _BATCHES_AHEAD):
        queue.append((rows, [submit(row) for row in rows]))
        if len(queue) > _BATCHES_AHEAD:
            oldest, futures = queue.popleft()
            yield oldest, [future.result() for future in futures]


def _load(
    path: StrPath, sample_rate: int, vad: bool
) -> tuple[torch.Tensor, float]:
    """What to embed of a file, and the seconds of all of it."""
    waveform = audio.load(path, sample_rate)
    seconds = len(waveform) / sample_rate
    if vad:
        segments = speech_segments(waveform, sample_rate)
        if not segments:
            raise InputError(
                f"{path} has no speech: leave it out, or pass --vad=False"
            )
        waveform = torch.cat([waveform[i:j] for i, j in segments])
    return waveform, seconds


def _embed(
    encoder: Encoder,
    waveforms: list[torch.Tensor],
    sample_rate: int,
    n_crops: int,
    crop: int,
) -> np.ndarray:
    """Views of a batch of utterances, shape [batch, 1 + n_crops, D]."""
    shortest = int(SHORTEST * sample_rate)
    wholes = [audio.repeat_to(w, max(len(w), shortest)) for w in waveforms]
    # Not by the lengths in the headers: those of AAC files are not exact.
    order = sorted(range(len(wholes)), key=lambda index: len(wholes[index]))
    embedded = [
        encoder(torch.stack([wholes[index] for index in indices]))
        for _, indices in itertools.groupby(
            order, key=lambda index: len(wholes[index])
        )
    ]
    views = torch.cat(embedded)[np.argsort(order)].unsqueeze(1)
    if n_crops:
        crops = []
        for waveform in waveforms:
            waveform = audio.repeat_to(waveform, max(len(waveform), crop))
            starts = np.linspace(0, len(waveform) - crop, n_crops).astype(int)
            crops += [waveform[start : start + crop] for start in starts]
        crop_views = encoder(torch.stack(crops)).unflatten(0, (-1, n_crops))
        views = torch.cat([views, crop_views], 1)
    return views.numpy()
