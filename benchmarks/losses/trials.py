"""Pairs of utterances within a language: across sessions and within one.

The conditions: "cross" has targets across sessions and all impostors of the
same language; "cross_same_sex" is the same where both are of one known sex;
"cross_sure" is without the doubtful speakers; "within" has targets within a
session. Corpora with one session a speaker are apart: "one_session" and
"one_session_same_sex".
"""

import collections
from typing import NamedTuple

import numpy as np

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.metrics import eer, min_dcf

MOST_TARGETS = 50  # of a speaker, across sessions
P_TARGET = 0.01


class Trials(NamedTuple):
    """Pairs of rows, and which of them a condition counts."""

    first: np.ndarray  # rows, shape [trials]
    second: np.ndarray
    a: np.ndarray  # their speakers' numbers; equal in a target trial
    b: np.ndarray
    conditions: dict  # name -> booleans, shape [trials]


def make_trials(rows):
    """All trials of utterances; conditions that lack a class are left out."""
    groups = collections.defaultdict(list)
    for number, row in enumerate(rows):
        groups[row["corpus"], row["lang"]].append(number)
    pairs = [np.zeros((2, 0), int)]
    for group in groups.values():
        pairs.append(np.array(group)[np.stack(np.triu_indices(len(group), 1))])
    first, second = np.concatenate(pairs, 1)
    speaker, session, sex, doubtful = (
        np.array([row[name] for row in rows])
        for name in ("speaker", "session", "sex", "doubtful")
    )
    _, speaker = np.unique(speaker, return_inverse=True)
    a, b = speaker[first], speaker[second]
    target = a == b
    across = target & (session[first] != session[second])
    has_sessions = session[first] != ""
    same_sex = (sex[first] == sex[second]) & (sex[first] != "")
    cross = has_sessions & (~target | _at_most(a, across))
    conditions = {
        "cross": cross,
        "cross_same_sex": cross & same_sex,
        "cross_sure": cross & ~doubtful[first] & ~doubtful[second],
        "within": has_sessions & ~across,
        "one_session": ~has_sessions,
        "one_session_same_sex": ~has_sessions & same_sex,
    }
    for name, mask in list(conditions.items()):
        if not ((mask & target).any() and (mask & ~target).any()):
            del conditions[name]
    if not conditions:
        raise InputError(
            f"{len(rows)} test utterances make no trials: expected two "
            "speakers of one language, one of them with two utterances"
        )
    return Trials(first, second, a, b, conditions)


def _at_most(speaker, chosen):
    """Keeps so many of each speaker's chosen trials, drawn at random."""
    kept, seen = np.zeros(len(chosen), bool), collections.Counter()
    for trial in np.random.default_rng(0).permutation(np.flatnonzero(chosen)):
        seen[speaker[trial]] += 1
        kept[trial] = seen[speaker[trial]] <= MOST_TARGETS
    return kept


def score(embeddings, trials):
    """Cosines of the trials."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return (unit @ unit.T)[trials.first, trials.second].astype(np.float32)


def measure(scores, trials):
    """Condition -> EER, minDCF and the numbers of trials."""
    metrics, target = {}, trials.a == trials.b
    for name, mask in trials.conditions.items():
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
    lang = np.array([row["lang"] or "unknown" for row in rows])
    folder = np.array([f"{row['speaker']}/{row['session']}" for row in rows])
    for name, mask in trials.conditions.items():
        names = sorted(set(lang[trials.first[mask]].tolist()))
        for chosen in [names, *([n] for n in names if len(names) > 1)]:
            here = mask & np.isin(lang[trials.first], chosen)
            used = np.union1d(trials.first[here], trials.second[here])
            speakers = np.union1d(trials.a[here], trials.b[here])
            yield {
                "trials": name,
                "languages": chosen[0] if len(chosen) == 1 else len(chosen),
                "targets": int((here & target).sum()),
                "impostors": int((here & ~target).sum()),
                "speakers": len(speakers),
                "with targets": len(set(trials.a[here & target].tolist())),
                "sessions": len(set(folder[used].tolist())),
                "utterances": len(used),
            }
