"""From the audio of a corpus to train.csv and dev.csv, in the stock's columns.

Headers are read in parallel, an interrupted preparation resumes, and every
file that can't be used is left out, named and counted.
"""

import contextlib
import csv
import hashlib
import json
import math
import os
import pathlib
import random
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tqdm
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.corpus import speaker_of, training_audio
from speechbrain_hyperbolic.dataio.files import (
    Stamp,
    StrPath,
    atomic_path,
    naming_the_file,
)
from speechbrain_hyperbolic.dataio.tables import check_name, read_table
from speechbrain_hyperbolic.errors import InputError, shown

logger = get_logger(__name__)

COLUMNS = ["ID", "duration", "wav", "start", "stop", "spk_id"]
# Files that a thread measures at a time; then the journal is flushed.
_CHUNK = 256
_MOST_SAMPLES = 2**40


class Utterance(NamedTuple):
    """A row of the stock CSV files."""

    id: str  # path below the corpus, no extension: speaker/[session/]utterance
    duration: float  # seconds
    wav: str  # path of the audio file
    start: int  # first sample, at the recipe's sample rate
    stop: int  # the sample after the last
    spk_id: str


# Name and journal key of a file, and the utterance or why it can't be used
_Measured = tuple[str, str, Utterance | str]


def prepare_corpus(
    data_folder: StrPath,
    save_folder: StrPath,
    test_speakers: Collection[str],
    split_ratio: Sequence[int] = (90, 10),
    sample_rate: int = 16000,
    check_audio: str = "header",
    seed: int = 0,
    skip_prep: bool = False,
) -> None:
    """Writes train.csv and dev.csv, of the same speakers, by ``split_ratio``.

    Test speakers, and those of split "test" in speakers.csv, are kept out.
    Files that can't be used are listed in ``skipped.txt``. A preparation of
    the same files is not repeated. ``skip_prep`` uses the files as they are.
    """
    save_folder = pathlib.Path(save_folder)
    if skip_prep:
        return
    if len(split_ratio) != 2 or min(split_ratio) <= 0:
        raise InputError(
            f"split_ratio is {split_ratio}, expected two shares above 0, for "
            "train and dev, e.g. [90, 10]"
        )
    paths = training_audio(data_folder, test_speakers, save_folder)
    names = "\n".join(paths.values())
    stamp = Stamp(
        save_folder / "prepare.json",
        {
            "files": hashlib.sha256(names.encode()).hexdigest(),
            "split_ratio": list(split_ratio),
            "sample_rate": sample_rate,
            "check_audio": check_audio,
            "seed": seed,
        },
    )
    if stamp.matches():
        logger.info(f"Prepared before: delete {stamp.path} to prepare again.")
        return
    if stamp.path.is_file():
        logger.warning(
            f"{save_folder} was prepared from other files or with other "
            "options: it is prepared again, and a run that resumes there "
            "trains on other data"
        )
    stamp.path.unlink(missing_ok=True)
    journal = save_folder / "prepare.journal"
    utterances, problems = read_utterances(
        paths, sample_rate, check_audio, journal
    )
    report_problems(problems, save_folder / "skipped.txt")
    if not utterances:
        raise InputError(
            f"data_folder {data_folder} leaves no training utterance: "
            f"{len(test_speakers)} speakers are kept for the trials and "
            f"{len(problems)} files can't be used"
        )
    train, dev = split_utterances(utterances, split_ratio, seed)
    write_csv(train, save_folder / "train.csv")
    write_csv(dev, save_folder / "dev.csv")
    stamp.write()
    journal.unlink(missing_ok=True)
    logger.info(
        f"{len(train)} train and {len(dev)} dev utterances of "
        f"{len({u.spk_id for u in train})} speakers; the "
        f"{len(test_speakers)} speakers of the trials are kept out"
    )


def read_utterances(
    paths: dict[str, str],
    sample_rate: int = 16000,
    check_audio: str = "header",
    journal: StrPath | None = None,
) -> tuple[list[Utterance], dict[str, str]]:
    """Measures audio files; returns (utterances, id -> what is wrong).

    ``check_audio`` "decode" reads whole files, which also finds truncated
    flac and m4a files, NaN and silence. A ``journal`` keeps what was measured
    for the next call after an interruption.
    """
    if check_audio not in ("header", "decode"):
        raise InputError(
            f"check_audio is {check_audio!r}, expected 'header' or 'decode'"
        )
    known = _read_journal(journal) if journal else {}
    decode = check_audio == "decode"

    def measure(items: list[tuple[str, str]]) -> list[_Measured]:
        return [_measure(*item, sample_rate, decode, known) for item in items]

    items = [(name, str(path)) for name, path in paths.items()]
    chunks = [items[i : i + _CHUNK] for i in range(0, len(items), _CHUNK)]
    log = journal or os.devnull
    utterances, problems = [], {}
    with (
        tqdm.tqdm(items, "Reading audio", unit="file") as bar,
        naming_the_file(log),
        open(log, "a") as file,
        ThreadPoolExecutor() as pool,
        # Closing it cancels what has not begun, e.g. after Ctrl-C.
        contextlib.closing(pool.map(measure, chunks)) as results,  # type: ignore[type-var]
    ):
        for result in results:
            measured = []
            for name, key, found in result:
                if isinstance(found, str):
                    # Not in the journal: the disk may have been at fault.
                    problems[name] = found
                    continue
                utterances.append(found)
                if key not in known:
                    measured.append((key, found))
            file.write(json.dumps(measured) + "\n")
            file.flush()
            bar.update(len(result))
    return utterances, problems


def _measure(
    name: str,
    path: str,
    sample_rate: int,
    decode: bool,
    known: dict[str, Utterance],
) -> _Measured:
    try:
        # Before the file is read, so that a later change is noticed
        status = os.stat(path)
        size, changed = status.st_size, status.st_mtime_ns
        key = f"{path} {size} {changed} {sample_rate} {decode}"
    except (OSError, ValueError):  # audio.info will report it
        key = ""
    if key in known:
        return name, key, known[key]
    try:
        rate, frames, _ = audio.info(path)
        if decode:
            samples = audio.load(path, rate).numpy()
            if np.abs(samples).mean() < audio.SILENCE:
                raise InputError(
                    f"{path} is silent: replace or remove the file"
                )
    except InputError as error:
        return name, key, str(error)
    stop = round(frames * sample_rate / rate)
    speaker = sys.intern(speaker_of(name))
    return name, key, Utterance(name, frames / rate, path, 0, stop, speaker)


def _read_journal(journal: StrPath) -> dict[str, Utterance]:
    """What was measured before, by path, size, time and options."""
    found = {}
    pathlib.Path(journal).parent.mkdir(parents=True, exist_ok=True)
    with open(journal, "a+", errors="replace") as file:
        file.seek(0)
        for line in file:
            with contextlib.suppress(ValueError):  # torn by a kill
                rows = json.loads(line)
                found.update({key: Utterance(*row) for key, row in rows})
    if found:
        logger.info(f"{len(found)} files were measured before.")
    return found


def report_problems(
    problems: dict[str, str], path: StrPath, shown: int = 10
) -> None:
    """Warns of files that are left out, and lists all of them in a file."""
    if not problems:
        pathlib.Path(path).unlink(missing_ok=True)
        return
    for line in list(problems.values())[:shown]:
        logger.warning(f"left out: {line}")
    if len(problems) > shown:
        logger.warning(f"left out {len(problems)} files in all, see {path}")
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{p}\n" for p in problems.values()))


def split_utterances(
    utterances: list[Utterance],
    split_ratio: Sequence[int] = (90, 10),
    seed: int = 0,
) -> tuple[list[Utterance], list[Utterance]]:
    """Splits utterances at random into train and dev.

    Every speaker keeps at least one training utterance.
    """
    counts = Counter(utterance.spk_id for utterance in utterances)
    lonely = [speaker for speaker, count in counts.items() if count == 1]
    if lonely:
        logger.warning(
            f"{len(lonely)} speaker(s) have only one utterance, e.g. "
            f"{lonely[0]}: it is trained on, and nothing validates it"
        )
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
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(utterances)


def read_csv(
    path: StrPath, data_folder: StrPath = ""
) -> dict[str, dict[str, Any]]:
    """Reads what ``write_csv`` or the stock preparation wrote.

    Returns ID -> the other columns: duration a float, start and stop
    integers. ``data_folder`` replaces ``$data_root`` in the audio paths.
    """
    rows: dict[str, dict[str, Any]] = {}
    for line, texts in read_table(path, COLUMNS):
        row: dict[str, Any] = {**texts}
        for column in ("ID", "wav", "spk_id"):
            check_name(path, line, column, row[column])
        key = row.pop("ID")
        if key in rows:
            raise InputError(
                f"{path}, line {line}: ID {shown(key)} is on an earlier line "
                "too: remove one"
            )
        row["wav"] = row["wav"].replace("$data_root", str(data_folder))
        try:
            row["duration"] = float(row["duration"])
            row["start"], row["stop"] = int(row["start"]), int(row["stop"])
        except ValueError:
            row["duration"] = -1
        if not (
            0 <= row["duration"] < math.inf
            and 0 <= row["start"] < row["stop"] <= _MOST_SAMPLES
        ):
            raise InputError(
                f"{path}, line {line}: expected a duration in seconds, and "
                "integers start < stop"
            )
        rows[key] = row
    if not rows:
        raise InputError(f"{path} has no utterances: prepare the corpus again")
    return rows
