"""All distances of two sets of points of the Poincare ball, against peers."""

import geoopt
import torch
from hypll.manifolds.poincare_ball import Curvature, PoincareBall
from hypll.tensors import ManifoldTensor

from benchmarks.measure import COMPARED, compare, peak, times, title
from speechbrain_hyperbolic.geometry import from_ball, pairwise_distance

DIM = 192
SIZE = (256, 5994)
OURS = "this package"
GEOOPT = "geoopt, dist by broadcast"
HYPLL = "hypll, cdist"
TARGETS = {GEOOPT: ("≤ 1/30", ""), HYPLL: ("≤ 1/30", "")}
TOLERANCE = 1e-4  # of the largest distance


def points(count, max_radius=3.0):
    """Points at all radii up to one."""
    direction = torch.nn.functional.normalize(torch.randn(count, DIM))
    radius = max_radius * torch.rand(count, 1)
    return (direction * (radius / 2).tanh()).requires_grad_()


def ours(x, y):
    return pairwise_distance(from_ball(x), from_ball(y))


def by_geoopt(x, y):
    ball = geoopt.PoincareBall(c=1.0)
    return ball.dist(x.unsqueeze(1), y.unsqueeze(0))


def by_hypll(x, y):
    ball = PoincareBall(Curvature(1.0, constraining_strategy=lambda c: c))
    x, y = (ManifoldTensor(v.unsqueeze(0), ball) for v in (x, y))
    return ball.cdist(x, y).squeeze(0)


SYSTEMS = {OURS: ours, GEOOPT: by_geoopt, HYPLL: by_hypll}


def differences(x, y):
    """The largest of each system, from the distances in float64."""
    with torch.no_grad():
        exact = ours(x.double(), y.double())
        found = {
            name: ((system(x, y) - exact).abs().max() / exact.max()).item()
            for name, system in SYSTEMS.items()
        }
    assert all(of < TOLERANCE for of in found.values()), found
    return found


def forward(system, x, y):
    with torch.no_grad():
        system(x, y)


def both(system, x, y):
    x.grad = y.grad = None
    system(x, y).sum().backward()


def main(quick):
    rounds = 1 if quick else 30
    torch.manual_seed(0)
    n, m = (8, 100) if quick else SIZE
    x, y = points(n), points(m)
    found = differences(x, y)
    title(f"Distances, {n} x {m}, {rounds} rounds", "what", *COMPARED)
    for step in (forward, both):
        cases = {
            name: lambda system=system, step=step: step(system, x, y)
            for name, system in SYSTEMS.items()
        }
        seconds = times(cases, rounds, slow=(GEOOPT, HYPLL))
        memory = {name: peak(case) for name, case in cases.items()}
        label = "forward" if step is forward else "forward + backward"
        compare(label, OURS, seconds, memory, TARGETS)
    largest = ", ".join(f"{name} {of:.1e}" for name, of in found.items())
    print(
        "\nLargest difference from the distances in float64, as part of the "
        f"largest distance (at most {TOLERANCE:.0e}): {largest}."
    )
