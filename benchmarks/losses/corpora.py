"""The utterances of several corpora, and what speakers.csv says of them."""

import collections
import pathlib

from speechbrain_hyperbolic.dataio.corpus import read_corpus, speaker_of
from speechbrain_hyperbolic.dataio.tables import read_table
from speechbrain_hyperbolic.errors import InputError, shown

# Speakers whose sessions are less alike than this, for an encoder trained
# elsewhere, may be several people: a quarter of all impostors are more alike.
DOUBTFUL = 0.62


def read_corpora(data_folders, most_speakers=None):
    """The utterances of all corpora, as dicts sorted by id.

    Labels that are unknown are "", as is the session of a corpus that has one
    a speaker. ``most_speakers`` limits those of each corpus and split.
    """
    folders, utterances = {}, []
    for folder in map(pathlib.Path, data_folders):
        table, paths = _read_table(folder), read_corpus(folder).paths()
        _check(folder, table, paths)
        doubtful = _doubtful_speakers(folder)
        kept = collections.Counter()
        for speaker, row in table.items():
            if speaker in folders:
                raise InputError(
                    f"{folders[speaker]} and {folder} both have a speaker "
                    f"{speaker}: rename it in one of them"
                )
            folders[speaker] = folder
            kept[row["split"]] += 1
            row["kept"] = (
                not most_speakers or kept[row["split"]] <= most_speakers
            )
        for utterance, path in paths.items():
            speaker, *session, _ = utterance.split("/")
            row = table[speaker]
            if row["kept"]:
                utterances.append(
                    {
                        "id": utterance,
                        "path": path,
                        "corpus": folder.resolve().name,
                        "speaker": speaker,
                        "session": "/".join(session),
                        "lang": row.get("lang", ""),
                        "sex": row.get("sex", "").replace("unknown", ""),
                        "doubtful": speaker in doubtful,
                        "part": row["split"],  # then also dev
                    }
                )
    return sorted(utterances, key=lambda utterance: utterance["id"])


def _read_table(folder):
    """Speaker -> row of a corpus's speakers.csv."""
    path, table = folder / "speakers.csv", {}
    if not path.is_file():
        raise InputError(
            f"the corpus {folder} has no speakers.csv: expected one with the "
            "columns spk_id, split, sex, lang and sessions"
        )
    for line, row in read_table(path, ["spk_id", "split"]):
        where, speaker = f"{path}, line {line}", row["spk_id"]
        if row["split"] not in ("train", "test"):
            raise InputError(
                f"{where}: the split of {shown(speaker)} is "
                f"{shown(row['split'])}, expected train or test"
            )
        if speaker in table:
            both = row["split"] != table[speaker]["split"]
            what = "in both train and test" if both else "there twice"
            raise InputError(f"{where}: {shown(speaker)} is {what}: remove one")
        table[speaker] = row
    return table


def _check(folder, table, paths):
    """Compares the table with the audio; sessions need their columns."""
    path, sessions = folder / "speakers.csv", collections.defaultdict(set)
    for utterance in paths:
        sessions[speaker_of(utterance)].add(utterance.rpartition("/")[0])
    for speaker in sorted(sessions.keys() ^ table.keys()):
        what = "audio" if speaker in table else f"row in {path}"
        raise InputError(f"{folder}: the speaker {speaker} has no {what}")
    if all(utterance.count("/") == 1 for utterance in paths):
        return
    for speaker, row in table.items():
        for column in ("lang", "sessions"):
            if not row.get(column):
                raise InputError(
                    f"{path}: {speaker} has no {column}, which a corpus with "
                    "session folders needs: add it"
                )
        if row["sessions"] != str(len(sessions[speaker])):
            raise InputError(
                f"{path}: {speaker} has {shown(row['sessions'])} sessions, but "
                f"{len(sessions[speaker])} session folders: correct one of them"
            )


def _doubtful_speakers(folder):
    path = folder / "session_agreement.csv"
    if not path.is_file():
        return set()
    rows = [row for _, row in read_table(path, ["spk_id", "cross_mean"])]
    means = {r["spk_id"]: r["cross_mean"] for r in rows if r["cross_mean"]}
    return {
        speaker for speaker, mean in means.items() if float(mean) < DOUBTFUL
    }
