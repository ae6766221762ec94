"""Distances, good and bad, that several tests use."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.geometry import exponential_map, pairwise_distance

FAR = [[0.0, 1, 2], [1, 0, 3], [2, 3, 0]]
NAN = [[0, 1, math.nan], [1, 0, 3], [math.nan, 3, 0]]


def some_distances(n, dimensions=3, seed=0):
    """Of points in Euclidean space."""
    points = np.random.default_rng(seed).normal(size=(n, dimensions))
    return squareform(pdist(points))


def on_disk(vectors):
    """Distances of points of the hyperbolic plane, from tangent vectors."""
    points = exponential_map(torch.as_tensor(vectors, dtype=torch.float64))
    distances = pairwise_distance(points, points).numpy()
    return distances * (1 - np.eye(len(distances)))


def assert_refused(call, message):
    """By one line, for people."""
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
