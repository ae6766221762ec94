"""The card: its metadata by the Hub's client, and what it says when."""

import re

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from speechbrain_hyperbolic.evaluation.results import evaluate
from speechbrain_hyperbolic.hub.card import Measurement, make_card
from speechbrain_hyperbolic.inference.config import measure_thresholds
from tests.inference.models import make_config

TRAINING = {
    "encoder": "ECAPA-TDNN",
    "parameters": 4_200_000,
    "dimension": 192,
    "loss": "HAM-Softmax",
    "loss_yaml": "classifier: !new:HyperbolicClassifier",
    "hyperbolic": True,
    "clip_c": 4.0,
    "speakers": 1211,
    "utterances": 148_642,
    "hours": 340.4,
    "epochs": 7,
    "averaged": 5,
    "crop": 2.015,
    "batch_size": 256,
    "augmentation": "AddReverb, AddNoise",
    "fine_tuned": False,
}


def measure(n_speakers=12, **changes):
    rng = np.random.default_rng(0)
    target, nontarget = rng.normal(0.6, 0.1, 300), rng.normal(0.3, 0.1, 2000)
    scores = np.append(target, nontarget)
    labels = np.repeat([1, 0], [300, 2000])
    enroll = rng.integers(n_speakers, size=2300)
    test = np.where(labels, enroll, (enroll + 1) % n_speakers)
    result = evaluate(scores, labels, enroll, test, replicates=50)
    fields = {
        "trial_list": "My trials.txt",
        "results": {"all trials": result},
        "protocol": "the cosine score of whole utterances",
        "speakers": n_speakers,
        "shared": 0,
    }
    return Measurement(target=target, nontarget=nontarget, **fields | changes)


def measured_config(measurement, **fields):
    thresholds = measure_thresholds(measurement.target, measurement.nontarget)
    return make_config(thresholds=thresholds, **fields)


@pytest.fixture
def write(tmp_path):
    """Writes a card; returns it as the Hub's client reads it."""

    def write(config=None, measurement=None, training=(), **options):
        card = make_card(
            "my-model",
            config or make_config(),
            TRAINING | dict(training),
            measurement,
            **options,
        )
        card.save(tmp_path / "README.md")
        return ModelCard.load(tmp_path / "README.md")

    return write


def test_metadata(write, tmp_path):
    options = {"license": "cc-by-4.0", "language": ["en", "zh"]}
    card = write(measurement=measure(), datasets=["user/corpus"], **options)
    data = card.data.to_dict()
    block = (tmp_path / "README.md").read_text().split("---\n")[1]
    assert yaml.safe_load(block) == data
    tags = ["speaker-verification", "speaker-recognition", "hyperbolic"]
    del data["model-index"]
    assert data == options | {
        "library_name": "speechbrain",
        "datasets": ["user/corpus"],
        "metrics": ["eer", "min_dcf"],
        "pipeline_tag": "audio-classification",
        "tags": [*tags, "ECAPA-TDNN", "HAM-Softmax"],
    }


def test_the_model_index_has_what_was_measured(write):
    measurement = measure()
    result = measurement.results["all trials"]
    equal, cost, _ = write(measurement=measurement).data.eval_results
    assert equal.metric_value == pytest.approx(100 * result["eer"])
    assert cost.metric_value == pytest.approx(result["min_dcf_0.01"])
    assert (equal.metric_type, equal.metric_name) == ("eer", "EER %")
    assert (cost.metric_type, cost.metric_name) == ("min_dcf", "minDCF(0.01)")
    assert cost.dataset_type == "my-trials.txt-all-trials"


def test_few_speakers_some_of_them_of_the_training(write):
    card = write(measurement=measure(n_speakers=5, shared=3))
    assert "3 of the 5 speakers in the trials were also in" in card.text
    assert "too few speakers for intervals" in card.text


def test_thresholds_and_the_rates_at_them(write):
    """Counted by brute force."""
    measurement = measure()
    config = measured_config(measurement)
    card = write(config, measurement)
    thresholds = {
        "equal error rate": config.thresholds.eer,
        "10 % false accepts": config.thresholds.false_accepts["0.1"],
        "1 % false accepts": config.thresholds.false_accepts["0.01"],
    }
    for aim, threshold in thresholds.items():
        accepts = sum(s > threshold for s in measurement.nontarget.tolist())
        rejects = sum(s <= threshold for s in measurement.target.tolist())
        rates = f"{accepts / 20:.2f} % | {rejects / 3:.2f} %"
        assert f"| {aim} | {threshold:.4f} | {rates} |" in card.text
    assert f"score.item() > {config.thresholds.eer:.4f}" in card.text


def test_another_loss(write):
    training = {"loss": "AM-Softmax", "hyperbolic": False, "clip_c": None}
    card = write(training=training)
    assert "hyperbolic" not in card.data.tags
    assert card.data.tags[-1] == "AM-Softmax"
    assert "Fang and He" not in card.text and "curvature" not in card.text


@pytest.mark.parametrize("full", [True, False])
def test_layout(full, write):
    """A blank line around each heading, and none of the template's marks."""
    measurement = measure() if full else None
    config = measured_config(measurement, score="hyperbolic") if full else None
    text = write(config, measurement, clips=full, onnx=full).text
    assert ("examples/clip1.wav" in text) == ("model.onnx" in text) == full
    assert text.count("Not measured") == (0 if full else 2)
    # Which the cosines of the stock class have no threshold for
    assert ("SpeechBrain alone computes cosines" in text) == full
    assert "score.item() > " not in text
    assert "{%" not in text and "{{" not in text and "\n\n\n" not in text
    for heading in re.findall(r"^##+ .*$", text, re.MULTILINE):
        assert f"\n\n{heading}\n\n" in text
