"""Training examples per second of two processes against one, on a CPU.

> python -m benchmarks.processes

Each process has one thread, the same encoder and batch, and the processes of
a gloo group average their gradients. One, two, and two separate trainings,
which the machine alone slows down, take turns.
"""

import concurrent.futures
import math
import os
import pathlib
import statistics
import tempfile

from benchmarks import median_ratio, read_options, table
from benchmarks.corpus import write_recordings
from benchmarks.trainings import HPARAMS, SCRIPT, measure, options_of

SPEAKERS = 1211


CASES = {  # trainings at one time, processes of each
    "1": (1, 1),
    "2 of a group": (1, 2),
    "2 separate": (2, 1),
}


def step_of(outputs, options, steps, processes):
    """Seconds of a step of trainings that run at one time, of the slowest."""
    common = SCRIPT, HPARAMS / "ham_ecapa.yaml"

    def run(output):
        return measure(*common, output, options, steps, processes)["step"]

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return max(pool.map(run, outputs))


def main():
    options = read_options(
        __doc__, channels=128, batch_size=16, steps=10, rounds=3
    )
    os.environ["OMP_NUM_THREADS"] = "1"
    batch, steps = options.batch_size, options.steps
    times = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        recordings = write_recordings(folder / "recordings", 50, (2.1, 4))
        given = options_of(folder, recordings, 2 * batch, steps, SPEAKERS)
        given |= {
            "batch_size": batch,
            "channels": options.channels,
            "num_workers": 0,
            "wav_augment": "null",
            "device": "cpu",
            "distributed_backend": "gloo",
        }
        for number in range(options.rounds):
            for case, (trainings, processes) in CASES.items():
                names = (f"{number}-{case}-{i}" for i in range(trainings))
                outputs = [folder / name for name in names]
                times[case].append(step_of(outputs, given, steps, processes))
    rows = []
    for case, found in times.items():
        count = math.prod(CASES[case])
        speed = count * batch / statistics.median(found)
        ratio = count * median_ratio(times["1"], found)
        row = {"processes": case, "examples/s": speed}
        rows.append(row | {"as many as of one": ratio})
    print(table(rows))


if __name__ == "__main__":
    main()
