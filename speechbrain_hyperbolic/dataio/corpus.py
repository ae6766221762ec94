"""Reads a corpus: a folder in any layout, or a list.

``layouts`` says which folder is the speaker, ``lists`` what replaces folders.
An utterance's id is ``speaker/[session/]utterance``, so the speaker of an id
is its first part. Trial lists may name an utterance in other ways, which
``Corpus.find`` understands. The optional table ``speakers.csv`` has
``spk_id`` and any of ``sex``, ``split`` and labels of your own.
"""

import dataclasses
import functools
import os
import pathlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable

from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.files import StrPath
from speechbrain_hyperbolic.dataio.layouts import find_layout, is_container
from speechbrain_hyperbolic.dataio.lists import Recording, list_in, read_list
from speechbrain_hyperbolic.dataio.names import (
    Matcher,
    clean_path,
    nearest,
    normalized,
    without_extension,
)
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


@dataclasses.dataclass
class Corpus:
    """The utterances of a data folder, and what was left out."""

    source: str
    layouts: list[str]
    recordings: dict[str, Recording]  # by id, sorted; also those for trials
    labels: dict[str, dict[str, str]]  # speaker -> row of speakers.csv
    skipped: dict[str, list[str]]  # reason -> files and folders
    clash: str = ""  # of two files of one utterance, which can't both train

    def __str__(self) -> str:
        return self.source

    @functools.cached_property
    def speakers(self) -> Counter[str]:
        """Speaker -> number of utterances to train on."""
        return Counter(
            r.speaker for r in self.recordings.values() if not r.for_trials
        )

    @functools.cached_property
    def match_speaker(self) -> Matcher:
        return Matcher(self.speakers)

    def paths(self, speakers: Collection[str] | None = None) -> dict[str, str]:
        """Utterance -> path, without those that only trials name."""
        if self.clash:
            raise InputError(self.clash)
        return {
            name: r.path
            for name, r in self.recordings.items()
            if not r.for_trials and (speakers is None or r.speaker in speakers)
        }

    def splits(self) -> dict[str, str]:
        """Speaker -> "train", "dev" or "test", of those with a split.

        A row that is of no speaker is an error: a speaker whose name is
        misspelt there would train.
        """
        splits = {}
        for name, row in self.labels.items():
            if name not in self.speakers:
                raise InputError(
                    f"speakers.csv of {self.source}: {shown(name)} is not "
                    f"among the {len(self.speakers)} speakers"
                    f"{nearest(name, self.speakers.keys() - self.labels)}: "
                    "correct the name or remove the row"
                )
            split = (row.get("split") or "").strip().lower()
            if split and split not in _SPLITS:
                raise InputError(
                    f"speakers.csv of {self.source}: the split of {name} is "
                    f"{shown(split)!r}, expected train, dev or test"
                )
            if split:
                splits[name] = _SPLITS[split]
        if "train" not in splits.values():  # VoxCeleb trains on its dev
            return {s: "train" if v == "dev" else v for s, v in splits.items()}
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

    @functools.cached_property
    def _files(self) -> dict[str, Recording]:
        """By names with the extension: a.m4a is not a.m4a.wav."""
        return {
            r.name + os.path.splitext(r.path)[1]: r
            for r in self.recordings.values()
        }

    @functools.cached_property
    def _names(self) -> dict[str, Recording | None]:
        """By all other names; None for one that several have."""
        recordings = [r for r in self.recordings.values() if not r.for_trials]
        short = [(r.id.replace("/", "-"), r) for r in recordings]  # Kaldi's
        bare = {r.id.rpartition("/")[2]: r for r in recordings}
        if len(bare) == len(short):  # else numbers, of no use by themselves
            short += bare.items()
        names: dict[str, Recording | None] = {}
        for name, recording in short:
            taken = names.get(name, recording)
            names[name] = recording if taken is recording else None
        names.update((r.name, r) for r in self.recordings.values())
        names.update(self.recordings)
        return names

    @functools.cached_property
    def _above(self) -> set[str]:
        """The folders that lead to the corpus."""
        folders = map(os.path.abspath, self.source.split(","))
        parts = {p for f in folders for p in clean_path(f).split("/")}
        return parts - set(self.speakers)

    def find(self, text: str) -> Recording | None:
        """The recording that a list names in its own way, or None."""
        path = clean_path(text)
        parts = [part for part in path.split("/") if part]
        while parts:
            speaker = self.match_speaker(parts[0]) or parts[0]
            for first in (parts[0], speaker):
                name = "/".join([first, *parts[1:]])
                found = self._files.get(name) or self._names.get(name)
                found = found or self._names.get(without_extension(name))
                if found:
                    return found
            # "wav/", "VoxCeleb1/wav/", or all above the data folder
            folder, *parts = parts
            may_drop = path.startswith("/") or folder in self._above
            if not is_container(folder) and not (may_drop and len(parts) > 1):
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
    corpus = Corpus(str(data_folder), [], {}, {}, defaultdict(list))
    known: set[str] = set()  # speakers of the sources before
    for source in data_folders(data_folder):
        path = list_in(source)
        if path is not None:
            layout, found = _from_list(path, corpus.labels)
        else:
            layout, found = _from_folder(
                source, speaker_level, outputs, corpus.skipped
            )
        for recording in found:
            _add(corpus, recording)
        corpus.layouts.append(layout)
        own = {r.speaker for r in found}
        logger.info(f"{source}: {layout} layout: {len(own)} speakers")
        if shared := sorted(own & known):
            logger.warning(
                f"{len(shared)} speakers, such as {shown(shared[0])}, are in "
                "several data folders: each name is taken for one person"
            )
        known |= {r.speaker for r in found if not r.for_trials}
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
                name = corpus.match_speaker(name) or name
                labels = corpus.labels.setdefault(name, {})
                _add_labels(labels, row, f"{table}: {shown(name)}")
    owners: dict[str, str] = {}
    for _, file, speaker, *_ in corpus.recordings.values():
        link = os.path.islink(file)
        real = os.path.realpath(file) if link else os.path.abspath(file)
        if (owner := owners.setdefault(real, speaker)) != speaker:
            corpus.clash = f"{file} is of two speakers, {owner} and {speaker}"
    if counts:
        logger.info(f"{data_folder}: left out: {counts}")
    return corpus


def _add(corpus: Corpus, recording: Recording) -> None:
    id, path = recording.id, recording.path
    # A trial list separates names by spaces and is UTF-8.
    if " " in id or not id.isprintable():
        raise InputError(
            f"{path!r} has a space or an unprintable character in its name "
            f"({shown(id)!r}): rename it"
        )
    first = corpus.recordings.setdefault(id, recording)
    if first is not recording and not corpus.clash:
        corpus.clash = (
            f"{first.path} and {path} are both utterance {id}: rename or "
            "remove one of them"
        )


def _from_list(
    path: pathlib.Path, labels: dict[str, dict[str, str]]
) -> tuple[str, list[Recording]]:
    layout, found = read_list(path)
    for recording, own in found:
        row = labels.setdefault(recording.speaker, {}) if own else {}
        _add_labels(row, own, f"{path}: {shown(recording.speaker)}")
    return layout, [recording for recording, _ in found]


def _add_labels(row: dict[str, str], new: dict[str, str], where: str) -> None:
    for key, value in new.items():
        known = row.get(key)
        if key == "split" and known and value and known != value:
            raise InputError(
                f"{where} is in the splits {shown(known)} and {shown(value)}: "
                "give all utterances of a speaker one split"
            )
        row[key] = value or known or ""


def _from_folder(
    source: pathlib.Path,
    speaker_level: int | str | None,
    outputs: StrPath | None,
    skipped: dict[str, list[str]],
) -> tuple[str, list[Recording]]:
    files = {
        normalized(below): path
        for below, path in walk(source, outputs, skipped)
    }
    if not files:
        return "empty", []
    names = list(map(without_extension, files))
    layout, places = find_layout(names, speaker_level, str(source))
    prefixes = {(f"{p.speaker}/{p.rest}", p.prefix) for p in places if p}
    several = Counter(id for id, _ in prefixes)
    found = []
    for name, path, place in zip(names, files.values(), places, strict=True):
        if place is None:
            skipped[f"not in the {layout} layout"].append(path)
            continue
        speaker, session, prefix, rest, for_trials = place
        id = rest if for_trials else f"{speaker}/{rest}"
        if prefix and several[id] > 1:  # train/alice/1 and test/alice/1
            id = f"{speaker}/{prefix}/{rest}"
        found.append(Recording(id, path, speaker, session, name, for_trials))
    return layout, found


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
    found = {name: corpus.find(name) for name in utterances}
    return {name: r.path if r else None for name, r in found.items()}


def read_speaker_table(path: StrPath) -> dict[str, dict[str, str]]:
    """Speaker -> its row of a table with ``spk_id``."""
    speakers: dict[str, dict[str, str]] = {}
    for line, row in read_table(path, ["spk_id"], SPEAKER_COLUMNS):
        speaker = row["spk_id"] = normalized(row["spk_id"])
        check_name(path, line, "spk_id", speaker)
        if speakers.setdefault(speaker, row) != row:
            raise InputError(
                f"{path}, line {line}: {speaker} has a second, different row: "
                "remove one of them"
            )
    return speakers
