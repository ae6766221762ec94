"""Cosines of all pairs of utterances, and their error rates."""

import numpy as np
import torch

from speechbrain_hyperbolic.metrics import (
    P_TARGETS,
    detection_cost,
    equal_error,
    error_rates,
)


def evaluate(enrol, test, speakers, sexes):
    """Error rates of all trials of an utterance and the test of another one.

    Arguments
    ---------
    enrol : torch.Tensor
        Embeddings of the utterances as enrolled, shape [N, D].
    test : torch.Tensor
        Of the same utterances as tested, shape [N, D].
    speakers : sequence of str
        Of each utterance.
    sexes : sequence of str
        Of each utterance; "" where it is not known.

    Returns
    -------
    rates : dict
        "eer", "eer_same_sex" and "min_dcf" (at 0.01), fractions. Same-sex
        trials are those of speakers of one known sex; None: they don't have
        both classes.

    Example
    -------
    >>> views = torch.eye(2).repeat_interleave(2, 0)
    >>> evaluate(views, views, ["a", "a", "b", "b"], ["m", "m", "m", "m"])
    {'eer': 0.0, 'eer_same_sex': 0.0, 'min_dcf': 0.0}
    """
    normalize = torch.nn.functional.normalize
    scores = (normalize(enrol) @ normalize(test).T).numpy()
    speakers, sexes = np.asarray(speakers), np.asarray(sexes)
    same_speaker = speakers[:, None] == speakers
    pairs = ~np.eye(len(speakers), dtype=bool)
    same_sex = pairs & (sexes[:, None] == sexes) & (sexes != "")
    rates, cost = _rates(scores, same_speaker, pairs)
    known = same_sex[same_speaker].any() and same_sex[~same_speaker].any()
    of_same_sex = _rates(scores, same_speaker, same_sex)[0] if known else None
    return {"eer": rates, "eer_same_sex": of_same_sex, "min_dcf": cost}


def _rates(scores, same_speaker, chosen):
    """The EER and the minDCF."""
    _, p_miss, p_fa = error_rates(
        scores[chosen & same_speaker], scores[chosen & ~same_speaker]
    )
    cost = detection_cost(p_miss, p_fa, P_TARGETS[0]).min()
    return equal_error(p_miss, p_fa)[0], float(cost)
