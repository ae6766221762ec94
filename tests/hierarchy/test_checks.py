"""What is mended of distances, and what is refused."""

import numpy as np
import pytest

from speechbrain_hyperbolic.hierarchy.checks import checked_distances
from tests.hierarchy.cases import FAR, NAN, assert_refused, some_distances


def test_float32_distances_are_mended():
    distances = some_distances(15)
    noise = np.random.default_rng(0).uniform(0, 1e-3, distances.shape)
    rough = (distances + noise).astype(np.float32)
    found = checked_distances(rough)
    np.testing.assert_allclose(found, distances, atol=1e-3)
    assert found.dtype == np.float64
    assert (found == found.T).all() and not found.diagonal().any()
    assert rough[0, 0] > 0  # what is given stays as it is


@pytest.mark.parametrize(
    "distances, message",
    [
        ([[0, 1]], r"shape \(1, 2\), expected \(N, N\)"),
        ([[0]], "of 1 points: give 2"),
        (np.zeros((0, 0)), "of 0 points"),
        (np.zeros((5, 5)), "the points coincide"),
        (NAN, r"distances\[0, 2\] is nan"),
        ([[0, 1, -2], [1, 0, 3], [-2, 3, 0]], r"distances\[0, 2\] is -2"),
        (np.triu(FAR), r"\[1, 2\] is 3, but \[2, 1\] is 0"),
        (4 - np.array(FAR), "expected 0: are these similarities"),
    ],
)
def test_no_distances(distances, message):
    assert_refused(lambda: checked_distances(distances), message)
