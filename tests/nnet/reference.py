"""The published loss, written naively: the independent truth of the tests."""

import math

import torch


def published_distances(x, w, c):
    """Distances of vectors that are shorter than the cap, or shortened."""
    cap = (1 - 1e-5) / c**0.5
    return ball_distances(x, w, lambda norm: 2 * norm.clamp(max=cap).atanh())


def ball_distances(x, w, radius):
    """Distances of points of the ball at the radii of the vectors' lengths."""

    def ball(v):
        length = v.norm(dim=1, keepdim=True)
        return v / length * (radius(length) / 2).tanh()

    x, w = ball(x).unsqueeze(1), ball(w).unsqueeze(0)
    inside = (1 - x.square().sum(-1)) * (1 - w.square().sum(-1))
    return torch.acosh(1 + 2 * (x - w).square().sum(-1) / inside)


def naive_loss(
    outputs, labels, margin, scale, kind="additive", top_k=0, penalty=0.0
):
    """Mean cross entropy by loops over utterances and classes, in floats.

    kind is "additive", "real" or "angular".
    """
    total = 0.0
    for row, label in zip(outputs, labels, strict=True):
        others = sorted(
            (j for j in range(len(row)) if j != label), key=lambda j: -row[j]
        )
        logits = []
        for j, output in enumerate(row):
            if kind == "angular":
                angle = math.acos(output)
                if j == label and angle + margin < math.pi:
                    output = math.cos(angle + margin)
                elif j == label:
                    output -= margin * math.sin(margin)
                elif j in others[:top_k]:
                    output = math.cos(max(angle - penalty, 0.0))
            elif j == label:
                output -= margin
            elif j in others[:top_k]:
                output += penalty
            logits.append(scale * output)
        if kind == "real":
            target = logits[label]
            logits = [z if z >= target else 0.0 for z in logits]
        top = max(logits)
        total += math.log(sum(math.exp(z - top) for z in logits))
        total += top - logits[label]
    return total / len(labels)
