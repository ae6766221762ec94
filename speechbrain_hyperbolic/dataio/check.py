"""Shows how a corpus and a trial list would be read, and writes nothing."""

from typing import Any

from speechbrain_hyperbolic.dataio.corpus import Corpus, read_corpus
from speechbrain_hyperbolic.dataio.files import StrPath
from speechbrain_hyperbolic.dataio.names import nearest
from speechbrain_hyperbolic.dataio.preparation import (
    read_utterances,
    reason_of,
    summarize,
)
from speechbrain_hyperbolic.dataio.trials import read_trials, trial_speakers


def check(
    data_folder: StrPath,
    trials: StrPath | None = None,
    enrollment_file: StrPath | None = None,
    speaker_level: int | str | None = None,
) -> dict[str, Any]:
    """What was understood, as a dict for JSON."""
    corpus = read_corpus(data_folder, speaker_level)
    splits = corpus.splits()  # finds wrong rows of speakers.csv
    utterances, problems = read_utterances(corpus.paths())
    skipped = {why: len(paths) for why, paths in corpus.skipped.items()}
    for problem in problems.values():
        why = reason_of(problem)
        skipped[why] = skipped.get(why, 0) + 1
    first = next(iter(corpus.recordings.values()))
    found: dict[str, Any] = {
        "layout": ", ".join(corpus.layouts),
        "speakers": len({u.spk_id for u in utterances}),
        "utterances": len(utterances),
        "hours": round(sum(u.duration for u in utterances) / 3600, 4),
        "skipped": skipped,
        "example": {
            "path": first.path,
            "speaker": first.speaker,
            "session": first.session,
        },
    }
    if utterances:
        found["summary"] = summarize(utterances)
    if splits:
        found["splits"] = {
            split: sum(v == split for v in splits.values())
            for split in sorted(set(splits.values()))
        }
    if trials is not None:
        found |= _check_list(corpus, trials, enrollment_file)
    return found


def _check_list(
    corpus: Corpus, path: StrPath, enrollment_file: StrPath | None
) -> dict[str, Any]:
    trials = read_trials(path, enrollment_file, corpus)
    speakers = trial_speakers(trials)
    known = {s for s in speakers if corpus.match_speaker(s)}
    found: dict[str, Any] = {
        "columns": list(trials.columns),
        "target": int((trials.labels == 1).sum()),
        "nontarget": int((trials.labels == 0).sum()),
        "unlabeled": int((trials.labels == -1).sum()),
        "test_speakers": len(speakers),
        "kept_from_training": len(known),
        "missing": len(trials.missing),
    }
    if trials.missing:
        name = trials.missing[0]
        names = corpus.recordings.keys() | corpus.for_trials.keys()
        found["problem"] = (
            f"{len(trials.missing)} utterances of {path} are not in the "
            f"corpus, such as {name}{nearest(name, sorted(names)[:20000])}"
        )
    if known and len(known) < len(speakers):
        stranger = min(speakers - known)
        found["problem"] = (
            f"{stranger}, a speaker of {path}, is not in the corpus"
            f"{nearest(stranger, corpus.speakers)}: training refuses this list"
        )
    return found
