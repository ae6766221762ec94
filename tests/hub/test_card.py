"""The card: its metadata by the Hub's client, and what it says of whom."""

import dataclasses
import re

import numpy as np
import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard
from huggingface_hub.repocard_data import (
    eval_results_to_model_index,
    model_index_to_eval_results,
)

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation import evaluate
from speechbrain_hyperbolic.hub.card import Measurement, Training, write_card
from speechbrain_hyperbolic.inference.model_folder import (
    ModelConfig,
    measure_thresholds,
)

CONFIG = ModelConfig(16000, 80, "xvector", {"in_channels": 80})
TRAINING = Training(
    parameters=4_200_000,
    dimension=512,
    loss="HAM-Softmax",
    hyperbolic=True,
    classifier="CentreClassifier(similarity=ClippedDistance(c=4.0))",
    cost="MarginSoftmax(loss_fn=AdditiveMargin(margin=0.2, scale=30))",
    speakers=1211,
    utterances=148642,
    hours=340.4,
    epochs=7,
    averaged=5,
    crop=2.015,
    batch=256,
    noise="a generator",
    rooms="a folder of recordings",
    fine_tuned=False,
)


def measure(n_speakers=12, n_target=300, n_nontarget=2000, **changes):
    rng = np.random.default_rng(0)
    target = rng.normal(0.6, 0.1, n_target)
    nontarget = rng.normal(0.3, 0.1, n_nontarget)
    labels = np.repeat([1, 0], [n_target, n_nontarget])
    enrol = rng.integers(n_speakers, size=labels.size)
    test = np.where(labels, enrol, (enrol + 1) % n_speakers)
    result = evaluate(
        np.concatenate([target, nontarget]),
        labels,
        enrol.astype(str),
        test.astype(str),
        replicates=50,
    )
    measurement = Measurement(
        trial_list="my trials.txt",
        results={"all trials": result},
        target=target,
        nontarget=nontarget,
        protocol="the cosine of whole utterances",
        speakers=n_speakers,
        shared=0,
    )
    return dataclasses.replace(measurement, **changes)


def measured_config(measurement, **fields):
    return dataclasses.replace(
        CONFIG,
        thresholds=measure_thresholds(
            measurement.target, measurement.nontarget
        ),
        **fields,
    )


@pytest.fixture
def written(tmp_path):
    """Writes a card; its data and text as the Hub's client reads them."""

    def write(config=CONFIG, training=TRAINING, measurement=None, **options):
        path = tmp_path / "README.md"
        write_card(path, "my-model", config, training, measurement, **options)
        return ModelCard.load(path)

    return write


def rows(text, heading):
    """The cells of the table in a section."""
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [row for row in section.splitlines() if row.startswith("|")]
    return [[c.strip() for c in row.strip("|").split("|")] for row in lines[2:]]


def test_metadata(written):
    card = written(
        measurement=measure(),
        license="cc-by-4.0",
        language=["en", "zh"],
        datasets=["user/corpus"],
    )
    data = card.data.to_dict()
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
            "x-vector",
            "HAM-Softmax",
        ],
    }


def test_metadata_survives_the_clients_reading_and_writing(written, tmp_path):
    card = written(measurement=measure())
    assert str(card) == (tmp_path / "README.md").read_text()
    index = card.data.to_dict()["model-index"]
    name, results = model_index_to_eval_results(index)
    assert name == "my-model" and len(results) == 3
    assert eval_results_to_model_index(name, results) == index
    assert all(isinstance(result, EvalResult) for result in results)
    block = (tmp_path / "README.md").read_text().split("---\n")[1]
    assert yaml.safe_load(block) == card.data.to_dict()


def test_model_index_is_what_was_measured(written):
    measurement = measure()
    result = measurement.results["all trials"]
    intervals = result["intervals"]
    entries = written(measurement=measurement).data.eval_results
    expected = [
        ("eer", "EER %", 100, "eer", None),
        ("min_dcf", "minDCF(0.01)", 1, "min_dcf_0.01", 0.01),
        ("min_dcf", "minDCF(0.05)", 1, "min_dcf_0.05", 0.05),
    ]
    for entry, (kind, title, factor, key, p) in zip(
        entries, expected, strict=True
    ):
        assert entry.metric_type == kind
        assert entry.metric_value == pytest.approx(
            factor * result[key], abs=1e-6
        )
        bounds = [factor * bound for bound in intervals[key]]
        assert entry.metric_args["interval_95"] == pytest.approx(
            bounds, abs=1e-6
        )
        assert entry.metric_args.get("p_target") == p
        head, low, high = re.fullmatch(
            r"(.*), 95 % interval (.*) to (.*)", entry.metric_name
        ).groups()
        assert head == title
        assert [float(low), float(high)] == pytest.approx(bounds, abs=6e-3)
        assert entry.dataset_args["target_trials"] == 300
        assert entry.dataset_args["nontarget_trials"] == 2000
        assert entry.dataset_type == "my-trials.txt"


def test_too_few_speakers_for_intervals(written):
    card = written(measurement=measure(n_speakers=5))
    assert "too few speakers for intervals" in card.text
    assert all("interval" not in e.metric_name for e in card.data.eval_results)
    assert card.data.eval_results[0].metric_args is None


def test_what_was_not_measured(written):
    card = written()
    assert {"model-index", "metrics"}.isdisjoint(card.data.to_dict())
    for heading in ("Threshold", "Results"):
        assert card.text.split(f"## {heading}\n\n")[1].startswith(
            "Not measured"
        )
    assert "det.png" not in card.text
    assert "It was measured on no trials." in card.text
    assert not re.search(r"\d %", card.text)


def test_thresholds_and_the_rates_at_them(written):
    """Counted by brute force."""
    measurement = measure()
    config = measured_config(measurement)
    card = written(config, measurement=measurement)
    found = rows(card.text, "Threshold")
    thresholds = [config.thresholds.eer]
    thresholds += config.thresholds.false_accepts.values()
    assert [row[0] for row in found] == [
        "equal error rate",
        "false accepts of 10 %",
        "false accepts of 1 %",
    ]
    for row, threshold in zip(found, thresholds, strict=True):
        accepts = sum(s > threshold for s in measurement.nontarget.tolist())
        rejects = sum(s <= threshold for s in measurement.target.tolist())
        assert row[1:] == [
            f"{threshold:.4f}",
            f"{100 * accepts / 2000:.2f} %",
            f"{100 * rejects / 300:.2f} %",
        ]
    assert "too few to tell a threshold at 0.1 % false accepts" in card.text
    assert f"score.item() > {thresholds[0]:.4f}" in card.text


def test_a_hyperbolic_threshold_is_not_given_for_cosines(written):
    measurement = measure()
    config = measured_config(measurement, score="hyperbolic")
    card = written(config, measurement=measurement)
    stock, ours = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert "> " not in stock and "cosine" in stock
    assert 'f"hyperbolic {' in ours
    assert "The stock class gives cosines" in card.text


def test_scores_of_another_kind_give_no_threshold(written):
    measurement = measure(protocol="the cosine, 5 crops of 3 s")
    card = written(measurement=measurement)
    assert rows(card.text, "Threshold") == []
    assert "scored by the cosine, 5 crops of 3 s, and" in card.text
    assert len(rows(card.text, "Results")) == 1


def test_training_speakers_in_the_trials_are_told(written):
    assert "None of the 12 speakers" in written(measurement=measure()).text
    card = written(measurement=measure(shared=3))
    assert "3 of the 12 speakers of the trials are training" in card.text


def test_training(written):
    text = " ".join(written(training_data="Read *speech*.").text.split())
    assert "Read *speech*. 148,642 utterances of 1,211 speakers, 340.4" in text
    assert "4,200,000 parameters" in text and "512 numbers" in text
    assert (
        "from scratch, 7 epochs; the weights are the mean of the last 5" in text
    )
    assert "Crops of 2.015 s, 256 in a batch" in text
    assert "noise and music from a generator, room responses from a f" in text
    assert f"`{TRAINING.classifier}`" in text and f"`{TRAINING.cost}`" in text
    assert "1/sqrt(4) = 0.500" in text
    assert "Fang and He" in text


def test_a_loss_that_is_not_hyperbolic(written):
    training = dataclasses.replace(
        TRAINING,
        loss="AM-Softmax",
        hyperbolic=False,
        classifier="CentreClassifier(similarity=Cosine())",
        fine_tuned=True,
        averaged=1,
        hours=0.5,
    )
    card = written(training=training)
    assert "hyperbolic" not in card.data.tags
    assert card.data.tags[-1] == "AM-Softmax"
    assert "Fang and He" not in card.text and "clip_c" not in card.text
    assert "Fine-tuned from another model, 7 epochs; the" in card.text
    assert "of the last." in card.text and "30.0 min" in card.text
    assert "was not stated" in card.text


@pytest.mark.parametrize(
    "options, message",
    [
        ({"license": "Apache 2.0"}, "license is 'Apache 2.0', expected"),
        ({"language": "English"}, "language is 'English', expected a code"),
        ({"datasets": ["a/b/c"]}, "datasets has 'a/b/c', expected the name"),
    ],
)
def test_metadata_that_the_hub_would_not_take(
    options, message, written, tmp_path
):
    with pytest.raises(InputError, match=message):
        written(**options)
    assert not (tmp_path / "README.md").exists()
