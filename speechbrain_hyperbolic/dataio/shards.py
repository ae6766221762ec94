"""Packs utterances into tar files, for corpora of very many files.

python -m speechbrain_hyperbolic.dataio.shards SAVE_FOLDER OUT

packs the audio that train.csv and dev.csv of a save folder list; train with
--shards_folder=OUT. The tar files have webdataset's form: the original file as
``000000012.wav`` and its id, speaker, start and stop as ``000000012.json``.
OUT/train.csv and OUT/dev.csv tell where in which tar file each utterance is.
"""

import argparse
import io
import json
import os
import pathlib
import random
import tarfile
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import tqdm
from speechbrain.utils.epoch_loop import EpochCounter

from speechbrain_hyperbolic.dataio.files import StrPath, atomic_path
from speechbrain_hyperbolic.dataio.preparation import COLUMNS, read_csv
from speechbrain_hyperbolic.dataio.tables import write_table
from speechbrain_hyperbolic.errors import InputError, exit_on_error

SHUFFLE_BUFFER = 1000
_Row = tuple[str, dict[str, Any]]  # an id, and its row of a CSV file


def pack(save_folder: StrPath, out: StrPath, shard_size: int = 1000) -> None:
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
        random.Random(0).shuffle(rows)
        packed: list[dict[str, Any]] = []
        starts = range(0, len(rows), shard_size)
        for number, first in enumerate(tqdm.tqdm(starts, f"Packing {split}")):
            shard = f"{split}/{split}-{number:06d}.tar"
            packed += _write_shard(out, shard, rows[first:][:shard_size], first)
        # Written last: a packing that was killed has no list.
        columns = [*COLUMNS, "offset", "size"]
        lines = ([row[name] for name in columns] for row in packed)
        write_table(lines, out / f"{split}.csv", columns)


def _write_shard(
    out: pathlib.Path, shard: str, rows: list[_Row], first: int
) -> list[dict[str, Any]]:
    """Packs rows, numbered from ``first``; returns them with their places."""
    packed = []
    with (
        atomic_path(out / shard) as temporary,
        open(temporary, "wb") as stream,
        tarfile.open(fileobj=stream, mode="w") as archive,
    ):
        for number, (utterance, row) in enumerate(rows, start=first):
            source = pathlib.Path(row["wav"])
            try:
                content = source.read_bytes()
            except OSError as error:
                raise InputError(
                    f"{source} can't be read ({error.strerror}): restore the "
                    "file, or prepare the corpus again without it"
                ) from error
            name = f"{number:09d}{source.suffix.lower()}"
            place = {
                "ID": utterance,
                "wav": f"$data_root/{shard}/{name}",
                "offset": stream.tell() + tarfile.BLOCKSIZE,  # its header
                "size": len(content),
            }
            packed.append(row | place)
            _add(archive, name, content)
            entry = {k: row[k] for k in ("spk_id", "start", "stop")}
            entry["id"] = utterance
            _add(archive, f"{number:09d}.json", json.dumps(entry).encode())
    return packed


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def read_shard_list(
    path: pathlib.Path, sample_rate: int
) -> dict[str, dict[str, Any]]:
    """ID -> the other columns. The size of each shard is checked."""
    rows = read_csv(path, path.parent)
    ends: dict[str, int] = {}
    for row in rows.values():
        try:
            row["offset"], row["size"] = int(row["offset"]), int(row["size"])
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{path} does not list shards, or is damaged: pack again into "
                "another folder"
            ) from error
        ends[os.path.dirname(row["wav"])] = row["offset"] + row["size"]
    for shard, end in ends.items():
        if not os.path.isfile(shard) or os.path.getsize(shard) < end:
            raise InputError(
                f"{shard} is missing or incomplete: pack again into another "
                "folder"
            )
    found = round((row["stop"] - row["start"]) / row["duration"])
    if found != sample_rate:
        raise InputError(
            f"{path} has the sample_rate {found}, expected {sample_rate}: "
            "prepare and pack again"
        )
    return rows


def open_member(wav: str, offset: int, size: int) -> io.BytesIO:
    """The file ``wav`` of a shard, its parent."""
    with open(os.path.dirname(wav), "rb") as shard:
        shard.seek(offset)
        return io.BytesIO(shard.read(size))


class ShardSampler(torch.utils.data.Sampler[int]):
    """Permutes the shards, then the utterances within a buffer.

    So few shards are read at a time. Seed and epoch decide.
    """

    def __init__(
        self,
        rows: dict[str, dict[str, Any]],
        shuffle_buffer: int,
        seed: int,
        counter: EpochCounter,
    ) -> None:
        counts = Counter(os.path.dirname(row["wav"]) for row in rows.values())
        ends = np.cumsum([*counts.values()])
        self.shards = np.split(np.arange(len(rows)), ends[:-1])
        self.shuffle_buffer = shuffle_buffer
        self.seed, self.counter = seed, counter

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.counter.current])
        shards = generator.permutation(len(self.shards))
        numbers = np.concatenate([self.shards[shard] for shard in shards])
        for start in range(0, len(numbers), self.shuffle_buffer):
            generator.shuffle(numbers[start : start + self.shuffle_buffer])
        return iter(numbers.tolist())


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
    with exit_on_error():
        pack(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
