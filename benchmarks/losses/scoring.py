"""Error rates of a cell over all pairs of its trial utterances."""

import numpy as np

from benchmarks import draws

# Nontarget trials of which speakers: a column of the speaker table
SUBSETS = {"all": None, "same_sex": "sex", "same_age_group": "age_group"}


def measure(embeddings, rows, speakers):
    """EER and minDCF by cosine, and what they are over draws of speakers.

    Arguments
    ---------
    embeddings : np.ndarray
        Shape [N, D].
    rows : list of dict
        Of the embeddings, with "speaker".
    speakers : dict
        Speaker -> row of the speaker table.

    Returns
    -------
    metrics, draws : dict
        Subset -> figures, see ``draws.measure``.
    """
    names, speaker = np.unique(
        [row["speaker"] for row in rows], return_inverse=True
    )
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    first, second = np.triu_indices(len(unit), 1)
    scores = (unit @ unit.T)[first, second]
    a, b = speaker[first], speaker[second]
    subsets = {}
    for subset, column in SUBSETS.items():
        if column is None:
            subsets[subset] = np.ones(len(scores), dtype=bool)
            continue
        labels = [speakers.get(name, {}).get(column) or "" for name in names]
        subsets[subset] = draws.in_one_group(labels, a, b)
    return draws.measure(scores, a, b, len(names), subsets)
