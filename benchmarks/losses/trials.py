"""Pairs of utterances within a language: across sessions and within one."""

import collections
from typing import NamedTuple

import numpy as np

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.metrics import eer, min_dcf

MOST_TARGETS = 50  # of a speaker, across sessions
P_TARGET = 0.01
ABOUT = {
    "cross": "targets across sessions, impostors of the same language",
    "cross_same_sex": "the same, both of one known sex",
    "cross_sure": "cross without the doubtful speakers",
    "within": "targets within a session, impostors as in cross",
    "one_session": "corpora with one session a speaker",
    "one_session_same_sex": "the same, both of one known sex",
}


class Trials(NamedTuple):
    """Pairs of rows, and which of them a condition counts."""

    first: np.ndarray  # rows, shape [trials]
    second: np.ndarray
    a: np.ndarray  # their speakers' numbers; equal in a target trial
    b: np.ndarray
    n_speakers: int
    conditions: dict  # name -> booleans, shape [trials]


def make_trials(rows):
    """All trials of test utterances, given as dicts with their labels.

    Conditions that lack target or impostor trials are left out.
    """
    groups = collections.defaultdict(list)
    for number, row in enumerate(rows):
        groups[row["corpus"], row["lang"]].append(number)
    pairs = [np.zeros((2, 0), int)]
    for group in groups.values():
        pairs.append(np.array(group)[np.stack(np.triu_indices(len(group), 1))])
    first, second = np.concatenate(pairs, 1)

    def column(name):
        _, codes = np.unique([row[name] for row in rows], return_inverse=True)
        return codes[first], codes[second]

    a, b = column("speaker")
    target = a == b
    session = np.array([row["session"] != "" for row in rows])[first]
    doubtful = np.array([row["doubtful"] for row in rows])
    sex = np.array([row["sex"] for row in rows])
    folder = np.array([f"{r['speaker']}/{r['session']}" for r in rows])
    across = target & (folder[first] != folder[second])
    kept_across = across & _at_most(a, across)
    same_sex = (sex[first] == sex[second]) & (sex[first] != "")
    cross = session & (~target | kept_across)
    conditions = {
        "cross": cross,
        "cross_same_sex": cross & same_sex,
        "cross_sure": cross & ~doubtful[first] & ~doubtful[second],
        "within": session & (~target | ~across),
        "one_session": ~session,
        "one_session_same_sex": ~session & same_sex,
    }
    conditions = {
        name: mask
        for name, mask in conditions.items()
        if (mask & target).any() and (mask & ~target).any()
    }
    if not conditions:
        raise InputError(
            f"{len(rows)} test utterances make no trials: expected two "
            "speakers of one language, one of them with two utterances"
        )
    n_speakers = len({row["speaker"] for row in rows})
    return Trials(first, second, a, b, n_speakers, conditions)


def _at_most(speaker, chosen):
    """Keeps so many of each speaker's chosen trials, drawn at random."""
    kept = np.zeros(len(chosen), bool)
    order = np.random.default_rng(0).permutation(np.flatnonzero(chosen))
    seen = collections.Counter()
    for trial in order:
        seen[speaker[trial]] += 1
        kept[trial] = seen[speaker[trial]] <= MOST_TARGETS
    return kept


def score(embeddings, trials):
    """Cosines of the trials."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return (unit @ unit.T)[trials.first, trials.second].astype(np.float32)


def measure(scores, trials):
    """Condition -> EER, minDCF and the numbers of trials."""
    metrics = {}
    for name, mask in trials.conditions.items():
        target = trials.a == trials.b
        classes = scores[mask & target], scores[mask & ~target]
        metrics[name] = {
            "eer": eer(*classes)[0],
            "min_dcf": min_dcf(*classes, P_TARGET)[0],
            "n_target": len(classes[0]),
            "n_nontarget": len(classes[1]),
        }
    return metrics


def describe(rows):
    """A row of counts for each condition, then for each of its languages."""
    trials = make_trials(rows)
    target = trials.a == trials.b
    lang = np.array([row["lang"] for row in rows])
    for name, mask in trials.conditions.items():
        languages = sorted(set(lang[trials.first[mask]]))
        every = [[language] for language in languages]
        for chosen in [languages, *every] if len(every) > 1 else every:
            here = mask & np.isin(lang[trials.first], chosen)
            used = set(trials.first[here]) | set(trials.second[here])
            hits = here & target
            yield {
                "trials": name,
                "languages": (
                    len(chosen) if len(chosen) != 1 else chosen[0] or "unknown"
                ),
                "targets": int(hits.sum()),
                "impostors": int((here & ~target).sum()),
                "speakers": len({rows[i]["speaker"] for i in used}),
                "with targets": len(set(trials.a[hits])),
                "sessions": len(
                    {(rows[i]["speaker"], rows[i]["session"]) for i in used}
                ),
                "utterances": len(used),
            }
