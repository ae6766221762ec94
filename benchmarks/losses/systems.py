"""What is compared: an hparams file each, and the keys that are changed."""

from typing import NamedTuple

import torch
import yaml

from speechbrain_hyperbolic.errors import InputError, shown
from speechbrain_hyperbolic.nnet.similarity import MAPS, Cosine


class CurvedCosine(Cosine):
    """-arcosh(1 + k (1 - cos)), k = 4 c / (c - 1)^2: the clipped distance of
    two points on the cap, so 3 at c = 3, but without a radius.

    >>> CurvedCosine(c=3.0)(torch.eye(2)[:1], torch.eye(2)).round(decimals=3)
    tensor([[-0.0020, -2.0630]])
    """

    def __init__(self, c=3.0):
        super().__init__()
        self.k = 4 * c / (c - 1) ** 2

    def forward(self, embeddings, centers):
        """Similarities of all pairs."""
        cosine = super().forward(embeddings, centers)
        # At a cosine of 1 the square root has no finite slope.
        excess = self.k * (1 - cosine).clamp(min=1e-6)
        return -2 * (excess / 2).sqrt().asinh()


# So that an hparams file can name it: map: curved_cosine, with its clip_c
MAPS["curved_cosine"] = (CurvedCosine, ("c",))


class System(NamedTuple):
    """A loss and its settings."""

    title: str
    hparams: str  # a file of the folder hparams
    overrides: dict = {}


SYSTEMS = {
    "softmax": System("Softmax", "softmax_ecapa.yaml"),
    "am": System("AM", "am_ecapa.yaml"),
    "aam": System("AAM", "aam_ecapa.yaml"),
    "ram": System("RAM", "ram_ecapa.yaml"),
    "h": System("H, c = 5", "h_ecapa.yaml"),
    "ham": System("HAM, c = 3", "ham_ecapa.yaml"),
    "eh_am": System("E.H. AM", "eh_am_ecapa.yaml"),
    "ham_exact": System("HAM, exact curvature 1", "ham_exact_ecapa.yaml"),
    "ham_learned": System(
        "HAM, learned curvature",
        "ham_exact_ecapa.yaml",
        {"learn_curvature": True},
    ),
    "smooth": System("HAM, smooth cap 2.3", "best.yaml", {"margin": 0.2}),
    "best": System("best.yaml", "best.yaml"),
    "curve": System(
        "Cosine on HAM's curve", "am_ecapa.yaml", {"map": "curved_cosine"}
    ),
    "am_range": System(
        "AM, HAM's range", "am_ecapa.yaml", {"scale": 62, "margin": 0.1}
    ),
    "am_slope": System(
        "AM, HAM's slope", "am_ecapa.yaml", {"scale": 52, "margin": 0.115}
    ),
}
_NEAR, _FAR = "init_std=0.001", "init_std=0.03"  # of the published and Xavier
# Names for several systems. The two lists to tune by are of equal length,
# since the best of more is better by chance alone.
SETS = {
    "all": list(SYSTEMS),
    "primary": ["am", "ham"],
    "why": [
        f"{name}:{start}"
        for name in ("ham", "curve", "am", "am_range", "am_slope")
        for start in (_NEAR, _FAR)
    ],
    "tune_euclidean": [
        *(f"am:margin={m},scale={s}" for m in (0.1, 0.2, 0.35) for s in (20, 30, 45)),
        *(f"aam:margin={m},scale={s}" for m in (0.2, 0.35) for s in (30, 45)),
        *(f"ram:margin={m},scale=30" for m in (0.2, 0.35)),
        "am:margin=0.5,scale=30",
    ],
    "tune_hyperbolic": [
        *(f"ham:margin={m},scale={s}" for m in (0.2, 0.4) for s in (15, 30)),
        *(f"ham:clip_c=1.5,margin={m},scale=30" for m in (0.2, 0.4)),
        *(f"best:margin={m},scale={s}" for m in (0.2, 0.4) for s in (15, 30)),
        *(f"best:cap=3.5,margin={m},scale=20" for m in (0.2, 0.4)),
        *(f"ham_exact:margin={m},scale=30" for m in (0.2, 0.4)),
        "best:sub_centers=3,margin=0.4,scale=30",
        "ham_learned:margin=0.2,scale=30",
    ],
}


def find_system(name):
    """A system by its name, as in ``am`` or ``am:margin=0.35,scale=45``."""
    base, _, options = name.partition(":")
    if base not in SYSTEMS:
        raise InputError(
            f"there is no system {shown(base)}: expected one of "
            f"{', '.join([*SYSTEMS, *SETS])}, with changes as in "
            "am:margin=0.35,scale=45"
        )
    system = SYSTEMS[base]
    overrides = parse_options(options.split(",") if options else [])
    title = ", ".join([system.title, *options.replace("=", " ").split(",")])
    return System(
        title.removesuffix(", "),
        system.hparams,
        system.overrides | overrides,
    )


def parse_options(options):
    """From texts KEY=VALUE to a dict, the values as YAML reads them."""
    overrides = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not (key and equals and value):
            raise InputError(f"{shown(option)!r} is no KEY=VALUE")
        overrides[key] = yaml.safe_load(value)
    return overrides


def is_hyperbolic(name):
    """Whether a system has a hyperbolic head."""
    base = name.partition(":")[0]
    return base not in (
        "softmax", "am", "aam", "ram", "curve", "am_range", "am_slope"
    )
