"""Finds the audio of a corpus, and reads its ``speakers.csv``.

A corpus is a folder ``speaker/[session/]utterance.{wav,flac,ogg,m4a}``, or
has one in ``wav`` (VoxCeleb1), ``aac`` (VoxCeleb2 as released), ``audio`` or
``data`` (CN-Celeb, whose trials are below ``eval``). The optional table
``speakers.csv`` has ``spk_id`` and any of ``sex``, ``split`` (train or test),
and labels of your own.
"""

import functools
import os
import pathlib
from collections import Counter
from collections.abc import Collection, Iterable

from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.audio import EXTENSIONS
from speechbrain_hyperbolic.dataio.files import StrPath
from speechbrain_hyperbolic.dataio.tables import check_name, read_table
from speechbrain_hyperbolic.errors import InputError, shown

logger = get_logger(__name__)

_SUBFOLDERS = ("wav", "aac", "audio", "data")


def speaker_of(utterance: str) -> str:
    """The speaker of an utterance id: its first folder."""
    # In CN-Celeb's trials it is the name up to a hyphen: of test/NAME,
    # enroll/NAME and models, which are named SPEAKER-enroll.
    folder, slash, name = utterance.partition("/")
    if not slash:
        return folder.split("-enroll", 1)[0]
    if folder in ("test", "enroll") and "-" in name and "/" not in name:
        return name.split("-", 1)[0]
    return folder


def data_folders(data_folder: StrPath) -> list[pathlib.Path]:
    """The folders of a ``data_folder``, comma-separated as in the stock."""
    folders = [pathlib.Path(f.strip()) for f in str(data_folder).split(",")]
    for folder in folders:
        if not folder.is_dir():
            raise InputError(
                f"data_folder {folder} is not a folder: pass "
                "--data_folder=/path/to/corpus"
            )
    return folders


def audio_roots(data_folder: StrPath) -> list[pathlib.Path]:
    """The folders whose subfolders are the speakers."""
    return [
        next((folder / s for s in _SUBFOLDERS if (folder / s).is_dir()), folder)
        for folder in data_folders(data_folder)
    ]


def find_audio(
    data_folder: StrPath, utterances: Iterable[str]
) -> dict[str, str | None]:
    """Utterance -> path or None, found without walking the corpus."""
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
                for extension in EXTENSIONS
                if stem + extension in names
            ),
            None,
        )
    return paths


def _names_in(root: pathlib.Path, folder: str) -> tuple[str, set[str]]:
    """A folder below a root, and the names of its files."""
    path = str(root / folder)
    try:
        with os.scandir(path) as entries:
            return path, {entry.name for entry in entries if entry.is_file()}
    except (OSError, ValueError):  # absent, or an impossible name
        return path, set()


def list_audio(
    data_folder: StrPath, outputs: StrPath | None = None
) -> dict[str, str]:
    """Utterance -> path, sorted; ``outputs`` in the corpus is left out."""
    outputs = pathlib.Path(outputs).resolve() if outputs else None
    paths: dict[str, str] = {}
    others: Counter[str] = Counter()
    for root in audio_roots(data_folder):
        for parent, folders, names in os.walk(root, followlinks=True):
            below = pathlib.Path(parent).relative_to(root).as_posix()
            if below == ".":  # a file here has no speaker
                if outputs and outputs.is_relative_to(root.resolve()):
                    own = outputs.relative_to(root.resolve()).parts[:1]
                    folders[:] = [f for f in folders if f not in own]
                continue
            for name in names:
                stem, dot, extension = name.rpartition(".")
                if not stem or dot + extension not in EXTENSIONS:
                    others[dot + extension] += 1
                    continue
                utterance, path = f"{below}/{stem}", os.path.join(parent, name)
                # A trial list separates names by spaces and is UTF-8.
                if " " in utterance or not utterance.isprintable():
                    raise InputError(
                        f"{path!r} has a space or an unprintable character in "
                        "its name: rename it"
                    )
                if utterance in paths:
                    raise InputError(
                        f"{paths[utterance]} and {path} are both utterance "
                        f"{utterance}: rename or remove one of them"
                    )
                paths[utterance] = path
    if not paths:
        raise InputError(
            f"data_folder {data_folder} has no audio: expected "
            f"speaker/[session/]utterance with {', '.join(EXTENSIONS)}"
        )
    if others:
        counts = ", ".join(f"{n} {e}" for e, n in others.most_common(5))
        logger.info(f"{data_folder}: ignored files of other types: {counts}")
    return dict(sorted(paths.items()))


def read_speakers(data_folder: StrPath) -> dict[str, dict[str, str]]:
    """Speaker -> its row of ``speakers.csv``; empty without such a file."""
    paths = [folder / "speakers.csv" for folder in data_folders(data_folder)]
    speakers = {}
    for path in filter(pathlib.Path.is_file, paths):
        speakers.update(read_speaker_table(path))
    return speakers


def read_speaker_table(
    path: StrPath, columns: Collection[str] = ()
) -> dict[str, dict[str, str]]:
    """Speaker -> its row of a table with ``spk_id`` and ``columns``."""
    speakers: dict[str, dict[str, str]] = {}
    for line, row in read_table(path, ["spk_id", *columns]):
        speaker = row["spk_id"]
        check_name(path, line, "spk_id", speaker)
        if speakers.setdefault(speaker, row) != row:
            raise InputError(
                f"{path}, line {line}: {speaker} has a second, different row: "
                "remove one of them"
            )
    return speakers


def read_splits(data_folder: StrPath) -> dict[str, str]:
    """Speaker -> "train" or "test", of those with a ``split``."""
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
