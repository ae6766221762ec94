"""What is compared: an hparams file each, and what of it is set otherwise."""

import itertools
from typing import NamedTuple


class System(NamedTuple):
    """A loss with its settings.

    Arguments
    ---------
    title : str
        For the table.
    hparams : str
        A file of the folder hparams.
    overrides : dict
        Key -> value.
    """

    title: str
    hparams: str
    overrides: dict = {}


# The step at which the margin is whole: a third of the training.
SCHEDULE = {"last_step": 375}

SYSTEMS = {
    "softmax": System("Softmax", "softmax_ecapa.yaml"),
    "softmax_s30": System("Softmax, s = 30", "softmax_s30_ecapa.yaml"),
    "am": System("AM", "am_ecapa.yaml"),
    "aam": System("AAM", "aam_ecapa.yaml"),
    "ram": System("RAM", "ram_ecapa.yaml"),
    "h": System("H, c = 5", "h_ecapa.yaml"),
    "ham_c1.5": System("HAM, c = 1.5", "ham_ecapa.yaml", {"clip_c": 1.5}),
    "ham_c3": System("HAM, c = 3", "ham_ecapa.yaml"),
    "ham_c5": System("HAM, c = 5", "ham_ecapa.yaml", {"clip_c": 5.0}),
    "eh_am": System("E.H. AM", "eh_am_ecapa.yaml"),
    "ham_exact": System("HAM, exact curvature", "ham_exact_ecapa.yaml"),
    "ham_smooth": System("HAM, smooth cap", "ham_smooth_ecapa.yaml"),
    "ham_learnable": System(
        "HAM, learnable curvature", "ham_learnable_ecapa.yaml"
    ),
    "ham_subcentre": System("HAM, 3 sub-centres", "ham_subcentre_ecapa.yaml"),
    "ham_schedule": System(
        "HAM, margin schedule", "ham_schedule_ecapa.yaml", SCHEDULE
    ),
}
COMPARED = list(SYSTEMS)


def _grid(name, hparams, **keys):
    """Systems of one file that differ in these keys."""
    systems = {}
    for values in itertools.product(*keys.values()):
        overrides = dict(zip(keys, values, strict=True))
        suffix = ",".join(f"{k}={v:g}" for k, v in overrides.items())
        systems[f"{name}:{suffix}"] = System(
            f"{name} {suffix}", hparams, overrides
        )
    return systems


# What the validation folds choose among: as many of either family
CANDIDATES = {
    **_grid(
        "am", "am_ecapa.yaml", margin=[0.1, 0.2, 0.35], scale=[10, 20, 30, 45]
    ),
    **_grid(
        "aam", "aam_ecapa.yaml", margin=[0.1, 0.2, 0.35], scale=[10, 20, 30, 45]
    ),
    **_grid(
        "smooth",
        "best.yaml",
        cap=[2.3],
        margin=[0.1, 0.2, 0.4, 0.8],
        scale=[5, 10, 20, 30, 45],
    ),
    **_grid(
        "smooth",
        "best.yaml",
        cap=[3.5],
        margin=[0.2, 0.4, 0.8],
        scale=[3, 5, 10, 20, 30],
    ),
    **_grid(
        "smooth", "best.yaml", cap=[5], margin=[0.4, 0.8], scale=[3, 5, 10, 20]
    ),
    **_grid(
        "init",
        "best.yaml",
        cap=[2.3, 3.5],
        margin=[0.2, 0.4],
        scale=[10, 20, 30],
        init_std=[0.03, 0.1],
    ),
    **_grid(
        "sub",
        "best.yaml",
        cap=[2.3, 3.5],
        margin=[0.2, 0.4],
        scale=[10, 20, 30],
        sub_centres=[2],
    ),
    **_grid(
        "free",
        "best.yaml",
        cap=[3.5],
        embedding_scale=[0.1],
        margin=[0.2, 0.4],
        scale=[5, 10, 20],
    ),
    **_grid(
        "learnt",
        "best.yaml",
        cap=[3.5],
        embedding_scale=[0.1],
        learn_scale=[1],
        margin=[0.2, 0.4],
        scale=[5, 10, 20],
    ),
    **_grid(
        "ham",
        "ham_ecapa.yaml",
        clip_c=[1.5, 3],
        margin=[0.1, 0.2, 0.4],
        scale=[5, 10, 20, 30],
    ),
}
SYSTEMS |= CANDIDATES


def is_hyperbolic(name):
    """Whether a system's distances are hyperbolic, in one head at least."""
    return not SYSTEMS[name].hparams.startswith(
        ("softmax", "am_", "aam_", "ram_")
    )
