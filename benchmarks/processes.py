"""Training examples per second of two processes against one, on a CPU.

> python -m benchmarks.processes

Each process has one thread, the same encoder and batch, and the processes of
a gloo group average their gradients, as under torchrun. One and two take turns.
The data stay in memory.
"""

import argparse
import os
import pathlib
import statistics
import tempfile
import time

import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.processing.features import InputNormalization

from benchmarks import commit, machine
from speechbrain_hyperbolic.lobes.classifiers import HyperbolicClassifier
from speechbrain_hyperbolic.nnet.losses import MarginSoftmax
from speechbrain_hyperbolic.nnet.margins import AdditiveMargin
from speechbrain_hyperbolic.training.brain import SpeakerBrain
from speechbrain_hyperbolic.training.processes import keep_freed_memory

SPEAKERS, SAMPLES = 1211, 32240
WARM_UP = 2  # steps


def train(rank, processes, folder, options):
    """A process's steps; each writes its seconds a step, CPU time too."""
    torch.set_num_threads(1)
    keep_freed_memory()
    run_opts = {"device": "cpu", "noprogressbar": True}
    if processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        place = f"file://{folder / 'rendezvous'}"
        torch.distributed.init_process_group(
            "gloo", place, rank=rank, world_size=processes
        )
        run_opts["distributed_backend"] = "gloo"
    torch.manual_seed(0)
    sizes = [*[options.channels] * 4, 3 * options.channels]
    head = HyperbolicClassifier(192, out_neurons=SPEAKERS)
    brain = SpeakerBrain(
        modules={
            "compute_features": Fbank(n_mels=80),
            "mean_var_norm": InputNormalization("sentence", std_norm=False),
            "embedding_model": ECAPA_TDNN(80, channels=sizes),
            "classifier": head,
        },
        opt_class=lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
        hparams={
            "classifier": head,
            "compute_cost": MarginSoftmax(AdditiveMargin()),
            "lr_annealing": None,
        },
        run_opts=run_opts,
    )
    brain._wrap_distributed()
    brain.init_optimizers()
    brain.modules.train()
    rows = [
        {
            "id": str(number),
            "sig": torch.randn(SAMPLES),
            "spk_id_encoded": torch.randint(SPEAKERS, (1,)),
        }
        for number in range(options.batch_size)
    ]
    times = []
    for step in range(WARM_UP + options.steps):
        began = time.perf_counter(), time.process_time()
        brain.step = step + 1
        brain.fit_batch(PaddedBatch(rows))
        ended = time.perf_counter(), time.process_time()
        times.append([b - a for a, b in zip(began, ended, strict=True)])
    torch.save(times[WARM_UP:], folder / f"{rank}.pt")
    if processes > 1:
        torch.distributed.destroy_process_group()


def measure(processes, options):
    """Examples per second of the processes together, and CPU s an example."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        arguments = processes, folder, options
        torch.multiprocessing.spawn(train, arguments, nprocs=processes)
        times = [torch.load(folder / f"{rank}.pt") for rank in range(processes)]
    seconds = statistics.median(
        max(t[0] for t in s) for s in zip(*times, strict=True)
    )
    work = statistics.median(t[1] for one in times for t in one)
    return processes * options.batch_size / seconds, work / options.batch_size


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.processes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"Commit {commit()}; {machine()}; {options}\n")
    found = {1: [], 2: []}
    for _ in range(options.rounds):
        for processes, results in found.items():
            results.append(measure(processes, options))
    print("| processes | examples/s | CPU seconds an example | two / one |")
    print("|---|---|---|---|")
    ratios = [b[0] / a[0] for a, b in zip(found[1], found[2], strict=True)]
    for processes, results in found.items():
        speed, work = (statistics.median(r) for r in zip(*results, strict=True))
        ratio = f"**{statistics.median(ratios):.2f}**" if processes == 2 else ""
        print(f"| {processes} | {speed:.2f} | {work:.4f} | {ratio} |")


if __name__ == "__main__":
    main()
