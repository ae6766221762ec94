"""A small speaker-verification system from a folder of speech.

> python run.py                                    (a synthetic corpus: a demo)
> python run.py --data_folder=/path/to/corpus [--trials=/path/to/trials.txt]
> python run.py --data_folder=/path/to/corpus --hparams=am_ecapa.yaml

The corpus is speaker/[session/]utterance.{wav,flac,ogg,m4a}; without a trial
list, one is made. It runs, and shows, the commands of ../VoxCeleb: train an
encoder with HAM-Softmax, verify it untrained and trained. Another system of
../../hparams is trained in a folder of its own, on the same trials, and
compared. All other options go to the training, e.g. --number_of_epochs=30
--margin=0.1 --device=cpu --precision=bf16.
"""

import argparse
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time

import speechbrain as sb
import torch

from speechbrain_hyperbolic.dataio.corpus import read_corpus
from speechbrain_hyperbolic.dataio.files import lock_run, write_text
from speechbrain_hyperbolic.dataio.make_trials import make_trial_list
from speechbrain_hyperbolic.dataio.scores import read_score_table
from speechbrain_hyperbolic.dataio.trials import read_trials
from speechbrain_hyperbolic.errors import InputError, exit_on_error
from speechbrain_hyperbolic.evaluation import results
from speechbrain_hyperbolic.evaluation.bootstrap import (
    compare_score_files,
    format_comparison,
)
from speechbrain_hyperbolic.evaluation.plots import plot_det
from speechbrain_hyperbolic.hparams import (
    find_hparams,
    load_hparams,
    read_nodes,
    read_settings,
)
from speechbrain_hyperbolic.hub.export import export_model
from speechbrain_hyperbolic.hub.run_folder import loss_name
from speechbrain_hyperbolic.training.checks import (
    SCORE_FILE,
    check_training,
    no_trace_if_refused,
)
from speechbrain_hyperbolic.training.datasets import count_speakers, prepare
from speechbrain_hyperbolic.training.monitor import duration

HERE = pathlib.Path(__file__).resolve().parent
VOXCELEB = HERE.parent / "VoxCeleb"
HPARAMS = VOXCELEB / "hparams"  # in a copy of the recipes
if not HPARAMS.is_dir():
    HPARAMS = HERE.parents[1] / "hparams"  # in the repository

# Folders that hold a corpus's audio, whose own name says nothing
PARTS = {"audio", "wav", "aac", "flac", "data", "clips"}
# An hparams file made small enough for two CPU cores and some minutes
SMALL = {
    "channels": "96",
    "batch_size": "32",
    "number_of_epochs": "11",
    "lr_decay": "0.87",
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
    parser.add_argument("--hparams", default="ham_ecapa.yaml")
    options, extra = parser.parse_known_args()
    shared = pathlib.Path(
        options.output_folder or f"results/{name_of(options.data_folder)}"
    ).resolve()
    hparams_file = find_hparams(options.hparams, HPARAMS / "x")
    # Other systems have folders of their own in that of the first.
    is_first = hparams_file.stem == "ham_ecapa"
    output = shared if is_first else shared / hparams_file.stem
    data = pathlib.Path(options.data_folder or shared / "synthetic_corpus")
    trials = pathlib.Path(options.trials or shared / "trials.txt")
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
    given = {argument.partition("=")[0] for argument in extra}
    training = [
        hparams_file,
        *as_options({**paths, "output_folder": output}),
        *(f"--{k}={v}" for k, v in SMALL.items() if f"--{k}" not in given),
        *extra,
    ]

    with no_trace_if_refused(shared, SCORE_FILE):
        _, run_opts, overrides = sb.parse_arguments([*map(str, training)])
        settings = read_settings(hparams_file, overrides)
        check_training(settings, run_opts)
        clock = Clock(output / "seconds.txt")
        print(f"\n--- 1/3 preparing: {data}", flush=True)
        if options.data_folder is None:
            print("Synthetic speech by eSpeak NG: no recordings of people.")
            run(clock, HERE / "synthetic_speech.py", paths["data_folder"])
        with lock_run(output):  # which the training then does itself
            prepare_data(settings, trials)
    minutes = estimate(hparams_file, overrides, settings, run_opts)
    print(f"\n--- 2/3 training, {minutes}", flush=True)
    run(clock, VOXCELEB / "train_speaker_embeddings.py", *training)

    print("\n--- 3/3 verifying", flush=True)
    export_model(output, output / "untrained" / "model", untrained=True)
    models = {"untrained": "untrained/model", "trained": "model"}
    for system, model in models.items():
        verification = {
            **paths,
            "model_folder": output / model,
            "output_folder": output / system,
            "cache_folder": shared / "embeddings",
        }
        run(
            clock,
            VOXCELEB / "speaker_verification.py",
            HPARAMS / "verification.yaml",
            *as_options(verification),
            "--n_crops=0",
            *([f"--device={run_opts.device}"] if run_opts.device else []),
            *(o for o in training if str(o).startswith("--speaker_level")),
        )
    summarize(output, options.data_folder, clock.seconds())
    if not is_first:
        compare(shared, output)


def name_of(data_folder):
    """The name of a corpus; "audio" and the like are its parts."""
    if data_folder is None:
        return "synthetic_speech"
    path = pathlib.Path(data_folder).resolve()
    return path.parent.name if path.name in PARTS else path.name


class Clock:
    """The time of all sessions, kept in a file that a kill leaves."""

    def __init__(self, path):
        self.path, self.began = path, time.monotonic()
        if path.is_file():
            self.began -= float(path.read_text())

    def seconds(self):
        """Until now."""
        return time.monotonic() - self.began

    def save(self):
        """For the next session."""
        write_text(self.path, f"{self.seconds():.0f}\n")


def prepare_data(settings, trials):
    """Makes the trial list, prepares as the training will, checks both."""
    data_folder = settings["data_folder"]
    corpus = read_corpus(
        data_folder, settings.get("speaker_level"), outputs=trials.parent
    )
    if not trials.exists():
        make_trial_list(corpus, trials, check_audio=settings["check_audio"])
    listed = read_trials(trials, settings.get("enrollment_file"), corpus)
    results.check_both_classes(listed, trials)
    results.locate(listed, corpus, trials)
    prepare(settings)


def estimate(hparams_file, overrides, settings, run_opts):
    """The time that the training will take, from a step of it."""
    log = pathlib.Path(settings["train_log"])
    done = len(log.read_text().splitlines()) if log.is_file() else 0
    left = max(0, settings["number_of_epochs"] - done)
    overrides += f"\nout_n_neurons: {count_speakers(settings)}"
    hparams = load_hparams(hparams_file, overrides)
    modules = torch.nn.ModuleDict(hparams["modules"]).train()
    device = run_opts.device or sb.utils.distributed.infer_device()
    samples = int(hparams["sample_rate"] * hparams["sentence_len"])
    views = 1 if hparams.get("wav_augment") is None else 2
    waveforms = torch.randn(views * hparams["batch_size"], samples).to(device)
    lengths = torch.ones(len(waveforms), device=device)
    labels = torch.zeros(len(waveforms), 1, device=device)
    modules.to(device)
    for _ in range(2):  # the first is slower
        began = time.monotonic()
        x = modules["compute_features"](waveforms)
        x = modules["mean_var_norm"](x, lengths)
        x = modules["classifier"](modules["embedding_model"](x, lengths))
        hparams["compute_cost"](x, labels).backward()
        seconds = time.monotonic() - began
    with open(settings["train_annotation"]) as file:
        steps = sum(1 for _ in file) / hparams["batch_size"]
    resumed = f", {left} of its epochs are left" if done else ""
    return f"about {duration(left * steps * seconds)}{resumed}"


def as_options(paths):
    """Options with paths, quoted where YAML might not read them as text."""
    for key, path in paths.items():
        is_plain = re.fullmatch(r"[\w./-]+", str(path))
        yield f"--{key}={path if is_plain else json.dumps(str(path))}"


def run(clock, *command):
    """Runs a script as a user would, and shows how."""
    command = [str(part) for part in command]
    print(f"\n$ python {shlex.join(command)}", flush=True)
    # Threads that spin while they wait halve the speed of a shared core.
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ}
    with subprocess.Popen(
        [sys.executable, *command], env=environment
    ) as process:
        while process.returncode is None:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                clock.save()
    if process.returncode:
        sys.exit(process.returncode)
    clock.save()


def summarize(output, data_folder, seconds):
    """One screen: error rates before and after, and where things are."""
    rows, curves = {}, {}
    for system in ("untrained", "trained"):
        found = results.read_results(output / system / "results.json")
        rows |= {f"{system}, {name}": row for name, row in found.items()}
        table = read_score_table(output / system / "scores.txt")
        curves[system] = [table.scores[table.labels == k] for k in (1, 0)]
    title = name_of(data_folder)
    plot_det(curves, output / "det.png", title=title)
    nodes = read_nodes(output / "hyperparams.yaml")
    loss = loss_name(nodes["classifier"], nodes["compute_cost"])
    shown = shlex.quote(os.path.relpath(output))
    summary = (
        f"{loss} on {data_folder or 'synthetic speech (eSpeak NG)'}, "
        f"{duration(seconds)} in all; {results.interval_note(rows)}\n\n"
        f"{results.format_results(rows)}\n\n"
        f"model:     {output / 'model'} (loads in stock SpeakerRecognition)\n"
        f"DET curve: {output / 'det.png'}\n"
        f"scores:    {output / 'trained' / 'scores.txt'}\n\n"
        "Next: make a folder to share, and compare two recordings\n\n"
        f"    sb-hyperbolic export {shown} my-model\n"
        "    sb-hyperbolic verify a.wav b.wav --model my-model\n"
    )
    write_text(output / "summary.md", summary)
    print(f"\n{summary}")


def compare(first, second):
    """Two systems on the same trials, if the first has been verified."""
    files = [folder / "trained" / "scores.txt" for folder in (first, second)]
    if files[0].is_file():
        try:
            table = format_comparison(compare_score_files(*files))
        except InputError as error:  # too few speakers, or other trials
            table = f"Not compared: {error}."
        print(f"A: {first}\nB: {second}\n\n{table}\n")


if __name__ == "__main__":
    with exit_on_error():
        main()
