"""Training examples per second of two processes against one, on a CPU.

> python -m benchmarks.processes

Each process has one thread, the same encoder and batch, and the processes of
a gloo group average their gradients. One and two take turns.
"""

import os
import pathlib
import statistics
import tempfile

from benchmarks import median_ratio, read_options, table
from benchmarks.corpus import write_recordings
from benchmarks.trainings import HPARAMS, SCRIPT, measure, options_of

SPEAKERS = 1211


def main():
    options = read_options(
        __doc__, channels=128, batch_size=16, steps=10, rounds=3
    )
    os.environ["OMP_NUM_THREADS"] = "1"
    batch, steps = options.batch_size, options.steps
    times = {1: [], 2: []}
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
            for processes, found in times.items():
                output = folder / f"{processes}-{number}"
                run = SCRIPT, HPARAMS / "ham_ecapa.yaml", output, given, steps
                found.append(measure(*run, processes)["step"])
    rows = []
    for processes, found in times.items():
        speed = processes * batch / statistics.median(found)
        ratio = processes * median_ratio(times[1], found)
        row = {"processes": processes, "examples/s": speed}
        rows.append(row | {"as many as of one": ratio})
    print(table(rows))


if __name__ == "__main__":
    main()
