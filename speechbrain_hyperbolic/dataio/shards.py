"""Utterances in tar files, for corpora of too many files for a file system.

python -m speechbrain_hyperbolic.dataio.shards SAVE_FOLDER OUT

packs what train.csv and dev.csv of a save folder list, for --shards_folder of
a training. The tar files are those of webdataset: ``000000012.wav``, the
original bytes, beside ``000000012.json``, what the CSV file says of it. Beside
each is an index, by which a reader passes over what it does not want.
"""

import argparse
import contextlib
import errno
import hashlib
import io
import json
import os
import pathlib
import random
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, TypedDict, TypeVar

import numpy as np
import torch
import tqdm
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.corpus import COLUMNS
from speechbrain_hyperbolic.dataio.crops import Crop
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.dataio.tables import read_table
from speechbrain_hyperbolic.errors import InputError, exit_on_input_error

logger = get_logger(__name__)

MANIFEST = "manifest.json"
BLOCK = tarfile.BLOCKSIZE
# Utterances among which the order is random; some hundred bytes each
SHUFFLE_BUFFER = 10_000
OPEN_FILES = 64
_Value = TypeVar("_Value")


class Entry(TypedDict):
    """What an index says of an utterance.

    Arguments
    ---------
    id : str
    spk_id : str
    start : int
    stop : int
        As in the CSV file.
    name : str
        Of the audio in the shard.
    at : int
        Where its header is, in bytes.
    size : int
        Of the audio, in bytes.
    """

    id: str
    spk_id: str
    start: int
    stop: int
    name: str
    at: int
    size: int


def pack(
    save_folder: str | pathlib.Path,
    out: str | pathlib.Path,
    shard_size: int = 1000,
    seed: int = 1986,
) -> None:
    """Packs the utterances of a save folder.

    A packing that was interrupted goes on after its last whole shard.

    Arguments
    ---------
    save_folder : str or pathlib.Path
        With train.csv and dev.csv, as the recipe prepares them.
    out : str or pathlib.Path
        For the folders ``train`` and ``dev``.
    shard_size : int
        Utterances in a shard.
    seed : int
        Of the order: a shard is of many speakers.

    Raises
    ------
    InputError
        If a CSV or an audio file can't be read, a shard can't be written, or
        ``out`` has shards of something else.
    """
    if not (isinstance(shard_size, int) and shard_size > 0):
        raise InputError(
            f"shard_size is {shard_size}, expected a number of utterances > 0"
        )
    for split in ("train", "dev"):
        table = pathlib.Path(save_folder) / f"{split}.csv"
        folder = pathlib.Path(out) / split
        try:
            _pack_table(table, folder, shard_size, seed)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            cure = "free some space" if full else "mend that"
            raise InputError(
                f"can't write {error.filename or folder} ({error.strerror}): "
                f"{cure}, and the same command goes on"
            ) from error


def _pack_table(
    table: pathlib.Path, folder: pathlib.Path, shard_size: int, seed: int
) -> None:
    rows = _read_table(table)
    random.Random(seed).shuffle(rows)
    text = json.dumps([rows, shard_size, seed])
    made_of = hashlib.sha256(text.encode()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "made_of.txt"
    if not note.is_file():
        with atomic_path(note) as temporary:
            temporary.write_text(made_of)
    elif note.read_text() != made_of:
        raise InputError(
            f"{folder} has shards of another table, shard_size or seed: "
            "delete it, or give another folder"
        )
    for left in folder.glob(".*"):
        left.unlink()  # what a kill has left
    before = _sizes_before(folder / MANIFEST)
    shards: list[dict[str, Any]] = []
    description = f"Packing {table.stem}"
    with tqdm.tqdm(
        total=len(rows), desc=description, unit="file", dynamic_ncols=True
    ) as bar:
        for first in range(0, len(rows), shard_size):
            path = folder / f"{table.stem}-{len(shards):06d}.tar"
            own = rows[first : first + shard_size]
            if not _is_whole(path, own, first, before.get(path.name)):
                _write_shard(path, own, first, bar)
            bar.update(first + len(own) - bar.n)
            shards.append(
                {
                    "url": path.name,
                    "nsamples": len(own),
                    "filesize": path.stat().st_size,
                }
            )
    manifest = {
        "wids_version": 1,  # which webdataset's wids reads
        "sample_rate": _rate_of(rows[0]),
        "speakers": sorted({row["spk_id"] for row in rows}),
        "shardlist": shards,
    }
    with atomic_path(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1))
    logger.info(f"{len(rows)} utterances are in {len(shards)} shards, {folder}")


# What is raised where JSON is no index, or no manifest
_NO_INDEX = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)


def _sizes_before(manifest: pathlib.Path) -> dict[str, int]:
    """Shard -> bytes, of shards that were packed to their end before."""
    try:
        shards = json.loads(manifest.read_text(encoding="utf-8"))["shardlist"]
        return {shard["url"]: shard["filesize"] for shard in shards}
    except (OSError, *_NO_INDEX):
        return {}


def _is_whole(
    path: pathlib.Path,
    rows: list[dict[str, str]],
    first: int,
    size: int | None,
) -> bool:
    """Whether a shard and its index are there, and fit rows and each other."""
    try:
        index = json.loads(index_of(path).read_text(encoding="utf-8"))
        with open(path, "rb", buffering=0) as shard:
            file = shard.fileno()
            held = os.fstat(file).st_size
            return size in (None, held) and all(
                _says(number, row).items() <= entry.items()
                and _file_at(file, entry["at"]) == _file_of(entry)
                and entry["at"] + BLOCK + entry["size"] <= held
                for number, (row, entry) in enumerate(
                    zip(rows, index, strict=True), start=first
                )
            )
    except (OSError, *_NO_INDEX):
        return False


def _says(number: int, row: dict[str, str]) -> dict[str, Any]:
    """What an index has of an utterance, but for where it is."""
    suffix = pathlib.PurePath(row["wav"]).suffix.lower()
    return {
        "name": f"{number:09d}{suffix}",
        "id": row["ID"],
        "spk_id": row["spk_id"],
        "start": int(row["start"]),
        "stop": int(row["stop"]),
    }


def _file_of(entry: Entry) -> tuple[str, bytes]:
    return entry["name"], b"%011o" % entry["size"]


def _file_at(file: int, at: int) -> tuple[str | None, bytes]:
    """The name of the file that a shard has there, and its size."""
    header = os.pread(file, BLOCK, at)
    return _name_in(header), header[124:135]


def _read_table(path: pathlib.Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise InputError(
            f"{path} is missing: give the save folder of a run, or of the "
            "recipe's preparation"
        )
    rows = [row for _, row in read_table(path, COLUMNS)]
    if not rows:
        raise InputError(f"{path} has no utterances: prepare again")
    return rows


def _rate_of(row: dict[str, str]) -> int:
    samples = int(row["stop"]) - int(row["start"])
    return round(samples / float(row["duration"]))


def index_of(shard: pathlib.Path) -> pathlib.Path:
    """Where the index of a shard is.

    Arguments
    ---------
    shard : pathlib.Path

    Returns
    -------
    path : pathlib.Path
    """
    return shard.with_suffix(".index.json")


def _write_shard(
    path: pathlib.Path, rows: list[dict[str, str]], first: int, bar: tqdm.tqdm
) -> None:
    index = []
    with atomic_path(path) as temporary:
        with tarfile.open(
            temporary, "w", format=tarfile.USTAR_FORMAT
        ) as archive:
            for number, row in enumerate(rows, start=first):
                source = pathlib.Path(row["wav"])
                try:
                    content = source.read_bytes()
                except OSError as error:
                    raise InputError(
                        f"can't read {source} ({error.strerror}): restore it, "
                        "or prepare again without it"
                    ) from error
                says = _says(number, row)
                place = {"at": archive.offset, "size": len(content)}
                _add(archive, says["name"], content)
                beside = {k: v for k, v in says.items() if k != "name"}
                text = json.dumps(beside).encode()
                _add(archive, f"{number:09d}.json", text)
                index.append(says | place)
                bar.update()
    with atomic_path(index_of(path)) as temporary:
        temporary.write_text(json.dumps(index))


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


class Shards:
    """The shards of a folder.

    Arguments
    ---------
    folder : str or pathlib.Path
        With the manifest that ``pack`` writes.

    Raises
    ------
    InputError
        If there is none, or a shard is missing or cut.
    """

    def __init__(self, folder: str | pathlib.Path) -> None:
        self.folder = pathlib.Path(folder)
        path = self.folder / MANIFEST
        manifest = _read_json(path, "pack first, or to its end")
        try:
            self.sample_rate = manifest["sample_rate"]
            self.speakers = manifest["speakers"]
            shards = manifest["shardlist"]
            self.names = [shard["url"] for shard in shards]
            self.counts = np.array([shard["nsamples"] for shard in shards])
            sizes = [shard["filesize"] for shard in shards]
        except (KeyError, TypeError) as error:
            raise InputError(f"{path} is no manifest: pack again") from error
        self.known = set(self.speakers)
        self.room = OPEN_FILES  # shards whose index is held
        for name, size in zip(self.names, sizes, strict=True):
            self._check_file(name, size)
        self.indices: dict[int, list[Entry]] = {}
        self.files: dict[int, io.FileIO] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Open files do not go to other processes.
        return self.__dict__ | {"indices": {}, "files": {}}

    def __len__(self) -> int:
        return int(self.counts.sum())

    def _check_file(self, name: str, size: int) -> None:
        path = self.folder / name
        if pathlib.PurePath(name).name != name:
            raise InputError(
                f"{self.folder / MANIFEST} names {name}, which is not in its "
                "folder: pack again"
            )
        if not path.is_file():
            raise InputError(f"{path} is missing: restore it, or pack again")
        if path.stat().st_size != size:
            raise InputError(
                f"{path} has {path.stat().st_size} bytes, expected {size}: it "
                "is truncated or another one; restore it, or pack again"
            )

    def entry(self, shard: int, number: int) -> Entry:
        """What the index says of an utterance.

        Arguments
        ---------
        shard : int
        number : int
            In the shard.

        Returns
        -------
        entry : Entry
        """
        if shard not in self.indices:
            _make_room(self.indices, self.room)
            path = index_of(self.folder / self.names[shard])
            index = _read_json(path, "restore it, or pack again")
            if len(index) != self.counts[shard]:
                raise InputError(
                    f"{path} has {len(index)} utterances, expected "
                    f"{self.counts[shard]}: pack again"
                )
            self.indices[shard] = index
        entry = self.indices[shard][number]
        if entry["spk_id"] not in self.known:
            raise InputError(
                f"{index_of(self.folder / self.names[shard])} has "
                f"{entry['id']} of {entry['spk_id']}, no speaker of "
                f"{MANIFEST}: pack again"
            )
        return entry

    def read(self, shard: int, entry: Entry) -> bytes:
        """The audio of an utterance, as it is in its file.

        Arguments
        ---------
        shard : int
        entry : Entry
            Of ``entry``.

        Returns
        -------
        content : bytes
        """
        path = self.folder / self.names[shard]
        if shard not in self.files:
            for oldest in _make_room(self.files, OPEN_FILES):
                oldest.close()
            self.files[shard] = _open(path)
        # Not by a position in the file, which forked workers share.
        file, at = self.files[shard].fileno(), entry["at"]
        with _naming(path):
            found = _file_at(file, at)
            content = os.pread(file, entry["size"], at + BLOCK)
        if found != _file_of(entry):
            raise InputError(
                f"{path} has {found[0] or 'no file'} at {at}, expected "
                f"{entry['name']} of {entry['size']} bytes: it is not the "
                "shard that its index is of; restore both, or pack again"
            )
        if len(content) != entry["size"]:
            raise InputError(
                f"{path} is truncated in {entry['name']}: restore it, or pack "
                "again"
            )
        return content


def _name_in(header: bytes) -> str | None:
    """Of a tar file's header, without what tarfile makes of all of it."""
    if header[257:262] != b"ustar":
        return None
    return header[:100].rstrip(b"\0").decode("utf-8", "replace")


def _make_room(cache: dict[int, _Value], room: int) -> list[_Value]:
    """Takes the oldest of a full cache."""
    full = len(cache) >= room
    return [cache.pop(next(iter(cache)))] if full else []


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"can't read {path} ({error.strerror}): restore it, or pack again"
        ) from error


def _open(path: pathlib.Path) -> io.FileIO:
    with _naming(path):
        file = open(path, "rb", buffering=0)
        if hasattr(os, "posix_fadvise"):  # a run of it is read ahead
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
    return file


def _read_json(path: pathlib.Path, cure: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: {cure}") from error
    except (ValueError, OSError) as error:
        raise InputError(f"{path} can't be read ({error}): {cure}") from error


class ShardDataset(torch.utils.data.IterableDataset):
    """The batches of an epoch, read from shards.

    The shards are in another order each epoch, and utterances in random order
    within a buffer, of which only what is known of them is held, not their
    audio. The order is a function of seed and epoch; each process of
    distributed training reads a run of it, of one length, with as few shards
    in common with the others as can be. Workers read whole batches in turn,
    so that their number changes nothing.

    Arguments
    ---------
    shards : Shards
    crop : Crop
        Reads an utterance.
    encode : callable
        Speaker -> label.
    batch_size : int
    shuffle_buffer : int
        Utterances; 0: none are shuffled, all are read by every process.
    seed : int
    counter : EpochCounter
        Says which epoch it is, in ``current``; None: all are the same.
    """

    def __init__(
        self,
        shards: Shards,
        crop: Crop,
        encode: Callable[[str], torch.Tensor],
        batch_size: int,
        shuffle_buffer: int = 0,
        seed: int = 0,
        counter: EpochCounter | None = None,
    ) -> None:
        super().__init__()
        self.shards = shards
        self.crop = crop
        self.encode = encode
        self.batch_size = batch_size
        self.shuffle_buffer = shuffle_buffer
        self.seed = seed
        self.counter = counter
        self.rank, self.processes = 0, 1
        if shuffle_buffer and torch.distributed.is_initialized():
            self.rank = torch.distributed.get_rank()
            self.processes = torch.distributed.get_world_size()
        self.begun = (0, 0)
        shards.room = 2 + shuffle_buffer // int(shards.counts.max())

    def go_to(self, epoch: int, batches: int) -> None:
        """Passes over the first batches of an epoch, without reading them.

        Arguments
        ---------
        epoch : int
        batches : int
        """
        self.begun = (epoch, batches)

    def __len__(self) -> int:
        return -(-self._utterances() // self.batch_size)

    def _utterances(self) -> int:
        return -(-len(self.shards) // self.processes)

    def __iter__(self) -> Iterator[PaddedBatch]:
        epoch = self.counter.current if self.counter else 0
        first = self.begun[1] if epoch == self.begun[0] else 0
        worker = torch.utils.data.get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for batch in range(first + number, len(self), workers):
            yield PaddedBatch(
                [self._read(*place) for place in self.places(epoch, batch)]
            )

    def places(self, epoch: int, batch: int) -> list[tuple[int, int]]:
        """Where the utterances of a batch are.

        Arguments
        ---------
        epoch : int
        batch : int

        Returns
        -------
        places : list of tuple
            (shard, number in it).
        """
        start = batch * self.batch_size
        stop = min(start + self.batch_size, self._utterances())
        order, ends = self._shard_order(epoch)
        places = []
        for position in range(start, stop):
            position += self.rank * self._utterances()
            # As a distributed sampler does, the last process begins anew.
            position = self._shuffled(epoch, position % len(self.shards))
            which = int(np.searchsorted(ends, position, side="right"))
            shard = int(order[which])
            begin = ends[which] - self.shards.counts[shard]
            places.append((shard, int(position - begin)))
        return places

    def _shard_order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        order = np.arange(len(self.shards.counts))
        if self.shuffle_buffer:
            order = self._generator(epoch, 0).permutation(order)
        return order, self.shards.counts[order].cumsum()

    def _shuffled(self, epoch: int, position: int) -> int:
        if not self.shuffle_buffer:
            return position
        block, within = divmod(position, self.shuffle_buffer)
        first = block * self.shuffle_buffer
        if getattr(self, "_block", ())[:2] != (epoch, block):
            size = min(self.shuffle_buffer, len(self.shards) - first)
            order = self._generator(epoch, 1 + block).permutation(size)
            self._block = epoch, block, order
        return first + int(self._block[2][within])

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *key])

    def _read(self, shard: int, number: int) -> dict[str, Any]:
        entry = self.shards.entry(shard, number)
        content = io.BytesIO(self.shards.read(shard, entry))
        path = self.shards.folder / self.shards.names[shard] / entry["name"]
        return {
            "id": entry["id"],
            "sig": self.crop(
                entry["id"], path, entry["start"], entry["stop"], content
            ),
            "spk_id_encoded": self.encode(entry["spk_id"]),
        }


def main() -> None:
    """Packs, from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m speechbrain_hyperbolic.dataio.shards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("save_folder", metavar="SAVE_FOLDER")
    parser.add_argument("out", metavar="OUT")
    parser.add_argument(
        "--shard_size", type=int, default=1000, help="utterances in a shard"
    )
    parser.add_argument("--seed", type=int, default=1986, help="of the order")
    args = parser.parse_args()
    with exit_on_input_error():
        pack(args.save_folder, args.out, args.shard_size, args.seed)


if __name__ == "__main__":
    main()
