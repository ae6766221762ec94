"""Margins: from a classifier's outputs and the labels to the logits.

Each is a ``loss_fn`` of the stock ``LogSoftmaxWrapper``, called with one-hot
targets, and of this package's faster ``MarginSoftmax``. A new one overrides
``on_target``.
"""

import math
from typing import NamedTuple

import torch

from speechbrain_hyperbolic.errors import InputError, check_positive, is_finite
from speechbrain_hyperbolic.nnet.schedulers import MarginSchedule, check_margin

# New outputs and their derivatives with respect to the old ones; None: 1.
WithSlopes = tuple[torch.Tensor, torch.Tensor | None]


class Changed(NamedTuple):
    """The outputs that a margin changes, the target's first."""

    classes: torch.Tensor  # [batch, 1 + top_k]
    outputs: torch.Tensor  # the new ones
    slopes: torch.Tensor | None


class AdditiveMargin(torch.nn.Module):
    """scale * (output - margin) of the target, scale * output of the others.

    On -distance this is HAM-Softmax, or H-Softmax where the margin is 0; on
    cosines it is AM-Softmax; on inner products, without a margin, the softmax.

    Source: arXiv 2601.19709 (logits -s (d + m onehot)); the penalty: Zhao et
    al., arXiv 2110.05042.

    Arguments
    ---------
    margin : float or MarginSchedule
        In units of the outputs, >= 0.
    scale : float
        Factor of the logits, > 0.
    top_k : int
        How many of the other speakers, the most similar ones, get a penalty.
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

    # Whether only the classes that violate the margin count
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
        if not (isinstance(top_k, int) and top_k >= 0):
            raise InputError(f"top_k is {top_k}, expected an integer >= 0")
        if not (is_finite(penalty) and penalty >= 0):
            raise InputError(
                f"penalty is {penalty}, expected a finite number >= 0"
            )
        self.margin = margin
        self.scale = check_positive("scale", scale)
        self.top_k = top_k
        self.penalty = penalty

    def on_target(self, outputs: torch.Tensor) -> WithSlopes:
        """What the margin makes of outputs of targets, before the scale."""
        return outputs - self.current_margin, None

    def on_hardest(self, outputs: torch.Tensor) -> WithSlopes:
        """What the penalty makes of outputs of the hardest others."""
        return outputs + self.penalty, None

    def forward(
        self, outputs: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Logits of outputs and one-hot targets, all [batch, classes]."""
        labels = targets.int().argmax(1, keepdim=True)
        return self.logits(outputs, self.change(outputs, labels))[0]

    def change(self, outputs: torch.Tensor, labels: torch.Tensor) -> Changed:
        """What changes in outputs [batch, classes]; labels are [batch, 1]."""
        values, slopes = self.on_target(outputs.gather(1, labels))
        if not self.top_k:
            return Changed(labels, values, slopes)
        others = outputs.scatter(1, labels, -math.inf)
        hardest, classes = others.topk(min(self.top_k, outputs.shape[1] - 1))
        more, more_slopes = self.on_hardest(hardest)
        if slopes is not None and more_slopes is not None:
            slopes = torch.cat([slopes, more_slopes], 1)
        classes = torch.cat([labels, classes], 1)
        return Changed(classes, torch.cat([values, more], 1), slopes)

    def logits(
        self, outputs: torch.Tensor, changed: Changed
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits [batch, n], and which of them a real margin ignores."""
        special = self.scale * changed.outputs
        logits = (self.scale * outputs).scatter_(1, changed.classes, special)
        if not self.real:
            return logits, None
        ignored = logits < special[:, :1]
        return logits.masked_fill_(ignored, 0), ignored

    @property
    def current_margin(self) -> float:
        """The margin now, also where a schedule changes it."""
        if isinstance(self.margin, MarginSchedule):
            return self.margin.value
        return self.margin


class RealAdditiveMargin(AdditiveMargin):
    """AM-Softmax where only violations of the margin count: RAM-Softmax.

    A logit below the target's, margin included, is replaced by 0. It is made
    for cosines: among negated distances, 0 would be the highest logit.

    Its arguments are those of ``AdditiveMargin``. Source: as stated by arXiv
    2601.19709.

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

    Where angle + margin exceeds pi it is cos(angle) - margin sin(margin), as
    in the stock loss. The penalty gives cos(angle - penalty), at most 1.

    Source: Xiang et al., arXiv 1906.07317; Zhao et al., arXiv 2110.05042.

    Its arguments are those of ``AdditiveMargin``, the margin and the penalty in
    radians.

    Example
    -------
    >>> loss_fn = AdditiveAngularMargin(margin=0.5, scale=10.0)
    >>> loss_fn(torch.tensor([[0.8, 0.1]]), torch.tensor([[1.0, 0.0]]))
    tensor([[4.1441, 1.0000]])
    """

    # The angle's slope is infinite at 1; the stock loss clamps there too.
    LARGEST = 1 - 1e-7

    def on_target(self, outputs: torch.Tensor) -> WithSlopes:
        """cos(angle + margin), and its derivative by the cosine."""
        margin = self.current_margin
        angle, inside = self._angle(outputs)
        turned = angle + margin
        within = turned < math.pi
        beyond = angle.cos() - margin * math.sin(margin)
        slopes = torch.where(within, turned.sin() / angle.sin(), 1)
        return torch.where(within, turned.cos(), beyond), slopes * inside

    def on_hardest(self, outputs: torch.Tensor) -> WithSlopes:
        """cos(angle - penalty), which is 1 at angles below the penalty."""
        angle, inside = self._angle(outputs)
        turned = (angle - self.penalty).clamp(min=0)
        return turned.cos(), turned.sin() / angle.sin() * inside

    def _angle(
        self, cosines: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The angles, and where they are not clamped."""
        inside = cosines.abs() <= self.LARGEST
        return cosines.clamp(-self.LARGEST, self.LARGEST).acos(), inside
