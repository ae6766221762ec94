"""How time and memory grow with the classes: a table and growth.png."""

import io
import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import torch  # noqa: E402

from benchmarks import head  # noqa: E402
from benchmarks.measure import peak, row, times, title  # noqa: E402

BATCH = 64
CHUNK = 16384
CLASSES = (1000, 3162, 10000, 31623, 100000, 316228, 1000000)
PLOT = Path(__file__).with_name("growth.png")
CHUNKED = f"{head.OURS}, chunk_size {CHUNK}"
WHAT = ("ms", "MB")


def measure(classes, most_rounds):
    """Of each system its milliseconds and megabytes."""
    size = {"batch": BATCH, "classes": classes, "set_to_none": True}
    cases = {head.OURS: head.ours(**size), head.FLOOR: head.floor(**size)}
    if classes > CHUNK:
        cases[CHUNKED] = head.ours(**size, chunk_size=CHUNK)
    rounds = min(most_rounds, max(5, 10**6 // classes))
    seconds = times(cases, rounds)
    return {
        name: (1e3 * seconds[name], (peak(case) - gradients(case)) / 1e6)
        for name, case in cases.items()
    }


def gradients(step):
    """Their bytes, which are allocated in each step."""
    return sum(v.grad.nbytes for v in (step.x, *step.head.parameters()))


def slope(curve, which, classes):
    """Of the decade below this number of classes, on logarithmic axes."""
    below = min(curve, key=lambda n: abs(10 * n - classes))
    if abs(10 * below / classes - 1) > 0.01:
        return ""
    growth = curve[classes][which] / curve[below][which]
    return f"{math.log10(growth):.2f}"


def draw(curves, file):
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    labels = ("ms a step", "peak MB beyond weights and gradient")
    for which, (ax, label) in enumerate(zip(axes, labels, strict=True)):
        for name, curve in curves.items():
            values = [of[which] for of in curve.values()]
            ax.loglog([*curve], values, "o-", markersize=4, label=name)
        classes = [*curves[head.OURS]]
        first = curves[head.OURS][classes[0]][which] / 2
        line = [first * n / classes[0] for n in classes]
        ax.loglog(classes, line, "--", color="gray", label="slope 1")
        ax.set(xlabel="classes", ylabel=label)
        ax.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    figure.suptitle(f"Head + loss, forward + backward, batch {BATCH}")
    figure.savefig(file, dpi=100)


def main(quick):
    torch.manual_seed(0)
    curves = {head.OURS: {}, CHUNKED: {}, head.FLOOR: {}}
    columns = [c for w in WHAT for c in (w, "slope of the decade")]
    title(
        f"Growth with the classes, batch {BATCH}", "classes", "system", *columns
    )
    for classes in CLASSES[:5] if quick else CLASSES:
        found = measure(classes, 1 if quick else 100)
        for name, of in found.items():
            curve = curves[name]
            curve[classes] = of
            cells = [
                c
                for which in range(2)
                for c in (f"{of[which]:.2f}", slope(curve, which, classes))
            ]
            row(classes, name, *cells)
    draw(curves, io.BytesIO() if quick else PLOT)
