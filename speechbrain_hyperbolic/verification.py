"""What a trial list needs, and what is said of its scores."""

import json
import pathlib
from collections.abc import Sequence

import numpy as np

from speechbrain_hyperbolic.dataio.corpus import find_audio
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.dataio.trials import TrialList
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation import evaluate
from speechbrain_hyperbolic.metrics import P_TARGETS


def locate(
    trials: TrialList,
    data_folder: str | pathlib.Path,
    trial_list: str | pathlib.Path,
) -> dict:
    """The audio file of each utterance of a trial list.

    Arguments
    ---------
    trials : TrialList
    data_folder : str or pathlib.Path
    trial_list : str or pathlib.Path
        Where the trials are from, for the message.

    Returns
    -------
    paths : dict
        Utterance id -> path.

    Raises
    ------
    InputError
        Names the first missing utterance and how many there are.
    """
    paths = find_audio(data_folder, trials.utterances)
    missing = [utterance for utterance, path in paths.items() if path is None]
    if missing:
        raise InputError(
            f"{trial_list}: {missing[0]} is not in data_folder {data_folder} "
            f"({len(missing)} of {len(paths)} utterances are missing): "
            "complete the folder, remove their trials, or pass the "
            "enrolment_file if these are models of several utterances"
        )
    return paths


def check_both_classes(
    trials: TrialList, trial_list: str | pathlib.Path
) -> None:
    """Refuses a list that no error rates can be had of, before it's scored.

    Arguments
    ---------
    trials : TrialList
    trial_list : str or pathlib.Path
        Where the trials are from, for the message.

    Raises
    ------
    InputError
        If all its trials are target trials, or none is.
    """
    targets = int(trials.labels.sum())
    if targets in (0, len(trials)):
        kind = "target" if targets else "nontarget"
        raise InputError(
            f"{trial_list} has {len(trials)} {kind} trials and no others: "
            "error rates need both labels, 1 and 0"
        )


def evaluate_trials(
    trials: TrialList,
    scores: np.ndarray,
    speakers: dict | None = None,
    replicates: int = 1000,
    calibrated: bool = False,
) -> dict:
    """Error rates over all trials, and over those of speakers of one sex.

    Arguments
    ---------
    trials : TrialList
    scores : np.ndarray
        Shape [trials].
    speakers : dict
        Speaker -> dict with "sex", as ``read_speakers`` gives; the second row
        needs it.
    replicates : int
        Of the bootstrap over speakers.
    calibrated : bool
        The scores are log likelihood ratios.

    Returns
    -------
    results : dict
        "all trials" and, where known, "same-sex trials" -> what
        ``evaluation.evaluate`` gives.
    """
    enrol, test = trials.speakers()
    subsets = {"all trials": np.ones(len(trials), bool)}
    sex = {s: row.get("sex") or "" for s, row in (speakers or {}).items()}
    of_enrol, of_test = (
        np.array([sex.get(speaker, "") for speaker in side])
        for side in (enrol, test)
    )
    same = (of_enrol == of_test) & (of_enrol != "")
    if len(np.unique(trials.labels[same])) == 2:
        subsets["same-sex trials"] = same
    return {
        name: evaluate(
            scores[chosen],
            trials.labels[chosen],
            enrol[chosen],
            test[chosen],
            replicates=replicates,
            calibrated=calibrated,
        )
        for name, chosen in subsets.items()
    }


def write_results(results: dict, path: str | pathlib.Path) -> None:
    """Writes what ``evaluate_trials`` gave, as JSON.

    Arguments
    ---------
    results : dict
    path : str or pathlib.Path
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(results, indent=2) + "\n")


def read_results(path: str | pathlib.Path) -> dict:
    """Reads what ``write_results`` wrote.

    Arguments
    ---------
    path : str or pathlib.Path

    Returns
    -------
    results : dict
    """
    return json.loads(pathlib.Path(path).read_text())


def format_results(results: dict) -> str:
    """A table for people.

    Arguments
    ---------
    results : dict
        Name -> what ``evaluation.evaluate`` gives.

    Returns
    -------
    table : str
        Markdown; 95 % intervals by bootstrap over speakers in brackets, of
        ten speakers or more.
    """
    columns = [("eer", "EER %", 100, 2)]
    columns += [(f"min_dcf_{p:g}", f"minDCF({p:g})", 1, 3) for p in P_TARGETS]
    if all("cllr" in result for result in results.values()):
        columns += [
            (f"act_dcf_{p:g}", f"actDCF({p:g})", 1, 3) for p in P_TARGETS
        ]
        columns += [("cllr", "Cllr", 1, 3)]
    rows = [["", "trials", *(title for _, title, _, _ in columns)]]
    for name, result in results.items():
        intervals = result["intervals"] or {}
        rows.append(
            [
                name,
                f"{result['n_target']} + {result['n_nontarget']}",
                *(
                    _with_interval(result[key], intervals.get(key), *form)
                    for key, _, *form in columns
                ),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| "
        + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True))
        + " |"
        for row in rows
    )


def interval_note(results: dict) -> str:
    """What is to be said of the intervals of a table.

    Arguments
    ---------
    results : dict
        Name -> what ``evaluation.evaluate`` gives.

    Returns
    -------
    note : str
    """
    if all(result["intervals"] for result in results.values()):
        return "in brackets 95 % intervals by bootstrap over speakers"
    return "too few speakers for intervals"


def _with_interval(
    value: float, interval: Sequence[float] | None, factor: float, digits: int
) -> str:
    text = f"{factor * value:.{digits}f}"
    if interval:
        low, high = (f"{factor * bound:.{digits}f}" for bound in interval)
        text += f" [{low}, {high}]"
    return text
