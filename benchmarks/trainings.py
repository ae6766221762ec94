"""Trainings by a real script, each in a process of its own, and measured."""

import json
import os
import pathlib
import runpy
import statistics
import subprocess
import sys
import time
import warnings

import speechbrain as sb
import torch

from benchmarks.corpus import write_tables
from speechbrain_hyperbolic.dataio.files import write_text
from speechbrain_hyperbolic.training.brain import SpeakerBrain

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "recipes" / "VoxCeleb" / "train_speaker_embeddings.py"
HPARAMS = ROOT / "hparams"
SENTENCE = 2.015  # seconds of a crop
WARM_UP, OBSERVED = 6, 3  # steps


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def observe(device, run):
    """Kernels (on a CPU, operations), their seconds, and waits for the GPU.

    The last is file -> how often. On a GPU the step runs twice.
    """
    cuda = device == "cuda"
    activity = torch.profiler.ProfilerActivity
    kind = activity.CUDA if cuda else activity.CPU
    wait(device)
    with torch.profiler.profile(activities=[kind]) as profile:
        run()
        wait(device)
    count, seconds = 0, 0.0
    for event in profile.key_averages():
        if "CUDA" in str(event.device_type):
            count += event.count
            seconds += event.self_device_time_total / 1e6
        elif not cuda and event.key.startswith("aten::"):
            count += event.count
    return count, seconds, waits(run) if cuda else {}


def waits(run):
    """Where the host waits for the GPU: file -> how often."""
    places = {}
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for warning in caught:
        if "synchronizing" in str(warning.message):
            path = pathlib.Path(warning.filename)
            name = f"{path.parent.name}/{path.name}:{warning.lineno}"
            places[name] = places.get(name, 0) + 1
    return places


class Meter:
    """Wraps a Brain's fit_batch, and ends the script when it has measured."""

    def __init__(self, path, steps):
        self.path, self.steps = pathlib.Path(path), steps
        self.ends, self.waits, self.losses, self.parts = [], [], [], {}

    def wrap(self, brain_class):
        original = brain_class.fit_batch

        def fit_batch(brain, batch):
            run = lambda: self.losses.append(original(brain, batch))  # noqa: E731
            self.step(brain, run)
            return self.losses[-1]

        brain_class.fit_batch = fit_batch

    def step(self, brain, run):
        began, number = time.perf_counter(), len(self.ends)
        device = brain.device_type
        if number < WARM_UP + self.steps:
            run()
        elif number == WARM_UP + self.steps:
            self.kernels = observe(device, run)
        else:
            self.take_apart(brain, run)
        wait(device)
        self.waits.append(began - self.ends[-1] if self.ends else 0)
        self.ends.append(time.perf_counter())
        if number == WARM_UP + self.steps + OBSERVED:
            self.write(device)
            sys.exit(0)

    def take_apart(self, brain, run):
        """Seconds from one module's end to the next, all waited for."""

        def mark(part):
            wait(brain.device_type)
            now = time.perf_counter()
            self.parts.setdefault(part, []).append(now - self.last)
            self.last = now

        handles = [
            brain.modules[name].register_forward_hook(
                lambda *_, name=name: mark(f"{name}, forward")
            )
            for name in ("mean_var_norm", "embedding_model", "classifier")
        ]
        handles.append(
            brain.modules["compute_features"].register_forward_pre_hook(
                lambda *_: mark("copy and augmentation")
            )
        )
        wait(brain.device_type)
        self.last = time.perf_counter()
        run()
        mark("cost, backward, optimizer")
        for handle in handles:
            handle.remove()

    def write(self, device):
        last = WARM_UP + self.steps
        step = (self.ends[last - 1] - self.ends[WARM_UP - 1]) / self.steps
        count, seconds, places = self.kernels
        memory = torch.cuda.max_memory_allocated() if device == "cuda" else 0
        result = {
            "loss": float(self.losses[0]),  # of the first batch
            "step": step,
            "wait": statistics.fmean(self.waits[WARM_UP:last]),
            "kernels": count,
            "busy": seconds / step,
            "places": places,
            "GiB": memory / 2**30,
            "parts": {k: statistics.median(v) for k, v in self.parts.items()},
        }
        write_text(self.path, json.dumps(result))


def main(path, steps, script, *arguments):
    """Runs a training script in this process, and measures if steps are."""
    if int(steps):
        meter = Meter(path, int(steps))
        for brain_class in (sb.Brain, SpeakerBrain):
            meter.wrap(brain_class)
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(pathlib.Path(script).parent))
    runpy.run_path(script, run_name="__main__")


def start(script, hparams, output, options, result="", steps=0, processes=1):
    """A training script in a process, or several; logs to output.log.

    An option of the value None is a flag.
    """
    own = [sys.executable, "-m"]
    if processes > 1:
        own += ["torch.distributed.run", "--standalone"]
        own += [f"--nproc_per_node={processes}", "-m"]
    own += ["benchmarks.trainings", result, steps, script]
    own += [hparams, f"--output_folder={output}"]
    own += [
        f"--{key}" if value is None else f"--{key}={value}"
        for key, value in options.items()
    ]
    paths = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    with open(f"{output}.log", "a") as log:
        return subprocess.Popen(
            [*map(str, own), "--noprogressbar"],
            cwd=pathlib.Path(script).parent,
            env=os.environ | {"PYTHONPATH": paths},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish(process, output):
    """Waits for a training."""
    if process.wait() != 0:
        error = pathlib.Path(f"{output}.log").read_text()[-2000:]
        raise RuntimeError(f"{output.name} has failed:\n{error}")


def measure(script, hparams, output, options, steps, processes=1):
    """What a Meter finds."""
    result = pathlib.Path(f"{output}.json")
    measured = result, steps, processes
    finish(start(script, hparams, output, options, *measured), output)
    return json.loads(result.read_text())


def options_of(folder, recordings, batch_size, steps, speakers):
    """Tables for so many steps, and the options to train on them."""
    rows = max((WARM_UP + steps + OBSERVED + 1) * batch_size, speakers)
    write_tables(folder, recordings, rows, speakers)
    return {
        "data_folder": folder,
        "verification_file": folder / "trials.txt",
        "train_annotation": folder / "train.csv",
        "valid_annotation": folder / "dev.csv",
        "skip_prep": True,
        "out_n_neurons": speakers,
        "batch_size": batch_size,
        "sentence_len": SENTENCE,
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
