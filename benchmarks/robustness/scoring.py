"""Cosines of all pairs of utterances, and their error rates."""

import numpy as np
import torch

from benchmarks import draws


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
        both classes. "draws": these over draws of speakers, see
        ``draws.measure``.

    Example
    -------
    >>> views = torch.eye(2).repeat_interleave(2, 0)
    >>> rates = evaluate(views, views, ["a", "a", "b", "b"], ["m"] * 4)
    >>> rates["eer"], rates["eer_same_sex"], rates["min_dcf"]
    (0.0, 0.0, 0.0)
    """
    normalize = torch.nn.functional.normalize
    scores = (normalize(enrol) @ normalize(test).T).numpy()
    names, speaker = np.unique(speakers, return_inverse=True)
    sex_of = dict(zip(speakers, sexes, strict=True))
    pairs = np.nonzero(~np.eye(len(speakers), dtype=bool))
    a, b = (speaker[side] for side in pairs)
    metrics, drawn = draws.measure(
        scores[pairs],
        a,
        b,
        len(names),
        {
            "all": np.ones(len(a), dtype=bool),
            "same_sex": draws.in_one_group([sex_of[n] for n in names], a, b),
        },
    )
    of_all, of_same_sex = metrics["all"], metrics.get("same_sex")
    rates = {
        "eer": of_all["eer"],
        "eer_same_sex": of_same_sex and of_same_sex["eer"],
        "min_dcf": of_all["min_dcf"],
    }
    rates["draws"] = drawn["all"]
    if of_same_sex:
        rates["draws"]["eer_same_sex"] = drawn["same_sex"]["eer"]
    return rates
