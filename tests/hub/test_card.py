"""The card: its metadata by the Hub's client, and what it says when."""

import dataclasses
import re

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.results import evaluate
from speechbrain_hyperbolic.hub.card import (
    Measurement,
    check_metadata,
    make_card,
)
from speechbrain_hyperbolic.inference.config import measure_thresholds
from tests.hub.models import make_config

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
    labels = np.repeat([1, 0], [300, 2000])
    enroll = rng.integers(n_speakers, size=2300)
    test = np.where(labels, enroll, (enroll + 1) % n_speakers)
    result = evaluate(
        np.concatenate([target, nontarget]),
        labels,
        enroll.astype(str),
        test.astype(str),
        replicates=50,
    )
    measurement = Measurement(
        trial_list="My trials.txt",
        results={"all trials": result},
        target=target,
        nontarget=nontarget,
        protocol="the cosine score of whole utterances",
        speakers=n_speakers,
        shared=0,
    )
    return dataclasses.replace(measurement, **changes)


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


def rows(text, heading):
    """The cells of the table in a section."""
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [row for row in section.splitlines() if row.startswith("|")]
    return [[c.strip() for c in row.strip("|").split("|")] for row in lines[2:]]


def test_metadata(write, tmp_path):
    card = write(
        measurement=measure(),
        license="cc-by-4.0",
        language=["en", "zh"],
        datasets=["user/corpus"],
    )
    data = card.data.to_dict()
    block = (tmp_path / "README.md").read_text().split("---\n")[1]
    assert yaml.safe_load(block) == data
    del data["model-index"]
    assert data == {
        "language": ["en", "zh"],
        "library_name": "speechbrain",
        "license": "cc-by-4.0",
        "datasets": ["user/corpus"],
        "metrics": ["eer", "min_dcf"],
        "pipeline_tag": "audio-classification",
        "tags": [
            "speaker-verification",
            "speaker-recognition",
            "hyperbolic",
            "ECAPA-TDNN",
            "HAM-Softmax",
        ],
    }


def test_the_model_index_has_what_was_measured(write):
    measurement = measure()
    result = measurement.results["all trials"]
    entries = write(measurement=measurement).data.eval_results
    expected = [
        ("eer", 100, "eer", None),
        ("min_dcf", 1, "min_dcf_0.01", 0.01),
        ("min_dcf", 1, "min_dcf_0.05", 0.05),
    ]
    for entry, (kind, factor, key, p) in zip(entries, expected, strict=True):
        assert entry.metric_type == kind
        assert entry.metric_value == pytest.approx(
            factor * result[key], abs=1e-6
        )
        bounds = [factor * bound for bound in result["intervals"][key]]
        found = re.search("confidence interval (.*) to (.*)", entry.metric_name)
        assert [*map(float, found.groups())] == pytest.approx(bounds, abs=6e-3)
        assert entry.metric_args["interval_95"] == pytest.approx(
            bounds, abs=1e-6
        )
        assert entry.metric_args.get("p_target") == p
        assert entry.dataset_args["target_trials"] == 300
        assert entry.dataset_type == "my-trials.txt"


def test_few_speakers_some_of_them_of_the_training(write):
    card = write(measurement=measure(n_speakers=5, shared=3))
    assert "3 of the 5 speakers in the trials were also in" in card.text
    assert "too few speakers for intervals" in card.text
    assert all("interval" not in e.metric_name for e in card.data.eval_results)


def test_what_was_not_measured(write):
    card = write()
    assert {"model-index", "metrics"}.isdisjoint(card.data.to_dict())
    for heading in ("Results", "Thresholds"):
        section = card.text.split(f"## {heading}\n\n")[1]
        assert section.startswith("Not measured")
    assert "det.png" not in card.text and not re.search(r"\d %", card.text)
    assert "No error rates were measured." in card.text


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
    for row, (aim, threshold) in zip(
        rows(card.text, "Thresholds"), thresholds.items(), strict=True
    ):
        accepts = sum(s > threshold for s in measurement.nontarget.tolist())
        rejects = sum(s <= threshold for s in measurement.target.tolist())
        assert row == [
            aim,
            f"{threshold:.4f}",
            f"{100 * accepts / 2000:.2f} %",
            f"{100 * rejects / 300:.2f} %",
        ]
    assert f"score.item() > {config.thresholds.eer:.4f}" in card.text


def test_a_hyperbolic_threshold_is_not_given_for_cosines(write):
    measurement = measure()
    card = write(measured_config(measurement, score="hyperbolic"), measurement)
    ours, stock = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert "> " not in stock and "cosine" in stock
    assert 'f"hyperbolic {' in ours
    assert "SpeechBrain alone computes cosines" in card.text


def test_other_scores_give_no_threshold(write):
    measurement = measure(protocol="the cosine score, 5 crops of 3 s")
    card = write(measurement=measurement)
    assert rows(card.text, "Thresholds") == []
    assert "scored by the cosine score, 5 crops of 3 s, which" in card.text
    assert len(rows(card.text, "Results")) == 1


def test_another_loss(write):
    training = {"loss": "AM-Softmax", "hyperbolic": False, "clip_c": None}
    training |= {"averaged": 1, "epochs": 1, "fine_tuned": True, "hours": 0.5}
    card = write(training=training)
    assert "hyperbolic" not in card.data.tags
    assert card.data.tags[-1] == "AM-Softmax"
    assert "Fang and He" not in card.text and "curvature" not in card.text
    assert "1 epoch starting from another model; the weights are those" in (
        card.text
    )
    assert "30.0 minutes" in card.text and "were not described" in card.text


def test_ways_to_use_it(write):
    plain, full = write().text, write(clips=True, onnx=True).text
    assert "a.wav" in plain and "ONNX" not in plain
    assert "examples/clip1.wav" in full and "model.onnx" in full
    assert "trusted" not in full
    own = write(make_config({"class": "my.Encoder"})).text
    assert "from_pretrained(source, trusted=['my.Encoder'])" in own


@pytest.mark.parametrize("full", [True, False])
def test_layout(full, write):
    """A blank line around each heading, and none of the template's marks."""
    measurement = measure() if full else None
    config = measured_config(measurement) if full else None
    text = write(config, measurement, clips=full, onnx=full).text
    assert "{%" not in text and "{{" not in text and "\n\n\n" not in text
    for heading in re.findall(r"^##+ .*$", text, re.MULTILINE):
        assert f"\n\n{heading}\n\n" in text


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("license", "Apache 2.0", "license is 'Apache 2.0', expected a lic"),
        ("language", "English", "language is 'English', expected an ISO 639"),
        ("datasets", ["a/b/c"], "datasets has|datasets is 'a/b/c', expected"),
    ],
)
def test_metadata_that_the_hub_would_reject(field, value, message):
    with pytest.raises(InputError, match=message):
        check_metadata(**{field: value})
