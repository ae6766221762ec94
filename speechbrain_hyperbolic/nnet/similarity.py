"""How an embedding compares with a speaker's center: a classifier's outputs.

The hyperbolic similarities are -distance; they differ in the map from a vector
to a point, see ``geometry``. Embeddings are [N, D], centers [M, D], outputs
[N, M].
"""

import functools
import math
from typing import Any

import torch
from torch.nn.functional import normalize, softsign

from speechbrain_hyperbolic.errors import InputError, check_positive
from speechbrain_hyperbolic.geometry import (
    MAX_RADIUS,
    Map,
    Points,
    cap_norm,
    check_c,
    clipped,
    exponential,
    map_points,
    product,
    scaled_distance,
    smooth_cap,
)


class InnerProduct(torch.nn.Module):
    """Inner products, without a bias: the usual softmax."""

    def forward(
        self, embeddings: torch.Tensor, centers: torch.Tensor
    ) -> torch.Tensor:
        """Similarities of all pairs."""
        return product(embeddings, centers)


class Cosine(torch.nn.Module):
    """Cosines, as in the stock classifier."""

    def forward(
        self, embeddings: torch.Tensor, centers: torch.Tensor
    ) -> torch.Tensor:
        return product(normalize(embeddings), normalize(centers))


class HyperbolicSimilarity(torch.nn.Module):
    """-distance of the points that a map makes of the vectors.

    ``embedding_scale`` multiplies the embeddings before the map: an encoder's
    are much longer than the caps of the maps, and an embedding beyond the cap
    has no radius of its own. ``learn_scale``: within a factor of 10 either way.
    """

    # Of the initial centers, as published: they find their radius from there.
    init_std = 1e-3
    map: Map
    # The largest radius that the map allows, in units of curvature -1
    cap = math.inf
    # Absolute value of the curvature of the space whose distances these are
    curvature: float | torch.Tensor = 1.0

    def __init__(
        self, embedding_scale: float = 1.0, learn_scale: bool = False
    ) -> None:
        super().__init__()
        self._scale = Positive("embedding_scale", embedding_scale, learn_scale)

    @property
    def embedding_scale(self) -> float | torch.Tensor:
        """The factor of the embeddings: a float, or a scalar if learned."""
        return self._scale()

    def points(self, vectors: torch.Tensor, embeddings: bool = False) -> Points:
        """Points of centers, or of embeddings, which are scaled first."""
        return map_points(self._scaled(vectors, embeddings), self.map)

    def forward(
        self, embeddings: torch.Tensor, centers: torch.Tensor
    ) -> torch.Tensor:
        x, y = self._scaled(embeddings, True), self._scaled(centers, False)
        unit = self.curvature**-0.5
        if isinstance(unit, float):
            return scaled_distance(x, y, self.map, -unit)
        return unit * scaled_distance(x, y, self.map, -1.0)

    def _scaled(self, vectors: torch.Tensor, embeddings: bool) -> torch.Tensor:
        scale = self.embedding_scale if embeddings else 1.0
        factor = scale * self.curvature**0.5
        if isinstance(factor, float) and factor == 1:
            return vectors  # without a copy
        return vectors * factor


class ClippedDistance(HyperbolicSimilarity):
    """-distance after the published clip: H-Softmax and HAM-Softmax."""

    def __init__(self, c: float = 3.0, **scale: Any) -> None:
        super().__init__(**scale)
        self.map = functools.partial(clipped, c=check_c(c))
        self.cap = 2 * math.atanh(cap_norm(c))


class ExponentialDistance(HyperbolicSimilarity):
    """-distance in the space of curvature -kappa, by its exponential map.

    ``learn_curvature``: kappa is learned, within a factor of 10 either way.
    """

    cap = MAX_RADIUS

    def __init__(
        self,
        curvature: float = 1.0,
        learn_curvature: bool = False,
        **scale: Any,
    ) -> None:
        super().__init__(**scale)
        self.map = exponential
        self._curvature = Positive("curvature", curvature, learn_curvature)

    @property
    def curvature(self) -> float | torch.Tensor:  # type: ignore[override]
        """kappa: a float, or a scalar if learned."""
        return self._curvature()


class SmoothCapDistance(HyperbolicSimilarity):
    """-distance after a smooth cap of the radius, cap * tanh(|v| / cap)."""

    def __init__(self, cap: float = 2.3, **scale: Any) -> None:
        super().__init__(**scale)
        self.cap = check_positive("cap", cap)
        if cap > MAX_RADIUS:
            raise InputError(
                f"cap is {cap}, expected a radius of at most {MAX_RADIUS:g}: "
                "farther out, float32 no longer tells neighbors apart"
            )
        self.map = functools.partial(smooth_cap, cap=self.cap)


class Positive(torch.nn.Module):
    """A positive number, fixed, or learned within a factor of 10.

    It is initial * 10^(theta / (1 + |theta|)), which keeps a gradient where a
    tanh would lose it to rounding.
    """

    def __init__(self, name: str, initial: float, learned: bool) -> None:
        super().__init__()
        self.initial = check_positive(name, initial)
        self.theta = torch.nn.Parameter(torch.zeros(())) if learned else None

    def forward(self) -> float | torch.Tensor:
        """The number: a float, or a scalar tensor if it is learned."""
        if self.theta is None:
            return self.initial
        return self.initial * (math.log(10) * softsign(self.theta)).exp()


# The arguments that each map uses
_SCALE = ("embedding_scale", "learn_scale")
_CURVATURE = ("curvature", "learn_curvature")
MAPS = {
    "clip": (ClippedDistance, ("c", *_SCALE)),
    "exponential": (ExponentialDistance, (*_CURVATURE, *_SCALE)),
    "smooth_cap": (SmoothCapDistance, ("cap", *_SCALE)),
    "cosine": (Cosine, ()),
    "inner_product": (InnerProduct, ()),
}


def make_similarity(map: str, **parameters: Any) -> torch.nn.Module:
    """The similarity of a name in ``MAPS``, with the parameters it uses."""
    if map not in MAPS:
        raise InputError(f"map is {map!r}, expected one of {', '.join(MAPS)}")
    make, names = MAPS[map]
    for name in ("learn_curvature", "learn_scale"):
        if parameters.get(name) and name not in names:
            raise InputError(
                f"{name} is {parameters[name]}, but map {map!r} has nothing "
                "of the kind to learn: leave it out or choose another map"
            )
    return make(**{k: v for k, v in parameters.items() if k in names})


def compare(
    similarity: torch.nn.Module, x: torch.Tensor, centers: torch.Tensor
) -> torch.Tensor:
    """Outputs [N, M] of x [N, D] and speakers' K centers [M, K, D].

    Of the centers of a speaker, the most similar one counts.
    """
    outputs = similarity(x, centers.flatten(0, 1))
    count = centers.shape[1]
    return outputs if count == 1 else outputs.unflatten(1, (-1, count)).amax(2)
