"""From the audio of a corpus to train.csv and dev.csv, in the stock's columns.

Headers are read in parallel; files that can't be used are left out and listed.
"""

import hashlib
import json
import os
import pathlib
import random
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.corpus import (
    Corpus,
    in_words,
    read_corpus,
    speaker_of,
)
from speechbrain_hyperbolic.dataio.files import StrPath, write_text
from speechbrain_hyperbolic.dataio.speech import is_silent, speech_segments
from speechbrain_hyperbolic.dataio.tables import (
    check_name,
    read_table,
    write_table,
)
from speechbrain_hyperbolic.errors import InputError, shown

logger = get_logger(__name__)

COLUMNS = ["ID", "duration", "wav", "start", "stop", "spk_id"]
_CHUNK = 256  # files that a thread reads at a time
_PROBE = 64  # files that tell whether the disk makes readers wait
_WAIT = 1e-4  # seconds for a file, some four times the work of its header


class Utterance(NamedTuple):
    """A row of the stock CSV files."""

    id: str  # path below the corpus, no extension: speaker/[session/]utterance
    duration: float  # seconds
    wav: str  # path of the audio file
    start: int  # first sample, at the recipe's sample rate
    stop: int  # the sample after the last
    spk_id: str


def prepare_corpus(
    data_folder: StrPath | Corpus,
    save_folder: StrPath,
    test_speakers: Collection[str],
    split_ratio: Sequence[int] = (90, 10),
    sample_rate: int = 16000,
    check_audio: str = "header",
    seed: int = 0,
    vad: bool = False,
) -> None:
    """Writes train.csv and dev.csv without the test speakers, and skipped.txt,
    unless it was done with the same files and options.
    """
    save_folder = pathlib.Path(save_folder)
    corpus = read_corpus(data_folder, outputs=save_folder)
    held_out = corpus.held_out(test_speakers)
    paths = corpus.paths(corpus.speakers.keys() - held_out)
    names = "\n".join(f"{name} {path}" for name, path in paths.items())
    made_from = {
        "files": hashlib.sha256(os.fsencode(names)).hexdigest(),
        "split_ratio": list(split_ratio),
        "sample_rate": sample_rate,
        "check_audio": check_audio,
        "vad": vad,
        "seed": seed,
    }
    record = save_folder / "prepare.json"
    if record.is_file():
        known = json.loads(record.read_text())
        if known.get("made_from") == made_from:
            logger.info(f"Already prepared: delete {record} to do it again.")
            logger.info(known["summary"])
            return
        logger.warning(
            f"{save_folder} was prepared from other files or with other "
            "options: it is prepared again, and a run that resumes there will "
            "train on different data"
        )
        record.unlink()
    utterances, problems = read_utterances(paths, sample_rate, check_audio, vad)
    report_skipped(problems | corpus.skipped, save_folder / "skipped.txt")
    speakers = {u.spk_id for u in utterances}
    if not utterances:
        raise InputError(
            f"data_folder {corpus.source} has no utterances left to train on: "
            f"{len(held_out)} speakers are reserved for the trials, and "
            f"{len(problems)} files can't be used"
        )
    if len(speakers) == 1:
        raise InputError(
            f"data_folder {corpus.source} has one training speaker, "
            f"{shown(min(speakers))} ({len(utterances)} utterances), where "
            "training needs two or more: look at 'sb-hyperbolic check', and "
            "pass --speaker_level if the speaker is another folder"
        )
    train, dev = split_utterances(utterances, split_ratio, seed)
    write_csv(train, save_folder / "train.csv")
    write_csv(dev, save_folder / "dev.csv")
    summary = (
        f"{len(train)} train and {len(dev)} dev utterances of "
        f"{summarize(utterances)}"
    )
    logger.info(summary)
    write_text(record, json.dumps({"made_from": made_from, "summary": summary}))


def summarize(utterances: Sequence[Utterance]) -> str:
    """Speakers, hours, and the shortest and longest utterance, in words."""
    seconds = [utterance.duration for utterance in utterances]
    speakers = len({utterance.spk_id for utterance in utterances})
    return (
        f"{speakers} speakers: {len(seconds)} utterances, "
        f"{sum(seconds) / 3600:.2f} hours, the shortest {min(seconds):.2f} s, "
        f"the longest {max(seconds):.2f} s"
    )


def read_utterances(
    paths: dict[str, str],
    sample_rate: int = 16000,
    check_audio: str = "header",
    vad: bool = False,
) -> tuple[list[Utterance], dict[str, str]]:
    """Returns utterances, and path -> what is wrong with other files.

    Decoding also finds truncated flac and m4a files, NaN and silence; ``vad``
    leaves out files without speech, and what is before and after it.
    """
    if check_audio not in ("header", "decode"):
        raise InputError(
            f"check_audio is {check_audio!r}, expected 'header' or 'decode'"
        )
    decode = check_audio == "decode"

    def read(chunk: list[tuple[str, str]]) -> list[Utterance | str]:
        return [_read(*item, sample_rate, decode, vad) for item in chunk]

    items = list(paths.items())
    chunks = [items[i : i + _CHUNK] for i in range(0, len(items), _CHUNK)]
    found: list[Utterance | str] = []
    bar = tqdm(total=len(items), desc="Reading audio", unit="file")
    spread = decode or vad
    if not spread:
        # Threads that read headers hinder each other, unless a disk is slow.
        # Not the first files: an earlier try may have left them in memory.
        some = random.Random().sample(items, min(_PROBE, len(items)))
        began = time.perf_counter() - time.thread_time()
        read(some)
        waited = time.perf_counter() - time.thread_time() - began
        spread = waited > _WAIT * _PROBE
    with bar, ThreadPoolExecutor() as pool:
        for results in (pool.map if spread else map)(read, chunks):
            found += results
            bar.update(len(results))
    utterances, problems = [], {}
    for path, result in zip(paths.values(), found, strict=True):
        if isinstance(result, str):
            problems[path] = result
        else:
            utterances.append(result)
    return utterances, problems


def _read(
    name: str, path: str, sample_rate: int, decode: bool, vad: bool
) -> Utterance | str:
    """The utterance of a file, or why it can't be used."""
    file, seconds, end = audio.split_segment(path)
    try:
        rate, frames, _ = audio.info(path)
        if end and seconds + frames / rate < end - 0.5:  # as Kaldi allows
            return "ends after its file: correct the segment"
        first, last = 0, frames
        if vad:
            segments = speech_segments(audio.load(path, rate), rate)
            if not segments:
                return "no speech: replace or remove the file"
            first, last = segments[0][0], segments[-1][1]
        elif decode and is_silent(audio.load(path, rate), rate):
            return "is silent: replace or remove the file"
    except InputError as error:
        # It names the file, or the segment of it.
        return str(error).removeprefix(path).removeprefix(file).strip()
    frames = last - first
    start = round((seconds + first / rate) * sample_rate)
    stop = start + round(frames * sample_rate / rate)
    speaker = sys.intern(speaker_of(name))
    return Utterance(name, frames / rate, file, start, stop, speaker)


def report_skipped(skipped: Mapping[str, str], path: StrPath) -> None:
    """Warns of files that are left out, and lists them in a file."""
    if not skipped:
        pathlib.Path(path).unlink(missing_ok=True)
        return
    logger.warning(f"left out {in_words(skipped)}, listed in {path}")
    lines = (f"{file} {why}\n" for file, why in skipped.items())
    write_text(path, "".join(lines))


def split_utterances(
    utterances: list[Utterance],
    split_ratio: Sequence[int] = (90, 10),
    seed: int = 0,
) -> tuple[list[Utterance], list[Utterance]]:
    """Splits at random into train, which keeps every speaker, and dev."""
    counts = Counter(utterance.spk_id for utterance in utterances)
    shuffled = list(utterances)
    random.Random(seed).shuffle(shuffled)
    wanted = max(1, len(shuffled) * split_ratio[1] // sum(split_ratio))
    train: list[Utterance] = []
    dev: list[Utterance] = []
    for utterance in shuffled:
        if len(dev) < wanted and counts[utterance.spk_id] > 1:
            counts[utterance.spk_id] -= 1
            dev.append(utterance)
        else:
            train.append(utterance)
    if not dev:
        raise InputError(
            f"each of the {len(train)} training speakers has one utterance: "
            "training needs speakers with two or more"
        )
    return train, dev


def write_csv(utterances: Iterable[Utterance], path: StrPath) -> None:
    """Writes utterances in the columns of the stock recipe."""
    write_table(utterances, path, COLUMNS)


def read_csv(
    path: StrPath, data_folder: StrPath = ""
) -> dict[str, dict[str, Any]]:
    """ID -> the other columns; ``data_folder`` replaces ``$data_root``."""
    rows: dict[str, dict[str, Any]] = {}
    for line, texts in read_table(path, COLUMNS):
        for column in ("ID", "wav", "spk_id"):
            check_name(path, line, column, texts[column])
        row: dict[str, Any] = {**texts}
        key = row.pop("ID")
        if key in rows:
            raise InputError(
                f"{path}, line {line}: ID {shown(key)} is also on an earlier "
                "line: remove one"
            )
        row["wav"] = row["wav"].replace("$data_root", str(data_folder))
        try:
            row["duration"] = float(row["duration"])
            row["start"], row["stop"] = int(row["start"]), int(row["stop"])
            if not 0 <= row["start"] < row["stop"]:
                raise ValueError
        except ValueError:
            raise InputError(
                f"{path}, line {line}: expected a duration in seconds, and "
                "integers start < stop"
            ) from None
        rows[key] = row
    if not rows:
        raise InputError(f"{path} has no utterances: prepare the corpus again")
    return rows
