"""Margins: from the outputs of a head and the labels to the logits.

Each is a ``loss_fn`` of the stock ``LogSoftmaxWrapper``, called with one-hot
targets, and of this package's ``MarginSoftmax``, which is faster and asks only
for what the margin does to the target and to the hardest other speakers.
"""

import math

import torch

from speechbrain_hyperbolic.errors import InputError, is_finite


class MarginSchedule(torch.nn.Module):
    """A margin that grows with the training steps.

    Between the two steps it goes from start to end, by a line or as
    1 - 1e-3^t, which is steep first (WeSpeaker's schedule). A step is a batch:
    a call of the loss with gradients. The number of steps is its state: put it
    among the checkpointer's recoverables.

    Arguments
    ---------
    start : float
        The margin until ``first_step``, >= 0.
    end : float
        The margin from ``last_step`` on, >= 0.
    first_step : int
    last_step : int
        Above ``first_step``.
    kind : str
        "linear" or "exponential".

    Raises
    ------
    InputError
        If a value is out of range.

    Example
    -------
    >>> schedule = MarginSchedule(end=0.2, first_step=0, last_step=10)
    >>> for _ in range(5):
    ...     schedule.step()
    >>> schedule.value
    0.1
    """

    KINDS = ("linear", "exponential")
    steps: torch.Tensor

    def __init__(
        self,
        start: float = 0.0,
        end: float = 0.2,
        first_step: int = 0,
        last_step: int = 10000,
        kind: str = "linear",
    ) -> None:
        super().__init__()
        self.start, self.end = check_margin(start), check_margin(end)
        if not 0 <= first_step < last_step:
            raise InputError(
                f"first_step is {first_step} and last_step is {last_step}, "
                "expected 0 <= first_step < last_step"
            )
        if kind not in self.KINDS:
            raise InputError(f"kind is {kind!r}, expected one of {self.KINDS}")
        self.first_step, self.last_step = first_step, last_step
        self.kind = kind
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @property
    def value(self) -> float:
        """The margin now, a float."""
        way = (int(self.steps) - self.first_step) / (
            self.last_step - self.first_step
        )
        way = min(max(way, 0.0), 1.0)
        if self.kind == "exponential":
            way = (1 - 1e-3**way) / (1 - 1e-3)
        return self.start + (self.end - self.start) * way

    def step(self) -> None:
        """One training step more."""
        self.steps += 1


class AdditiveMargin(torch.nn.Module):
    """Logits scale * (output - margin) of the target, scale * output of the
    others.

    On -distance this is HAM-Softmax, and H-Softmax where the margin is 0; on
    cosines it is AM-Softmax, on inner products, without margin, the softmax.

    Source: arXiv 2601.19709 (logits -s (d + m onehot)); the penalty: Zhao et
    al., arXiv 2110.05042.

    Arguments
    ---------
    margin : float or MarginSchedule
        In units of the outputs, >= 0.
    scale : float
        Factor of the logits, > 0.
    top_k : int
        How many of the other speakers, those nearest, get a penalty.
    penalty : float
        Added to their outputs, >= 0.

    Raises
    ------
    InputError
        If a value is out of range.

    Example
    -------
    >>> loss_fn = AdditiveMargin(margin=0.2, scale=10.0)
    >>> loss_fn(torch.tensor([[-0.1, -2.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([[ -3., -20.]])
    """

    # Whether only the classes that violate the margin count.
    real = False

    def __init__(
        self,
        margin: float | MarginSchedule = 0.2,
        scale: float = 30.0,
        top_k: int = 0,
        penalty: float = 0.0,
    ) -> None:
        super().__init__()
        if not isinstance(margin, MarginSchedule):
            check_margin(margin)
        if not (is_finite(scale) and scale > 0):
            raise InputError(
                f"scale is {scale}, expected a finite number > 0; published: 30"
            )
        if not (isinstance(top_k, int) and top_k >= 0):
            raise InputError(f"top_k is {top_k}, expected an integer >= 0")
        if not (is_finite(penalty) and penalty >= 0):
            raise InputError(
                f"penalty is {penalty}, expected a finite number >= 0"
            )
        self.margin = margin
        self.scale = scale
        self.top_k = top_k
        self.penalty = penalty

    @property
    def margin_now(self) -> float:
        """The margin, a float."""
        if isinstance(self.margin, MarginSchedule):
            return self.margin.value
        return self.margin

    def step(self) -> None:
        """One training step more, for a margin with a schedule."""
        if isinstance(self.margin, MarginSchedule):
            self.margin.step()

    def forward(
        self, outputs: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Logits, as the stock ``LogSoftmaxWrapper`` calls for them.

        Arguments
        ---------
        outputs : torch.Tensor
            Shape [batch, classes].
        targets : torch.Tensor
            One-hot, shape [batch, classes].

        Returns
        -------
        logits : torch.Tensor
            Shape [batch, classes].
        """
        targets = targets.bool()
        of_target = self.on_target(outputs)[0]
        logits = outputs
        if self.top_k:
            k = min(self.top_k, outputs.shape[1] - 1)
            others = outputs.masked_fill(targets, -math.inf)
            hardest = torch.zeros_like(targets).scatter_(
                1, others.topk(k).indices, True
            )
            logits = torch.where(hardest, self.on_hardest(outputs)[0], logits)
        logits = self.scale * torch.where(targets, of_target, logits)
        if self.real:
            target = logits.masked_fill(~targets, 0).sum(1, keepdim=True)
            logits = logits.masked_fill(logits < target, 0)
        if torch.is_grad_enabled() and outputs.requires_grad:
            self.step()
        return logits

    def on_target(
        self, outputs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the margin makes of the outputs of the targets.

        Arguments
        ---------
        outputs : torch.Tensor
            Any shape.

        Returns
        -------
        values : torch.Tensor
            Before the scale, of that shape.
        slopes : torch.Tensor
            Their derivative, of that shape; None: 1.
        """
        return outputs - self.margin_now, None

    def on_hardest(
        self, outputs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the penalty makes of the outputs of the hardest others.

        Arguments
        ---------
        outputs : torch.Tensor
            Any shape.

        Returns
        -------
        values, slopes : torch.Tensor
            As those of ``on_target``.
        """
        return outputs + self.penalty, None


class RealAdditiveMargin(AdditiveMargin):
    """AM-Softmax where only violations of the margin count: RAM-Softmax.

    A logit below the target's, margin included, is replaced by 0. It is made
    for cosines: among negated distances, 0 would be the highest logit.

    Source: as stated by arXiv 2601.19709.

    Example
    -------
    >>> loss_fn = RealAdditiveMargin(margin=0.2, scale=10.0)
    >>> targets = torch.tensor([[1.0, 0.0, 0.0]])
    >>> loss_fn(torch.tensor([[0.8, 0.7, 0.1]]), targets)
    tensor([[6., 7., 0.]])
    """

    real = True


class AdditiveAngularMargin(AdditiveMargin):
    """Logits scale * cos(angle + margin) of the target: AAM-Softmax.

    Beyond angle + margin = pi it goes on as cos(angle) - margin sin(margin),
    as the stock one does; the penalty is cos(angle - penalty).

    Source: Xiang et al., arXiv 1906.07317; arXiv 2110.05042.

    Arguments
    ---------
    margin : float or MarginSchedule
        In radians, >= 0.
    scale : float
    top_k : int
    penalty : float
        In radians, >= 0.

    Example
    -------
    >>> loss_fn = AdditiveAngularMargin(margin=0.5, scale=10.0)
    >>> loss_fn(torch.tensor([[0.8, 0.1]]), torch.tensor([[1.0, 0.0]]))
    tensor([[4.1441, 1.0000]])
    """

    # The angle's slope is infinite at 1; the stock loss clamps there too.
    LARGEST = 1 - 1e-7

    def on_target(
        self, outputs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """cos(angle + margin), and its derivative by the cosine."""
        margin = self.margin_now
        cosine = outputs.clamp(-self.LARGEST, self.LARGEST)
        values, slopes = self._turned(outputs, cosine, margin)
        before = cosine > math.cos(math.pi - margin)
        values = torch.where(before, values, cosine - margin * math.sin(margin))
        return values, torch.where(before, slopes, self._inside(outputs))

    def on_hardest(
        self, outputs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """cos(angle - penalty), which is 1 at angles below the penalty."""
        cosine = outputs.clamp(-self.LARGEST, self.LARGEST)
        values, slopes = self._turned(outputs, cosine, -self.penalty)
        before = cosine > math.cos(self.penalty)
        return values.masked_fill(before, 1), slopes.masked_fill(before, 0)

    def _turned(
        self, outputs: torch.Tensor, cosine: torch.Tensor, angle: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        sine = (1 - cosine.square()).sqrt()
        values = cosine * math.cos(angle) - sine * math.sin(angle)
        slopes = math.cos(angle) + cosine / sine * math.sin(angle)
        return values, slopes * self._inside(outputs)

    def _inside(self, outputs: torch.Tensor) -> torch.Tensor:
        return (outputs.abs() <= self.LARGEST).to(outputs.dtype)


def check_margin(margin: float) -> float:
    """Checks a margin.

    Arguments
    ---------
    margin : float

    Returns
    -------
    margin : float

    Raises
    ------
    InputError
        If it is not a finite number >= 0.

    Example
    -------
    >>> check_margin(0.2)
    0.2
    """
    if not (is_finite(margin) and margin >= 0):
        raise InputError(
            f"margin is {margin}, expected a finite number >= 0; "
            "published: 0.2 (HAM-Softmax), 0 (H-Softmax)"
        )
    return margin
