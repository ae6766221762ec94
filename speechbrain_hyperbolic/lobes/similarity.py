"""How similar an embedding is to a speaker's centre: what a head computes.

The hyperbolic ones are -distance; they differ in the map from a vector to a
point, see ``geometry``. A class with all its arguments fits one line of a YAML
file, e.g. ``similarity: !new:...ExactDistance [1.0]``.
"""

import math

import torch

from speechbrain_hyperbolic.errors import InputError, is_finite
from speechbrain_hyperbolic.geometry import (
    Points,
    check_c,
    clipped,
    exponential,
    longest,
    pairwise_distance,
    product,
    smoothly_capped,
    with_length,
)

# Stretch, half and unit, see ``Dot.polar``.
Polar = tuple[torch.Tensor | None, torch.Tensor | None, float | torch.Tensor]


class Dot(torch.nn.Module):
    """The inner product, without a bias: softmax cross entropy as usual.

    Example
    -------
    >>> Dot()(torch.ones(1, 3), torch.ones(2, 3))
    tensor([[3., 3.]])
    """

    # Standard deviation of the initial centres; None: Xavier's
    init_std: float | None = None

    def scale(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Embeddings as they are compared."""
        return embeddings

    def polar(self, lengths: torch.Tensor) -> Polar:
        """What ``nnet.fused`` asks for.

        Arguments
        ---------
        lengths : torch.Tensor
            Of embeddings and centres, shape [N].

        Returns
        -------
        stretch : torch.Tensor
            Factors of the vectors, shape [N]; None: 1.
        half : torch.Tensor
            sinh^2(radius / 2), shape [N]; None: not hyperbolic.
        unit : float or torch.Tensor
            Factor of the distances.
        """
        return None, None, 1.0

    def forward(
        self, embeddings: torch.Tensor, centres: torch.Tensor
    ) -> torch.Tensor:
        """Similarities of all pairs.

        Arguments
        ---------
        embeddings : torch.Tensor
            Shape [N, D].
        centres : torch.Tensor
            Shape [M, D].

        Returns
        -------
        similarity : torch.Tensor
            Shape [N, M].
        """
        return product(embeddings, centres)


class Cosine(Dot):
    """The cosine, as in the stock classifier.

    Example
    -------
    >>> Cosine()(torch.ones(1, 3), torch.eye(3))
    tensor([[0.5774, 0.5774, 0.5774]])
    """

    def polar(self, lengths: torch.Tensor) -> Polar:
        """Stretches of 1 / length, as ``normalize`` floors it."""
        return 1 / lengths.clamp(min=1e-12), None, 1.0

    def forward(
        self, embeddings: torch.Tensor, centres: torch.Tensor
    ) -> torch.Tensor:
        """Cosines of all pairs, see ``Dot``."""
        normalize = torch.nn.functional.normalize
        return product(normalize(embeddings), normalize(centres))


class HyperbolicSimilarity(Dot):
    """-distance of points that a map makes of the vectors.

    Arguments
    ---------
    embedding_scale : float
        Factor of the embeddings before the map, > 0. An encoder's embeddings
        are much longer than the caps of the maps; those that stay beyond a cap
        have no radius of their own.
    learn_scale : bool
        Whether it is learnt, within a factor of 10 either way.
    """

    # Published. The centres find their radius from there.
    init_std = 1e-3
    # The largest radius that the map allows, in units of curvature -1.
    cap = math.inf

    def __init__(
        self, embedding_scale: float = 1.0, learn_scale: bool = False
    ) -> None:
        super().__init__()
        self._scale = Positive("embedding_scale", embedding_scale, learn_scale)

    @property
    def curvature(self) -> float | torch.Tensor:
        """That of the space whose distances these are: its absolute value."""
        return 1.0

    @property
    def embedding_scale(self) -> float | torch.Tensor:
        """The factor of the embeddings, a float or a scalar tensor."""
        return self._scale()

    def scale(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Embeddings as they are mapped."""
        return embeddings * self.embedding_scale

    def stretch_and_radius(
        self, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The map. See ``geometry.Points``.

        Arguments
        ---------
        lengths : torch.Tensor
            Of vectors, shape [N].

        Returns
        -------
        stretch, radius : torch.Tensor
            Shape [N].
        """
        raise NotImplementedError

    def polar(self, lengths: torch.Tensor) -> Polar:
        """What ``nnet.fused`` asks for, see ``Dot``."""
        stretch, radius = self.stretch_and_radius(lengths)
        half = (radius / 2).sinh().square()
        return stretch, half, self.curvature**-0.5

    def points(self, vectors: torch.Tensor, embeddings: bool = False) -> Points:
        """Points of the space of curvature -1.

        Arguments
        ---------
        vectors : torch.Tensor
            Shape [N, D].
        embeddings : bool
            Whether they are embeddings, which are scaled first.

        Returns
        -------
        points : geometry.Points
        """
        if embeddings:
            vectors = self.scale(vectors)
        vectors, lengths = with_length(vectors)
        return Points(vectors, *self.stretch_and_radius(lengths))

    def forward(
        self, embeddings: torch.Tensor, centres: torch.Tensor
    ) -> torch.Tensor:
        """-distance of all pairs, in the space of this curvature."""
        distance = pairwise_distance(
            self.points(embeddings, embeddings=True), self.points(centres)
        )
        return distance * -(self.curvature**-0.5)


class ClippedDistance(HyperbolicSimilarity):
    """-distance after the published clip: H-Softmax and HAM-Softmax.

    Source: arXiv 2601.19709.

    Arguments
    ---------
    c : float
        Caps the norm at 1/sqrt(c): at least 1. Not a curvature, see
        ``geometry``. Published: 3 (HAM-Softmax), 5 (H-Softmax).
    embedding_scale : float
    learn_scale : bool

    Example
    -------
    >>> ClippedDistance(c=3.0)(torch.ones(1, 3), torch.zeros(2, 3))
    tensor([[-1.3169, -1.3169]])
    """

    def __init__(
        self,
        c: float = 3.0,
        embedding_scale: float = 1.0,
        learn_scale: bool = False,
    ) -> None:
        super().__init__(embedding_scale, learn_scale)
        self.c = check_c(c)
        self.cap = 2 * math.atanh(longest(self.c))

    def stretch_and_radius(
        self, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``geometry.clipped``."""
        return clipped(lengths, self.c)

    def polar(self, lengths: torch.Tensor) -> Polar:
        """What ``nnet.fused`` asks for, see ``Dot``.

        sinh^2(artanh r) is r^2 / (1 - r^2): of few classes the time goes into
        the number of operations, and without the radius there are fewer.
        """
        cap = longest(self.c)
        square = lengths.clamp(max=cap).square()
        conformal = (1 - square).reciprocal()
        stretch = conformal * (2 * cap / lengths.clamp(min=cap))
        return stretch, square * conformal, 1.0


class ExactDistance(HyperbolicSimilarity):
    """-distance in the space of curvature -kappa, by its exponential map.

    Arguments
    ---------
    curvature : float
        kappa, > 0.
    learnable : bool
        Whether it is learnt, within a factor of 10 either way.
    max_radius : float
        Vectors longer than this are shortened (units of curvature -1).
    embedding_scale : float
    learn_scale : bool

    Example
    -------
    >>> ExactDistance(0.25)(torch.tensor([[0.3, 0.4]]), torch.zeros(1, 2))
    tensor([[-0.5000]])
    """

    def __init__(
        self,
        curvature: float = 1.0,
        learnable: bool = False,
        max_radius: float = 14.0,
        embedding_scale: float = 1.0,
        learn_scale: bool = False,
    ) -> None:
        super().__init__(embedding_scale, learn_scale)
        self._curvature = Positive("curvature", curvature, learnable)
        self.cap = float(check_positive("max_radius", max_radius))

    @property
    def curvature(self) -> float | torch.Tensor:
        """kappa, a float or a scalar tensor."""
        return self._curvature()

    def stretch_and_radius(
        self, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``geometry.exponential``."""
        return exponential(lengths, self.curvature, self.cap)


class SmoothDistance(HyperbolicSimilarity):
    """-distance after a smooth cap of the radius, R tanh(|v| / R).

    Arguments
    ---------
    cap : float
        R, > 0. 1.317 is the cap of the published clip at c = 3.
    embedding_scale : float
    learn_scale : bool

    Example
    -------
    >>> SmoothDistance(2.0)(torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2))
    tensor([[-1.9732]])
    """

    def __init__(
        self,
        cap: float = 2.3,
        embedding_scale: float = 1.0,
        learn_scale: bool = False,
    ) -> None:
        super().__init__(embedding_scale, learn_scale)
        self.cap = float(check_positive("cap", cap))

    def stretch_and_radius(
        self, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``geometry.smoothly_capped``."""
        return smoothly_capped(lengths, self.cap)


class Positive(torch.nn.Module):
    """A positive number, learnt in log space or not.

    A learnt one is initial * 10^(theta / (1 + |theta|)): it stays within a
    factor of 10 of where it began, and keeps a gradient, which a tanh would
    lose to rounding.

    Arguments
    ---------
    name : str
        For messages.
    initial : float
        > 0.
    learnable : bool

    Example
    -------
    >>> Positive("curvature", 2.0, learnable=False)()
    2.0
    """

    def __init__(self, name: str, initial: float, learnable: bool) -> None:
        super().__init__()
        self.initial = float(check_positive(name, initial))
        self.theta = torch.nn.Parameter(torch.zeros(())) if learnable else None

    def forward(self) -> float | torch.Tensor:
        """The number: a float, or a scalar tensor if it is learnt."""
        if self.theta is None:
            return self.initial
        softsign = torch.nn.functional.softsign(self.theta)
        return self.initial * (math.log(10) * softsign).exp()


def check_positive(name: str, value: float) -> float:
    """Checks a number that has to be positive.

    Arguments
    ---------
    name : str
    value : float

    Returns
    -------
    value : float

    Raises
    ------
    InputError
        If it is not a finite number > 0.

    Example
    -------
    >>> check_positive("cap", 2.3)
    2.3
    """
    if not (is_finite(value) and value > 0):
        raise InputError(f"{name} is {value}, expected a finite number > 0")
    return value
