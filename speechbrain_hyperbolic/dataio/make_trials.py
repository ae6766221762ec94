"""Makes a trial list for a corpus that has none.

python -m speechbrain_hyperbolic.dataio.make_trials DATA_FOLDER trials.txt
"""

import argparse
import itertools
import pathlib
import random
from collections.abc import Iterable
from typing import Any

from speechbrain_hyperbolic.dataio.corpus import (
    list_audio,
    read_splits,
    read_utterances,
    report_problems,
    speaker_of,
)
from speechbrain_hyperbolic.dataio.trials import Trial, write_trials
from speechbrain_hyperbolic.errors import InputError


def make_trials(
    utterances: Iterable[str], pairs_per_speaker: int = 100, seed: int = 0
) -> list[Trial]:
    """Makes a balanced trial list: as many impostor as target trials.

    Arguments
    ---------
    utterances : iterable of str
        Ids of the test utterances.
    pairs_per_speaker : int
        Target trials of a speaker, at most; drawn at random where the
        speaker has more pairs.
    seed : int

    Returns
    -------
    trials : list of Trial
        The same for the same arguments, whatever the order of utterances.

    Raises
    ------
    InputError
        If there are fewer than two speakers, or no speaker has two utterances.

    Example
    -------
    >>> trials = make_trials(["a/1", "a/2", "b/1", "b/2"])
    >>> sorted(trial.label for trial in trials)
    [0, 0, 1, 1]
    """
    by_speaker: dict[Any, list[str]] = {}
    for utterance in sorted(utterances):
        by_speaker.setdefault(speaker_of(utterance), []).append(utterance)
    generator = random.Random(seed)
    targets = []
    for own in by_speaker.values():
        pairs = list(itertools.combinations(own, 2))
        if len(pairs) > pairs_per_speaker:
            pairs = sorted(generator.sample(pairs, pairs_per_speaker))
        targets += [Trial(1, *pair) for pair in pairs]
    if len(by_speaker) < 2 or not targets:
        raise InputError(
            f"{len(by_speaker)} test speakers with {len(targets)} pairs of "
            "their own utterances make no trial list: needs at least two "
            "speakers, one of them with two utterances"
        )
    impostors = _impostor_pairs(by_speaker, len(targets), generator)
    return targets + [Trial(0, *pair) for pair in impostors]


def _impostor_pairs(
    by_speaker: dict[str, list[str]], count: int, generator: random.Random
) -> list[tuple[str, ...]]:
    """Distinct pairs, each speaker drawn alike often."""
    speakers = list(by_speaker)
    sizes = [len(own) for own in by_speaker.values()]
    possible = (sum(sizes) ** 2 - sum(size**2 for size in sizes)) // 2
    if possible <= 2 * count:  # too few for drawing with rejection
        every = [
            pair
            for a, b in itertools.combinations(speakers, 2)
            for pair in itertools.product(by_speaker[a], by_speaker[b])
        ]
        return sorted(generator.sample(every, min(count, possible)))
    pairs: set[tuple] = set()
    while len(pairs) < count:
        chosen = sorted(generator.sample(speakers, 2))
        pairs.add(tuple(generator.choice(by_speaker[s]) for s in chosen))
    return sorted(pairs)


def choose_test_speakers(
    data_folder: str | pathlib.Path,
    speakers: Iterable[str],
    test_share: float = 0.2,
    seed: int = 0,
) -> set[str]:
    """Speakers to keep for the trials.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        Where ``speakers.csv``, if it has a column ``split``, decides.
    speakers : iterable of str
        All speakers; without such a file a seeded share of them is drawn.
    test_share : float
        1: all speakers, of a corpus that does not train.
    seed : int

    Returns
    -------
    speakers : set of str
    """
    if test_share == 1:
        return set(speakers)
    splits = read_splits(data_folder)
    if splits:
        return {s for s in speakers if splits.get(s) == "test"}
    speakers = sorted(speakers)
    count = max(2, round(test_share * len(speakers)))
    if count >= len(speakers):
        raise InputError(
            f"{data_folder} has {len(speakers)} speakers: too few to keep "
            f"{count} of them for a trial list"
        )
    return set(random.Random(seed).sample(speakers, count))


def make_trial_list(
    data_folder: str | pathlib.Path,
    path: str | pathlib.Path,
    test_share: float = 0.2,
    check_audio: str = "header",
    seed: int = 0,
    **options: Any,
) -> list[Trial]:
    """Writes a balanced trial list for a corpus that has none.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        ``speaker/[session/]utterance.{wav,flac,ogg,m4a}``.
    path : str or pathlib.Path
        The list to write. What is below its folder is no part of the corpus.
    test_share : float
        See ``choose_test_speakers``.
    check_audio : str
        See ``read_utterances``; files that can't be used get no trials, and
        are warned of by name.
    seed : int
    **options : dict
        For ``make_trials``.

    Returns
    -------
    trials : list of Trial
    """
    paths = list_audio(data_folder, outputs=pathlib.Path(path).parent)
    speakers = choose_test_speakers(
        data_folder, {speaker_of(u) for u in paths}, test_share, seed
    )
    paths = {u: p for u, p in paths.items() if speaker_of(u) in speakers}
    utterances, problems = read_utterances(paths, check_audio=check_audio)
    report_problems(problems, f"{path}.skipped")
    trials = make_trials((u.id for u in utterances), seed=seed, **options)
    write_trials(trials, path)
    return trials


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m speechbrain_hyperbolic.dataio.make_trials",
        description="Make a balanced trial list for a corpus that has none.",
    )
    parser.add_argument("data_folder")
    parser.add_argument("path", help="the trial list to write")
    parser.add_argument(
        "--test_share",
        type=float,
        default=0.2,
        help="share of the speakers that are tested, where speakers.csv has "
        "no split; 1: all speakers, whatever it has",
    )
    parser.add_argument("--pairs_per_speaker", type=int, default=100)
    parser.add_argument("--check_audio", default="header")
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    path = options["path"]
    try:
        trials = make_trial_list(**options)
    except InputError as error:
        parser.error(str(error))
    targets = sum(trial.label for trial in trials)
    print(f"{path}: {targets} target, {len(trials) - targets} impostor trials")


if __name__ == "__main__":
    main()
