"""Reads a corpus: a folder in any layout, or a list.

``layouts`` says which folder is the speaker, ``lists`` what replaces folders.
An utterance's id is ``speaker/[session/]utterance``, so the speaker of an id
is its first part. Trial lists may name an utterance in other ways, which
``Corpus.resolve`` understands. The optional table ``speakers.csv`` has
``spk_id`` and any of ``sex``, ``split`` and labels of your own.
"""

import dataclasses
import functools
import os
import pathlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from typing import NamedTuple

from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.files import StrPath
from speechbrain_hyperbolic.dataio.layouts import (
    Place,
    find_layout,
    is_container,
)
from speechbrain_hyperbolic.dataio.lists import list_in, read_list
from speechbrain_hyperbolic.dataio.names import (
    Matcher,
    clean_path,
    nearest,
    normalized,
    without_extension,
)
from speechbrain_hyperbolic.dataio.segments import segment_path
from speechbrain_hyperbolic.dataio.tables import (
    SPEAKER_COLUMNS,
    check_name,
    read_table,
)
from speechbrain_hyperbolic.dataio.walk import walk
from speechbrain_hyperbolic.errors import InputError, shown

logger = get_logger(__name__)

_SPLITS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "tst"), "test"),
    **dict.fromkeys(("dev", "development", "devel"), "dev"),
    **dict.fromkeys(("val", "valid", "validation"), "dev"),
}


class Recording(NamedTuple):
    """An utterance, as the corpus has it."""

    id: str  # speaker/[session/]utterance
    path: str  # of the file, or of a segment of it
    speaker: str
    session: str
    name: str  # its path below the data folder, or its name in a list


@dataclasses.dataclass
class Corpus:
    """The utterances of a data folder, and what was left out."""

    source: str
    layouts: list[str]
    recordings: dict[str, Recording]  # by id, sorted
    for_trials: dict[str, Recording]  # others that only trials name
    labels: dict[str, dict[str, str]]  # speaker -> row of speakers.csv
    skipped: dict[str, list[str]]  # reason -> files and folders
    clash: str = ""  # of two files of one utterance, which can't both train

    def __str__(self) -> str:
        return self.source

    @functools.cached_property
    def speakers(self) -> Counter[str]:
        """Speaker -> number of utterances."""
        return Counter(r.speaker for r in self.recordings.values())

    @functools.cached_property
    def match_speaker(self) -> Matcher:
        return Matcher(self.speakers)

    def paths(self) -> dict[str, str]:
        """Utterance -> path, without those that only trials name."""
        if self.clash:
            raise InputError(self.clash)
        return {name: r.path for name, r in self.recordings.items()}

    def splits(self) -> dict[str, str]:
        """Speaker -> "train", "dev" or "test", of those with a split.

        A row that is of no speaker is an error: a speaker whose name is
        misspelt there would train.
        """
        splits = _splits(self.labels, self.source)
        for name in self.labels:
            if name not in self.speakers:
                raise InputError(
                    f"speakers.csv of {self.source}: {shown(name)} is not "
                    f"among the {len(self.speakers)} speakers"
                    f"{nearest(name, self.speakers.keys() - self.labels)}: "
                    "correct the name or remove the row"
                )
        return splits

    def held_out(self, test_speakers: Collection[str]) -> set[str]:
        """The corpus's speakers who must not train."""
        splits = {s for s, v in self.splits().items() if v != "train"}
        matched = {name: self.match_speaker(name) for name in test_speakers}
        found = {name for name in matched.values() if name is not None}
        strangers = sorted(name for name, s in matched.items() if s is None)
        if found and strangers:
            raise InputError(
                f"{shown(strangers[0])}, a speaker of the trial list, is not "
                f"in data_folder {self.source}, which has {len(found)} of its "
                f"{len(matched)} speakers"
                f"{nearest(strangers[0], set(self.speakers) - found)}: correct "
                "the name or remove its trials"
            )
        if strangers:
            logger.warning(
                f"data_folder {self.source} has none of the {len(strangers)} "
                f"speakers of the trial list, such as {shown(strangers[0])}: "
                "all of its speakers can train"
            )
        return splits | found

    def resolve(self, names: Iterable[str]) -> dict[str, str | None]:
        """Name in a trial list -> id, or None."""
        return {name: self._find(name) for name in names}

    @functools.cached_property
    def _ids(self) -> dict[str, str]:
        """Every exact name -> id: its path, with extension and without."""
        ids: dict[str, str] = {}
        for recordings in (self.for_trials, self.recordings):
            for id, recording in recordings.items():
                ids[recording.name] = id
        for recordings in (self.for_trials, self.recordings):
            ids.update(zip(recordings, recordings, strict=True))
        return ids

    @functools.cached_property
    def _files(self) -> dict[str, str]:
        """Name with its extension -> id, of files such as ``a.m4a.wav``."""
        return {
            r.name + os.path.splitext(r.path)[1]: id
            for id, r in self.recordings.items()
        }

    @functools.cached_property
    def _short(self) -> dict[str, str]:
        """Unique bare name, or id with hyphens as in Kaldi -> id."""
        short: dict[str, str | None] = {}
        bare = [(id.rpartition("/")[2], id) for id in self.recordings]
        if len({name for name, _ in bare}) < len(bare):
            bare = []  # numbers, which tell nothing without a folder
        hyphens = [(id.replace("/", "-"), id) for id in self.recordings]
        for name, id in (*hyphens, *bare):
            short[name] = id if short.get(name, id) == id else None
        return {name: id for name, id in short.items() if id is not None}

    @functools.cached_property
    def _above(self) -> set[str]:
        """The folders that lead to the corpus."""
        folders = map(os.path.abspath, self.source.split(","))
        parts = {p for f in folders for p in clean_path(f).split("/")}
        return parts - set(self.speakers)

    def _find(self, text: str) -> str | None:
        name = clean_path(text)
        is_absolute = name.startswith("/")
        parts = [part for part in name.split("/") if part]
        while parts:
            name = "/".join(parts)
            found = (
                self._ids.get(name)
                if name == (stem := without_extension(name))
                else self._files.get(name)
                or self._ids.get(name)
                or self._ids.get(stem)
            )
            if found is None and len(parts) > 1:
                speaker = self.match_speaker(parts[0])
                found = self._ids.get("/".join([speaker or "", *parts[1:]]))
                found = found or self._ids.get(
                    "/".join([speaker or "", *stem.split("/")[1:]])
                )
            if found is None and len(parts) == 1:
                found = self._short.get(name) or self._short.get(stem)
            if found is not None:
                return found
            # "wav/", "VoxCeleb1/wav/", or all above the data folder
            folder = parts.pop(0)
            if len(parts) < 2 and not (is_container(folder) and parts):
                return None
            if not (is_absolute or is_container(folder)) and (
                folder not in self._above
            ):
                return None
        return None


def read_corpus(
    data_folder: "StrPath | Corpus",
    speaker_level: int | str | None = None,
    outputs: StrPath | None = None,
) -> Corpus:
    """Reads a folder or list, or several separated by commas.

    ``speaker_level`` is the number of the speaker's folder, or a pattern with
    one group; ``outputs``, a folder of results in the corpus, is left out.
    """
    if isinstance(data_folder, Corpus):
        return data_folder
    corpus = Corpus(str(data_folder), [], {}, {}, {}, defaultdict(list))
    known: set[str] = set()  # speakers of the sources before
    for source in data_folders(data_folder):
        path = list_in(source)
        if path is not None:
            layout, found = _from_list(path, corpus)
        else:
            layout, found = _from_folder(
                source, speaker_level, outputs, corpus.skipped
            )
        for recording, is_for_trials in found:
            _add(corpus, recording, is_for_trials)
        own = {r.speaker for r, _ in found}
        corpus.layouts.append(layout)
        logger.info(f"{source}: {layout} layout: {len(own)} speakers")
        if shared := sorted(own & known):
            logger.warning(
                f"{len(shared)} speakers, such as {shown(shared[0])}, are in "
                "several data folders: each name is taken for one person"
            )
        known |= {r.speaker for r, is_for_trials in found if not is_for_trials}
    counts = ", ".join(f"{len(v)} {k}" for k, v in corpus.skipped.items())
    if not corpus.recordings:
        raise InputError(
            f"data_folder {data_folder} has no audio: expected "
            "speaker/[session/]utterance"
            + (f" (left out: {counts})" if counts else "")
        )
    corpus.recordings = dict(sorted(corpus.recordings.items()))
    for source in data_folders(data_folder):
        table = source / "speakers.csv"
        if table.is_file():
            for name, row in read_speaker_table(table).items():
                # A spreadsheet takes leading zeros.
                corpus.labels[corpus.match_speaker(name) or name] = row
    if counts:
        logger.info(f"{data_folder}: left out: {counts}")
    return corpus


def _add(corpus: Corpus, recording: Recording, is_for_trials: bool) -> None:
    recordings = corpus.for_trials if is_for_trials else corpus.recordings
    id, path = recording.id, recording.path
    # A trial list separates names by spaces and is UTF-8.
    if " " in id or not id.isprintable():
        raise InputError(
            f"{path!r} has a space or an unprintable character in its name "
            f"({shown(id)!r}): rename it"
        )
    if id in recordings:
        corpus.clash = corpus.clash or (
            f"{recordings[id].path} and {path} are both utterance {id}: rename "
            "or remove one of them"
        )
    recordings.setdefault(id, recording)


def _from_list(
    path: pathlib.Path, corpus: Corpus
) -> tuple[str, list[tuple[Recording, bool]]]:
    layout, entries = read_list(path)
    found = []
    for entry in entries:
        row = corpus.labels.setdefault(entry.speaker, {})
        for key, value in entry.labels.items():
            if key == "split" and row.get(key, value) != value:
                raise InputError(
                    f"{path}: {shown(entry.speaker)} is in the splits "
                    f"{shown(row[key])} and {shown(value)}: give all "
                    "utterances of a speaker one split"
                )
            row.setdefault(key, value)
        own = entry.name.removeprefix(f"{entry.speaker}/")
        audio_path = segment_path(entry.path, entry.start, entry.stop)
        id = f"{entry.speaker}/{own}"
        session = entry.session or own.rpartition("/")[0]
        found.append(
            (
                Recording(id, audio_path, entry.speaker, session, entry.name),
                False,
            )
        )
    corpus.labels = {s: row for s, row in corpus.labels.items() if row}
    return layout, found


def _from_folder(
    source: pathlib.Path,
    speaker_level: int | str | None,
    outputs: StrPath | None,
    skipped: dict[str, list[str]],
) -> tuple[str, list[tuple[Recording, bool]]]:
    files: dict[str, str] = {}  # path below the folder -> path
    for below, name, path in walk(source, outputs, skipped):
        files[normalized(below + name)] = path
    if not files:
        return "empty", []
    names = list(map(without_extension, files))
    layout, places = find_layout(names, speaker_level, str(source))
    prefixes = {(f"{p.speaker}/{p.rest}", p.prefix) for p in places if p}
    ids = Counter(id for id, _ in prefixes)
    found = []
    for name, path, place in zip(names, files.values(), places, strict=True):
        if place is None:
            skipped[f"not in the {layout} layout"].append(path)
            continue
        found.append((_recording(name, path, place, ids), place.for_trials))
    return layout, found


def _recording(
    name: str, path: str, place: Place, ids: Counter[str]
) -> Recording:
    speaker, session, prefix, rest, for_trials = place
    id = rest if for_trials else f"{speaker}/{rest}"
    if prefix and ids[id] > 1:  # train/alice/1 and test/alice/1
        id = f"{speaker}/{prefix}/{rest}"
    return Recording(id, path, speaker, session, name)


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
    if os.path.exists(data_folder):  # its own name may have a comma
        return [pathlib.Path(data_folder)]
    folders = [pathlib.Path(f.strip()) for f in str(data_folder).split(",")]
    for folder in folders:
        if not folder.exists():
            raise InputError(
                f"data_folder {folder} is not a folder or a list: pass "
                "--data_folder=/path/to/corpus"
            )
    return folders


def find_audio(
    data_folder: StrPath | Corpus, utterances: Iterable[str]
) -> dict[str, str | None]:
    """Name of an utterance -> path or None."""
    corpus = read_corpus(data_folder)
    both = {**corpus.for_trials, **corpus.recordings}
    return {
        name: both[id].path if id else None
        for name, id in corpus.resolve(utterances).items()
    }


def list_audio(
    data_folder: StrPath, outputs: StrPath | None = None
) -> dict[str, str]:
    """Utterance -> path, sorted; ``outputs`` in the corpus is left out."""
    return read_corpus(data_folder, outputs=outputs).paths()


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
    rows = read_table(path, ["spk_id", *columns], SPEAKER_COLUMNS)
    for line, row in rows:
        speaker = row["spk_id"] = normalized(row["spk_id"])
        check_name(path, line, "spk_id", speaker)
        if speakers.setdefault(speaker, row) != row:
            raise InputError(
                f"{path}, line {line}: {speaker} has a second, different row: "
                "remove one of them"
            )
    return speakers


def read_splits(data_folder: StrPath) -> dict[str, str]:
    """Speaker -> "train", "dev" or "test", of those with a ``split``."""
    return _splits(read_speakers(data_folder), data_folder)


def _splits(
    speakers: dict[str, dict[str, str]], source: StrPath
) -> dict[str, str]:
    splits = {}
    for speaker, row in speakers.items():
        split = (row.get("split") or "").strip().lower()
        if split and split not in _SPLITS:
            raise InputError(
                f"speakers.csv of {source}: the split of {speaker} is "
                f"{shown(row['split'])!r}, expected train, dev or test"
            )
        if split:
            splits[speaker] = _SPLITS[split]
    if "train" not in splits.values():  # VoxCeleb trains on its dev
        splits = {s: "train" if v == "dev" else v for s, v in splits.items()}
    return splits
