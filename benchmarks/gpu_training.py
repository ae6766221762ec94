"""The trainings of ``benchmarks.gpu``, each the real script in a process."""

import csv
import json
import os
import pathlib
import runpy
import signal
import statistics
import subprocess
import sys
import time
import warnings

import numpy as np
import soundfile
import speechbrain as sb
import torch

from benchmarks.throughput import STOCK, prepare
from speechbrain_hyperbolic.training.brain import SpeakerBrain
from speechbrain_hyperbolic.training.checkpoints import average_epochs

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "recipes" / "VoxCeleb" / "train_speaker_embeddings.py"
HAM = ROOT / "hparams" / "ham_ecapa.yaml"
RATE = 16000
WARM_UP, OBSERVED = 6, 3  # steps


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def observe(device, run):
    """Kernels (on a CPU, operations), their seconds, and waits for the GPU."""
    activity = torch.profiler.ProfilerActivity
    kind = activity.CUDA if device == "cuda" else activity.CPU
    wait(device)
    with torch.profiler.profile(activities=[kind]) as profile:
        run()
        wait(device)
    count, seconds = 0, 0.0
    for event in profile.key_averages():
        on_device = "CUDA" in str(event.device_type)
        if on_device or (device != "cuda" and event.key.startswith("aten::")):
            count += event.count
            own = "device" if on_device else "cpu"
            seconds += getattr(event, f"self_{own}_time_total") / 1e6
    return count, seconds, waits(device, run)


def waits(device, run):
    """Where the host waits for the GPU: file -> how often."""
    if device != "cuda":
        run()
        return {}
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
        self.path, self.steps = path, steps
        self.ends, self.waits, self.parts = [], [], {}

    def wrap(self, brain_class):
        original = brain_class.fit_batch

        def fit_batch(brain, batch):
            loss = []
            self.step(brain, lambda: loss.append(original(brain, batch)))
            return loss[-1]

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

    def take_apart(self, brain, run):
        """Seconds from one module's end to the next, all waited for."""

        def mark(part):
            wait(brain.device_type)
            now = time.perf_counter()
            self.parts.setdefault(part, []).append(now - self.last)
            self.last = now

        names = ["mean_var_norm", "embedding_model", "classifier"]
        handles = [
            brain.modules[name].register_forward_hook(
                lambda *_, name=name: mark(f"{name}, forward")
            )
            for name in names
        ]
        features = brain.modules["compute_features"]
        handles.append(
            features.register_forward_pre_hook(
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
        ends = self.ends[WARM_UP - 1 : WARM_UP + self.steps]
        periods = [b - a for a, b in zip(ends, ends[1:], strict=False)]
        waits = self.waits[WARM_UP : WARM_UP + self.steps]
        count, seconds, places = self.kernels
        cuda = device == "cuda"
        result = {
            "step": statistics.fmean(periods),
            "wait": statistics.fmean(waits),
            "kernels": count,
            # observe() runs a step twice, once under the profiler
            "busy": seconds / statistics.fmean(periods) if cuda else 0.0,
            "places": places,
            "GiB": torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0,
            "parts": {k: statistics.median(v) for k, v in self.parts.items()},
        }
        pathlib.Path(self.path).write_text(json.dumps(result))
        sys.exit(0)


def child(path, steps, script, *arguments):
    """Runs a training script in this process."""
    if int(steps):
        meter = Meter(path, int(steps))
        for brain_class in (sb.Brain, SpeakerBrain):
            meter.wrap(brain_class)
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(pathlib.Path(script).parent))
    runpy.run_path(script, run_name="__main__")


def start(script, hparams, *arguments, result=None, steps=0, **process):
    """A training script in a process, in its own folder."""
    folder = pathlib.Path(script).parent
    own = [sys.executable, "-m", "benchmarks.gpu_training"]
    own += [str(result), str(steps), str(script), str(hparams), *arguments]
    paths = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = os.environ | {"PYTHONPATH": paths}
    return subprocess.Popen(own, cwd=folder, env=environment, **process)


def write_corpus(folder, speakers, utterances, seconds):
    """Synthetic: a speaker is a tone in noise, and sounds to augment with."""
    generator = np.random.default_rng(0)
    noise = (2000 * generator.standard_normal(RATE * 60)).astype(np.int16)
    moments = np.arange(int(RATE * seconds[1]) + 1) / RATE
    for speaker in range(speakers):
        tone = 4000 * np.sin(2 * np.pi * (80 + speaker / 10) * moments)
        tone = tone.astype(np.int16)
        for number in range(utterances):
            length = int(RATE * generator.uniform(*seconds))
            place = generator.integers(len(noise) - length)
            path = folder / "corpus" / f"s{speaker:04}" / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = tone[:length] + noise[place : place + length]
            soundfile.write(path, samples, RATE)
    for kind, length in (("noise", 10 * RATE), ("rir", 4000)):
        rows = []
        for number in range(8):
            path = folder / f"{kind}{number}.wav"
            decay = np.exp(-np.arange(length) / 500) if kind == "rir" else 1
            samples = generator.standard_normal(length) * decay / 10
            soundfile.write(path, samples, RATE)
            rows.append([path.stem, length / RATE, path, "wav", ""])
        with open(folder / f"{kind}.csv", "w", newline="") as file:
            head = ["ID", "duration", "wav", "wav_format", "wav_opts"]
            csv.writer(file).writerows([head, *rows])
    (folder / "trials.txt").write_text("1 s0000/0 s0000/0\n")


def options_of(folder, table, speakers, options, stock_file=False):
    """What all trainings of a corpus are told."""
    channels = 16 if options.tiny else 1024
    found = [
        f"--data_folder={folder / 'corpus'}",
        f"--verification_file={folder / 'trials.txt'}",
        f"--train_annotation={table}",
        f"--valid_annotation={folder / 'dev.csv'}",
        "--skip_prep=True",
        f"--out_n_neurons={speakers}",
        f"--device={options.device}",
        "--noprogressbar",
    ]
    if not stock_file:
        found += ["--noise_source=generate", "--rir_source=generate"]
        for key in ("noise", "rir"):
            if f"data_folder_{key}:" in HAM.read_text():
                found.append(f"--data_folder_{key}={folder / key}")
        return [*found, f"--channels={channels}"]
    sizes = [*[channels] * 4, 3 * channels]
    return [
        *found,
        f"--embedding_model={{channels: {sizes}}}",
        f"--noise_annotation={folder / 'noise.csv'}",
        f"--rir_annotation={folder / 'rir.csv'}",
        "--prepare_noise_data=!name:builtins.dict",
        "--prepare_rir_data=!name:builtins.dict",
        "--sentence_len=2.015",  # as ours
    ]


def training(report, options):
    """Steps of the real script, in several precisions, and of the stock's."""
    speakers, batch, steps = (12, 4, 3) if options.tiny else (5994, 256, 40)
    batch = options.batch_size or batch
    folder = options.work / "training"
    write_corpus(folder, speakers, 2, (2.1, 2.4 if options.tiny else 3.0))
    rows = (WARM_UP + steps + OBSERVED + 3) * batch
    table = prepare(folder / "corpus", folder, max(rows, 2 * speakers))
    with open(table) as file:
        (folder / "dev.csv").write_text("".join(file.readlines()[: batch + 1]))
    runs = {"fp32": [], "bf16": ["--precision=bf16"]}
    runs["bf16, compiled encoder"] = ["--precision=bf16", "--compile"]
    runs["fp16"] = ["--precision=fp16"]
    if options.tiny:
        runs = {"bf16": runs["bf16"]}
    clone = os.environ.get("SPEECHBRAIN_CLONE")
    if clone:
        runs |= {"stock script and file, fp32": None, "stock, bf16": None}
    found, parts = [], []
    for name, more in runs.items():
        least = 60 if "compiled" in name else 30
        if report.left() < least and not options.tiny:
            found.append([name, *["no time"] * 7])
            continue
        script, hparams = SCRIPT, HAM
        if more is None:
            script = pathlib.Path(clone).resolve() / STOCK
            hparams = script.parent / "hparams" / "train_ecapa_tdnn.yaml"
            more = ["--precision=bf16"] if "bf16" in name else []
        else:
            more = [*more, f"--num_workers={options.num_workers}"]
        given = options_of(folder, table, speakers, options, script != SCRIPT)
        result = folder / "result.json"
        result.unlink(missing_ok=True)
        output = folder / name.replace(" ", "")
        with open(f"{output}.log", "w") as log:
            process = start(
                *(script, hparams, f"--output_folder={output}", *given, *more),
                f"--batch_size={batch}",
                result=result,
                steps=steps,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            process.wait()
        if not result.is_file():
            error = pathlib.Path(f"{output}.log").read_text()[-2000:]
            raise RuntimeError(f"{name} has failed:\n{error}")
        its = json.loads(result.read_text())
        ours = sum(n for p, n in its["places"].items() if "hyperbolic" in p)
        found.append([name, 1 / its["step"], batch / its["step"]])
        found[-1] += [100 * its["wait"] / its["step"], 100 * its["busy"]]
        found[-1] += [its["kernels"], f"{sum(its['places'].values())}, {ours}"]
        found[-1] += [its["GiB"]]
        parts += [[name, part, 1e3 * s] for part, s in its["parts"].items()]
    columns = ["run", "steps/s", "utterances/s", "% waiting for data"]
    columns += ["% GPU busy", "kernels", "waits, of ours", "GiB"]
    title = f"Training, ECAPA, batch of {batch} utterances and as many copies"
    report.add(title, columns, found)
    report.add("Where a step goes", ["run", "part", "ms"], parts)


def resume(report, options):
    """Final weights of a run, again, killed and resumed; also deterministic."""
    folder = options.work / "resume"
    write_corpus(folder, 6, 8, (1.0, 1.6))
    table = folder / "train.csv"
    table.write_text("")
    others = ("--train_ann", "--valid_ann", "--skip", "--out_n", "--channels")
    given = [
        option
        for option in options_of(folder, table, 6, options)
        if not option.startswith(others)
    ]
    given += ["--batch_size=8", "--number_of_epochs=2", "--sentence_len=0.8"]
    given += ["--split_ratio=[80, 20]", "--num_workers=1"]
    given += ["--ckpt_interval_minutes=0", "--ckpt_interval_steps=2"]
    (folder / "trials.txt").write_text("1 x/0 x/1\n")

    def train(name, *more):
        log = open(folder / f"{name}.log", "a")
        output = f"--output_folder={folder / name}"
        return start(
            *(SCRIPT, HAM, output, *given, *more, "--channels=64"),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    rows, weights = [], {}
    kinds = {"as given": [], "deterministic": ["--deterministic=True"]}
    for kind, more in kinds.items():
        names = [f"{kind} {n}".replace(" ", "-") for n in ("a", "b", "killed")]
        running = [train(name, *more) for name in names]
        saves = folder / names[2] / "save"
        while not list(saves.glob("CKPT*")) and running[2].poll() is None:
            time.sleep(0.02)
        killed = running[2].poll() is None
        if killed:
            os.killpg(running[2].pid, signal.SIGKILL)
        running[2].wait()
        running[2] = train(names[2], *more)
        for name, process in zip(names, running, strict=True):
            if process.wait() != 0:
                log = (folder / f"{name}.log").read_text()
                raise RuntimeError(f"{name} has failed:\n{log[-2000:]}")
            saved = folder / name / "save"
            state = average_epochs(saved, 1, "embedding_model")
            weights[name] = torch.cat([v.flatten() for v in state.values()])
        whole, again, resumed = (weights[name] for name in names)
        for what, other in (("again", again), ("killed, resumed", resumed)):
            rows.append([kind, what, bool(torch.equal(whole, other))])
            rows[-1] += [float((whole - other).abs().max()), killed]
    columns = ["setting", "run", "equal bit by bit"]
    columns += ["largest difference of a weight", "was killed"]
    report.add("Resumption, against a whole run", columns, rows)


if __name__ == "__main__":
    child(*sys.argv[1:])
