"""From a training run to a folder that is ready for the Hub.

What the run left is read, never evaluated: its YAML as nodes, its weights by
``torch.load(weights_only=True)``.
"""

import contextlib
import functools
import importlib.util
import json
import os
import pathlib
import pickle
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import soundfile
import torch
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.corpus import speaker_of
from speechbrain_hyperbolic.dataio.scores import read_score_table
from speechbrain_hyperbolic.dataio.synthetic import make_synthetic_corpus
from speechbrain_hyperbolic.dataio.tables import read_table
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.export import stock_node, write_hyperparams
from speechbrain_hyperbolic.hparams import HPARAMS, read_nodes, tag_of
from speechbrain_hyperbolic.hub.card import (
    CARD,
    DET,
    Measurement,
    Training,
    check_metadata,
    write_card,
)
from speechbrain_hyperbolic.inference.model_folder import (
    CONFIG,
    SCORES,
    WEIGHTS,
    ModelConfig,
    load_model,
    measure_thresholds,
    save_model,
)
from speechbrain_hyperbolic.metrics import P_TARGETS, eer, split_trials
from speechbrain_hyperbolic.plots import plot_det
from speechbrain_hyperbolic.scoring.extraction import weights_fingerprint
from speechbrain_hyperbolic.training import LABELS
from speechbrain_hyperbolic.verification import read_results

_Value = TypeVar("_Value")


logger = get_logger(__name__)

CHECKPOINT = "embedding_model.ckpt"
RESULTS = "results.json"
EXAMPLES = "examples"
_FILES = {CONFIG, WEIGHTS, CHECKPOINT, HPARAMS, LABELS, CARD}
_FILES |= {RESULTS, DET, EXAMPLES, "model.onnx"}  # which hub.onnx adds
_ENCODERS = {
    "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN": "ecapa",
    "speechbrain.lobes.models.Xvector.Xvector": "xvector",
    "speechbrain.lobes.models.ResNet.ResNet": "resnet",
}
_FEATURES = "speechbrain.lobes.features.Fbank"
_NORMALISATION = "speechbrain.processing.features.InputNormalization"
_SCORES = {
    "cosine": "the cosine",
    "hyperbolic": "the hyperbolic distance, negated,",
    "fused": "the mean of cosine and hyperbolic score",
}
_HYPERBOLIC = {
    "ClippedDistance",
    "ExactDistance",
    "SmoothDistance",
    "HyperbolicClassifier",
}

# Outputs of the classifier, margin, and whether it is above 0
_LOSSES = {
    ("distance", "AdditiveMargin", True): "HAM-Softmax",
    ("distance", "AdditiveMargin", False): "H-Softmax",
    ("cosine", "AdditiveMargin", True): "AM-Softmax",
    ("cosine", "AdditiveAngularMargin", True): "AAM-Softmax",
    ("cosine", "RealAdditiveMargin", True): "RAM-Softmax",
    ("product", "AdditiveMargin", False): "softmax",
}


def export_run(
    run_folder: str | pathlib.Path,
    folder: str | pathlib.Path,
    verification_folder: str | pathlib.Path | None = None,
    clips: Sequence[str | pathlib.Path] | None = None,
    training_data: str = "",
    license: str = "apache-2.0",
    language: str | list[str] | None = None,
    datasets: Sequence[str] = (),
) -> pathlib.Path:
    """Exports a trained model: for the stock class, for this package, for
    people.

    The folder appears whole, or not at all. An export that is there already is
    replaced; anything else is left alone.

    Arguments
    ---------
    run_folder : str or pathlib.Path
        What ``train_speaker_embeddings.py`` left: its output folder.
    folder : str or pathlib.Path
        Where the model is to be; its name is that of the model.
    verification_folder : str or pathlib.Path
        What ``speaker_verification.py`` left, for error rates and thresholds.
        None: the card says that they were not measured.
    clips : sequence of (str or pathlib.Path)
        Two recordings to try the model on; they are copied without their names
        and tags. None: synthetic ones, where ``espeakng-loader`` is installed.
    training_data : str
        What the model was trained on, for the card, in Markdown; say so where
        it's synthetic.
    license : str
        Of the model, as the Hub names it.
    language : str or list of str
        Codes of ISO 639, of the training data.
    datasets : list of str
        Names on the Hub, of the training data.

    Returns
    -------
    folder : pathlib.Path

    Raises
    ------
    InputError
        If a file of the run is missing or not of the form expected, the
        encoder is none of the stock's ECAPA-TDNN, x-vector and ResNet, the
        verification is of another model, or ``folder`` holds something else.
    """
    run_folder, folder = pathlib.Path(run_folder), pathlib.Path(folder)
    check_metadata(license, language, datasets)
    if clips is not None and len(clips) != 2:
        raise InputError(f"there are {len(clips)} clips, expected two")
    _check_replaceable(folder)
    _check_run(run_folder)

    run = read_nodes(run_folder / HPARAMS)
    encoder, arguments, fields = _read_model(run_folder / "model" / HPARAMS)
    measurement, score = None, {}
    if "clip_c" in run:
        score["clip_c"] = _plain(run["clip_c"], "clip_c")
    if verification_folder is not None:
        verified = pathlib.Path(verification_folder)
        measurement, score = _read_verification(verified, run_folder, run)
    config = _naming(
        run_folder,
        ModelConfig,
        **fields,
        encoder=encoder,
        encoder_arguments=arguments,
        **score,
    )
    state = _read_weights(run_folder / "model" / CHECKPOINT)
    if measurement:
        measured = measurement.results["all trials"].get("encoder")
        if measured not in (None, weights_fingerprint(state)):
            raise InputError(
                f"{verification_folder} is of other weights than "
                f"{run_folder / 'model'}: the run was trained on, so verify "
                "it again"
            )
    name = folder.resolve().name
    with _whole_folder(folder) as temporary:
        save_model(temporary, config, state)
        _, modules = load_model(temporary)
        _write_stock(temporary, config)
        shutil.copyfile(
            run_folder / "model" / CHECKPOINT, temporary / CHECKPOINT
        )
        shutil.copyfile(run_folder / "save" / LABELS, temporary / LABELS)
        if measurement:
            shutil.copyfile(
                verified / RESULTS,
                temporary / RESULTS,
            )
            # Not that of the verification, whose legend has a path.
            plot_det(
                {name: (measurement.target, measurement.nontarget)},
                temporary / DET,
                title=measurement.trial_list,
            )
        write_card(
            temporary / CARD,
            name,
            config,
            _read_training(run_folder, run, modules["embedding_model"], config),
            measurement,
            _write_clips(clips, temporary / EXAMPLES),
            training_data,
            license,
            language,
            datasets,
        )
    return folder


def _check_run(run_folder: pathlib.Path) -> None:
    wanted = [
        HPARAMS,
        "train_log.txt",
        f"save/{LABELS}",
        "save/train.csv",
        f"model/{HPARAMS}",
        f"model/{CHECKPOINT}",
    ]
    for name in wanted:
        if not (run_folder / name).is_file():
            raise InputError(
                f"{run_folder / name} is missing: expected the output folder "
                "of train_speaker_embeddings.py, after its end"
            )


def _check_replaceable(folder: pathlib.Path) -> None:
    if not (folder.exists() or folder.is_symlink()):
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is there already, and is no folder")
    names = {path.name for path in folder.iterdir()}
    if not names:
        return
    try:
        text = (folder / CONFIG).read_text(encoding="utf-8")
        ours = json.loads(text)["format"].startswith("speechbrain-hyperbolic")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        ours = False
    if not ours:
        raise InputError(
            f"{folder} is there already, and is no exported model: name "
            "another folder"
        )
    others = sorted(names - _FILES)
    if others:
        raise InputError(
            f"{folder} holds {others[0]}, which no export writes and a new one "
            "would delete: move it away, or name another folder"
        )


def _parent(folder: pathlib.Path) -> pathlib.Path:
    """Its folder, which is made where it is missing."""
    if pathlib.Path.cwd().is_relative_to(folder):
        raise InputError(
            f"{folder} is the folder that you are in: name one to make"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder.parent):
            return folder.parent
    except OSError as error:
        raise InputError(
            f"{folder} can't be written ({error.strerror}): name another folder"
        ) from error


@contextlib.contextmanager
def _whole_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary folder that takes the place of ``folder`` on success."""
    folder = folder.resolve()
    with tempfile.TemporaryDirectory(
        dir=_parent(folder), prefix=f".{folder.name}."
    ) as outer:
        new, old = pathlib.Path(outer) / "new", pathlib.Path(outer) / "old"
        new.mkdir()
        yield new
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(new, folder)
        except OSError:
            if old.exists():
                os.replace(old, folder)
            raise


def _naming(
    path: object, function: Callable[..., _Value], *args: Any, **kwargs: Any
) -> _Value:
    """Calls, and names the file in the message of an error."""
    try:
        return function(*args, **kwargs)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _read_model(
    path: pathlib.Path,
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The encoder's name and arguments, and the fields of its features."""
    nodes = read_nodes(path)
    expected = {
        "embedding_model": _ENCODERS,
        "compute_features": [_FEATURES],
        "mean_var_norm": [_NORMALISATION],
    }
    arguments = {}
    for key, classes in expected.items():
        node = nodes.get(key)
        found = _class(node)
        if found not in classes or not isinstance(node, dict):
            raise InputError(
                f"{path}: {key} is {found or 'no class'}, expected "
                f"{' or '.join(classes)} with arguments by name: other models "
                "can't be exported"
            )
        arguments[key] = {
            name: _naming(f"{path}: {key}", _plain, value, name)
            for name, value in node.items()
        }
    # The stock's defaults
    features = {"n_mels": 40, "sample_rate": 16000}
    features |= arguments["compute_features"]
    normalisation = {"norm_type": "global", "std_norm": True}
    normalisation |= arguments["mean_var_norm"]
    if normalisation != {"norm_type": "sentence", "std_norm": False}:
        raise InputError(
            f"{path}: mean_var_norm has {normalisation}, expected norm_type "
            "sentence and std_norm False alone"
        )
    other = sorted(features.keys() - {"n_mels", "sample_rate"})
    if other:
        raise InputError(
            f"{path}: compute_features has {other[0]}, expected n_mels and "
            "sample_rate alone"
        )
    encoder = _ENCODERS[_class(nodes["embedding_model"])]
    return encoder, arguments["embedding_model"], features


def _class(node: Any) -> str:
    """Of a node such as ``!new:torch.nn.Linear``; "" where it has none."""
    kind, _, name = tag_of(node).partition(":")
    return name if kind in ("!new", "!name") else ""


def _plain(node: Any, name: str) -> Any:
    """A node as what JSON can hold."""
    if tag_of(node) or not isinstance(
        node, (dict, list, str, bool, int, float, type(None))
    ):
        raise InputError(
            f"{name} is {tag_of(node) or node}, expected numbers, text and "
            "lists of them"
        )
    if isinstance(node, dict):
        return {str(key): _plain(value, name) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value, name) for value in node]
    for kind in (str, bool, int, float):
        if isinstance(node, kind):
            return kind(node)
    return None


def _describe(node: Any) -> str:
    """A node as Python would write it, with the classes' short names."""
    if isinstance(node, dict):
        inner = ", ".join(f"{k}={_describe(v)}" for k, v in node.items())
    elif isinstance(node, list):
        inner = ", ".join(map(_describe, node))
    else:
        inner = "" if tag_of(node) else str(node)
    if tag_of(node):
        return f"{tag_of(node).rpartition('.')[2]}({inner})"
    return f"[{inner}]" if isinstance(node, list) else inner


def _loss_name(classifier: str, cost: str) -> tuple[str, bool]:
    """The usual name of a loss, or its class, and whether it is hyperbolic."""
    classes = set(re.findall(r"(\w+)\(", f"{classifier} {cost}"))
    hyperbolic = bool(classes & _HYPERBOLIC)
    if "JointLoss" in classes:
        both = {"AdditiveMargin", "RealAdditiveMargin", "Cosine"} <= classes
        name = "E.H. AM-Softmax" if hyperbolic and both else "JointLoss"
        return name, hyperbolic
    if hyperbolic:
        outputs = "distance"
    else:
        outputs = "product" if "Dot" in classes else "cosine"
    margin = re.search(r"(\w+Margin)\((?:margin=)?([^,()]*)", cost)
    kind, value = margin.groups() if margin else ("", "")
    key = outputs, kind, value.strip() not in ("0", "0.0")
    return _LOSSES.get(key, cost.partition("(")[0]), hyperbolic


def _read_training(
    run_folder: pathlib.Path,
    run: dict[str, Any],
    encoder: torch.nn.Module,
    config: ModelConfig,
) -> Training:
    """What the run says of itself: a ``Training``."""
    setting = functools.partial(_value, run_folder / HPARAMS, run)
    classifier, cost = map(
        _describe, (setting("classifier"), setting("compute_cost"))
    )
    loss, hyperbolic = _loss_name(classifier, cost)
    rows = _read_rows(run_folder)
    log = (run_folder / "train_log.txt").read_text(encoding="utf-8")
    ended = re.findall(r"^epoch: (\d+)", log, re.MULTILINE)
    if not ended:
        raise InputError(
            f"{run_folder / 'train_log.txt'} has no epochs: expected a run "
            "that has ended"
        )
    epochs = int(ended[-1])
    return Training(
        parameters=sum(p.numel() for p in encoder.parameters()),
        dimension=_dimension(encoder, config),
        loss=loss,
        hyperbolic=hyperbolic,
        classifier=classifier,
        cost=cost,
        speakers=len({row["spk_id"] for row in rows}),
        utterances=len(rows),
        hours=sum(float(row["duration"]) for row in rows) / 3600,
        epochs=epochs,
        averaged=min(setting("epochs_to_average"), epochs),
        crop=float(setting("sentence_len")),
        batch=setting("batch_size"),
        noise=_sounds(setting("noise_source"), run_folder, "noise"),
        rooms=_sounds(setting("rir_source"), run_folder, "rir"),
        fine_tuned=run.get("pretrain_path") is not None,
    )


def _value(path: pathlib.Path, nodes: dict[str, Any], key: str) -> Any:
    if key not in nodes:
        raise InputError(f"{path} has no key {key}: expected one of our runs")
    return nodes[key]


def _read_rows(run_folder: pathlib.Path) -> list[dict[str, str]]:
    """Of the table of training utterances."""
    path = run_folder / "save" / "train.csv"
    rows = [row for _, row in read_table(path, ("spk_id", "duration"))]
    if not rows:
        raise InputError(
            f"{path} has no utterances: expected what the training wrote"
        )
    return rows


def _dimension(encoder: torch.nn.Module, config: ModelConfig) -> int:
    with torch.inference_mode():
        return encoder(torch.zeros(1, 100, config.n_mels)).shape[-1]


def _sounds(source: str, run_folder: pathlib.Path, kind: str) -> str:
    """Where augmentation was from, without the path."""
    if source == "generate" or (
        source == "download"
        and (run_folder / "save" / "generated" / kind).is_dir()
    ):
        return "a generator"
    if source == "download":
        return "the archive of SpeechBrain's recipe"
    return "a folder of recordings"


def _read_verification(
    folder: pathlib.Path, run_folder: pathlib.Path, run: dict[str, Any]
) -> tuple[Measurement, dict[str, Any]]:
    """The ``Measurement``, and what of it goes into the config."""
    for name in (HPARAMS, RESULTS, "scores.txt"):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder / name} is missing: expected the output folder of "
                "speaker_verification.py, after its end"
            )
    options = read_nodes(folder / HPARAMS)
    option = functools.partial(_value, folder / HPARAMS, options)
    _check_same_model(folder, option("pretrain_path"), run_folder, run)
    table = read_score_table(folder / "scores.txt")
    scores, is_target = split_trials(table.scores, table.labels)
    target, nontarget = scores[is_target], scores[~is_target]
    results = _check_results(folder / RESULTS, target, nontarget)
    training = {row["spk_id"] for row in _read_rows(run_folder)}
    speakers = {speaker_of(name) for name in {*table.enrol, *table.test}}
    protocol, plain = _scoring(option)
    measurement = Measurement(
        trial_list=pathlib.PurePosixPath(option("verification_file")).name,
        results=results,
        target=target,
        nontarget=nontarget,
        protocol=protocol,
        speakers=len(speakers),
        shared=len(speakers & training),
    )
    fields = {"clip_c": _plain(option("clip_c"), "clip_c")}
    if not plain:
        logger.warning(
            f"{folder} was scored by {protocol}: the model gets no threshold. "
            "For one, verify it again with --n_crops=0 and the defaults of "
            "the other scoring options, into another --output_folder"
        )
        return measurement, fields
    return measurement, {
        **fields,
        "score": str(option("score")),
        "thresholds": measure_thresholds(target, nontarget),
        "trials": _trials(measurement),
    }


def _check_same_model(
    folder: pathlib.Path,
    measured: str | None,
    run_folder: pathlib.Path,
    run: dict[str, Any],
) -> None:
    if measured is None:
        raise InputError(f"{folder} is of an untrained encoder: verify the run")
    # A folder may have moved since, and a path may be relative.
    outputs = [run_folder.resolve()]
    if "output_folder" in run:
        outputs.append(run["output_folder"])
    paths = {
        os.path.normpath(os.path.join(output, name))
        for output in outputs
        for name in ("save", "model")
    }
    if not {os.path.normpath(measured), os.path.abspath(measured)} & paths:
        raise InputError(
            f"{folder} is of the model in {measured}, and not of "
            f"{run_folder}: verify this one with "
            f"--pretrain_path={run_folder / 'model'}"
        )


def _check_results(
    path: pathlib.Path, target: np.ndarray, nontarget: np.ndarray
) -> dict:
    try:
        results = read_results(path)
        rate = results["all trials"]["eer"]
        if np.isclose(rate, eer(target, nontarget)[0], rtol=0, atol=1e-6):
            return results
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not as speaker_verification.py writes it: verify again"
        ) from error
    raise InputError(
        f"{path} has an EER of {rate}, and scores.txt beside it another one: "
        "verify again"
    )


def _scoring(option: Callable[[str], Any]) -> tuple[str, bool]:
    """How trials were scored, and whether it's the score of two recordings."""
    score = option("score")
    parts = [f"{_SCORES.get(score, score)} of whole utterances"]
    if option("n_crops"):
        length = float(option("crop_length"))
        parts.append(f"{option('n_crops')} crops of {length:g} s")
    if option("enrolment_file"):
        parts.append(f"models of several utterances ({option('enrolment')})")
    if option("normalisation"):
        parts.append(str(option("normalisation")))
    if option("calibration_file"):
        parts.append("calibrated by logistic regression")
    return ", ".join(parts), len(parts) == 1 and score in SCORES


def _trials(measurement: Measurement) -> dict[str, Any]:
    """As ``ModelConfig`` has them."""
    result = measurement.results["all trials"]
    intervals = result["intervals"] or {}
    trials: dict[str, Any] = {"list": measurement.trial_list}
    for key in ("n_target", "n_nontarget"):
        trials[key] = result[key]
    for key in ("eer", *(f"min_dcf_{p:g}" for p in P_TARGETS)):
        trials[key] = result[key]
        trials[f"{key}_interval"] = intervals.get(key)
    for kind in ("target", "nontarget"):
        scores = getattr(measurement, kind)
        trials[f"{kind}_mean"] = float(scores.mean())
        trials[f"{kind}_std"] = float(scores.std())
    return trials


def _read_weights(path: pathlib.Path) -> dict[str, torch.Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        message = " ".join(str(error).split())[:100]
        raise InputError(
            f"{path} is no whole file of weights ({message}): train or export "
            "the run again"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise InputError(f"{path} holds other things than weights")
    return state


def _write_stock(folder: pathlib.Path, config: ModelConfig) -> None:
    """The YAML anew: what else the run's had is not passed on."""
    classes = {name: path for path, name in _ENCODERS.items()}
    write_hyperparams(
        {
            "compute_features": stock_node(
                _FEATURES,
                {"n_mels": config.n_mels, "sample_rate": config.sample_rate},
            ),
            "mean_var_norm": stock_node(
                _NORMALISATION, {"norm_type": "sentence", "std_norm": False}
            ),
            "embedding_model": stock_node(
                classes[config.encoder], config.encoder_arguments
            ),
            # The stock class's own is for 16 kHz.
            "audio_normalizer": stock_node(
                "speechbrain.dataio.preprocess.AudioNormalizer",
                {"sample_rate": config.sample_rate},
            ),
        },
        folder / HPARAMS,
    )


def _write_clips(
    clips: Sequence[str | pathlib.Path] | None, folder: pathlib.Path
) -> str | None:
    """Writes clip1.wav and clip2.wav; what they are, or None without any."""
    if clips is not None:
        _copy_clips(clips, folder)
        return "The example clips were chosen by who exported the model"
    if importlib.util.find_spec("espeakng_loader") is None:
        logger.warning(
            "No example clips: pass two, or pip install espeakng-loader for "
            "synthetic ones"
        )
        return None
    with tempfile.TemporaryDirectory() as scratch:
        corpus = make_synthetic_corpus(
            pathlib.Path(scratch) / "corpus",
            progress=False,
            n_train=2,
            n_test=2,
            utterances=(2, 1),
        )
        _copy_clips(sorted(corpus.glob("*/*.wav"))[:2], folder)
    return (
        "The example clips are synthetic, two sentences of one voice of eSpeak "
        "NG: no person speaks"
    )


def _copy_clips(
    clips: Iterable[str | pathlib.Path], folder: pathlib.Path
) -> None:
    folder.mkdir()
    for number, path in enumerate(clips, start=1):
        waveform = audio.load(path)
        soundfile.write(folder / f"clip{number}.wav", waveform.numpy(), 16000)
