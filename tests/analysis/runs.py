"""Trained folders, made without a training."""

import numpy as np
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.train_logger import FileTrainLogger

from speechbrain_hyperbolic.checkpoints import RecentCheckpointer
from speechbrain_hyperbolic.geometry import clip_to_ball

LOBES = "speechbrain_hyperbolic.lobes"
HEADS = {
    "ham": f"""
classifier: !new:{LOBES}.heads.CentreClassifier
    input_size: 8
    out_neurons: 30
    similarity: !new:{LOBES}.similarity.ClippedDistance
        c: 3.0
""",
    "am": f"""
classifier: !new:{LOBES}.heads.CentreClassifier
    input_size: 8
    out_neurons: 30
""",
    "softmax": f"""
classifier: !new:{LOBES}.heads.CentreClassifier
    input_size: 8
    out_neurons: 30
    similarity: !new:{LOBES}.similarity.Dot []
""",
    "stock": """
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 8
    out_neurons: 30
""",
    "exact": f"""
classifier: !new:{LOBES}.heads.CentreClassifier
    input_size: 8
    out_neurons: 30
    similarity: !new:{LOBES}.similarity.ExactDistance
        curvature: 1.0
        learnable: True
""",
    "sub": f"""
classifier: !new:{LOBES}.heads.CentreClassifier
    input_size: 8
    out_neurons: 30
    sub_centres: 2
    similarity: !new:{LOBES}.similarity.ClippedDistance
        c: 3.0
""",
    "joint": f"""
classifier: !new:{LOBES}.heads.JointClassifier
    heads:
        - !new:{LOBES}.heads.CentreClassifier
            input_size: 8
            out_neurons: 30
        - !new:{LOBES}.heads.HyperbolicClassifier
            input_size: 8
            out_neurons: 30
""",
}
SPEAKERS = [f"spk{i:02}" for i in np.random.default_rng(5).permutation(30)]


def write_run(folder, head="ham", seed=1, epochs=3, margin=0.2):
    """A folder as training leaves it, and the head at each epoch's end."""
    folder.mkdir(parents=True)
    text = (
        f"seed: {seed}\nmargin: {margin}\ndata_folder: {folder.parent}\n"
        f"epochs_to_average: 2\n{HEADS[head]}"
    )
    (folder / "hyperparams.yaml").write_text(text)
    torch.manual_seed(seed)
    classifier = load_hyperpyyaml(text)["classifier"]
    checkpointer = RecentCheckpointer(
        folder / "save", recoverables={"classifier": classifier}
    )
    logger = FileTrainLogger(folder / "train_log.txt")
    states = []
    for epoch in range(1, epochs + 1):
        with torch.no_grad():
            for parameter in classifier.parameters():
                parameter.copy_(0.4 * torch.randn_like(parameter))
        states.append(
            {k: v.clone() for k, v in classifier.state_dict().items()}
        )
        checkpointer.save_and_keep_only(meta={"epoch": epoch})
        radii = {}
        if head in ("ham", "exact", "sub", "joint"):
            prefix = "head2_" if head == "joint" else ""
            radii = {
                f"{prefix}{name}": 0.1 * epoch
                for what in ("centres", "embeddings")
                for name in (
                    f"cap_{what}",
                    *(f"radius_{what}_{q}" for q in ("05", "50", "95")),
                )
            }
        logger.log_stats(
            {"epoch": epoch, "lr": 1e-3},
            {"loss": 10.0 * seed / epoch, **radii},
            {"loss": 8.0 / epoch, "ErrorRate": 0.5 / epoch},
        )
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(SPEAKERS)
    encoder.save(folder / "save" / "label_encoder.txt")
    return states


def some_points(count=30, dimensions=8, seed=0, spread=0.35):
    """Clustered points in the ball of the published clip, float64."""
    rng = np.random.default_rng(seed)
    groups = rng.normal(size=(1 + count // 6, dimensions))
    vectors = groups[rng.integers(len(groups), size=count)]
    vectors = vectors + 0.6 * rng.normal(size=vectors.shape)
    vectors *= spread / np.sqrt(dimensions)
    return clip_to_ball(torch.from_numpy(vectors), c=3.0)
