"""Points, speakers and trained folders, made without a training."""

import numpy as np
import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.dataio.encoder import CategoricalEncoder

from speechbrain_hyperbolic.geometry import clip_to_ball
from speechbrain_hyperbolic.training.checkpoints import RecentCheckpointer

SPEAKERS = [f"spk{i:02}" for i in np.random.default_rng(5).permutation(30)]
_HEAD = "{input_size: 8, out_neurons: 30}"
_OURS = "!new:speechbrain_hyperbolic.HyperbolicClassifier"
_STOCK = "!new:speechbrain.lobes.models.ECAPA_TDNN.Classifier"
HEADS = {
    "ham": f"{_OURS} {_HEAD}",
    "sub": f"{_OURS} {_HEAD[:-1]}, sub_centers: 2}}",
    "am": f"{_OURS} {_HEAD[:-1]}, map: cosine}}",
    "stock": f"{_STOCK} {_HEAD}",
    "joint": "!new:speechbrain_hyperbolic.JointClassifier {heads: ["
    f"{_STOCK} {_HEAD}, {_OURS} {_HEAD}]}}",
}


def write_run(folder, head="ham", more=""):
    """A folder as training leaves it; returns the head at each epoch's end."""
    folder.mkdir(parents=True)
    text = f"epochs_to_average: 2\nclassifier: {HEADS[head]}\n{more}"
    (folder / "hyperparams.yaml").write_text(text)
    torch.manual_seed(1)
    classifier = load_hyperpyyaml(text)["classifier"]
    checkpointer = RecentCheckpointer(
        folder / "save", recoverables={"classifier": classifier}
    )
    states = []
    for epoch in (1, 2, 3):
        with torch.no_grad():
            for parameter in classifier.parameters():
                parameter.copy_(0.4 * torch.randn_like(parameter))
        state = classifier.state_dict()
        states.append({key: value.clone() for key, value in state.items()})
        checkpointer.save_and_keep_only(meta={"epoch": epoch})
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(SPEAKERS)
    encoder.save(folder / "save" / "label_encoder.txt")
    return states


def some_points(count=30, dimensions=8):
    """Clustered points in the ball of the published clip, float64."""
    rng = np.random.default_rng(0)
    groups = rng.normal(size=(1 + count // 6, dimensions))
    vectors = groups[rng.integers(len(groups), size=count)]
    vectors = vectors + 0.6 * rng.normal(size=vectors.shape)
    vectors *= 0.35 / np.sqrt(dimensions)
    return clip_to_ball(torch.from_numpy(vectors), c=3.0)


def disk_distance(z, w):
    """By the disk's own formula."""
    gap = abs(z - w) ** 2 / ((1 - abs(z) ** 2) * (1 - abs(w) ** 2))
    return np.arccosh(1 + 2 * gap)


@pytest.fixture
def table():
    """What is known of the speakers, except for the last one."""
    return {
        speaker: {"sex": "fm"[i % 2], "age": str(20 + i)}
        for i, speaker in enumerate(SPEAKERS[:-1])
    }
