"""What is compared: hparams files, and the keys that are changed in them."""

import yaml

from speechbrain_hyperbolic.errors import InputError, shown
from speechbrain_hyperbolic.nnet.similarity import MAPS, Cosine


class CurvedCosine(Cosine):
    """-arcosh(1 + k (1 - cos)), k = 4 c / (c - 1)^2: the clipped distance of
    two points on the cap (k = 3 at c = 3), but of vectors without a radius.

    >>> import torch
    >>> CurvedCosine(c=3.0)(torch.eye(2)[:1], torch.eye(2))
    tensor([[-0.0024, -2.0634]])
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


# An hparams file can name it: map: curved_cosine, with its clip_c as c.
MAPS["curved_cosine"] = (CurvedCosine, ("c",))

SYSTEMS = {
    "softmax": ("softmax_ecapa.yaml", {}),
    "am": ("am_ecapa.yaml", {}),
    "aam": ("aam_ecapa.yaml", {}),
    "ram": ("ram_ecapa.yaml", {}),
    "h": ("h_ecapa.yaml", {}),
    "ham": ("ham_ecapa.yaml", {}),
    "eh_am": ("eh_am_ecapa.yaml", {}),
    "ham_exact": ("ham_exact_ecapa.yaml", {}),
    "ham_learned": ("ham_exact_ecapa.yaml", {"learn_curvature": True}),
    "smooth": ("ham_ecapa.yaml", {"map": "smooth_cap"}),
    "best": ("best.yaml", {}),
    # Euclidean losses with the shape, the range and the slope of HAM's
    "curve": ("am_ecapa.yaml", {"map": "curved_cosine"}),
    "am_range": ("am_ecapa.yaml", {"scale": 62, "margin": 0.1}),
    "am_slope": ("am_ecapa.yaml", {"scale": 52, "margin": 0.115}),
}
EUCLIDEAN = ("softmax", "am", "aam", "ram", "curve", "am_range", "am_slope")


def find_system(name):
    """The hparams file and the overrides of ``am:margin=0.35,scale=45``."""
    base, _, options = name.partition(":")
    if base not in SYSTEMS:
        raise InputError(
            f"there is no system {shown(base)}: expected one of "
            f"{', '.join(SYSTEMS)}, with changes as in am:margin=0.35,scale=45"
        )
    hparams, overrides = SYSTEMS[base]
    return hparams, overrides | parse_options(filter(None, options.split(",")))


def parse_options(options):
    """From texts KEY=VALUE to a dict, the values as YAML reads them."""
    overrides = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not (key and equals and value):
            raise InputError(f"{shown(option)} is not of the form KEY=VALUE")
        overrides[key] = yaml.safe_load(value)
    return overrides
