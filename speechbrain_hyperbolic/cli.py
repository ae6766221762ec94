"""The command ``sb-hyperbolic``: what people do daily with a trained model.

Exit codes: 0 done, or the same speaker; 1 different speakers, or an unknown
one; 2 something that was given is wrong, and one line says what; 3 a fault of
the program, with its traceback.
"""

import argparse
import json
import math
import os
import pathlib
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from speechbrain_hyperbolic.errors import InputError, exit_on_input_error

if TYPE_CHECKING:  # it takes seconds
    from speechbrain_hyperbolic.inference.recognition import (
        HyperbolicSpeakerRecognition,
    )


SAME, DIFFERENT, FAULT = 0, 1, 3
_MODEL = "SB_HYPERBOLIC_MODEL"
_RECIPES = pathlib.Path(__file__).with_name("recipes")

_EPILOG = f"""\
examples:
  sb-hyperbolic export results/demo my-model --verification results/demo/trained
  sb-hyperbolic verify a.wav b.wav --model my-model
  sb-hyperbolic enrol Ada ada1.wav ada2.wav --store voices --model my-model
  sb-hyperbolic identify someone.wav --store voices --model my-model
  sb-hyperbolic push my-model user/my-model
  sb-hyperbolic recipes my-recipes

A model is a folder that export made, or the name of one on the Hugging Face
Hub, user/model; --model can be left out where {_MODEL} names it.
exit codes: 0 done, or the same speaker; 1 different speakers, or unknown;
2 something that was given is wrong; 3 a fault of the program.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Arguments
    ---------
    arguments : list of str
        None: those of the process.

    Returns
    -------
    code : int
        The exit code.
    """
    options = make_parser().parse_args(arguments)
    with exit_on_input_error():
        try:
            return options.run(options)
        except InputError:
            raise
        except Exception:  # Python's own code for it, 1, would be an answer
            traceback.print_exc()
            return FAULT


def make_parser() -> argparse.ArgumentParser:
    """The options of all commands.

    Returns
    -------
    parser : argparse.ArgumentParser
    """
    parser = argparse.ArgumentParser(
        prog="sb-hyperbolic",
        description="Verify, enrol and identify speakers; export and share "
        "models.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        run: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(run.__name__, help=text, description=text)
        command.set_defaults(run=run)
        command.add_argument(
            "--json", action="store_true", help="print JSON, an object a line"
        )
        return command

    def add_model(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--model",
            default=os.environ.get(_MODEL),
            help=f"a folder, or user/model on the Hub (default: ${_MODEL})",
        )
        command.add_argument("--revision", help="of a model on the Hub")
        command.add_argument("--device", help="cpu or cuda (default: a GPU)")

    def add_threshold(command: argparse.ArgumentParser) -> None:
        which = command.add_mutually_exclusive_group()
        which.add_argument(
            "--threshold", type=float, help="accept scores above it"
        )
        which.add_argument(
            "--false-accepts",
            type=float,
            metavar="RATE",
            help="the model's threshold at this rate, e.g. 0.01 (default: its "
            "threshold at the equal error rate)",
        )

    command = add(verify, "Are two recordings of the same speaker?")
    command.add_argument("a")
    command.add_argument("b")
    add_model(command)
    add_threshold(command)

    command = add(enrol, "Add a speaker to a store of voiceprints.")
    command.add_argument("name")
    command.add_argument("files", nargs="+", metavar="file")
    command.add_argument("--store", required=True, help="made where missing")
    command.add_argument("--how", default="mean", choices=("mean", "midpoint"))
    add_model(command)

    command = add(identify, "Who of the enrolled speakers is it, or none?")
    command.add_argument("files", nargs="+", metavar="file")
    command.add_argument("--store", required=True)
    command.add_argument("--top", type=int, default=5, help="speakers shown")
    add_model(command)
    add_threshold(command)

    command = add(
        export, "Make a model folder, with a card, of a training run."
    )
    command.add_argument("run_folder", help="the training's output folder")
    command.add_argument("folder", help="to make")
    command.add_argument(
        "--verification", help="output folder of the verification of that run"
    )
    command.add_argument("--clips", nargs=2, metavar="file")
    command.add_argument("--training-data", default="", help="for the card")
    command.add_argument("--license", default="apache-2.0")
    command.add_argument("--language", nargs="+", help="e.g. en")
    command.add_argument("--datasets", nargs="+", default=[], help="on the Hub")
    command.add_argument("--onnx", action="store_true", help="model.onnx too")

    command = add(
        push,
        "Send a model folder to the Hugging Face Hub, with the names of the "
        "training speakers (label_encoder.txt). Log in first: hf auth login.",
    )
    command.add_argument("folder")
    command.add_argument("repo_id", metavar="user/model")
    command.add_argument("--private", action="store_true")
    command.add_argument("--revision", help="a branch (default: main)")
    command.add_argument("--message", help="of the commit")

    command = add(
        recipes, "Copy the recipes and their hparams, to edit and to run."
    )
    command.add_argument("folder", help="to make")
    return parser


def verify(options: argparse.Namespace) -> int:
    """Compares two recordings."""
    model = _load(options)
    assert model.config is not None  # of from_pretrained
    threshold = _threshold(model, options)
    a, b = (model.embed(path) for path in (options.a, options.b))
    score = model.score(a, b)
    same = score > threshold
    _say(
        options,
        f"{'same speaker' if same else 'different speakers'}: "
        f"{model.config.score} score {score:.3f}, threshold {threshold:.3f}",
        same=same,
        score=score,
        threshold=threshold,
        radius=[a.radius, b.radius],
        seconds=[a.seconds, b.seconds],
    )
    return SAME if same else DIFFERENT


def enrol(options: argparse.Namespace) -> int:
    """Adds a speaker to a store."""
    if os.path.isfile(options.name):
        raise InputError(
            f"{options.name} is a file, expected the name of a speaker first: "
            "enrol NAME FILE ..."
        )
    model = _load(options)
    from speechbrain_hyperbolic.inference.voiceprints import VoiceprintStore

    path = pathlib.Path(options.store)
    if path.exists():
        store = VoiceprintStore.load(path, model.fingerprint)
    else:
        store = VoiceprintStore(model.fingerprint)
    replaced = options.name in store
    store.add(options.name, model.enrol(options.files, how=options.how))
    store.save(path)
    _say(
        options,
        f"{options.name} {'replaced' if replaced else 'enrolled'} from "
        f"{len(options.files)} file(s): {len(store)} speaker(s) in {path}",
        name=options.name,
        replaced=replaced,
        files=len(options.files),
        speakers=len(store),
    )
    return 0


def identify(options: argparse.Namespace) -> int:
    """Looks for speakers in a store."""
    if not os.path.exists(options.store):
        raise InputError(f"{options.store} is missing: enrol a speaker first")
    model = _load(options)
    from speechbrain_hyperbolic.inference.voiceprints import VoiceprintStore

    store = VoiceprintStore.load(options.store, model.fingerprint)
    threshold = _threshold(model, options)
    unknown = False
    for path in options.files:
        found = model.identify(path, store, threshold, top=options.top)
        unknown |= found.name is None
        ranking = ", ".join(f"{n} {s:.3f}" for n, s in found.ranking)
        _say(
            options,
            f"{path}: {found.name or 'unknown'} (threshold {threshold:.3f}; "
            f"{ranking})",
            file=path,
            name=found.name,
            score=found.score,
            threshold=threshold,
            ranking=found.ranking,
        )
    return DIFFERENT if unknown else SAME


def export(options: argparse.Namespace) -> int:
    """Makes a model folder."""
    from speechbrain_hyperbolic.hub.export import export_run
    from speechbrain_hyperbolic.hub.onnx import check_packages, export_onnx

    if options.onnx:
        check_packages()  # before anything is replaced
    folder = export_run(
        options.run_folder,
        options.folder,
        verification_folder=options.verification,
        clips=options.clips,
        training_data=options.training_data,
        license=options.license,
        language=options.language,
        datasets=options.datasets,
    )
    if options.onnx:
        export_onnx(folder)
    files = sorted(
        p.relative_to(folder).as_posix() for p in folder.rglob("*.*")
    )
    _say(
        options,
        f"{folder}: {', '.join(files)}",
        folder=str(folder),
        files=files,
    )
    return 0


def push(options: argparse.Namespace) -> int:
    """Sends a model folder to the Hub."""
    from speechbrain_hyperbolic.hub.transfer import push_to_hub

    url = push_to_hub(
        options.folder,
        options.repo_id,
        private=options.private,
        revision=options.revision,
        commit_message=options.message,
    )
    _say(options, url, url=url)
    return 0


def recipes(options: argparse.Namespace) -> int:
    """Copies the recipes to a folder of the user's."""
    folder = pathlib.Path(options.folder)
    if folder.exists():
        raise InputError(f"{folder} is there already: name a new folder")
    unwanted = shutil.ignore_patterns("__pycache__", "results", ".*")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
            copy = f"{partial}/{folder.name}"
            shutil.copytree(_RECIPES, copy, ignore=unwanted)
            os.rename(copy, folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error}") from error
    scripts = sorted(str(path) for path in folder.glob("*/*.py"))
    _say(
        options,
        "\n".join(scripts),
        folder=str(folder),
        scripts=scripts,
    )
    return 0


def _load(options: argparse.Namespace) -> "HyperbolicSpeakerRecognition":
    if not options.model:
        raise InputError(
            f"there is no model: pass --model, or set {_MODEL}, to a folder "
            "that export made or to user/model on the Hub"
        )
    # SpeechBrain takes seconds to import, which --help need not wait for.
    from speechbrain_hyperbolic.inference.recognition import (
        HyperbolicSpeakerRecognition,
    )

    return HyperbolicSpeakerRecognition.from_pretrained(
        options.model,
        revision=options.revision,
        run_opts={"device": options.device} if options.device else None,
    )


def _threshold(
    model: "HyperbolicSpeakerRecognition", options: argparse.Namespace
) -> float:
    if options.threshold is not None:
        if not math.isfinite(options.threshold):
            raise InputError(f"--threshold is {options.threshold}: no number")
        return options.threshold
    return model.threshold_at(options.false_accepts)


def _say(options: argparse.Namespace, text: str, **fields: object) -> None:
    print(json.dumps(fields) if options.json else text)


if __name__ == "__main__":
    sys.exit(main())
