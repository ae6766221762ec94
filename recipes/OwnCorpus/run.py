#!/usr/bin/env python3
"""A small speaker-verification system from a folder of speech.

> python run.py                                    (a synthetic corpus: a demo)
> python run.py --data_folder=/path/to/corpus [--trials=/path/to/trials.txt]

The corpus is speaker/[session/]utterance.{wav,flac,ogg,m4a}; without a trial
list, one is made. It runs, and shows, the commands of ../VoxCeleb: train an
encoder with HAM-Softmax, verify it untrained and trained. All other options go
to the training, e.g. --number_of_epochs=30 --margin=0.1.
"""

import argparse
import csv
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time

import ruamel.yaml
import speechbrain as sb

from speechbrain_hyperbolic.dataio.files import atomic_path, lock_run
from speechbrain_hyperbolic.dataio.make_trials import make_trial_list
from speechbrain_hyperbolic.dataio.scores import read_score_table
from speechbrain_hyperbolic.errors import InputError, exit_on_error
from speechbrain_hyperbolic.evaluation.plots import plot_det
from speechbrain_hyperbolic.evaluation.results import (
    format_results,
    interval_note,
    read_results,
)
from speechbrain_hyperbolic.hparams import load_hparams
from speechbrain_hyperbolic.hub.export import export_model
from speechbrain_hyperbolic.training.datasets import prepare

HERE = pathlib.Path(__file__).resolve().parent
VOXCELEB = HERE.parent / "VoxCeleb"
HPARAMS = VOXCELEB / "hparams"  # in a copy of the recipes
if not HPARAMS.is_dir():
    HPARAMS = HERE.parents[1] / "hparams"  # in the repository

# ham_ecapa.yaml made small enough for two CPU cores and some minutes
SMALL = {
    "channels": "96",
    "batch_size": "32",
    "number_of_epochs": "15",
    "lr_decay": "0.9",
    "num_workers": "1",
    "split_ratio": "[90, 10]",
    "check_audio": "decode",
    "noise_source": "generate",
    "rir_source": "generate",
}


def main():
    """Trains, verifies untrained and trained, and summarizes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data_folder", help="default: a synthetic corpus")
    parser.add_argument("--trials", help="default: a balanced list is made")
    parser.add_argument("--output_folder", help="default: results/CORPUS")
    options, extra = parser.parse_known_args()
    began = time.monotonic()
    name = pathlib.Path(options.data_folder or "synthetic_speech").name
    output = pathlib.Path(options.output_folder or f"results/{name}").resolve()
    data = pathlib.Path(options.data_folder or output / "synthetic_corpus")
    trials = pathlib.Path(options.trials or output / "trials.txt")
    paths = {
        "data_folder": data.resolve(),
        "verification_file": trials.resolve(),
    }
    for path in (*paths.values(), output):
        if "=" in str(path):
            raise InputError(
                f"{path} has a '=' in its name, which SpeechBrain's command "
                "line does not take: choose another folder"
            )

    if options.data_folder is None:
        print("Synthetic speech by eSpeak NG: no recordings of people.")
        run(HERE / "synthetic_speech.py", paths["data_folder"])
    given = {argument.partition("=")[0] for argument in extra}
    training = [
        HPARAMS / "ham_ecapa.yaml",
        *as_options({**paths, "output_folder": output}),
        *(f"--{k}={v}" for k, v in SMALL.items() if f"--{k}" not in given),
        *extra,
    ]
    with lock_run(output):  # which the training then does itself
        speakers = prepare_data(training)
    run(
        VOXCELEB / "train_speaker_embeddings.py",
        *training,
        f"--out_n_neurons={speakers}",
    )

    export_model(output, output / "untrained" / "model", untrained=True)
    models = {
        "untrained": output / "untrained" / "model",
        "trained": output / "model",
    }
    for system, model in models.items():
        verification = {
            **paths,
            "model_folder": model,
            "output_folder": output / system,
            "cache_folder": output / "embeddings",
        }
        run(
            VOXCELEB / "speaker_verification.py",
            HPARAMS / "verification.yaml",
            *as_options(verification),
            "--n_crops=0",
            *(option for option in extra if option.startswith("--device=")),
        )
    summarize(output, options.data_folder, time.monotonic() - began)


def prepare_data(training):
    """Makes the trial list, prepares as the training will, counts speakers."""
    hparams_file, _, overrides = sb.parse_arguments([*map(str, training)])
    hparams = load_hparams(hparams_file, overrides)
    trials = pathlib.Path(hparams["verification_file"])
    if not trials.exists():
        make_trial_list(
            hparams["data_folder"], trials, check_audio=hparams["check_audio"]
        )
    prepare(hparams)
    with open(hparams["train_annotation"], newline="") as file:
        return len({row["spk_id"] for row in csv.DictReader(file)})


def as_options(paths):
    """Options with paths, quoted where YAML would not read them as text."""
    for key, path in paths.items():
        text = str(path)
        try:
            plain = ruamel.yaml.YAML(typ="safe").load(f"k: {text}")
        except ruamel.yaml.YAMLError:
            plain = None
        yield f"--{key}={text if plain == {'k': text} else json.dumps(text)}"


def run(*command):
    """Runs a script as a user would, and shows how."""
    command = [str(part) for part in command]
    print(f"\n$ python {shlex.join(command)}", flush=True)
    # Threads that spin while they wait halve the speed of a shared core.
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ}
    code = subprocess.run([sys.executable, *command], env=environment)
    if code.returncode:
        sys.exit(code.returncode)


def summarize(output, data_folder, seconds):
    """One screen: error rates before and after, and where things are."""
    rows, curves = {}, {}
    for system in ("untrained", "trained"):
        results = read_results(output / system / "results.json")
        rows |= {f"{system}, {name}": row for name, row in results.items()}
        table = read_score_table(output / system / "scores.txt")
        target = table.labels == 1
        curves[system] = table.scores[target], table.scores[~target]
    title = pathlib.Path(data_folder or "Synthetic speech").name
    plot_det(curves, output / "det.png", title=title)
    summary = (
        f"HAM-Softmax on {data_folder or 'synthetic speech (eSpeak NG)'}, "
        f"{seconds / 60:.1f} minutes; {interval_note(rows)}\n\n"
        f"{format_results(rows)}\n\n"
        f"model:     {output / 'model'} (loads in stock SpeakerRecognition)\n"
        f"DET curve: {output / 'det.png'}\n"
        f"scores:    {output / 'trained' / 'scores.txt'}\n"
    )
    with atomic_path(output / "summary.md") as temporary:
        temporary.write_text(summary)
    print(f"\n{summary}")


if __name__ == "__main__":
    with exit_on_error():
        main()
