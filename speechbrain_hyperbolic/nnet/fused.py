"""From embeddings, centres and labels to the loss, as one operation.

Its gradients are in closed form. Of [batch, classes] matrices two are alive at
most, the outputs, whose memory becomes the logits and the slopes, and the
derivative of the distance; one is kept for the backward. With ``chunk_size``
there is none: the classes are gone through twice, a chunk at a time, first for
the sums of the softmax and then for the gradients.

Let g = x . y, of vectors with stretches p, q (see ``geometry``). Cosines and
inner products are outputs p q g. Of points of hyperbolic space it is the
haversine h = a + b + 2 a b - p q g / 2, with a = sinh^2(radius / 2) and b
likewise, and the output is -unit * d: exp(d) = 1 + 2 h + 2 sqrt(h (1 + h)).
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from speechbrain_hyperbolic.geometry import (
    complete_haversine,
    product,
    refuse_second_derivative,
    with_length,
)
from speechbrain_hyperbolic.nnet.losses import (
    MarginLogits,
    check_targets,
    hardest_others,
    margin_cross_entropy,
)
from speechbrain_hyperbolic.nnet.margins import AdditiveMargin

if TYPE_CHECKING:  # they import this module, or are above it
    from speechbrain_hyperbolic.lobes.similarity import Dot
    from speechbrain_hyperbolic.nnet.sharded import Shard

_Unit = float | torch.Tensor


def margin_softmax(
    embeddings: torch.Tensor,
    centres: torch.Tensor,
    targets: torch.Tensor,
    similarity: "Dot",
    loss_fn: AdditiveMargin,
    sub_centres: int = 1,
    chunk_size: int | None = None,
    shard: "Shard | None" = None,
) -> torch.Tensor:
    """Mean loss of a batch, by its similarity to speaker centres.

    Arguments
    ---------
    embeddings : torch.Tensor
        Shape [batch, D], float32 or float64.
    centres : torch.Tensor
        Shape [classes * sub_centres, D], those of a class together.
    targets : torch.Tensor
        Labels in [0, classes), shape [batch, 1].
    similarity : torch.nn.Module
        See ``lobes.similarity``.
    loss_fn : AdditiveMargin
        See ``nnet.margins``.
    sub_centres : int
        Centres of a class, of which the most similar counts.
    chunk_size : int
        How many classes are worked on at a time; None: all.
    shard : nnet.sharded.Shard
        The classes that the centres are of; None: all.

    Returns
    -------
    loss : torch.Tensor
        A scalar.

    Raises
    ------
    InputError
        If a label is not a class, or there is not one for each embedding.

    Example
    -------
    >>> from speechbrain_hyperbolic.lobes.similarity import ClippedDistance
    >>> from speechbrain_hyperbolic.nnet.margins import AdditiveMargin
    >>> margin_softmax(
    ...     torch.randn(4, 192),
    ...     torch.randn(10, 192),
    ...     torch.zeros(4, 1),
    ...     ClippedDistance(c=3.0),
    ...     AdditiveMargin(margin=0.2, scale=30.0),
    ... ).shape
    torch.Size([])
    """
    here = len(centres) // sub_centres
    classes = here if shard is None else shard.classes
    targets = check_targets(targets, len(embeddings), classes)
    x, x_length = with_length(similarity.scale(embeddings), sole=True)
    y, y_length = with_length(centres, sole=True)
    # One call for both: of few classes the time is that of the calls.
    lengths = torch.cat([x_length, y_length])
    stretch, half, unit = similarity.polar(lengths)
    sizes = [len(x), len(y)]
    p, q = (None, None) if stretch is None else stretch.split(sizes)
    a, b = (None, None) if half is None else half.split(sizes)
    factors = x, y, p, q, a, b, unit
    options = targets, loss_fn, sub_centres, shard
    if chunk_size is None or chunk_size >= here:
        loss = _MarginSoftmax.apply(*factors, *options)
    else:
        loss = _ChunkedMarginSoftmax.apply(*factors, *options, chunk_size)
    if loss.requires_grad:
        loss_fn.step()
    return loss


class _Rows(NamedTuple):
    """The side of the embeddings.

    Where it is hyperbolic, every one of these has all its fields.
    """

    x: torch.Tensor  # with its stretch: the left factor of g
    a: torch.Tensor | None  # None: not hyperbolic
    lift: torch.Tensor | None  # dh/db = 1 + 2 a
    unit: _Unit


class _Columns(NamedTuple):
    """The side of the centres, or of a chunk of them."""

    y: torch.Tensor
    q: torch.Tensor | None
    b: torch.Tensor | None


class _Taken(NamedTuple):
    """What the slopes by the outputs need to go on."""

    root: torch.Tensor | None  # sqrt(h (1 + h))
    nearest: torch.Tensor | None  # sub-centre of each class [batch, classes, 1]


def _rows(
    x: torch.Tensor, p: torch.Tensor | None, a: torch.Tensor | None, unit: _Unit
) -> _Rows:
    lift = None
    if a is not None:
        assert p is not None
        p, lift = p / -2, 1 + 2 * a
    return _Rows(x if p is None else x * p.unsqueeze(1), a, lift, unit)


def _outputs(
    rows: _Rows, columns: _Columns, sub_centres: int
) -> tuple[torch.Tensor, _Taken]:
    """Outputs [batch, classes], and what their slopes need."""
    outputs = product(rows.x, columns.y)
    if columns.q is not None:
        outputs.mul_(columns.q)
    hyperbolic = rows.a is not None
    if rows.a is not None:
        assert rows.lift is not None and columns.b is not None
        complete_haversine(outputs, rows.a, rows.lift, columns.b)
    nearest = None
    if sub_centres > 1:
        outputs = outputs.unflatten(1, (-1, sub_centres))
        # The distance grows with the haversine.
        outputs, nearest = outputs.min(2) if hyperbolic else outputs.max(2)
        nearest = nearest.unsqueeze(2)
    if not hyperbolic:
        return outputs, _Taken(None, nearest)
    root = outputs.addcmul(outputs, outputs).sqrt_()
    outputs.add_(root).mul_(2).add_(1).log_().mul_(-rows.unit)
    return outputs, _Taken(root, nearest)


def _slopes(
    slopes: torch.Tensor,
    taken: _Taken,
    rows: _Rows,
    columns: _Columns,
    sub_centres: int,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """From slopes by the outputs to those by g, and by a and b, in place."""
    of_a = of_b = None
    if taken.root is not None:
        # dd/dh is infinite at h = 0, and taken as 0 there.
        functional: Any = torch.nn.functional  # its types lack what is in place
        root = functional.threshold_(taken.root, 0.0, math.inf)
        slopes.mul_(-rows.unit).div_(root)
    if taken.nearest is not None:
        spread = slopes.new_zeros((*slopes.shape, sub_centres))
        spread.scatter_(2, taken.nearest, slopes.unsqueeze(2))
        slopes = spread.flatten(1)
    if taken.root is not None:
        assert rows.lift is not None and columns.b is not None
        of_a = slopes.mv(1 + 2 * columns.b)
        of_b = rows.lift @ slopes
    if columns.q is not None:
        slopes.mul_(columns.q)
    return slopes, of_a, of_b


def _of_stretch(
    gradient: torch.Tensor, vectors: torch.Tensor, stretch: torch.Tensor
) -> torch.Tensor:
    """Gradients by the stretches, which only come in products with vectors."""
    return (gradient * vectors).sum(1).div_(stretch)


def _left_gradient(
    of_left: torch.Tensor,
    gradient: torch.Tensor,
    x: torch.Tensor,
    p: torch.Tensor | None,
    a: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gradients by x and p, given that by the left factor of g."""
    of_x = of_left * gradient
    if p is None:
        return of_x, None
    of_x *= (p if a is None else p / -2).unsqueeze(1)
    return of_x, _of_stretch(of_x, x, p)


class _MarginSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        y: torch.Tensor,
        p: torch.Tensor | None,
        q: torch.Tensor | None,
        a: torch.Tensor | None,
        b: torch.Tensor | None,
        unit: _Unit,
        targets: torch.Tensor,
        loss_fn: AdditiveMargin,
        sub_centres: int,
        shard: "Shard | None",
    ) -> torch.Tensor:
        rows, columns = _rows(x, p, a, unit), _Columns(y, q, b)
        outputs, taken = _outputs(rows, columns, sub_centres)
        of_unit = outputs.clone() if ctx.needs_input_grad[6] else None
        loss, slopes = margin_cross_entropy(outputs, targets, loss_fn, shard)
        if of_unit is not None:
            of_unit = of_unit.mul_(slopes).sum() / unit
        slopes, of_a, of_b = _slopes(slopes, taken, rows, columns, sub_centres)
        ctx.save_for_backward(
            slopes, rows.x, x, y, p, q, a, of_a, of_b, of_unit
        )
        return loss

    @staticmethod
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        refuse_second_derivative()
        slopes, left, x, y, p, q, a, *sums = ctx.saved_tensors
        of_y = product(slopes.T, (left * gradient).T)
        of_q = None if q is None else _of_stretch(of_y, y, q)
        of_left = product(slopes, y.T)
        of_x, of_p = _left_gradient(of_left, gradient, x, p, a)
        sums = [None if v is None else v * gradient for v in sums]
        return of_x, of_y, of_p, of_q, *sums, *(None,) * 4


class _ChunkedMarginSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        y: torch.Tensor,
        p: torch.Tensor | None,
        q: torch.Tensor | None,
        a: torch.Tensor | None,
        b: torch.Tensor | None,
        unit: _Unit,
        targets: torch.Tensor,
        loss_fn: AdditiveMargin,
        sub_centres: int,
        shard: "Shard | None",
        chunk_size: int,
    ) -> torch.Tensor:
        rows = _rows(x, p, a, unit)
        start = 0 if shard is None else shard.first
        chunks = list(_chunks(y, q, b, sub_centres, chunk_size, start))
        plan = _plan(rows, chunks, targets, loss_fn, sub_centres, shard)
        top = total = None
        for first, columns in chunks:
            outputs, _ = _outputs(rows, columns, sub_centres)
            logits, _ = plan.write(outputs, first)
            here = logits.amax(1, keepdim=True)
            higher = here if top is None else torch.maximum(top, here)
            summed = logits.sub_(higher).exp_().sum(1, keepdim=True)
            if top is not None and total is not None:
                summed += total * (top - higher).exp_()
            top, total = higher, summed
        assert top is not None and total is not None
        if shard is not None:
            higher = shard.highest(top)
            total = shard.sum(total * (top - higher).exp_())
            top = higher
        log_total = top + total.log()
        ctx.save_for_backward(x, y, p, q, a, b, log_total)
        ctx.unit, ctx.plan, ctx.start = unit, plan, start
        ctx.sub_centres, ctx.chunk_size = sub_centres, chunk_size
        return (log_total - plan.target).mean()

    @staticmethod
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        refuse_second_derivative()
        x, y, p, q, a, b, log_total = ctx.saved_tensors
        plan, sub_centres = ctx.plan, ctx.sub_centres
        learns_unit = ctx.needs_input_grad[6]
        rows = _rows(x, p, a, ctx.unit)
        scaled_left = (rows.x * gradient).T
        factor = plan.scale / len(x)
        # Written chunk by chunk: small tensors that live on between the large
        # ones of the chunks would keep the allocator from reusing these.
        of_y = torch.empty_like(y)
        of_q, of_b = (
            None if v is None else torch.empty_like(v) for v in (q, b)
        )
        of_left = torch.zeros_like(x)
        of_a: float | torch.Tensor = 0
        of_unit: float | torch.Tensor = 0
        for first, columns in _chunks(
            y, q, b, sub_centres, ctx.chunk_size, ctx.start
        ):
            outputs, taken = _outputs(rows, columns, sub_centres)
            before = outputs.clone() if learns_unit else None
            logits, ignored = plan.write(outputs, first)
            probabilities = logits.sub_(log_total).exp_().mul_(factor)
            slopes = plan.differentiate(probabilities, ignored, factor, first)
            if before is not None:
                of_unit += before.mul_(slopes).sum() / ctx.unit
            slopes, chunk_a, chunk_b = _slopes(
                slopes, taken, rows, columns, sub_centres
            )
            of_left += product(slopes, columns.y.T)
            start = (first - ctx.start) * sub_centres
            chunk = slice(start, start + len(columns.y))
            product(slopes.T, scaled_left, out=of_y[chunk])
            if of_q is not None and columns.q is not None:
                of_q[chunk] = _of_stretch(of_y[chunk], columns.y, columns.q)
            if of_b is not None:
                assert chunk_a is not None and chunk_b is not None
                of_a += chunk_a
                of_b[chunk] = chunk_b * gradient
        of_x, of_p = _left_gradient(of_left, gradient, x, p, a)
        return (
            of_x,
            of_y,
            of_p,
            of_q,
            None if a is None else of_a * gradient,
            of_b,
            of_unit * gradient if learns_unit else None,
            *(None,) * 5,
        )


def _chunks(
    y: torch.Tensor,
    q: torch.Tensor | None,
    b: torch.Tensor | None,
    sub_centres: int,
    chunk_size: int,
    first: int,
) -> Iterator[tuple[int, _Columns]]:
    """The first class of each chunk, and its centres; first: of all of them."""
    step = chunk_size * sub_centres
    for start in range(0, len(y), step):
        chunk = slice(start, start + step)
        yield (
            first + start // sub_centres,
            _Columns(
                y[chunk],
                None if q is None else q[chunk],
                None if b is None else b[chunk],
            ),
        )


def _plan(
    rows: _Rows,
    chunks: list[tuple[int, _Columns]],
    targets: torch.Tensor,
    loss_fn: AdditiveMargin,
    sub_centres: int,
    shard: "Shard | None",
) -> MarginLogits:
    """What is to be known of all classes before the first chunk's logits."""
    of_target = rows.x.new_zeros(targets.shape)
    hardest = None
    classes = sum(len(columns.y) for _, columns in chunks) // sub_centres
    for first, columns in chunks:
        count = len(columns.y) // sub_centres
        here = ((targets >= first) & (targets < first + count)).squeeze(1)
        if loss_fn.top_k:
            outputs, _ = _outputs(rows, columns, sub_centres)
            of_target[here] = outputs[here].gather(1, targets[here] - first)
            found = hardest_others(outputs, targets, loss_fn.top_k, first)
            if hardest is not None and found is not None:
                pairs = zip(hardest, found, strict=True)
                values, places = (torch.cat(pair, 1) for pair in pairs)
                # The target is among those that are found, as -infinity.
                others = classes - (shard is None)
                k = min(loss_fn.top_k, others, values.shape[1])
                values, order = values.topk(k)
                found = values, places.gather(1, order)
            hardest = found
        elif here.any():
            some = rows._replace(
                **{
                    name: value[here]
                    for name, value in rows._asdict().items()
                    if name != "unit" and value is not None
                }
            )
            outputs, _ = _outputs(some, columns, sub_centres)
            of_target[here] = outputs.gather(1, targets[here] - first)
    if shard is not None:
        of_target = shard.sum(of_target)
        hardest = shard.hardest(hardest, loss_fn.top_k)
    return MarginLogits(loss_fn, targets, of_target, hardest)
