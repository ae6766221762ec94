"""The command ``sb-hyperbolic``: what people do daily with a trained model."""

import argparse
import json
import math
import os
import pathlib
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from speechbrain_hyperbolic import __version__
from speechbrain_hyperbolic.errors import InputError, exit_on_error

SAME, DIFFERENT, FAULT = 0, 1, 3
_MODEL = "SB_HYPERBOLIC_MODEL"
_EPILOG = f"""\
examples:
  sb-hyperbolic export results/demo my-model
  sb-hyperbolic verify a.wav b.wav --model my-model
  sb-hyperbolic enroll Ada ada1.wav ada2.wav --store voices --model my-model
  sb-hyperbolic identify someone.wav --store voices --model my-model
  sb-hyperbolic push my-model user/my-model
  sb-hyperbolic recipes my-recipes

A model is a folder that training or export made, or user/model on the Hugging
Face Hub. --model can be left out if {_MODEL} is set.

exit codes:
  0  done, or the same speaker      2  something that you gave is wrong
  1  different speakers or unknown  3  a fault of the program
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    options = make_parser().parse_args(arguments)
    try:
        with exit_on_error():
            return options.run(options)
    except Exception:  # Python's own exit code for it, 1, is an answer here
        traceback.print_exc()
        return FAULT


def make_parser() -> argparse.ArgumentParser:
    """The options of all commands."""
    parser = argparse.ArgumentParser(
        prog="sb-hyperbolic",
        description="Verify, enroll and identify speakers; export and share "
        "models.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    with_json = argparse.ArgumentParser(add_help=False)
    with_json.add_argument(
        "--json", action="store_true", help="print one JSON object per line"
    )
    with_model = argparse.ArgumentParser(add_help=False)
    with_model.add_argument(
        "--model",
        default=os.environ.get(_MODEL),
        help=f"a folder, or user/model on the Hub (default: ${_MODEL})",
    )
    with_model.add_argument("--revision", help="of a model on the Hub")
    with_model.add_argument("--device", help="cpu or cuda (default: a GPU)")
    with_threshold = argparse.ArgumentParser(add_help=False)
    either = with_threshold.add_mutually_exclusive_group()
    either.add_argument(
        "--threshold", type=float, help="accept scores above this"
    )
    either.add_argument(
        "--false-accepts",
        type=float,
        metavar="RATE",
        help="use the model's threshold at this rate of false accepts, e.g. "
        "0.01 (default: its threshold at the equal error rate)",
    )

    with_names = argparse.ArgumentParser(add_help=False)
    with_names.add_argument(
        "--speaker-names",
        action="store_true",
        help="include the names of the training speakers",
    )

    def add(run: Any, *parents: Any, aliases: Sequence[str] = ()) -> Any:
        command = commands.add_parser(
            run.__name__,
            help=run.__doc__,
            description=run.__doc__,
            parents=[*parents, with_json],
            aliases=aliases,
        )
        command.set_defaults(run=run)
        return command.add_argument

    argument = add(verify, with_model, with_threshold)
    argument("a")
    argument("b")

    argument = add(enroll, with_model, aliases=["enrol"])
    argument("name")
    argument("files", nargs="+", metavar="file")
    argument("--store", required=True, help="a file, made if it is missing")
    argument("--how", default="mean", choices=("mean", "midpoint"))

    argument = add(identify, with_model, with_threshold)
    argument("files", nargs="+", metavar="file")
    argument("--store", required=True, help="the file that enroll made")
    argument("--top", type=int, default=5, help="how many speakers to show")

    argument = add(export, with_names)
    argument("run_folder", help="the training's output folder")
    argument("folder", help="to make")
    argument(
        "--verification",
        dest="verification_folder",
        help="the output folder of its verification",
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

    argument = add(push, with_names)
    argument("folder")
    argument("repo_id", metavar="user/model")
    argument("--private", action="store_true", help="only you can see it")
    argument("--revision", help="a branch (default: main)")
    argument("--message", help="of the commit")

    add(recipes)("folder", help="to make")
    return parser


def verify(options: argparse.Namespace) -> int:
    """Tell whether two recordings are of the same speaker."""
    model = _load(options)
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


def enroll(options: argparse.Namespace) -> int:
    """Add a speaker to a store of voiceprints."""
    if os.path.isfile(options.name):
        raise InputError(
            f"{options.name} is a file, expected a speaker's name first: "
            "enroll NAME FILE ..."
        )
    model = _load(options)
    from speechbrain_hyperbolic.inference.voiceprints import VoiceprintStore

    voiceprint = model.enroll(options.files, how=options.how)
    with VoiceprintStore.update(options.store, model.fingerprint) as store:
        replaced = options.name in store
        store.add(options.name, voiceprint)
    _say(
        options,
        f"{options.name} {'replaced' if replaced else 'enrolled'} from "
        f"{len(options.files)} file(s): {len(store)} speaker(s) in "
        f"{options.store}",
        name=options.name,
        replaced=replaced,
        files=len(options.files),
        speakers=len(store),
    )
    return 0


def identify(options: argparse.Namespace) -> int:
    """Tell which enrolled speaker it is, if any."""
    if not os.path.exists(options.store):
        raise InputError(f"{options.store} is missing: enroll a speaker first")
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


def export(options: argparse.Namespace) -> int:
    """Make a model folder for others, with a card, from a run."""
    from speechbrain_hyperbolic.hub.export import export_run

    folder = export_run(**_arguments(options))
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [path.relative_to(folder).as_posix() for path in paths]
    text = f"{folder}: {', '.join(files)}"
    _say(options, text, folder=str(folder), files=files)
    return 0


def push(options: argparse.Namespace) -> int:
    """Send a model folder to the Hub; log in before: hf auth login."""
    from speechbrain_hyperbolic.hub.push import push_model

    url = push_model(**_arguments(options))
    _say(options, url, url=url)
    return 0


def recipes(options: argparse.Namespace) -> int:
    """Copy the recipes and their hparams, to edit and to run."""
    from speechbrain_hyperbolic.hparams import copy_recipes

    folder = pathlib.Path(copy_recipes(options.folder))
    scripts = sorted(str(path) for path in folder.glob("*/*.py"))
    _say(options, "\n".join(scripts), folder=str(folder), scripts=scripts)
    return 0


def _load(options: argparse.Namespace) -> Any:
    if not options.model:
        raise InputError(
            f"no model is given: pass --model, or set {_MODEL}, to a model "
            "folder or to user/model on the Hub"
        )
    # It imports SpeechBrain, which takes seconds: too long for --help.
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
    if not math.isfinite(options.threshold):
        raise InputError(
            f"--threshold is {options.threshold}, expected a finite number"
        )
    return options.threshold


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    """The options of a command that are those of a function."""
    own = ("run", "json")
    return {k: v for k, v in vars(options).items() if k not in own}


def _say(options: argparse.Namespace, text: str, **fields: object) -> None:
    print(json.dumps(fields) if options.json else text)


if __name__ == "__main__":
    sys.exit(main())
