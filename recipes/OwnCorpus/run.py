#!/usr/bin/env python3
"""A small speaker-verification system from a folder of speech.

> python run.py                                    (a synthetic corpus: a demo)
> python run.py --data_folder=/path/to/corpus [--trials=/path/to/trials.txt]

The corpus is speaker/[session/]utterance.{wav,flac,ogg,m4a}; without a trial
list, one is made. It runs, and shows, the commands of ../VoxCeleb: train an
encoder with HAM-Softmax, verify it untrained and trained. What else is given
goes to the training, e.g. --number_of_epochs=30 --margin=0.1.
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

from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.dataio.make_trials import make_trial_list
from speechbrain_hyperbolic.dataio.run_lock import lock_run
from speechbrain_hyperbolic.dataio.scores import read_score_table
from speechbrain_hyperbolic.dataio.synthetic import make_synthetic_corpus
from speechbrain_hyperbolic.errors import InputError, exit_on_input_error
from speechbrain_hyperbolic.hparams import load_hparams
from speechbrain_hyperbolic.plots import plot_det
from speechbrain_hyperbolic.training import check_resumable, prepare
from speechbrain_hyperbolic.verification import (
    format_results,
    interval_note,
    read_results,
)

TRAIN = "train_speaker_embeddings.py"
VERIFY = "speaker_verification.py"
HPARAMS = {
    TRAIN: "hparams/ham_ecapa.yaml",
    VERIFY: "hparams/verification_ham_ecapa.yaml",
}
VOXCELEB = pathlib.Path(__file__).resolve().parents[1] / "VoxCeleb"

# What makes ham_ecapa.yaml small enough for two cores, no GPU, some minutes.
SMALL = {
    "channels": 96,
    "batch_size": 32,
    "number_of_epochs": 15,
    "lr_decay": 0.9,
    "num_workers": 1,
    "split_ratio": [90, 10],
    "check_audio": "decode",
    "noise_source": "generate",
    "rir_source": "generate",
}


def main():
    """Trains, verifies both encoders, and sums up."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data_folder", help="default: a synthetic corpus")
    parser.add_argument("--trials", help="default: a balanced list is made")
    parser.add_argument("--output_folder", help="default: results/CORPUS")
    options, extra = parser.parse_known_args()
    began = time.monotonic()
    overrides = parse(extra)
    corpus = pathlib.Path(options.data_folder or "synthetic_speech")
    output = pathlib.Path(options.output_folder or f"results/{corpus.name}")
    output = output.resolve()
    with lock_run(output):  # which the training then does itself
        training, verification = prepare_all(options, overrides, corpus, output)
    untrained = {"output_folder": output / "untrained", "pretrain_path": None}
    # The training first: it may refuse to go on, and then nothing has changed.
    run(TRAIN, training)
    run(VERIFY, {**verification, **untrained})
    run(VERIFY, {**verification, "output_folder": output / "trained"})
    summarize(output, options.data_folder, time.monotonic() - began)


def prepare_all(options, overrides, corpus, output):
    """Corpus, trials and CSV files; the options of the two scripts."""
    data = corpus.resolve()
    if options.data_folder is None:
        print("Synthetic speech by eSpeak NG: no recordings of people.")
        data = make_synthetic_corpus(output / "synthetic_corpus")
    trials = pathlib.Path(options.trials or output / "trials.txt").resolve()
    for path in (data, trials, output):
        if "=" in str(path):
            raise InputError(
                f"{path} has a '=' in its name, which SpeechBrain's command "
                "line does not take: choose another folder"
            )
    if "out_n_neurons" in overrides:
        raise InputError("out_n_neurons is counted here: leave it out")
    training = {
        "data_folder": str(data),
        "verification_file": str(trials),
        "output_folder": str(output),
        **SMALL,
        **overrides,
    }
    hparams_file = VOXCELEB / HPARAMS[TRAIN]
    hparams = load_hparams(hparams_file, training)
    resumes = check_resumable(hparams_file, training, hparams)
    if options.trials is None and not (resumes and trials.is_file()):
        make_trial_list(data, trials, check_audio=SMALL["check_audio"])
    # Prepared here as the training will, to count the speakers that are left.
    prepare(hparams)
    with open(hparams["train_annotation"], newline="") as file:
        speakers = {row["spk_id"] for row in csv.DictReader(file)}
    training["out_n_neurons"] = len(speakers)

    verification = {
        "data_folder": data,
        "verification_file": trials,
        "training": training,
        "n_crops": 0,
        "cache_folder": output / "embeddings",
    }
    return training, verification


def parse(arguments):
    """--key=value arguments as a dict, the values read as the scripts do."""
    pairs = {}
    for argument in arguments:
        key, equals, value = argument.removeprefix("--").partition("=")
        if not (argument.startswith("--") and equals):
            raise InputError(f"{argument!r} is not of the form --key=value")
        try:
            pairs[key] = load(value)
            passes = load(written(pairs[key])) == pairs[key]
        except (ruamel.yaml.YAMLError, ValueError, TypeError):
            passes = False
        if not passes:
            raise InputError(
                f"{argument!r} is not a number, text, list or mapping in YAML"
            )
    return pairs


def load(text):
    return ruamel.yaml.YAML(typ="safe").load(text)


def written(value):
    """Text that the scripts read as a value."""
    if not isinstance(value, str | os.PathLike):
        return json.dumps(value)
    text = str(value)
    try:
        plain = load(text) == text
    except (ruamel.yaml.YAMLError, ValueError):
        plain = False
    return text if plain else json.dumps(text)


def run(script, overrides):
    """Runs a recipe's script as a user would, in its folder."""
    command = [script, HPARAMS[script]]
    command += [f"--{key}={written(value)}" for key, value in overrides.items()]
    print(f"\n$ cd {VOXCELEB}\n$ python {shlex.join(command)}", flush=True)
    # Threads that wait by spinning halve the speed where a core is shared.
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ}
    code = subprocess.run(
        [sys.executable, *command], cwd=VOXCELEB, env=environment
    ).returncode
    if code:
        sys.exit(code)


def summarize(output, data_folder, seconds):
    """One screen: error rates before and after, and where things are."""
    rows, curves = {}, {}
    for system in ("untrained", "trained"):
        for subset, result in read_results(
            output / system / "results.json"
        ).items():
            rows[f"{system}, {subset}"] = result
        table = read_score_table(output / system / "scores.txt")
        curves[system] = (
            table.scores[table.labels == 1],
            table.scores[table.labels == 0],
        )
    plot_det(
        curves,
        output / "det.png",
        title=pathlib.Path(data_folder or "Synthetic speech").name,
    )
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
    with exit_on_input_error():
        main()
