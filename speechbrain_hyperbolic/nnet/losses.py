"""Loss functions on the outputs of a classifier head."""

import torch

from speechbrain_hyperbolic.errors import InputError, is_finite
from speechbrain_hyperbolic.geometry import refuse_second_derivative


class AdditiveMarginSoftmax(torch.nn.Module):
    """Softmax cross entropy with an additive margin on the target class.

    The logits are ``scale * (outputs - margin * onehot(target))``. On the
    -distance of ``HyperbolicClassifier`` this is HAM-Softmax, and H-Softmax
    where margin is 0; on cosines it is AM-Softmax. It gives what the stock
    ``LogSoftmaxWrapper(AngularMargin(margin, scale))`` gives, without its
    one-hot targets, and checks the labels.

    Source: arXiv 2601.19709 (logits -s (d + m onehot)).

    Arguments
    ---------
    margin : float
        Added to the target's distance, in units of the outputs, >= 0.
    scale : float
        Factor of the logits, > 0.

    Raises
    ------
    InputError
        If margin or scale is out of range, a label is outside [0, classes), or
        there is not one for each row.

    Example
    -------
    >>> loss = AdditiveMarginSoftmax(margin=0.2, scale=30.0)
    >>> outputs = torch.tensor([[[-0.1, -2.0]], [[-2.0, -0.1]]])
    >>> loss(outputs, torch.tensor([[0], [1]])) < 1e-3
    tensor(True)
    """

    def __init__(self, margin=0.2, scale=30.0):
        super().__init__()
        if not (is_finite(margin) and margin >= 0):
            raise InputError(
                f"margin is {margin}, expected a finite number >= 0; "
                "published: 0.2 (HAM-Softmax), 0 (H-Softmax)"
            )
        if not (is_finite(scale) and scale > 0):
            raise InputError(
                f"scale is {scale}, expected a finite number > 0; published: 30"
            )
        self.margin = margin
        self.scale = scale

    def forward(self, outputs, targets, length=None):
        """Mean loss of a batch.

        Arguments
        ---------
        outputs : torch.Tensor
            Scores of the classes, shape [batch, 1, classes].
        targets : torch.Tensor
            Labels in [0, classes), shape [batch, 1].
        length : torch.Tensor
            Not used; the stock recipe passes it.

        Returns
        -------
        loss : torch.Tensor
            A scalar.
        """
        outputs = outputs.squeeze(1)
        targets = targets.squeeze(1).long()
        if len(outputs) == 0 or targets.shape != outputs.shape[:1]:
            raise InputError(
                f"outputs of shape {tuple(outputs.shape)} with targets of "
                f"shape {tuple(targets.shape)}: expected one target for each "
                "of at least one row"
            )
        check_labels(targets, outputs.shape[-1])
        dtype = torch.promote_types(outputs.dtype, torch.float32)
        return _AdditiveMarginCrossEntropy.apply(
            outputs.to(dtype), targets.unsqueeze(1), self.margin, self.scale
        )


class _AdditiveMarginCrossEntropy(torch.autograd.Function):
    """Mean cross entropy with its gradient in closed form.

    It keeps one [batch, classes] buffer, the probabilities.
    """

    @staticmethod
    def forward(ctx, outputs, targets, margin, scale):
        logits = outputs * scale
        penalty = logits.new_full(targets.shape, -scale * margin)
        logits.scatter_add_(1, targets, penalty)
        # The loss of a row is log(sum) - (target's logit), relative to the top.
        logits -= logits.amax(1, keepdim=True)
        target_logits = logits.gather(1, targets)
        probabilities = logits.exp_()
        total = probabilities.sum(1, keepdim=True)
        probabilities /= total
        ctx.save_for_backward(probabilities, targets)
        ctx.scale = scale
        return (total.log() - target_logits).mean()

    @staticmethod
    def backward(ctx, gradient):
        refuse_second_derivative()
        probabilities, targets = ctx.saved_tensors
        share = gradient * (ctx.scale / len(targets))
        slope = probabilities * share
        slope.scatter_add_(1, targets, -share.expand(targets.shape))
        return slope, None, None, None


def check_labels(labels, classes):
    """Raises where a label is not one of the classes.

    Arguments
    ---------
    labels : torch.Tensor
        Integers of any shape.
    classes : int
        Number of classes.

    Raises
    ------
    InputError
        Names the first label outside [0, classes).

    Example
    -------
    >>> check_labels(torch.tensor([0, 2]), 3)
    """
    if torch.compiler.is_compiling():
        return  # a branch on data would break the graph
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        raise InputError(
            f"label {labels[outside][0].item()} is outside [0, {classes}): "
            "out_n_neurons must be the number of training speakers"
        )
