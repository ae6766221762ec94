"""Embeds every utterance of a list, whole and in crops.

Utterances of one length make a batch, and none is padded: an embedding does
not depend on what else is in the list (the stock x-vector's pooling adds noise
of 1e-5 to it).
"""

import collections
import concurrent.futures
import contextlib
import functools
import hashlib
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import tqdm
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.scoring.cache import Cache, identity

logger = get_logger(__name__)

# An encoder's convolutions need some frames: shorter utterances are repeated.
SHORTEST = 0.1  # seconds
# Audio held at most, in batches: one is embedded while others are read.
_HELD_BATCHES = 3


class Embeddings(NamedTuple):
    """The embeddings of utterances.

    Arguments
    ---------
    utterances : list of str
        Ids.
    views : torch.Tensor
        float32, shape [utterances, V, D], not normalised: view 0 is of the
        whole utterance, the others of its crops.
    durations : np.ndarray
        float64, in seconds, shape [utterances].
    """

    utterances: list[str]
    views: torch.Tensor
    durations: np.ndarray


class Encoder:
    """From waveforms to embeddings, in evaluation mode.

    Arguments
    ---------
    compute_features : torch.nn.Module
        Called with waveforms [B, time].
    mean_var_norm : torch.nn.Module
        Called with (features, lengths).
    embedding_model : torch.nn.Module
        Called with (features, lengths); gives [B, 1, D].
    device : str
    """

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
        """Embeds utterances of one length.

        Arguments
        ---------
        waveforms : torch.Tensor
            Shape [B, time], at the sample rate of training.

        Returns
        -------
        embeddings : torch.Tensor
            float32 on the CPU, shape [B, D], not normalised.
        """
        compute_features, mean_var_norm, embedding_model = self.modules
        lengths = torch.ones(len(waveforms), device=self.device)
        features = compute_features(waveforms.to(self.device))
        features = mean_var_norm(features, lengths)
        return embedding_model(features, lengths).flatten(1).float().cpu()

    def fingerprint(self) -> str:
        """Tells this model from others, on any device and in any process.

        Returns
        -------
        fingerprint : str
            sha256, in hexadecimal, of the modules' classes, settings,
            parameters and buffers.
        """
        digest = hashlib.sha256()
        for module in self.modules:
            digest.update(repr(module).encode())
            for name, value in _state(module):
                _add(digest, name, value)
        return digest.hexdigest()


def weights_fingerprint(state: dict) -> str:
    """Tells the weights of an encoder from all others.

    Arguments
    ---------
    state : dict
        State dict.

    Returns
    -------
    fingerprint : str
        sha256, in hexadecimal.

    Example
    -------
    >>> weights_fingerprint({"weight": torch.zeros(1)})[:8]
    '67ea5d3e'
    """
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        _add(digest, name, value)
    return digest.hexdigest()


def _add(digest: Any, name: str, value: object) -> None:
    content: bytes | np.ndarray
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous()
        label = f"{value.dtype} {tuple(value.shape)}"
        content = value.flatten().view(torch.uint8).numpy()
    else:
        label, content = "setting", repr(value).encode()
    digest.update(f"\n{name} {label} ".encode())
    digest.update(content)


def _state(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Yields (name, value) of all that decides what a module gives."""
    yield from module.named_parameters()
    yield from module.named_buffers()
    # Stock features keep settings, such as the number of mel bands, and
    # tensors in plain attributes.
    for name, part in module.named_modules():
        for key, value in sorted(vars(part).items()):
            if key.startswith("_") or "device" in key:
                continue
            if isinstance(value, torch.Tensor) or _is_plain(value):
                yield f"{name}.{key}", value


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, (bool, int, float, str))


def extract(
    encoder: Encoder,
    paths: dict,
    sample_rate: int = 16000,
    n_crops: int = 0,
    crop_length: float = 3.0,
    cache_folder: str | pathlib.Path | None = None,
    batch_seconds: float = 60.0,
    num_workers: int = 4,
) -> Embeddings:
    """Embeds utterances, with a progress bar.

    Crops are evenly spaced from the start to the end of an utterance; one that
    is shorter than a crop is repeated up to it. Five of 3 s are those of the
    published Vox1-O score (arXiv 2601.19709).

    Arguments
    ---------
    encoder : Encoder
    paths : dict
        Utterance id -> path.
    sample_rate : int
        Of training, in Hz.
    n_crops : int
        Of each utterance; 0: only the whole is embedded.
    crop_length : float
        In seconds.
    cache_folder : str or pathlib.Path
        Where embeddings are kept, and taken from if model, file and crops are
        the same; None: nowhere.
    batch_seconds : float
        The most audio in a batch; a longer utterance is a batch of its own.
    num_workers : int
        Threads that read audio; at least one.

    Returns
    -------
    embeddings : Embeddings
        In the order of paths.

    Raises
    ------
    InputError
        If there are no utterances, one can't be read, or an embedding is not
        finite; it names the utterance or its file. What was embedded before is
        in the cache.

    Example
    -------
    >>> from speechbrain.lobes.features import Fbank
    >>> from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    >>> from speechbrain.processing.features import InputNormalization
    >>> path = getfixture("tmpdir") / "a.wav"
    >>> audio.soundfile.write(path, np.random.randn(32000) / 9, 16000)
    >>> encoder = Encoder(
    ...     Fbank(n_mels=80),
    ...     InputNormalization(norm_type="sentence", std_norm=False),
    ...     ECAPA_TDNN(80, channels=[16, 16, 16, 16, 48], lin_neurons=8),
    ... )
    >>> embeddings = extract(encoder, {"spk/a": path}, n_crops=5)
    >>> embeddings.views.shape, embeddings.durations
    (torch.Size([1, 6, 8]), array([2.]))
    """
    if not paths:
        raise InputError("there are no utterances to embed")
    crop = round(crop_length * sample_rate)
    shortest = int(SHORTEST * sample_rate)
    if not (isinstance(n_crops, int) and n_crops >= 0):
        raise InputError(f"n_crops is {n_crops!r}, expected an integer >= 0")
    if n_crops and crop < shortest:
        raise InputError(
            f"crop_length is {crop_length}, expected {SHORTEST} s or more"
        )
    utterances, files = list(paths), list(paths.values())
    table = _Table(len(files), 1 + n_crops)
    cache_context: contextlib.AbstractContextManager = contextlib.nullcontext()
    if cache_folder is not None:
        setting = f"{sample_rate}-{n_crops}x{crop if n_crops else 0}"
        cache_context = Cache(cache_folder, encoder.fingerprint(), setting)
    n_threads = max(1, num_workers)
    with (
        concurrent.futures.ThreadPoolExecutor(n_threads) as pool,
        cache_context as cache,
    ):
        if cache:
            keys = _identities(files, pool, cache.folder.name)
            _fill(table, cache, keys)
            logger.info(
                f"{table.done.sum()} of {len(files)} embeddings are in the "
                f"cache {cache.folder}"
            )
        todo = np.flatnonzero(~table.done)
        samples = _samples([files[row] for row in todo], sample_rate, pool)
        longest_first = np.argsort(-samples, kind="stable")
        todo, samples = todo[longest_first], samples[longest_first]
        cap = batch_seconds * sample_rate
        blocks = _blocks(todo, samples.clip(n_crops * crop), cap)
        load = functools.partial(audio.load, sample_rate=sample_rate)
        with tqdm.tqdm(
            total=len(files),
            initial=len(files) - len(todo),
            desc="Embedding",
            unit="utterance",
            dynamic_ncols=True,
        ) as bar:
            for rows, waveforms in _read_ahead(
                blocks, files, load, pool, _HELD_BATCHES * cap
            ):
                views = _embed(encoder, waveforms, shortest, n_crops, crop)
                _check_finite(views, [utterances[row] for row in rows])
                durations = [len(w) / sample_rate for w in waveforms]
                table.put(rows, views, durations)
                if cache:
                    cache.add([keys[row] for row in rows], views, durations)
                bar.update(len(rows))
    return Embeddings(utterances, table.views, table.durations)


class _Table:
    """Embeddings by row; the first that comes tells their size."""

    def __init__(self, n_rows: int, n_views: int) -> None:
        self.shape = (n_rows, n_views)
        self.views = torch.empty(0)
        self.durations = np.empty(n_rows)
        self.done = np.zeros(n_rows, bool)

    def put(
        self, rows: Sequence[int], views: torch.Tensor, durations: npt.ArrayLike
    ) -> None:
        if not len(self.views):
            self.views = torch.empty(*self.shape, views.shape[-1])
        self.views[rows] = views
        self.durations[rows] = durations
        self.done[rows] = True


def _identities(files: list[str], pool: Executor, made_by: str) -> list[bytes]:
    # A task for each file would cost more than its identity.
    chunks = [files[i : i + 500] for i in range(0, len(files), 500)]
    of_chunks = pool.map(
        lambda chunk: [identity(file, made_by) for file in chunk], chunks
    )
    return list(itertools.chain.from_iterable(of_chunks))


def _fill(table: "_Table", cache: Cache, keys: list[bytes]) -> None:
    rows_of = collections.defaultdict(list)
    for row, key in enumerate(keys):
        rows_of[key].append(row)
    for shard in cache.shards():
        pairs = [
            (row, index)
            for index, key in enumerate(shard.keys)
            for row in rows_of.get(key, ())
        ]
        if pairs:
            rows, indices = map(list, zip(*pairs, strict=True))
            views = torch.from_numpy(shard.views)[indices]
            table.put(rows, views, shard.durations[indices])


def _samples(files: list[str], sample_rate: int, pool: Executor) -> np.ndarray:
    """Lengths at the sample rate, by the headers."""
    headers = tqdm.tqdm(
        pool.map(audio.info, files),
        total=len(files),
        desc="Reading lengths",
        disable=not files,
        unit="file",
        dynamic_ncols=True,
    )
    return np.array(
        [-(-h.frames * sample_rate // h.sample_rate) for h in headers], int
    )


def _blocks(
    rows: np.ndarray, costs: np.ndarray, limit: float
) -> Iterator[tuple[list[int], int]]:
    """Yields (rows, cost): neighbours whose costs add up to the limit."""
    block: list[int] = []
    total = 0
    for row, cost in zip(rows.tolist(), costs.tolist(), strict=True):
        if block and total + cost > limit:
            yield block, total
            block, total = [], 0
        block.append(row)
        total += cost
    if block:
        yield block, total


def _read_ahead(
    blocks: Iterator[tuple[list[int], int]],
    files: list[str],
    load: Callable[[str], torch.Tensor],
    pool: Executor,
    limit: float,
) -> Iterator[tuple[list[int], list[torch.Tensor]]]:
    """Yields (rows, waveforms) of blocks, and reads those to come while they
    cost no more than the limit together."""
    queue: collections.deque = collections.deque()
    held = 0
    upcoming = next(blocks, None)
    while queue or upcoming:
        while upcoming and (not queue or held + upcoming[1] <= limit):
            rows, cost = upcoming
            futures = [pool.submit(load, files[row]) for row in rows]
            queue.append((rows, cost, futures))
            held += cost
            upcoming = next(blocks, None)
        rows, cost, futures = queue.popleft()
        yield rows, [future.result() for future in futures]
        held -= cost


def _embed(
    encoder: Encoder,
    waveforms: list[torch.Tensor],
    shortest: int,
    n_crops: int,
    crop: int,
) -> torch.Tensor:
    """Views of a block of utterances, shape [block, 1 + n_crops, D]."""
    wholes = [
        audio.repeat_to(w, shortest) if len(w) < shortest else w
        for w in waveforms
    ]
    # Not by the headers: that of an AAC file is not exact.
    order = sorted(range(len(wholes)), key=lambda index: len(wholes[index]))
    embedded = [
        encoder(torch.stack([wholes[index] for index in indices]))
        for _, indices in itertools.groupby(
            order, key=lambda index: len(wholes[index])
        )
    ]
    views = torch.cat(embedded)[np.argsort(order)].unsqueeze(1)
    if n_crops == 0:
        return views
    crops = [_crops(waveform, n_crops, crop) for waveform in waveforms]
    of_crops = encoder(torch.cat(crops)).unflatten(0, (-1, n_crops))
    return torch.cat([views, of_crops], 1)


def _crops(waveform: torch.Tensor, n_crops: int, samples: int) -> torch.Tensor:
    if len(waveform) < samples:
        waveform = audio.repeat_to(waveform, samples)
    starts = np.linspace(0, len(waveform) - samples, n_crops).astype(int)
    return torch.stack([waveform[s : s + samples] for s in starts])


def _check_finite(views: torch.Tensor, utterances: list[str]) -> None:
    broken = ~views.isfinite().flatten(1).all(1)
    if broken.any():
        raise InputError(
            f"the embedding of {utterances[int(broken.nonzero()[0])]} is not "
            f"finite ({int(broken.sum())} of {len(broken)} of its batch): the "
            "model's training has diverged"
        )
