"""The utterances of several corpora, and what speakers.csv says of them."""

import collections
import pathlib
from typing import NamedTuple

from speechbrain_hyperbolic.dataio.corpus import list_audio, speaker_of
from speechbrain_hyperbolic.dataio.tables import check_name, read_table
from speechbrain_hyperbolic.errors import InputError, shown

# Below it, an encoder trained elsewhere finds a speaker's sessions less alike
# than a quarter of all impostors: the name may stand for several people.
_DOUBTFUL = 0.62


class Utterance(NamedTuple):
    """A recording and its labels; "" for those that are unknown."""

    id: str
    path: str
    corpus: str
    speaker: str
    session: str  # "" in a corpus that has one session a speaker
    lang: str
    sex: str
    split: str  # train or test
    doubtful: bool


def read_corpora(data_folders, most_speakers=None):
    """The utterances of all corpora, sorted by id.

    ``most_speakers`` limits the speakers of each corpus and split, for a try.
    """
    corpora, utterances = {}, []
    for folder in map(pathlib.Path, data_folders):
        table, paths = _read_table(folder), list_audio(folder)
        for speaker in table:
            if speaker in corpora:
                raise InputError(
                    f"{corpora[speaker]} and {folder} both have a speaker "
                    f"{speaker}: rename it in one of them"
                )
            corpora[speaker] = folder
        _check_sessions(folder, table, paths)
        kept = set()
        for split in ("train", "test"):
            kept.update([s for s in table if table[s]["split"] == split][
                :most_speakers
            ])
        doubtful = _doubtful_speakers(folder)
        for utterance, path in paths.items():
            speaker, *session, _ = utterance.split("/")
            if speaker in kept:
                row = table[speaker]
                utterances.append(
                    Utterance(
                        utterance,
                        path,
                        folder.resolve().name,
                        speaker,
                        "/".join(session),
                        row.get("lang", ""),
                        row["sex"] if row.get("sex") in ("m", "f") else "",
                        row["split"],
                        speaker in doubtful,
                    )
                )
    return sorted(utterances)


def _read_table(folder):
    """Speaker -> row of a corpus's speakers.csv, with a valid split."""
    path = folder / "speakers.csv"
    if not path.is_file():
        raise InputError(
            f"the corpus {folder} has no speakers.csv: expected one with the "
            "columns spk_id, split, sex, lang and sessions"
        )
    table = {}
    for line, row in read_table(path, ["spk_id", "split"]):
        speaker, split = row["spk_id"], row["split"]
        check_name(path, line, "spk_id", speaker)
        if split not in ("train", "test"):
            raise InputError(
                f"{path}, line {line}: the split of {speaker} is "
                f"{shown(split)!r}, expected train or test"
            )
        before = table.setdefault(speaker, row)
        if before["split"] != split:
            raise InputError(
                f"{path}, line {line}: {speaker} is in both train and test: "
                "remove one of the two rows"
            )
        if before is not row:
            raise InputError(
                f"{path}, line {line}: {speaker} has a second row: remove it"
            )
    return table


def _check_sessions(folder, table, paths):
    """A corpus with session folders must tell its languages and sessions."""
    path, sessions = folder / "speakers.csv", collections.defaultdict(set)
    for utterance in paths:
        sessions[speaker_of(utterance)].add(utterance.rpartition("/")[0])
    if strangers := sessions.keys() - table.keys():
        raise InputError(f"{path} has no row for {min(strangers)}: add it")
    if silent := table.keys() - sessions.keys():
        raise InputError(
            f"{path} has {min(silent)}, who has no audio in {folder}: remove "
            "the row or restore the files"
        )
    if all(utterance.count("/") == 1 for utterance in paths):
        return
    for name in ("lang", "sessions"):
        if name not in next(iter(table.values())):
            raise InputError(
                f"{path} has no column {name}, which a corpus with session "
                "folders needs: add it"
            )
    for speaker, row in table.items():
        if not row["lang"]:
            raise InputError(f"{path}: {speaker} has no lang: add it")
        if row["sessions"] != str(len(sessions[speaker])):
            raise InputError(
                f"{path}: {speaker} has {shown(row['sessions'])!r} sessions, "
                f"but {len(sessions[speaker])} session folders: correct it or "
                "restore the files"
            )


def _doubtful_speakers(folder):
    """Speakers whose sessions may be of several people, where a file tells."""
    path = folder / "session_agreement.csv"
    if not path.is_file():
        return set()
    rows = read_table(path, ["spk_id", "cross_mean"])
    return {
        row["spk_id"]
        for _, row in rows
        if row["cross_mean"] and float(row["cross_mean"]) < _DOUBTFUL
    }
