"""Packs utterances into tar files, for corpora of very many files.

python -m speechbrain_hyperbolic.dataio.shards SAVE_FOLDER OUT

packs the audio that train.csv and dev.csv of a save folder list; train with
--shards_folder=OUT. The tar files have webdataset's form: the original file as
``000000012.wav`` and its id, speaker, start and stop as ``000000012.json``.
Needs ``pip install webdataset``.
"""

import argparse
import contextlib
import io
import json
import pathlib
import random
import tarfile
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
import torch
import tqdm
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.epoch_loop import EpochCounter

from speechbrain_hyperbolic.dataio.crops import Crop
from speechbrain_hyperbolic.dataio.files import StrPath, atomic_path
from speechbrain_hyperbolic.dataio.preparation import read_csv
from speechbrain_hyperbolic.errors import InputError, exit_on_error

MANIFEST = "manifest.json"
# Utterances that are shuffled together, after the shuffling of ``pack``. The
# workers of a process together hold the audio of about as many in memory.
SHUFFLE_BUFFER = 1000
_Row = tuple[str, dict[str, Any]]  # an id, and its row of a CSV file


def pack(
    save_folder: StrPath, out: StrPath, shard_size: int = 1000, seed: int = 1986
) -> None:
    """Packs train.csv and dev.csv, shuffled, into ``out/train`` and ``dev``."""
    if shard_size < 1:
        raise InputError(f"shard_size is {shard_size}, expected 1 or more")
    out = pathlib.Path(out)
    if any(out.glob("*/*.tar")):
        raise InputError(
            f"{out} has shards already: delete them, or pass another folder"
        )
    for split in ("train", "dev"):
        rows = list(read_csv(pathlib.Path(save_folder, f"{split}.csv")).items())
        random.Random(seed).shuffle(rows)
        _pack_rows(rows, out / split, shard_size)


def _pack_rows(rows: list[_Row], folder: pathlib.Path, shard_size: int) -> None:
    shards: list[dict[str, Any]] = []
    starts = range(0, len(rows), shard_size)
    for first in tqdm.tqdm(starts, f"Packing {folder.name}", unit="shard"):
        path = folder / f"{folder.name}-{len(shards):06d}.tar"
        own = rows[first : first + shard_size]
        _write_shard(path, own, first)
        size = path.stat().st_size
        shards.append(
            {"url": path.name, "nsamples": len(own), "filesize": size}
        )
    _, row = rows[0]
    manifest = {
        "sample_rate": round((row["stop"] - row["start"]) / row["duration"]),
        "speakers": sorted({row["spk_id"] for _, row in rows}),
        "shardlist": shards,
    }
    with atomic_path(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1))


def _write_shard(path: pathlib.Path, rows: list[_Row], first: int) -> None:
    with (
        atomic_path(path) as temporary,
        open(temporary, "wb") as stream,
        _webdataset().TarWriter(stream, encoder=False, mtime=0) as archive,
    ):
        for number, (name, row) in enumerate(rows, start=first):
            source = pathlib.Path(row["wav"])
            try:
                content = source.read_bytes()
            except OSError as error:
                raise InputError(
                    f"{source} can't be read ({error.strerror}): restore the "
                    "file, or prepare the corpus again without it"
                ) from error
            entry = {k: row[k] for k in ("spk_id", "start", "stop")}
            archive.write(
                {
                    "__key__": f"{number:09d}",
                    source.suffix[1:].lower(): content,
                    "json": json.dumps({"id": name, **entry}).encode(),
                }
            )


class Shards:
    """A folder of shards that ``pack`` made, each checked by its size."""

    def __init__(self, folder: StrPath) -> None:
        self.folder = pathlib.Path(folder)
        path = self.folder / MANIFEST
        if not path.is_file():
            raise InputError(
                f"{path} is missing: pass the folder of a finished packing as "
                "--shards_folder"
            )
        try:
            manifest = json.loads(path.read_bytes())
            self.sample_rate = manifest["sample_rate"]
            self.speakers = manifest["speakers"]
            shards = manifest["shardlist"]
            self.paths = [self.folder / shard["url"] for shard in shards]
            self.counts = np.array([shard["nsamples"] for shard in shards])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is damaged: pack again into another folder"
            ) from error
        for shard, own in zip(self.paths, shards, strict=True):
            if not shard.is_file() or shard.stat().st_size != own["filesize"]:
                raise InputError(
                    f"{shard} is missing or incomplete: pack again into "
                    "another folder"
                )

    def __len__(self) -> int:
        return int(self.counts.sum())

    def read(self, numbers: Collection[int]) -> dict[int, dict[str, Any]]:
        """Number -> webdataset's sample, numbered through all shards."""
        keys = {f"{number:09d}": number for number in numbers}
        shards = np.searchsorted(self.counts.cumsum(), [*numbers], side="right")
        dataset = _webdataset().WebDataset(
            [str(self.paths[n]) for n in sorted({*shards})],
            shardshuffle=False,
            # Each worker reads what it was told to, of any shard.
            nodesplitter=None,
            workersplitter=None,
            empty_check=False,
            select_files=lambda name: name.partition(".")[0] in keys,
        )
        found: dict[int, dict[str, Any]] = {}
        with contextlib.suppress(tarfile.TarError, ValueError):
            for sample in dataset:
                sample["json"] = json.loads(sample["json"])
                found[keys[sample["__key__"]]] = sample
        if missing := set(numbers) - set(found):
            shard = self.counts.cumsum().searchsorted(min(missing), "right")
            raise InputError(
                f"{self.paths[shard]} is damaged: pack again into another "
                "folder"
            )
        return found


class ShardDataset(torch.utils.data.IterableDataset):
    """The batches of an epoch, in an order that depends on seed and epoch.

    Shards are permuted, then utterances within a buffer. Processes read equal
    shares; with ``shuffle_buffer`` 0 each reads everything, in order. Workers
    take whole batches in turn, so their number doesn't change the order.
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
        self.done = (0, 0)

    def go_to(self, epoch: int, batches: int) -> None:
        """Skips the first batches of an epoch without reading them."""
        self.done = (epoch, batches)

    def __len__(self) -> int:
        return -(-self._utterances() // self.batch_size)

    def _utterances(self) -> int:
        return -(-len(self.shards) // self.processes)

    def __iter__(self) -> Iterator[PaddedBatch]:
        epoch = self.counter.current if self.counter else 0
        first = self.done[1] if epoch == self.done[0] else 0
        worker = torch.utils.data.get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        order, size = self._order(epoch), self.batch_size
        own = range(first + number, len(self), workers)
        for start in range(0, len(self), self._span()):
            batches = [
                order[batch * size : (batch + 1) * size].tolist()
                for batch in range(start, start + self._span())
                if batch in own
            ]
            if not batches:
                continue
            samples = self.shards.read([n for batch in batches for n in batch])
            for batch in batches:
                yield PaddedBatch([self._item(samples.pop(n)) for n in batch])

    def _span(self) -> int:
        """Batches whose utterances are shuffled, and read, together."""
        return -(-(self.shuffle_buffer or SHUFFLE_BUFFER) // self.batch_size)

    def _order(self, epoch: int) -> np.ndarray:
        """The numbers of the utterances that this process reads, in order."""
        counts, share = self.shards.counts, self._utterances()
        numbers = np.arange(len(self.shards))
        if not self.shuffle_buffer:
            return numbers
        generator = np.random.default_rng([self.seed, epoch])
        parts = np.split(numbers, counts.cumsum()[:-1])
        numbers = np.concatenate(
            [parts[shard] for shard in generator.permutation(len(counts))]
        )
        # As in DistributedSampler, the last process's share wraps around.
        numbers = np.resize(np.roll(numbers, -self.rank * share), share)
        span = self._span() * self.batch_size
        for start in range(0, share, span):
            generator.shuffle(numbers[start : start + span])
        return numbers

    def _item(self, sample: dict[str, Any]) -> dict[str, Any]:
        entry = sample["json"]
        suffix = next(k for k in sample if k[:2] != "__" and k != "json")
        path = pathlib.Path(sample["__url__"], f"{sample['__key__']}.{suffix}")
        content = io.BytesIO(sample[suffix])
        name, start, stop = entry["id"], entry["start"], entry["stop"]
        return {
            "id": name,
            "sig": self.crop(name, path, start, stop, content),
            "spk_id_encoded": self.encode(entry["spk_id"]),
        }


def _webdataset() -> Any:
    try:
        import webdataset  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError(
            "shards need webdataset: pip install webdataset"
        ) from error
    return webdataset


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("save_folder", metavar="SAVE_FOLDER")
    parser.add_argument("out", metavar="OUT")
    parser.add_argument(
        "--shard_size", type=int, default=1000, help="utterances in a shard"
    )
    parser.add_argument("--seed", type=int, default=1986, help="of the shuffle")
    with exit_on_error():
        pack(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
