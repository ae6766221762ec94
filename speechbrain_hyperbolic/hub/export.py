"""From a training run to a model folder, and to a folder for the Hub.

What a run left is read, never executed: its YAML as nodes, its weights by
``torch.load(weights_only=True)``.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import soundfile
import torch
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.corpus import speaker_of
from speechbrain_hyperbolic.dataio.files import StrPath, existing
from speechbrain_hyperbolic.dataio.scores import read_score_table
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.extraction import (
    Encoder,
    weights_fingerprint,
)
from speechbrain_hyperbolic.evaluation.plots import plot_det
from speechbrain_hyperbolic.evaluation.results import read_results
from speechbrain_hyperbolic.hparams import HPARAMS, read_nodes
from speechbrain_hyperbolic.hub.card import Measurement, make_card
from speechbrain_hyperbolic.hub.onnx import check_packages, export_onnx
from speechbrain_hyperbolic.hub.push import FILES, LABELS
from speechbrain_hyperbolic.hub.run_folder import (
    clip_c,
    describe_training,
    read_module,
    save_folder,
)
from speechbrain_hyperbolic.inference.config import (
    CONFIG,
    MODULES,
    ModelConfig,
    measure_thresholds,
    read_config,
)
from speechbrain_hyperbolic.inference.model import (
    build_modules,
    load_model,
    save_model,
)
from speechbrain_hyperbolic.training.checkpoints import average_epochs
from speechbrain_hyperbolic.training.checks import SCORE_FILE, TRAIN_LOG

logger = get_logger(__name__)

MODEL = "model"  # a run's own model folder
RESULTS = "results.json"
UNCALIBRATED = "uncalibrated.txt"


def export_model(
    run_folder: StrPath,
    folder: StrPath | None = None,
    untrained: bool = False,
) -> pathlib.Path:
    """Makes the model folder of a run, by this package or SpeechBrain."""
    run_folder = pathlib.Path(run_folder)
    folder = pathlib.Path(folder or run_folder / MODEL)
    nodes = read_nodes(run_folder / HPARAMS)
    modules: dict[str, Any] = {
        key: read_module(run_folder / HPARAMS, nodes, key) for key in MODULES
    }
    config = ModelConfig(
        **modules,
        sample_rate=int(nodes.get("sample_rate", 16000)),
        clip_c=clip_c(nodes) or 3.0,
    )
    if untrained:
        with torch.random.fork_rng():
            torch.manual_seed(int(nodes.get("seed", 0)))
            built = build_modules(config, config.classes)
        state = built["embedding_model"].state_dict()
    else:
        checkpoints = save_folder(run_folder, nodes)
        # A run of the stock file keeps the best and the last epoch only.
        count = int(nodes.get("epochs_to_average", 1))
        state = average_epochs(checkpoints, count)
    save_model(folder, config, state)
    return folder


def export_run(
    run_folder: StrPath,
    folder: StrPath,
    verification_folder: StrPath | None = None,
    clips: Sequence[StrPath] | None = None,
    speaker_names: bool = False,
    onnx: bool = False,
    overwrite: bool = False,
    **card: Any,
) -> pathlib.Path:
    """Makes a folder for others: model, thresholds, results, card.

    It appears whole or not at all, and its name becomes the model's. ``card``
    has what only the author knows, see ``make_card``.
    """
    run_folder, folder = pathlib.Path(run_folder), pathlib.Path(folder)
    if onnx:
        check_packages()
    model = run_folder / MODEL
    if overwrite and folder.resolve() == model.resolve():
        raise InputError(f"{folder} is the run's own model: name a new folder")
    _check_free(folder, overwrite)
    for file in (HPARAMS, TRAIN_LOG):
        existing(run_folder / file, "file of a training's output folder")
    nodes = read_nodes(run_folder / HPARAMS)
    training, speakers = describe_training(run_folder, nodes)
    if not (model / CONFIG).is_file():
        export_model(run_folder)
    config, modules = load_model(model, read_config(model).classes)
    encoder = modules["embedding_model"]
    state = encoder.state_dict()
    embed = Encoder(**modules)  # type: ignore[arg-type]
    training |= {
        "encoder": type(encoder).__name__.replace("_", "-"),
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "dimension": embed(torch.zeros(1, config.sample_rate)).shape[1],
    }
    measurement = None
    verified = _find_verification(run_folder, verification_folder, state)
    if verified:
        measurement, fields = _read_verification(verified, speakers)
        # What another verification gave the run's model does not fit.
        none: dict[str, Any] = dict.fromkeys(
            ("thresholds", "trials", "calibration")
        )
        config = dataclasses.replace(config, **none | fields)

    name = folder.resolve().name
    with _whole_folder(folder) as new:
        save_model(new, config, state)
        if speaker_names:
            labels = save_folder(run_folder, nodes) / LABELS
            shutil.copyfile(labels, new / LABELS)
        if verified and measurement:
            shutil.copyfile(verified / RESULTS, new / RESULTS)
            curve = {name: (measurement.target, measurement.nontarget)}
            plot_det(curve, new / "det.png", title=measurement.trial_list)
        for number, clip in enumerate(clips or (), start=1):
            (new / "examples").mkdir(exist_ok=True)
            waveform = audio.load(clip, config.sample_rate).numpy()
            path = new / "examples" / f"clip{number}.wav"
            soundfile.write(path, waveform, config.sample_rate)
        if onnx:
            export_onnx(new, trusted=config.classes)
        make_card(
            name,
            config,
            training,
            measurement,
            clips=clips is not None,
            onnx=onnx,
            **card,
        ).save(new / "README.md")
    if card.get("license") is None:
        logger.warning(
            "The card states no license: choose one that the training data "
            "allow, such as license='cc-by-4.0' (--license)."
        )
    return folder


def add_thresholds(folder: StrPath, verification_folder: StrPath) -> bool:
    """Gives a run's own model what its verification has measured, if any."""
    config, modules = load_model(folder, read_config(folder).classes)
    _, fields = _read_verification(pathlib.Path(verification_folder), set())
    config = dataclasses.replace(config, **fields)
    save_model(folder, config, modules["embedding_model"].state_dict())
    return bool(fields)


def _check_free(folder: pathlib.Path, overwrite: bool) -> None:
    """Refuses to replace anything but an earlier export."""
    names = {path.name for path in folder.glob("*")}
    exported = {name.split("/")[0] for name in (*FILES, LABELS)}
    is_export = overwrite and CONFIG in names and names <= exported
    if folder.is_file() or (names and not is_export):
        raise InputError(
            f"{folder} exists: name another folder; overwrite=True (--force) "
            "replaces an earlier export, if it has no other files"
        )


@contextlib.contextmanager
def _whole_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary folder that takes the place of ``folder`` on success."""
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=folder.parent, prefix=f".{folder.name}."
    ) as temporary:
        new = pathlib.Path(temporary) / folder.name
        new.mkdir()
        yield new
        if folder.exists():
            os.replace(folder, pathlib.Path(temporary) / "former")
        os.replace(new, folder)


def _find_verification(
    run_folder: pathlib.Path,
    given: StrPath | None,
    state: dict[str, torch.Tensor],
) -> pathlib.Path | None:
    """The folder of the verification of these weights."""
    pattern = f"*/{RESULTS}" if given is None else RESULTS
    results = sorted(pathlib.Path(given or run_folder).glob(pattern))
    fingerprint = weights_fingerprint(state)
    found = [
        path.parent
        for path in results
        if read_results(path)["all trials"].get("encoder") == fingerprint
    ]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(
            f"{run_folder} has several verifications ({names}): choose one as "
            "verification_folder (--verification)"
        )
    if found:
        return found[0]
    if given is not None:
        raise InputError(
            f"{given} has no verification of {run_folder}'s weights: verify "
            f"them with --model_folder={run_folder / MODEL}"
        )
    logger.warning(
        f"{run_folder} has no verification: no thresholds, no error rates; "
        f"for those, verify with --model_folder={run_folder / MODEL}"
    )
    return None


def score_steps(options: dict[str, Any]) -> list[str]:
    """How a verification with these options scores its trials."""
    what = "the speech of" if options.get("vad") else "whole"
    steps = [f"the {options['score']} score of {what} utterances"]
    if options["n_crops"]:
        length = float(options["crop_length"])
        steps.append(f"{options['n_crops']} crops of {length:g} s")
    if options["enrollment_file"]:
        how = options["enrollment"]
        steps.append(f"models of several utterances ({how})")
    if options["normalization"]:
        steps.append(str(options["normalization"]))
    if options["calibration_file"]:
        steps.append("calibration by logistic regression")
    return steps


def _read_verification(
    folder: pathlib.Path, training_speakers: set[str]
) -> tuple[Measurement, dict[str, Any]]:
    """The measurement, and the fields that it gives to the config."""
    options = read_nodes(folder / HPARAMS)
    table = read_score_table(folder / SCORE_FILE)
    target, nontarget = (table.scores[table.labels == n] for n in (1, 0))
    results = read_results(folder / RESULTS)
    total = results["all trials"]
    steps = score_steps(options)
    speakers = {speaker_of(name) for name in {*table.enroll, *table.test}}
    measurement = Measurement(
        trial_list=pathlib.Path(options["verification_file"]).name,
        results=results,
        target=target,
        nontarget=nontarget,
        protocol=", ".join(steps),
        speakers=len(speakers),
        shared=len(speakers & training_speakers),
    )
    calibration = None
    if options["calibration_file"]:
        calibration = json.loads((folder / "calibration.json").read_text())
        # Thresholds are of the scores before it.
        before = read_score_table(folder / UNCALIBRATED).scores
        target, nontarget = (before[table.labels == n] for n in (1, 0))
    if len(steps) > 1 + bool(calibration):
        logger.warning(
            f"{folder} was scored by {measurement.protocol}, which gives no "
            "thresholds: for those, verify with --n_crops=0 and no options"
        )
        return measurement, {}
    trials = {key: total[key] for key in ("n_target", "n_nontarget", "eer")}
    fields: dict[str, Any] = {
        "score": str(options["score"]),
        "thresholds": measure_thresholds(target, nontarget),
        "trials": {"list": measurement.trial_list, **trials},
        "calibration": calibration,
    }
    if options["clip_c"] is not None:
        fields["clip_c"] = float(options["clip_c"])
    return measurement, fields
