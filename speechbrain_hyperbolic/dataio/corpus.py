"""Reads a corpus: a folder in any layout, or a list.

``layouts`` says which folder is the speaker, ``lists`` what replaces folders.
An utterance's id is ``speaker/[session/]utterance``, so the speaker of an id
is its first part. Trial lists may name an utterance in other ways, which
``Corpus.find`` understands. The optional table ``speakers.csv`` has
``spk_id`` and any of ``sex``, ``split`` and labels of your own.
"""

import dataclasses
import functools
import itertools
import os
import pathlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from urllib.parse import unquote

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
# Also speakers.tsv, speakers (1).csv and speakers.csv.txt
_TABLE = re.compile(r"(?i)speakers\b.*\.[ct]sv(?:\.txt)?")


@dataclasses.dataclass
class Corpus:
    """The utterances of a data folder, and what was left out."""

    source: str
    layouts: list[str]
    recordings: dict[str, Recording]  # by id, sorted; also those for trials
    labels: dict[str, dict[str, str]]  # speaker -> row of speakers.csv
    skipped: dict[str, str]  # file or folder -> why
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
        """Speaker -> "train", "dev" or "test", of those with a split."""
        splits = {}
        for name, row in self.labels.items():
            if name not in self.speakers:  # who, misspelt here, would train
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

    def may_have(self, utterances: Iterable[str]) -> bool:
        """Whether all may be utterances of this corpus by other names."""
        cores = functools.cache(lambda: set(map(_core, self.recordings)))
        people = {_core(speaker)[0] for speaker in self.speakers}

        def is_here(utterance: str) -> bool:
            *folders, name = utterance.split("/")
            by_name = not name.isdecimal() and self.find(name) is not None
            by_folder = not self.speakers.keys().isdisjoint(folders[1:])
            core = _core(utterance)  # all cores take seconds
            alike = core[0] in people and core in cores()
            return by_name or by_folder or alike

        return all(map(is_here, utterances))

    @functools.cached_property
    def _names(self) -> dict[str, Recording | None]:
        """By all names that lists use; None for one that several have."""
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
        # With the extension: a.m4a is not a.m4a.wav.
        for r in self.recordings.values():
            names[r.name + os.path.splitext(r.path)[1]] = r
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
                for key in (name, without_extension(name)):
                    if found := self._names.get(key):
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
    corpus = Corpus(str(data_folder), [], {}, {}, {})
    owners: dict[str, str] = {}  # file -> speaker
    known: set[str] = set()  # speakers of the sources before
    sources = data_folders(data_folder)
    for source in sources:
        path = list_in(source)
        if path is not None:
            layout, found = read_list(path)
        else:
            layout, found = _from_folder(
                source, speaker_level, outputs, corpus.skipped
            )
        for recording in found:
            _add(corpus, recording, owners)
        corpus.layouts.append(layout)
        own = {r.speaker for r in found}
        logger.info(f"{source}: {layout} layout: {len(own)} speakers")
        if shared := sorted(own & known):
            logger.warning(
                f"{len(shared)} speakers, such as {shown(shared[0])}, are in "
                "several data folders: each name is taken for one person"
            )
        known |= {r.speaker for r in found if not r.for_trials}
        if path is None:
            _check_case(source, known)
    if not corpus.recordings:
        raise InputError(
            f"data_folder {data_folder} has no audio: expected "
            f"speaker/[session/]utterance (left out {in_words(corpus.skipped)})"
        )
    corpus.recordings = dict(sorted(corpus.recordings.items()))
    # Beside the speakers, in any case, which disks may not tell apart
    inside = itertools.chain(*(s.iterdir() for s in sources if s.is_dir()))
    for table in (p for p in inside if _TABLE.fullmatch(p.name)):
        if table.read_bytes().startswith(b"READER"):  # LibriTTS's own
            continue
        corpus.skipped.pop(str(table), None)
        for name, row in read_speaker_table(table).items():
            # A spreadsheet takes leading zeros.
            name = corpus.match_speaker(name) or name
            labels = corpus.labels.setdefault(name, {})
            _add_labels(labels, row, f"{table}: {shown(name)}")
    if corpus.skipped:
        logger.info(f"{data_folder}: left out {in_words(corpus.skipped)}")
    return corpus


def count_reasons(skipped: Mapping[str, str]) -> Counter[str]:
    """How many files are left out for which reason, without the advice."""
    return Counter(
        re.split("[:,(]", why, maxsplit=1)[0].strip()
        for why in skipped.values()
    )


def in_words(skipped: Mapping[str, str]) -> str:
    """How many files are left out, and how many for which reason."""
    reasons = count_reasons(skipped).most_common()
    counts = "; ".join(f"{why}: {number}" for why, number in reasons)
    return f"{len(skipped)} files ({counts})" if skipped else "no file"


def _add(corpus: Corpus, recording: Recording, owners: dict[str, str]) -> None:
    id, path, speaker = recording.id, recording.path, recording.speaker
    # A trial list separates names by spaces and is UTF-8.
    if " " in id or not id.isprintable():
        raise InputError(
            f"{path!r} has a space or an unprintable character in its name "
            f"({shown(id)!r}): rename it"
        )
    known = owners.get(recording.real) == speaker and not recording.for_trials
    if known and id not in corpus.recordings:
        corpus.skipped[path] = "is a file that is read already"
        return
    first = corpus.recordings.setdefault(id, recording)
    if first is not recording:
        corpus.clash = corpus.clash or (
            f"{first.path} and {path} are both utterance {id}: rename or "
            "remove one of them"
        )
    elif (owner := owners.setdefault(recording.real, speaker)) != speaker:
        corpus.clash = f"{path} is of two speakers, {owner} and {speaker}"
    if recording.labels:
        row = corpus.labels.setdefault(speaker, {})
        _add_labels(row, recording.labels, f"{path}: {shown(speaker)}")


def _check_case(source: pathlib.Path, speakers: Iterable[str]) -> None:
    """Refuses folders that would be one on the disk of Windows or a Mac."""
    names: dict[str, str] = {}
    for speaker in sorted(speakers):
        other = names.setdefault(speaker.casefold(), speaker)
        if other != speaker:
            raise InputError(
                f"{source}: {shown(other)} and {shown(speaker)} differ in case "
                "only: rename one folder, merge them, or name the speakers by "
                "a list (CSV with path and speaker)"
            )


def _add_labels(
    row: dict[str, str], new: Mapping[str, str], where: str
) -> None:
    """Completes a row of labels; a second split is an error."""
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
    skipped: dict[str, str],
) -> tuple[str, list[Recording]]:
    files = [*walk(source, outputs, skipped)]
    if not files:
        return "empty", []
    names = [without_extension(normalized(below)) for below, _, _ in files]
    layout, places = find_layout(names, speaker_level, str(source))
    prefixes = {(f"{p.speaker}/{p.rest}", p.prefix) for p in places if p}
    several = Counter(id for id, _ in prefixes)
    found = []
    for name, (_, path, real), place in zip(names, files, places, strict=True):
        if place is None:
            skipped[path] = f"is not in the {layout} layout"
            continue
        speaker, session, prefix, rest, for_trials = place
        id = rest if for_trials else f"{speaker}/{rest}"
        if prefix and several[id] > 1:  # train/alice/1 and test/alice/1
            id = f"{speaker}/{prefix}/{rest}"
        found.append(
            Recording(id, path, speaker, session, name, real, for_trials)
        )
    return layout, found


def _core(utterance: str) -> tuple[str, str]:
    """("3", "1"), who says what, of id003/1, spk_3/session/1 and 003%2F1."""
    parts = unquote(utterance).split("/")
    word = re.split("[-_. ]", parts[0])[-1].casefold()
    return re.sub(r"^[a-z]*0*(?=\d+$)", "", word), parts[-1]


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
    folders = [folder.strip() for folder in str(data_folder).split(",")]
    for folder in folders:
        if not os.path.exists(folder):  # as "" doesn't
            raise InputError(
                f"data_folder {folder!r} is not a folder or a list: pass "
                "--data_folder=/path/to/corpus"
            )
    return [*map(pathlib.Path, folders)]


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
