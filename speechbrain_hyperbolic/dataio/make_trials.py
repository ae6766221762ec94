"""Makes a trial list for a corpus that has none.

python -m speechbrain_hyperbolic.dataio.make_trials DATA_FOLDER trials.txt
"""

import argparse
import itertools
import pathlib
import random
import re
from collections.abc import Iterable

from speechbrain_hyperbolic.dataio.corpus import (
    Corpus,
    read_corpus,
    speaker_of,
)
from speechbrain_hyperbolic.dataio.files import StrPath
from speechbrain_hyperbolic.dataio.preparation import (
    read_utterances,
    report_skipped,
)
from speechbrain_hyperbolic.dataio.trials import Trial, write_trials
from speechbrain_hyperbolic.errors import InputError, exit_on_error

_MICROPHONE = re.compile(r"_mic\d$")  # VCTK has all that is said twice


def make_trials(
    utterances: Iterable[str], pairs_per_speaker: int = 100, seed: int = 0
) -> list[Trial]:
    """As many random impostor as target trials, in any order of utterances."""
    by_speaker: dict[str, list[str]] = {}
    for utterance in sorted(utterances):
        by_speaker.setdefault(speaker_of(utterance), []).append(utterance)
    generator = random.Random(seed)
    targets = []
    for own in by_speaker.values():
        said = {name: _MICROPHONE.sub("", name) for name in own}
        pairs = [
            (one, other)
            for one, other in itertools.combinations(own, 2)
            if said[one] != said[other]
        ]
        if len(pairs) > pairs_per_speaker:
            pairs = sorted(generator.sample(pairs, pairs_per_speaker))
        targets += [Trial(1, *pair) for pair in pairs]
    if len(by_speaker) < 2 or not targets:
        raise InputError(
            f"{len(by_speaker)} test speakers with {len(targets)} pairs of "
            "their own utterances are too few for a trial list: it needs two "
            "speakers, one of them with two utterances"
        )
    # Distinct pairs; every speaker is drawn with the same probability.
    sizes = [len(own) for own in by_speaker.values()]
    possible = (sum(sizes) ** 2 - sum(size**2 for size in sizes)) // 2
    impostors: set[tuple[str, ...]] = set()
    while len(impostors) < min(len(targets), possible):
        pair = sorted(generator.sample(list(by_speaker), 2))
        impostors.add(tuple(generator.choice(by_speaker[s]) for s in pair))
    return targets + [Trial(0, *pair) for pair in sorted(impostors)]


def choose_test_speakers(
    corpus: Corpus, test_share: float = 0.2, seed: int = 0
) -> set[str]:
    """Those of split "test" in speakers.csv; without splits a random share."""
    if test_share == 1:
        return set(corpus.speakers)
    if splits := corpus.splits():
        return {speaker for speaker, v in splits.items() if v == "test"}
    speakers = sorted(corpus.speakers)
    count = max(2, round(test_share * len(speakers)))
    if count >= len(speakers):
        raise InputError(
            f"{corpus.source} has {len(speakers)} speakers: too few to reserve "
            f"{count} of them for a trial list"
        )
    return set(random.Random(seed).sample(speakers, count))


def make_trial_list(
    data_folder: StrPath,
    path: StrPath,
    test_share: float = 0.2,
    pairs_per_speaker: int = 100,
    check_audio: str = "header",
    seed: int = 0,
    speaker_level: int | str | None = None,
) -> list[Trial]:
    """Writes a trial list, and the unusable files to ``PATH.skipped``."""
    corpus = read_corpus(
        data_folder, speaker_level, outputs=pathlib.Path(path).parent
    )
    speakers = choose_test_speakers(corpus, test_share, seed)
    utterances, problems = read_utterances(
        corpus.paths(speakers), check_audio=check_audio
    )
    report_skipped(problems | corpus.skipped, f"{path}.skipped")
    trials = make_trials((u.id for u in utterances), pairs_per_speaker, seed)
    write_trials(trials, path)
    return trials


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Makes a balanced trial list for a corpus that has none."
    )
    parser.add_argument("data_folder")
    parser.add_argument("path", help="the trial list to write")
    parser.add_argument(
        "--test_share",
        type=float,
        default=0.2,
        help="share of the speakers, unless speakers.csv has a split; 1: all "
        "speakers in any case",
    )
    parser.add_argument("--pairs_per_speaker", type=int, default=100)
    parser.add_argument("--check_audio", default="header")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--speaker_level",
        help="which folder below data_folder is the speaker, by number, or a "
        "pattern with one group over paths (default: told by the layout)",
    )
    options = vars(parser.parse_args())
    with exit_on_error():
        trials = make_trial_list(**options)
    targets = sum(trial.label for trial in trials)
    print(
        f"{options['path']}: {targets} target, "
        f"{len(trials) - targets} impostor trials"
    )


if __name__ == "__main__":
    main()
