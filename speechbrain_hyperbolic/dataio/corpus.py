"""From a folder of audio to the stock recipe's CSV files.

The folder is ``speaker/[session/]utterance.{wav,flac,ogg,m4a}``, or holds one
like that in ``wav`` (VoxCeleb1), ``aac`` (VoxCeleb2 as released), ``audio`` or
``data`` (CN-Celeb, whose trials are below ``eval``).
A ``speakers.csv`` in it is optional: ``spk_id`` and any of ``sex``, ``split``
(train or test), and labels of your own.
"""

import csv
import functools
import hashlib
import math
import multiprocessing
import os
import pathlib
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple, TypeVar

import torch
import tqdm
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.files import (
    Stamp,
    atomic_path,
    naming_the_file,
)
from speechbrain_hyperbolic.dataio.tables import read_table
from speechbrain_hyperbolic.errors import InputError, shown

logger = get_logger(__name__)

COLUMNS = ["ID", "duration", "wav", "start", "stop", "spk_id"]
_SUBFOLDERS = ("wav", "aac", "audio", "data")
_TRIAL_FOLDERS = ("test", "enroll")
# Files measured at a time; the journal is flushed after each time.
_CHUNK = 256
# Seconds that reading may take before other processes, which take seconds to
# start, are called in; and how many at most, of some 300 MB each.
_PATIENCE = 15.0
_PROCESSES = 16
# Sample rate and frames of a file, or the line of a problem
_Measured = tuple[int, int] | str
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
# Mean absolute amplitude below which the stock preparation drops a chunk.
SILENCE = 5e-4


class Utterance(NamedTuple):
    """A row of the stock CSV files.

    Arguments
    ---------
    id : str
        Path below the corpus without extension: speaker/[session/]utterance.
    duration : float
        In seconds.
    wav : str
        Path of the audio file.
    start : int
        First sample, at the sample rate of the recipe.
    stop : int
        The sample after the last.
    spk_id : str
    """

    id: str
    duration: float
    wav: str
    start: int
    stop: int
    spk_id: str


def speaker_of(utterance: str) -> str:
    """The speaker of an utterance id: its first folder.

    In CN-Celeb's trials it is the name up to a hyphen: of ``test/NAME``,
    ``enroll/NAME`` and models, which are named ``SPEAKER-enroll``.

    Arguments
    ---------
    utterance : str

    Returns
    -------
    speaker : str

    Example
    -------
    >>> speaker_of("id10270/5r0dWxy17C8/00001")
    'id10270'
    >>> speaker_of("test/id00800-singing-01-002")
    'id00800'
    >>> speaker_of("id00800-enroll")
    'id00800'
    """
    folder, slash, name = utterance.partition("/")
    if not slash:
        return folder.split("-enroll", 1)[0]
    if folder in _TRIAL_FOLDERS and "-" in name and "/" not in name:
        return name.split("-", 1)[0]
    return folder


def data_folders(data_folder: str | pathlib.Path) -> list[pathlib.Path]:
    """The folders that a ``data_folder`` names, comma-separated as in the
    stock recipe.

    Arguments
    ---------
    data_folder : str or pathlib.Path

    Returns
    -------
    folders : list of pathlib.Path

    Raises
    ------
    InputError
        If one of them is not a folder.
    """
    folders = [pathlib.Path(f.strip()) for f in str(data_folder).split(",")]
    for folder in folders:
        if not folder.is_dir():
            raise InputError(
                f"data_folder {folder} is not a folder: pass "
                "--data_folder=/path/to/corpus"
            )
    return folders


def audio_roots(data_folder: str | pathlib.Path) -> list[pathlib.Path]:
    """The folders whose subfolders are the speakers.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        One folder, or several separated by commas.

    Returns
    -------
    roots : list of pathlib.Path
    """
    return [
        next((folder / s for s in _SUBFOLDERS if (folder / s).is_dir()), folder)
        for folder in data_folders(data_folder)
    ]


def find_audio(
    data_folder: str | pathlib.Path, utterances: Iterable[str]
) -> dict[str, str | None]:
    """Finds given utterances without a walk through the corpus.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        One folder, or several separated by commas.
    utterances : iterable of str
        Their ids.

    Returns
    -------
    paths : dict
        Utterance id -> path, a str, or None where there is no such file.
    """
    roots = audio_roots(data_folder)
    roots += [folder / "eval" for folder in data_folders(data_folder)]
    listed = functools.cache(_names_in)
    paths = {}
    for utterance in utterances:
        folder, _, stem = utterance.rpartition("/")
        paths[utterance] = next(
            (
                os.path.join(below, stem + extension)
                for below, names in (listed(root, folder) for root in roots)
                for extension in audio.EXTENSIONS
                if stem + extension in names
            ),
            None,
        )
    return paths


def _names_in(root: pathlib.Path, folder: str) -> tuple[str, set[str]]:
    """A folder below a root, and the names of the files in it."""
    path = str(root / folder)
    try:
        with os.scandir(path) as entries:
            return path, {entry.name for entry in entries if entry.is_file()}
    except (OSError, ValueError):  # not there, or a name that none can have
        return path, set()


def list_audio(
    data_folder: str | pathlib.Path, outputs: str | pathlib.Path | None = None
) -> dict[str, str]:
    """Finds the utterances of a corpus.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        One folder, or several separated by commas.
    outputs : str or pathlib.Path
        A folder of results. Where it's below the corpus, the folder of the
        corpus that it is in is no speaker.

    Returns
    -------
    paths : dict
        Utterance id -> path, a str; sorted by id.

    Raises
    ------
    InputError
        If there is no audio, two files have one id, or an id has a space,
        which a trial list can't hold.
    """
    outputs = pathlib.Path(outputs).resolve() if outputs else None
    paths: dict[str, str] = {}
    for root in audio_roots(data_folder):
        for parent, folders, names in os.walk(root, followlinks=True):
            if pathlib.Path(parent) == root:
                if outputs and outputs.is_relative_to(root.resolve()):
                    own = outputs.relative_to(root.resolve()).parts[:1]
                    folders[:] = [f for f in folders if f not in own]
                continue  # a file here has no speaker
            below = pathlib.Path(parent).relative_to(root)
            prefix, folder = f"{below.as_posix()}/", f"{root / below}{os.sep}"
            for name in names:
                stem, dot, extension = name.rpartition(".")
                if not stem or dot + extension not in audio.EXTENSIONS:
                    continue
                path, utterance = folder + name, prefix + stem
                if len(utterance.split()) != 1:
                    raise InputError(
                        f"{path} has a space in its name, which separates "
                        "the fields of a trial list: rename it"
                    )
                if not utterance.isprintable():  # not UTF-8, or no name
                    raise InputError(
                        f"{path!r} has a name that is not plain UTF-8: "
                        "rename it"
                    )
                if utterance in paths:
                    raise InputError(
                        f"{paths[utterance]} and {path} are both utterance "
                        f"{utterance}: rename or remove one of them"
                    )
                paths[utterance] = path
    if not paths:
        raise InputError(
            f"data_folder {data_folder} holds no audio: expected "
            f"speaker/[session/]utterance with {', '.join(audio.EXTENSIONS)}"
        )
    return dict(sorted(paths.items()))


def read_speakers(data_folder: str | pathlib.Path) -> dict[str, dict[str, str]]:
    """What ``speakers.csv`` says of the speakers.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        One folder, or several separated by commas.

    Returns
    -------
    speakers : dict
        Speaker -> its row as a dict; empty where there is no such file.

    Raises
    ------
    InputError
        As ``read_speaker_table``.
    """
    paths = [folder / "speakers.csv" for folder in data_folders(data_folder)]
    speakers = {}
    for path in filter(pathlib.Path.is_file, paths):
        speakers.update(read_speaker_table(path))
    return speakers


def read_speaker_table(
    path: str | pathlib.Path, columns: Collection[str] = ()
) -> dict[str, dict[str, str]]:
    """Reads a table of speakers.

    Arguments
    ---------
    path : str or pathlib.Path
        CSV with a column ``spk_id`` and any others.
    columns : collection of str
        Others that it must have.

    Returns
    -------
    speakers : dict
        Speaker -> its row as a dict.

    Raises
    ------
    InputError
        If a column is missing, or the file is not as ``read_table`` wants it;
        if a speaker has no name, or two rows that differ.
    """
    speakers: dict[str, dict[str, str]] = {}
    for line, row in read_table(path, ["spk_id", *columns]):
        speaker = row["spk_id"]
        _check_name(path, line, "spk_id", speaker)
        if speakers.setdefault(speaker, row) != row:
            raise InputError(
                f"{path}, line {line}: another row of {speaker} says "
                "something else: remove one"
            )
    return speakers


def _check_name(
    path: str | pathlib.Path, line: int, column: str, text: str
) -> None:
    """Refuses what can't name anything, or would rewrite a terminal."""
    if not text or not text.isprintable():
        raise InputError(
            f"{path}, line {line}: {column} is {shown(text)!r}, expected "
            "printable text"
        )


def read_splits(data_folder: str | pathlib.Path) -> dict[str, str]:
    """The column ``split`` of ``speakers.csv``.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        One folder, or several separated by commas.

    Returns
    -------
    splits : dict
        Speaker -> "train" or "test", of the speakers that have one.

    Raises
    ------
    InputError
        If there is another value.
    """
    splits = {}
    for speaker, row in read_speakers(data_folder).items():
        split = (row.get("split") or "").strip().lower()
        if split not in ("", "train", "test"):
            raise InputError(
                f"speakers.csv of {data_folder}: the split of {speaker} is "
                f"{shown(row['split'])!r}, expected train or test"
            )
        if split:
            splits[speaker] = split
    return splits


def training_audio(
    data_folder: str | pathlib.Path,
    test_speakers: Iterable[str],
    outputs: str | pathlib.Path | None = None,
) -> dict[str, str]:
    """The utterances that may train.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        One folder, or several separated by commas.
    test_speakers : iterable of str
        Kept out, as is who has the split "test" in ``speakers.csv``.
    outputs : str or pathlib.Path
        See ``list_audio``.

    Returns
    -------
    paths : dict
        Utterance id -> path.
    """
    held_out = set(test_speakers)
    held_out |= {s for s, v in read_splits(data_folder).items() if v == "test"}
    paths = list_audio(data_folder, outputs)
    return {u: p for u, p in paths.items() if speaker_of(u) not in held_out}


def read_utterances(
    paths: dict[str, str],
    sample_rate: int = 16000,
    check_audio: str = "header",
    journal: str | pathlib.Path | None = None,
) -> tuple[list[Utterance], dict[str, str]]:
    """Measures audio files; in several processes where it takes long.

    Arguments
    ---------
    paths : dict
        Utterance id -> path.
    sample_rate : int
        Of the samples that start and stop count, in Hz.
    check_audio : str
        "header" reads headers only; "decode" reads every file, which also
        finds the truncated and the silent.
    journal : str or pathlib.Path
        A file that keeps what was measured, for the next call after an
        interruption: a file of the same path, size and time of change is not
        measured again. To be removed by who has used the result.

    Returns
    -------
    utterances : list of Utterance
        In the order of paths.
    problems : dict
        Utterance id -> one line, for the files that can't be used.
    """
    if check_audio not in ("header", "decode"):
        raise InputError(
            f"check_audio is {check_audio!r}, expected 'header' or 'decode'"
        )
    found = _measure_all([*map(str, paths.values())], check_audio, journal)
    utterances, problems = [], {}
    for utterance, path in paths.items():
        measured = found[str(path)]
        if isinstance(measured, str):
            problems[utterance] = measured
            continue
        rate, frames = measured
        utterances.append(
            Utterance(
                utterance,
                frames / rate,
                str(path),
                0,
                round(frames * sample_rate / rate),
                sys.intern(speaker_of(utterance)),
            )
        )
    return utterances, problems


def _measure_all(
    paths: list[str], check_audio: str, journal: str | pathlib.Path | None
) -> dict[str, _Measured]:
    """A dict: path -> (sample rate, frames), or the line of a problem."""
    found = _read_journal(journal, check_audio) if journal else {}
    rest = [path for path in paths if path not in found]
    if len(rest) < len(paths):
        logger.info(
            f"{len(paths) - len(rest)} of {len(paths)} files were measured "
            "before"
        )
    chunks = [rest[i : i + _CHUNK] for i in range(0, len(rest), _CHUNK)]
    measure = functools.partial(_measure, check_audio=check_audio)
    bar = tqdm.tqdm(
        total=len(paths),
        initial=len(paths) - len(rest),
        desc="Reading audio",
        unit="file",
        dynamic_ncols=True,
    )
    log = journal or os.devnull
    with bar, naming_the_file(log), open(log, "a", encoding="utf-8") as file:
        for chunk, results in zip(chunks, _map(measure, chunks), strict=True):
            for path, (key, measured) in zip(chunk, results, strict=True):
                found[path] = measured
                # A problem is not kept: it may be the disk's, not the file's.
                if not isinstance(measured, str):
                    rate, frames = measured
                    file.write(f"{key}\t{rate}\t{frames}\t{path}\n")
            file.flush()
            bar.update(len(chunk))
    return found


def _read_journal(
    path: str | pathlib.Path, check_audio: str
) -> dict[str, _Measured]:
    """What a journal says of files that are as they were."""
    found: dict[str, _Measured] = {}
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with open(path, "r+b") as file:
        whole = 0
        for line in file:
            if not line.endswith(b"\n"):
                file.truncate(whole)  # a kill has torn it
                break
            whole += len(line)
            fields = line.decode(errors="replace").rstrip("\n").split("\t")
            if len(fields) == 4 and fields[0] == _key(fields[3], check_audio):
                found[fields[3]] = int(fields[1]), int(fields[2])
    return found


def _key(path: str, check_audio: str) -> str | None:
    """What a measurement holds for; None where there is no file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # a path that can't be one, too
        return None
    return f"{check_audio} {status.st_size} {status.st_mtime_ns}"


def _map(
    function: Callable[[_Item], _Result], items: list[_Item]
) -> Iterator[_Result]:
    """Results in order, as of map; the slow by several processes."""
    began = time.monotonic()
    processes = min(os.cpu_count() or 1, _PROCESSES)
    for done, item in enumerate(items, start=1):
        yield function(item)
        left = (time.monotonic() - began) / done * (len(items) - done)
        if left > _PATIENCE and processes > 1:
            break
    else:
        return
    # Of a process with threads, or one that has used CUDA, a fork may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _start_process) as pool:
        yield from pool.map(function, items[done:])


def _start_process() -> None:
    """For a process that measures: it ends with its parent, however that does,
    leaves Ctrl-C to it, and takes one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)

    def watch() -> None:
        parent = multiprocessing.parent_process()
        parent.join()  # type: ignore[union-attr]
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _measure(
    paths: list[str], check_audio: str
) -> list[tuple[str | None, _Measured]]:
    """For each path its key and (sample rate, frames), or a problem's line."""
    results: list[tuple[str | None, _Measured]] = []
    for path in paths:
        key = _key(path, check_audio)  # first: what changes later is noticed
        try:
            header = audio.info(path)
            if check_audio == "decode":
                _check_samples(path, header)
            results.append((key, (header.sample_rate, header.frames)))
        except InputError as error:
            results.append((key, str(error)))
    return results


def _check_samples(path: str, header: audio.AudioInfo) -> None:
    samples = audio.load(path, header.sample_rate)
    if samples.abs().mean() < SILENCE:
        raise InputError(f"{path} is silent: replace or remove the file")


def prepare_corpus(
    data_folder: str | pathlib.Path,
    save_folder: str | pathlib.Path,
    test_speakers: Collection[str],
    split_ratio: Sequence[int] = (90, 10),
    sample_rate: int = 16000,
    check_audio: str = "header",
    seed: int = 0,
    skip_prep: bool = False,
) -> None:
    """Writes train.csv and dev.csv, in the columns of the stock recipe.

    Files that can't be used are left out, warned of by name, and listed with
    the reason in ``skipped.txt``. A finished preparation of the same files
    is not repeated; one that was interrupted goes on where it was.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        One folder, or several separated by commas.
    save_folder : str or pathlib.Path
        Where the CSV files go.
    test_speakers : iterable of str
        Kept out of training, see ``training_audio``.
    split_ratio : sequence of int
        Shares of train and dev utterances, of the same speakers. No speaker
        is without a training utterance.
    sample_rate : int
        Of the recipe, in Hz.
    check_audio : str
        See ``read_utterances``.
    seed : int
        Of the split.
    skip_prep : bool
        Use the CSV files that are there.

    Raises
    ------
    InputError
        If no training utterance is left, split_ratio is not two shares, or
        there is nothing to skip to.
    """
    save_folder = pathlib.Path(save_folder)
    if skip_prep:
        for name in ("train.csv", "dev.csv"):
            if not (save_folder / name).is_file():
                raise InputError(
                    f"skip_prep is set, but {save_folder / name} is missing: "
                    "pass --skip_prep=False"
                )
        return
    if len(split_ratio) != 2 or min(split_ratio) <= 0:
        raise InputError(
            f"split_ratio is {split_ratio}, expected two shares above 0, of "
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
    if stamp.is_there():
        logger.info(f"Prepared before: delete {stamp.path} to prepare again.")
        return
    if stamp.path.is_file():
        logger.warning(
            f"{save_folder} was prepared from other files, or with other "
            "options: it is prepared anew, and a run that goes on there does "
            "so on other data"
        )
    stamp.remove()
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


def report_problems(
    problems: dict[str, str], path: str | pathlib.Path, shown: int = 10
) -> None:
    """Warns of files that can't be used, and lists them in a file.

    Arguments
    ---------
    problems : dict
        Utterance id -> one line, of ``read_utterances``.
    path : str or pathlib.Path
        Written where there are any.
    shown : int
        How many are warned of by name.
    """
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

    Arguments
    ---------
    utterances : list of Utterance
    split_ratio : sequence of int
    seed : int

    Returns
    -------
    train, dev : list of Utterance
        Every speaker keeps a training utterance.

    Raises
    ------
    InputError
        If no speaker has two utterances.
    """
    counts: dict[str, int] = {}
    for utterance in utterances:
        counts[utterance.spk_id] = counts.get(utterance.spk_id, 0) + 1
    lonely = [speaker for speaker, count in counts.items() if count == 1]
    if lonely:
        logger.warning(
            f"one utterance only of {len(lonely)} speaker(s), {lonely[0]} the "
            "first: it trains, nothing validates them; more would help"
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


def write_csv(
    utterances: Iterable[Utterance], path: str | pathlib.Path
) -> None:
    """Writes a CSV file in the columns of the stock recipe.

    Arguments
    ---------
    utterances : iterable of Utterance
    path : str or pathlib.Path
    """
    with atomic_path(path) as temporary:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(utterances)


def read_csv(
    path: str | pathlib.Path, data_folder: str | pathlib.Path
) -> dict[str, dict[str, Any]]:
    """Reads what ``write_csv`` or the stock preparation wrote.

    Arguments
    ---------
    path : str or pathlib.Path
    data_folder : str or pathlib.Path
        What ``$data_root`` stands for in the paths of the audio.

    Returns
    -------
    rows : dict
        ID -> the other columns as a dict: duration a float, start and stop
        integers.

    Raises
    ------
    InputError
        If it's missing or has no rows, an ID is there twice, or a value is
        not what the column wants (with the line's number).

    Example
    -------
    >>> path = pathlib.Path(getfixture("tmpdir")) / "train.csv"
    >>> write_csv([Utterance("a/1", 0.5, "$data_root/1.wav", 0, 8, "a")], path)
    >>> read_csv(path, "/data")["a/1"]["wav"]
    '/data/1.wav'
    """
    rows: dict[str, dict[str, Any]] = {}
    for line, texts in read_table(path, COLUMNS):
        row: dict[str, Any] = {**texts}
        for column in ("ID", "wav", "spk_id"):
            _check_name(path, line, column, row[column])
        key = row.pop("ID")
        if key in rows:
            raise InputError(
                f"{path}, line {line}: {shown(key)} is there before"
            )
        row["wav"] = row["wav"].replace("$data_root", str(data_folder))
        row["duration"] = _number(path, line, row, "duration", float)
        row["start"] = _number(path, line, row, "start", int)
        row["stop"] = _number(path, line, row, "stop", int, row["start"] + 1)
        rows[key] = row
    if not rows:
        raise InputError(f"{path} has no utterances: expected a row for each")
    return rows


def _number(
    path: str | pathlib.Path,
    line: int,
    row: dict[str, str],
    column: str,
    kind: type[int] | type[float],
    least: float = 0,
) -> float:
    try:
        value = kind(row[column])
    except ValueError:
        value = math.nan
    if not least <= value <= audio.MOST_FRAMES:  # of NaN it is not true
        raise InputError(
            f"{path}, line {line}: {column} is {shown(row[column])!r}, "
            f"expected a number from {least}"
        )
    return value
