"""The model card: README.md with metadata for the Hub, from a template."""

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from speechbrain_hyperbolic.evaluation.metrics import metric_cell
from speechbrain_hyperbolic.evaluation.results import (
    format_results,
    interval_note,
    metrics_of,
)
from speechbrain_hyperbolic.inference.config import ModelConfig
from speechbrain_hyperbolic.inference.model import TRUSTED

TEMPLATE = pathlib.Path(__file__).with_name("model_card.md.j2")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What a verification says about the model."""

    trial_list: str
    results: dict[str, dict[str, Any]]  # as evaluation.results writes them
    target: np.ndarray  # scores
    nontarget: np.ndarray
    protocol: str  # how the trials were scored
    speakers: int
    shared: int  # how many of these are training speakers


def make_card(
    name: str,
    config: ModelConfig,
    training: dict[str, Any],
    measurement: Measurement | None = None,
    clips: bool = False,
    onnx: bool = False,
    training_data: str = "",
    license: str | None = None,
    language: Sequence[str] | None = None,
    datasets: Sequence[str] = (),
) -> ModelCard:
    """The card of a model; ``training`` has what its template asks for."""
    results = _eval_results(measurement) if measurement else None
    data = ModelCardData(
        model_name=name,
        language=list(language or ()) or None,
        license=license,
        library_name="speechbrain",
        # The Hub has no task for verification; this one has identification.
        pipeline_tag="audio-classification",
        tags=["speaker-verification", "speaker-recognition"]
        + ["hyperbolic"] * training["hyperbolic"]
        + [training["encoder"], training["loss"]],
        datasets=list(datasets) or None,
        metrics=["eer", "min_dcf"] if results else None,
        eval_results=results,
    )
    files = ["examples/clip1.wav", "examples/clip2.wav"]
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=name,
        config=config,
        training=training,
        measurement=measurement,
        table=format_results(measurement.results) if measurement else "",
        intervals=interval_note(measurement.results) if measurement else "",
        trusted=[name for name in config.classes if name not in TRUSTED],
        files=files if clips else ["a.wav", "b.wav"],
        clips=clips,
        onnx=onnx,
        training_data=training_data.strip(),
        languages=", ".join(language or ()),
    )


def _eval_results(measurement: Measurement) -> list[EvalResult]:
    """The metrics for the Hub; the EER in percent, as on other cards there."""
    entries = []
    for subset, result in measurement.results.items():
        name = f"{measurement.trial_list}, {subset}"
        for key in metrics_of(result):
            kind = key.rpartition("_")[0]
            entries.append(
                EvalResult(
                    task_type="speaker-verification",
                    task_name="Speaker Verification",
                    dataset_type=re.sub(r"[^\w.-]+", "-", name.lower()),
                    dataset_name=name,
                    metric_type=kind or "eer",
                    metric_name=metric_cell(key, 0)[0],
                    metric_value=round(result[key] * (1 if kind else 100), 6),
                )
            )
    return entries
