"""The command ``sb-hyperbolic``: what people do daily with a trained model."""

import argparse
import gc
import json
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

# Its names are imported at first use: SpeechBrain takes seconds, too long for
# --help. For the same reason functions import here what they need.
import speechbrain_hyperbolic as sh
from speechbrain_hyperbolic.errors import InputError, exit_on_error, is_finite

SAME, DIFFERENT, FAULT = 0, 1, 3
_MODEL = "SB_HYPERBOLIC_MODEL"
_EPILOG = f"""\
A model is a folder that training or export made, or user/model on the Hugging
Face Hub. --model can be left out if {_MODEL} is set.

exit codes:
  0  done, or the same speaker
  1  different speakers, or unknown
  2  a wrong argument or file
  3  an internal error
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    options = make_parser().parse_args(arguments)
    # Clips are short, and threads that spin for work and collections during
    # imports would take most of the processor's time.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    gc.set_threshold(100_000)
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
        description="Verify and identify speakers, and share models.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=sh.__version__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    add = {}  # command -> its add_argument
    speaking = (verify, enroll, identify, embed, diarize)
    others = (speakers, export, push, recipes, check)
    for run in speaking + others:
        command = subparsers.add_parser(run.__name__, help=run.__doc__)
        command.set_defaults(run=run)
        add[run] = command.add_argument
        add[run]("--json", action="store_true", help="print JSON lines")
        if run in (verify, identify):
            either = command.add_mutually_exclusive_group().add_argument
            text = "accept scores above this (default: measured at the EER)"
            either("--threshold", type=float, help=text)
            text = "accept this share of other speakers, e.g. 1%% or 0.01"
            either("--false-accepts", type=rate, metavar="RATE", help=text)
    add[verify]("a", help="a recording of the speaker")
    add[enroll]("name", help="the speaker's name")
    for run in speaking:
        add[run]("files", nargs="+", metavar="file", help="files or folders")
        text = f"a folder, or user/model on the Hub (default: ${_MODEL})"
        add[run]("--model", default=os.environ.get(_MODEL), help=text)
        text = "one channel, from 0 (default: mean)"
        add[run]("--channel", type=int, help=text)
        add[run]("--revision", help="Hub branch, tag or commit")
        add[run]("--device", help="cpu, cuda or mps (default: a GPU, if any)")
    for run in (verify, enroll, identify, embed):
        text = "do not look for speech: embed all of a recording"
        add[run]("--no-vad", "--no_vad", action="store_true", help=text)
    for run in (enroll, identify, speakers):
        add[run]("--store", required=True, help="the file of voiceprints")
    for run in (export, push):
        text = "include the names of the training speakers"
        add[run]("--speaker-names", action="store_true", help=text)

    text = "add to the speaker's earlier files instead of replacing them"
    add[enroll]("--add", action="store_true", help=text)
    add[embed]("-o", "--output", required=True, help="the .npz file to write")
    text = "also write the scores of all pairs of files"
    add[embed]("--scores", action="store_true", help=text)
    add[diarize]("-o", "--output", help="the RTTM file to write")
    text = "how many there are (default: estimated)"
    add[diarize]("--speakers", type=int, metavar="N", help=text)
    text = "speakers to remove"
    add[speakers]("--remove", nargs="+", default=[], metavar="NAME", help=text)

    argument = add[export]
    argument("run_folder", help="the training's output folder")
    argument("folder", help="the model folder to create")
    text = "the verification's output folder (default: the run's own)"
    argument("--verification", dest="verification_folder", help=text)
    argument("--clips", nargs=2, metavar="file", help="two example recordings")
    argument("--training-data", default="", help="Markdown for the card")
    argument("--license", help="e.g. cc-by-4.0 (default: a terminal asks)")
    argument("--language", nargs="+", help="of the training data, e.g. en")
    argument("--datasets", nargs="+", default=[], help="their names on the Hub")
    argument("--onnx", action="store_true", help="also write model.onnx")
    text = "replace an earlier export"
    argument("--force", dest="overwrite", action="store_true", help=text)

    add[push]("folder", help="the model folder")
    add[push]("repo_id", metavar="user/model")
    add[push]("--private", action="store_true", help="only you can see it")

    add[recipes]("folder", help="the folder to create")

    add[check]("data_folder", metavar="data", help="a corpus: a folder or list")
    add[check]("--trials", help="a trial list")
    add[check](
        "--enrollment-file", help="the utterances of each model in the list"
    )
    text = "folder that names the speaker (1, 2, ...), or a regex with a group"
    add[check]("--speaker-level", "--speaker_level", help=text)
    return parser


def verify(options: argparse.Namespace) -> int:
    """Tell whether recordings are of the same speaker as the first one."""
    model = _load(options)
    threshold = _threshold(model, options)
    files = _find_files(options.files)
    enrolled = model.embed(options.a)
    code = SAME
    for path, tested in _each(files, model.embed):
        score = model.score(enrolled, tested)
        ratio = model.log_likelihood_ratio(enrolled, tested)
        same = score > threshold
        if not same:
            code = DIFFERENT
        text = f"{path}: " if len(files) > 1 else ""
        text += "same speaker" if same else "different speakers"
        text += f": {model.config.score} score {score:.3f}"
        text += f", threshold {threshold:.3f}"
        fields = {"same": same, "score": score, "threshold": threshold}
        if ratio is not None:
            text += f", log likelihood ratio {ratio:.2f}"
            fields["log_likelihood_ratio"] = ratio
        _say(options, text, file=path, **fields)
    return code


def enroll(options: argparse.Namespace) -> None:
    """Add a speaker to a store of voiceprints."""
    from speechbrain_hyperbolic.dataio.names import normalized

    name = normalized(options.name)
    if os.path.isfile(name):
        raise InputError(f"{name} is a file: enroll NAME FILE ...")
    model = _load(options)
    new = dict(_each(_find_files(options.files), model.embed))
    files = list(new)
    rows = [embedding.vector for embedding in new.values()]
    with sh.VoiceprintStore.update(options.store, model.fingerprint) as store:
        known = name in store.names
        if known and options.add:
            rows += list(store.embeddings(name))
            files += ["an earlier file"] * (len(rows) - len(files))
        store.add(name, model.voiceprint(rows), rows)
    if model.config.thresholds is not None and len(rows) > 1:
        for i, (file, row) in enumerate(zip(files, rows, strict=True)):
            others = model.voiceprint(rows[:i] + rows[i + 1 :])
            if (score := model.score(others, row)) <= model.threshold_at():
                _warn(
                    f"{file} does not agree with {name}'s other files (score "
                    f"{score:.3f}, threshold {model.threshold_at():.3f}): "
                    "check that all are of one speaker"
                )
    done = "extended" if options.add else "replaced"
    _say(
        options,
        f"{name} {done if known else 'enrolled'} in "
        f"{options.store}, which has {len(store)} speaker(s)",
        name=name,
        replaced=known and not options.add,
        files=len(rows),
        speakers=len(store),
    )


def speakers(options: argparse.Namespace) -> None:
    """List the speakers of a store, or remove some."""
    store = sh.VoiceprintStore.load(options.store)
    for name in options.remove:
        store.remove(name)
    if options.remove:
        store.save(options.store)
    for name in store.names:
        files = len(store.embeddings(name))
        _say(options, f"{name}: {files} file(s)", name=name, files=files)


def identify(options: argparse.Namespace) -> int:
    """Tell which enrolled speaker it is, if any."""
    model = _load(options)
    store = sh.VoiceprintStore.load(options.store, model.fingerprint)
    threshold = _threshold(model, options)
    code = SAME
    for path, found in _each(
        _find_files(options.files),
        lambda path: model.identify(path, store, threshold),
    ):
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


def embed(options: argparse.Namespace) -> None:
    """Write the embeddings of recordings to a file that NumPy reads."""
    import numpy as np

    from speechbrain_hyperbolic.dataio.files import atomic_path

    model = _load(options)
    found = dict(_each(_find_files(options.files), model.embed))
    vectors = np.stack([embedding.vector for embedding in found.values()])
    arrays = {
        "files": np.array(list(found)),
        "embeddings": vectors,
        "seconds": np.array([e.seconds for e in found.values()]),
    }
    if options.scores:
        arrays["scores"] = model.score_matrix(vectors, vectors)
    output = f"{options.output.removesuffix('.npz')}.npz"  # never a recording
    with atomic_path(output) as path, open(path, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    text = f"{output} has the embeddings of {len(found)} file(s)"
    _say(options, text, output=output, files=len(found))


def diarize(options: argparse.Namespace) -> None:
    """Tell who speaks when in recordings of several people."""
    model = _load(options)
    from speechbrain_hyperbolic.inference import diarization

    def turns_of(path: str) -> list[Any]:
        return diarization.diarize(model, path, speakers=options.speakers)

    found = dict(_each(_find_files(options.files), turns_of))
    for path, turns in found.items():
        for turn in turns:
            text = f"{turn.start:.2f} to {turn.stop:.2f} s: {turn.speaker}"
            text = f"{path}: {text}" if len(found) > 1 else text
            _say(options, text, file=path, **turn._asdict())
    if options.output:
        names = {pathlib.Path(p).stem: turns for p, turns in found.items()}
        same = len(names) < len(found)  # a/1.wav and b/1.wav
        output = f"{options.output.removesuffix('.rttm')}.rttm"
        diarization.write_rttm(output, found if same else names)


def export(options: argparse.Namespace) -> None:
    """Make a model folder to share, with a card, from a training run."""
    if options.license is None and sys.stdin.isatty() and sys.stdout.isatty():
        asked = "License of the model, e.g. cc-by-4.0 (Enter: not stated): "
        options.license = input(asked).strip() or None
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


def check(options: argparse.Namespace) -> None:
    """Show how a corpus and a trial list would be read; write nothing."""
    from speechbrain_hyperbolic.dataio.check import check

    found = check(**_arguments(options))
    text = "\n".join(f"{key}: {value}" for key, value in found.items())
    _say(options, text, **found)


def _load(options: argparse.Namespace) -> Any:
    if not options.model:
        raise InputError(f"no model is given: pass --model, or set {_MODEL}")
    model = sh.HyperbolicSpeakerRecognition.from_pretrained(
        options.model,
        revision=options.revision,
        run_opts={"device": options.device} if options.device else None,
    )
    model.vad = model.vad and not getattr(options, "no_vad", False)
    model.channel = options.channel
    return model


def _find_files(arguments: Sequence[str]) -> list[str]:
    """Files as they were given, and the audio files in folders."""
    from speechbrain_hyperbolic.dataio.walk import walk

    found = []
    for argument in arguments:
        if not os.path.isdir(argument):
            found.append(argument)
            continue
        some = sorted(p for _, p, _ in walk(pathlib.Path(argument), None, {}))
        if not some:
            raise InputError(f"{argument} is a folder without audio files")
        found += some
    return found


def _each(
    paths: Sequence[str], function: Callable[[str], Any]
) -> Iterator[tuple[str, Any]]:
    """Calls a function of every path, and passes over files it can't read.

    The error of a single file, or the last one if all fail, is raised.
    """
    passed_over = 0
    for path in paths:
        try:
            result = function(path)
        except (InputError, OSError) as error:
            passed_over += 1
            if passed_over == len(paths):
                raise
            _warn(f"{error}: passed over")
        else:
            yield path, result
    if passed_over:
        _warn(f"{passed_over} of {len(paths)} files were passed over")


def rate(text: str) -> float:
    """A rate such as 0.01, 1% or 0.5 %."""
    number, percent, _ = text.partition("%")
    share = float(number) / (100 if percent else 1)
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(
            f"{text} is not a rate between 0 and 1, such as 0.01 or 1%"
        )
    return share


def _threshold(model: Any, options: argparse.Namespace) -> float:
    if options.threshold is None:
        return model.threshold_at(options.false_accepts)
    if not is_finite(options.threshold):
        raise InputError(f"threshold is {options.threshold}, expected a number")
    return options.threshold


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    """The options that a command passes on to a function."""
    own = ("run", "json")
    return {k: v for k, v in vars(options).items() if k not in own}


def _say(options: argparse.Namespace, text: str, **fields: object) -> None:
    print(json.dumps(fields) if options.json else text)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
