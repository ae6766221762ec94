"""The command ``sb-hyperbolic``: what people do daily with a trained model."""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from speechbrain_hyperbolic import __version__
from speechbrain_hyperbolic.errors import InputError, exit_on_error

SAME, DIFFERENT, FAULT = 0, 1, 3
_MODEL = "SB_HYPERBOLIC_MODEL"
_EPILOG = f"""\
A model is a folder that training or export made, or user/model on the Hugging
Face Hub. --model can be left out if {_MODEL} is set.

exit codes:
  0  done, or the same speaker
  1  different speakers, or unknown
  2  a wrong argument or file
  3  a fault of the program
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    options = make_parser().parse_args(arguments)
    try:
        with exit_on_error():
            return options.run(options) or 0
    except Exception:  # Python's own exit code for it, 1, is an answer here
        traceback.print_exc()
        return FAULT


def make_parser() -> argparse.ArgumentParser:
    """The options of all commands."""
    parser = argparse.ArgumentParser(
        prog="sb-hyperbolic",
        description="Verify and identify speakers, share models.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    add = {}  # command -> its add_argument
    for run in (verify, enroll, identify, export, push, recipes):
        command = subparsers.add_parser(run.__name__, help=run.__doc__)
        command.set_defaults(run=run)
        add[run] = command.add_argument
        add[run]("--json", action="store_true", help="print JSON lines")
        if run in (verify, identify):
            either = command.add_mutually_exclusive_group()
            either.add_argument(
                "--threshold", type=float, help="accept scores above this"
            )
            either.add_argument(
                "--false-accepts",
                type=float,
                metavar="RATE",
                help="use the threshold measured at this rate of false "
                "accepts, e.g. 0.01 (default: at the equal error rate)",
            )
    for run in (verify, enroll, identify):
        add[run](
            "--model",
            default=os.environ.get(_MODEL),
            help=f"a folder, or user/model on the Hub (default: ${_MODEL})",
        )
        add[run]("--revision", help="of a model on the Hub")
        add[run]("--device", help="cpu or cuda (default: a GPU, if any)")
    for run in (enroll, identify):
        add[run]("--store", required=True, help="the file of voiceprints")
    for run in (export, push):
        add[run](
            "--speaker-names",
            action="store_true",
            help="include the names of the training speakers",
        )

    add[verify]("a")
    add[verify]("b")
    add[enroll]("name")
    add[enroll]("files", nargs="+", metavar="file")
    add[enroll]("--how", default="mean", choices=("mean", "midpoint"))
    add[identify]("files", nargs="+", metavar="file")
    add[identify]("--top", type=int, default=5, help="speakers to show")

    argument = add[export]
    argument("run_folder", help="the training's output folder")
    argument("folder", help="the model folder to create")
    argument(
        "--verification",
        dest="verification_folder",
        help="the verification's output folder",
    )
    argument("--clips", nargs=2, metavar="file", help="two example recordings")
    argument("--training-data", default="", help="Markdown for the card")
    argument("--license", default="apache-2.0", help="(default: apache-2.0)")
    argument("--language", nargs="+", help="of the training data, e.g. en")
    argument("--datasets", nargs="+", default=[], help="their names on the Hub")
    argument("--onnx", action="store_true", help="also write model.onnx")
    argument(
        "--force",
        dest="overwrite",
        action="store_true",
        help="replace an earlier export",
    )

    add[push]("folder")
    add[push]("repo_id", metavar="user/model")
    add[push]("--private", action="store_true", help="only you can see it")
    add[push]("--revision", help="a branch (default: main)")
    add[push]("--message", help="of the commit")

    add[recipes]("folder", help="the folder to create")
    return parser


def verify(options: argparse.Namespace) -> int:
    """Tell whether two recordings are of the same speaker."""
    model = _load(options)
    threshold = _threshold(model, options)
    score = model.score(model.embed(options.a), model.embed(options.b))
    same = score > threshold
    _say(
        options,
        f"{'same speaker' if same else 'different speakers'}: "
        f"{model.config.score} score {score:.3f}, threshold {threshold:.3f}",
        same=same,
        score=score,
        threshold=threshold,
    )
    return SAME if same else DIFFERENT


def enroll(options: argparse.Namespace) -> None:
    """Add a speaker to a store of voiceprints."""
    if os.path.isfile(options.name):
        raise InputError(f"{options.name} is a file: enroll NAME FILE ...")
    model = _load(options)
    from speechbrain_hyperbolic.inference.voiceprints import VoiceprintStore

    voiceprint = model.enroll(options.files, how=options.how)
    with VoiceprintStore.update(options.store, model.fingerprint) as store:
        replaced = options.name in store.names
        store.add(options.name, voiceprint)
    _say(
        options,
        f"{options.name} {'replaced' if replaced else 'enrolled'} in "
        f"{options.store}, which has {len(store)} speaker(s)",
        name=options.name,
        replaced=replaced,
        speakers=len(store),
    )


def identify(options: argparse.Namespace) -> int:
    """Tell which enrolled speaker it is, if any."""
    model = _load(options)
    from speechbrain_hyperbolic.inference.voiceprints import VoiceprintStore

    store = VoiceprintStore.load(options.store, model.fingerprint)
    threshold = _threshold(model, options)
    code = SAME
    for path in options.files:
        found = model.identify(path, store, threshold, top=options.top)
        if found.name is None:
            code = DIFFERENT
        ranking = ", ".join(f"{n} {s:.3f}" for n, s in found.ranking)
        _say(
            options,
            f"{path}: {found.name or 'unknown'} (threshold {threshold:.3f}; "
            f"{ranking})",
            file=path,
            **found._asdict(),
        )
    return code


def export(options: argparse.Namespace) -> None:
    """Make a model folder to share, with a card, from a training run."""
    from speechbrain_hyperbolic.hub.export import export_run

    folder = export_run(**_arguments(options))
    _say(options, str(folder), folder=str(folder))


def push(options: argparse.Namespace) -> None:
    """Send a model folder to the Hub, after `hf auth login`."""
    from speechbrain_hyperbolic.hub.push import push_model

    url = push_model(**_arguments(options))
    _say(options, url, url=url)


def recipes(options: argparse.Namespace) -> None:
    """Copy the recipes and their hparams to a folder."""
    from speechbrain_hyperbolic.hparams import copy_recipes

    folder = copy_recipes(options.folder)
    _say(options, str(folder), folder=str(folder))


def _load(options: argparse.Namespace) -> Any:
    if not options.model:
        raise InputError(f"no model is given: pass --model, or set {_MODEL}")
    # Imported here, since SpeechBrain takes seconds: too long for --help.
    from speechbrain_hyperbolic.inference.recognition import (
        HyperbolicSpeakerRecognition,
    )

    return HyperbolicSpeakerRecognition.from_pretrained(
        options.model,
        revision=options.revision,
        run_opts={"device": options.device} if options.device else None,
    )


def _threshold(model: Any, options: argparse.Namespace) -> float:
    if options.threshold is None:
        return model.threshold_at(options.false_accepts)
    return options.threshold


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    """The options that a command passes on to a function."""
    own = ("run", "json")
    return {k: v for k, v in vars(options).items() if k not in own}


def _say(options: argparse.Namespace, text: str, **fields: object) -> None:
    print(json.dumps(fields) if options.json else text)


if __name__ == "__main__":
    sys.exit(main())
