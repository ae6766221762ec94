"""Shows how a corpus and a trial list would be read, and writes nothing."""

from typing import Any

from speechbrain_hyperbolic.dataio.corpus import (
    Corpus,
    count_reasons,
    read_corpus,
)
from speechbrain_hyperbolic.dataio.files import StrPath
from speechbrain_hyperbolic.dataio.preparation import (
    read_utterances,
    summarize,
)
from speechbrain_hyperbolic.dataio.trials import (
    check_names,
    read_trials,
    trial_speakers,
)
from speechbrain_hyperbolic.errors import InputError


def check(
    data_folder: StrPath,
    trials: StrPath | None = None,
    enrollment_file: StrPath | None = None,
    speaker_level: int | str | None = None,
) -> dict[str, Any]:
    """What was understood, as a dict for JSON."""
    corpus = read_corpus(data_folder, speaker_level)
    corpus.splits()  # finds wrong rows of speakers.csv
    utterances, problems = read_utterances(corpus.paths())
    first = next(iter(corpus.recordings.values()))
    found: dict[str, Any] = {
        "layout": ", ".join(corpus.layouts),
        "speakers": len({u.spk_id for u in utterances}),
        "utterances": len(utterances),
        "hours": round(sum(u.duration for u in utterances) / 3600, 4),
        "skipped": dict(count_reasons(problems | corpus.skipped)),
        "example": {
            "path": first.path,
            "speaker": first.speaker,
            "session": first.session,
        },
    }
    if utterances:
        found["summary"] = summarize(utterances)
    if trials is not None:
        found |= _check_list(corpus, trials, enrollment_file)
    return found


def _check_list(
    corpus: Corpus, path: StrPath, enrollment_file: StrPath | None
) -> dict[str, Any]:
    trials = read_trials(path, enrollment_file, corpus)
    speakers = trial_speakers(trials)
    found: dict[str, Any] = {
        "columns": list(trials.columns),
        "target": int((trials.labels == 1).sum()),
        "nontarget": int((trials.labels == 0).sum()),
        "unlabeled": int((trials.labels == -1).sum()),
        "test_speakers": len(speakers),
        "kept_from_training": sum(
            map(bool, map(corpus.match_speaker, speakers))
        ),
        "missing": len(trials.missing),
    }
    try:
        check_names(trials, corpus, path)
        corpus.held_out(speakers)
    except InputError as error:  # training would refuse the list
        found["problem"] = str(error)
    return found
