"""Trial lists: ``label enrol test`` a line, label 1 for the same speaker.

Utterances are named as in VoxCeleb's lists, by their path below the corpus:
``speaker/[session/]utterance.wav``; the extension may be left out. Run as a
module, it makes a list for a corpus that has none:

    python -m speechbrain_hyperbolic.dataio.trials DATA_FOLDER trials.txt
"""

import argparse
import itertools
import pathlib
import random
import urllib.request
from typing import NamedTuple

from speechbrain_hyperbolic.dataio.audio import EXTENSIONS
from speechbrain_hyperbolic.dataio.corpus import (
    list_audio,
    read_splits,
    read_utterances,
    report_problems,
    speaker_of,
)
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError


class Trial(NamedTuple):
    """One comparison of two utterances.

    Arguments
    ---------
    label : int
        1: the same speaker, 0: different speakers.
    enrol : str
        Utterance id: path below the corpus, without extension.
    test : str
        Likewise.
    """

    label: int
    enrol: str
    test: str


def read_trials(path):
    """Reads a trial list.

    Arguments
    ---------
    path : str or pathlib.Path

    Returns
    -------
    trials : list of Trial

    Raises
    ------
    InputError
        For a missing or empty file, a malformed line, or a path that leaves
        the corpus (with the line's number).

    Example
    -------
    >>> path = pathlib.Path(getfixture("tmpdir")) / "trials.txt"
    >>> _ = path.write_text("1 id1/a/1.wav id1/b/2.wav")
    >>> read_trials(path)
    [Trial(label=1, enrol='id1/a/1', test='id1/b/2')]
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f"{path} is missing: no such trial list")
    trials = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 3 or fields[0] not in ("0", "1"):
            raise InputError(
                f"{path}, line {number}: {line[:80]!r} is not a trial, "
                "expected 'label enrol test' with label 0 or 1"
            )
        for name in fields[1:]:
            if name.startswith("/") or ".." in name.split("/"):
                raise InputError(
                    f"{path}, line {number}: {name} leaves the corpus, "
                    "expected a path below it: speaker/[session/]utterance"
                )
        trials.append(Trial(int(fields[0]), *map(_utterance_id, fields[1:])))
    if not trials:
        raise InputError(f"{path} has no trials: expected 'label enrol test'")
    return trials


def trial_speakers(trials):
    """The speakers of a trial list.

    Arguments
    ---------
    trials : iterable of Trial

    Returns
    -------
    speakers : set of str
    """
    return {speaker_of(u) for trial in trials for u in trial[1:]}


def fetch_trials(source, folder):
    """The path of a trial list that is given as a path or a URL.

    Arguments
    ---------
    source : str
        ``verification_file`` of an hparams file.
    folder : str or pathlib.Path
        Where a download goes; one that is there is used.

    Returns
    -------
    path : pathlib.Path

    Raises
    ------
    InputError
        If it can't be downloaded.
    """
    if not str(source).startswith(("http://", "https://")):
        return pathlib.Path(source)
    path = pathlib.Path(folder) / pathlib.PurePosixPath(source).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic_path(path) as temporary:
                urllib.request.urlretrieve(source, temporary)
        except OSError as error:
            raise InputError(
                f"verification_file {source} can't be downloaded ({error}): "
                "pass --verification_file=/path/to/trials.txt; 'python -m "
                "speechbrain_hyperbolic.dataio.trials DATA_FOLDER trials.txt' "
                "makes one for your own corpus"
            ) from error
    return path


def make_trials(utterances, pairs_per_speaker=100, seed=0):
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
    by_speaker = {}
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


def _impostor_pairs(by_speaker, count, generator):
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
    pairs = set()
    while len(pairs) < count:
        chosen = sorted(generator.sample(speakers, 2))
        pairs.add(tuple(generator.choice(by_speaker[s]) for s in chosen))
    return sorted(pairs)


def write_trials(trials, path):
    """Writes a trial list, whole or not at all.

    Arguments
    ---------
    trials : iterable of Trial
    path : str or pathlib.Path
    """
    with atomic_path(path) as temporary:
        temporary.write_text(
            "".join(f"{t.label} {t.enrol} {t.test}\n" for t in trials),
            encoding="utf-8",
        )


def choose_test_speakers(data_folder, speakers, test_share=0.2, seed=0):
    """Speakers to keep for the trials.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        Where ``speakers.csv``, if it has a column ``split``, decides.
    speakers : iterable of str
        All speakers; without such a file a seeded share of them is drawn.
    test_share : float
    seed : int

    Returns
    -------
    speakers : set of str
    """
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


def make_trial_list(data_folder, path, check_audio="header", seed=0, **options):
    """Writes a balanced trial list for a corpus that has none.

    Arguments
    ---------
    data_folder : str or pathlib.Path
        ``speaker/[session/]utterance.{wav,flac,ogg,m4a}``.
    path : str or pathlib.Path
        The list to write. What is below its folder is no part of the corpus.
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
        data_folder, {speaker_of(u) for u in paths}, seed=seed
    )
    paths = {u: p for u, p in paths.items() if speaker_of(u) in speakers}
    utterances, problems = read_utterances(paths, check_audio=check_audio)
    report_problems(problems, f"{path}.skipped")
    trials = make_trials((u.id for u in utterances), seed=seed, **options)
    write_trials(trials, path)
    return trials


def _utterance_id(name):
    stem, dot, extension = name.rpartition(".")
    return stem if dot + extension.lower() in EXTENSIONS else name


def main():
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m speechbrain_hyperbolic.dataio.trials",
        description="Make a balanced trial list for a corpus that has none.",
    )
    parser.add_argument("data_folder")
    parser.add_argument("path", help="the trial list to write")
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
