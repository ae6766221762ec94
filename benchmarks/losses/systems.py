"""What is compared: an hparams file each, and what of it is set otherwise."""

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
    "ham_schedule": System("HAM, margin schedule", "ham_schedule_ecapa.yaml"),
}
COMPARED = list(SYSTEMS)

# Embeddings that keep a radius of their own, to see what it tells.
SYSTEMS["ham_free"] = System(
    "HAM, free radius",
    "best.yaml",
    {"cap": 3.5, "embedding_scale": 0.1, "margin": 0.2, "scale": 10},
)


def _candidates(family, hparams, keys, *rows):
    """Systems of one file: what is set, one row of values each."""
    systems = {}
    for values in rows:
        overrides = dict(zip(keys, values, strict=True))
        shown = {
            key: "+".join(f"{v:g}" for v in value)
            if isinstance(value, list)
            else f"{value:g}"
            for key, value in overrides.items()
        }
        name = "_".join(f"{key}{value}" for key, value in shown.items())
        title = ", ".join(f"{key} {value}" for key, value in shown.items())
        systems[f"{family}_{name}"] = System(
            f"{family}: {title}", hparams, overrides
        )
    return systems


# What the folds of training speakers choose among: as many of either family,
# for the best of more is better by chance alone.
_LOSS = ("margin", "scale")
EUCLIDEAN = {
    **_candidates(
        "am",
        "am_ecapa.yaml",
        _LOSS,
        *((0.1, 10), (0.1, 30), (0.2, 20), (0.2, 30), (0.2, 45)),
        *((0.35, 20), (0.35, 30), (0.35, 45), (0.5, 30)),
    ),
    **_candidates(
        "aam",
        "aam_ecapa.yaml",
        _LOSS,
        *((0.1, 30), (0.2, 30), (0.2, 45), (0.35, 30), (0.35, 45)),
    ),
    **_candidates(
        "ram",
        "ram_ecapa.yaml",
        _LOSS,
        *((0.2, 30), (0.35, 30), (0.35, 45)),
    ),
}
HYPERBOLIC = {
    **_candidates(
        "smooth",
        "best.yaml",
        ("cap", *_LOSS),
        *((2.3, 0.2, 10), (2.3, 0.2, 30), (2.3, 0.4, 20), (2.3, 0.4, 30)),
        *((3.5, 0.2, 20), (3.5, 0.4, 10), (3.5, 0.4, 30)),
    ),
    **_candidates(
        "init",
        "best.yaml",
        ("cap", *_LOSS, "init_std"),
        (2.3, 0.2, 30, 0.1),
    ),
    **_candidates(
        "free",
        "best.yaml",
        ("cap", "embedding_scale", *_LOSS),
        (3.5, 0.1, 0.2, 10),
    ),
    **_candidates(
        "sub",
        "best.yaml",
        ("cap", "sub_centres", *_LOSS),
        *((2.3, 3, 0.2, 30), (2.3, 3, 0.4, 30)),
    ),
    **_candidates(
        "ham",
        "ham_ecapa.yaml",
        ("clip_c", *_LOSS),
        *((1.5, 0.2, 30), (3, 0.2, 30), (3, 0.4, 30)),
    ),
    **_candidates("exact", "ham_exact_ecapa.yaml", _LOSS, (0.2, 30), (0.4, 30)),
    **_candidates(
        "joint", "eh_am_ecapa.yaml", ("loss_weights",), ([0.5, 0.5],)
    ),
}
SYSTEMS |= EUCLIDEAN | HYPERBOLIC


def is_hyperbolic(name):
    """Whether a system's distances are hyperbolic, in one head at least."""
    return not SYSTEMS[name].hparams.startswith(
        ("softmax", "am_", "aam_", "ram_")
    )
