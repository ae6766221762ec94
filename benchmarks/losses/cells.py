"""Cells of the benchmark: where each is, who runs it, what it has found."""

import contextlib
import fcntl
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

from benchmarks.losses import features, scoring, training
from benchmarks.losses.systems import SYSTEMS
from benchmarks.measure import machine
from speechbrain_hyperbolic.dataio.files import atomic_path

ROOT = pathlib.Path(__file__).parents[2]
HPARAMS = ROOT / "hparams"
# Of the trials' utterances, in the folder of the training
EMBEDDINGS = "embeddings.npz"
# One thread a cell. What glibc gives back to the system it asks for again in
# the next step: half of a cell's time were page faults.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
}


def cell_name(system, seed, fold=None):
    """E.g. am.1, or am.1.fold2 where training speakers make the trials."""
    return f"{system}.{seed}" + ("" if fold is None else f".fold{fold}")


@contextlib.contextmanager
def claimed(path):
    """Whether this process is the only one at work on a cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def run_cell(system, seed, fold, data_folder, work_folder):
    """Trains and measures; the result is a line of JSON in a file of its own.

    Nothing is done where there is a result, or where another process is at
    work on it.
    """
    name = cell_name(system, seed, fold)
    path = work_folder / "cells" / f"{name}.jsonl"
    with claimed(work_folder / "locks" / name) as mine:
        if not mine or path.is_file():
            return
        began = time.monotonic()
        data = features.read(data_folder, work_folder)
        embeddings, rows = training.train(
            SYSTEMS[system],
            seed,
            data,
            fold,
            HPARAMS,
            work_folder / "trained" / name,
        )
        with atomic_path(work_folder / "trained" / name / EMBEDDINGS) as file:
            with open(file, "wb") as stream:
                ids = np.array([row["id"] for row in rows])
                np.savez(stream, utterances=ids, embeddings=embeddings)
        metrics, draws = scoring.measure(embeddings, rows, data.speakers)
        result = {
            "system": system,
            "seed": seed,
            "fold": fold,
            "corpus": pathlib.Path(data_folder).name,
            "hparams": SYSTEMS[system].hparams,
            "overrides": {**training.SMALL, **SYSTEMS[system].overrides},
            "commit": commit(),
            "machine": machine(),
            "seconds": round(time.monotonic() - began),
            "metrics": metrics,
            "draws": draws,
        }
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(result) + "\n")


def commit():
    """The commit of the code, with a + where it was changed since."""
    git = ["git", "-C", str(ROOT)]
    run = subprocess.run(
        [*git, "describe", "--always", "--abbrev=7", "--dirty=+"],
        capture_output=True,
        text=True,
    )
    return run.stdout.strip() or "unknown"


def run_all(cells, data_folder, work_folder, jobs):
    """Runs cells in processes of one thread each, as many at a time as jobs.

    Arguments
    ---------
    cells : list of tuple
        System, seed, fold.
    data_folder : pathlib.Path
    work_folder : pathlib.Path
    jobs : int

    Returns
    -------
    failed : list of str
        The cells whose process has ended in an error; their logs say which.
    """
    waiting, running, failed = list(cells), {}, []
    environment = {**ENVIRONMENT, **os.environ}
    logs = work_folder / "logs"
    logs.mkdir(exist_ok=True)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                system, seed, fold = waiting.pop(0)
                name = cell_name(system, seed, fold)
                if (work_folder / "cells" / f"{name}.jsonl").is_file():
                    continue
                command = [sys.executable, "-m", "benchmarks.losses", "cell"]
                command += [
                    system,
                    str(seed),
                    "-" if fold is None else str(fold),
                ]
                command += ["--data_folder", str(data_folder)]
                command += ["--work_folder", str(work_folder)]
                with open(logs / f"{name}.txt", "a") as log:
                    process = subprocess.Popen(
                        command,
                        cwd=ROOT,
                        env=environment,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
                running[name] = process
                print(time.strftime("%H:%M:%S"), "begins", name, flush=True)
            time.sleep(1)
            for name, process in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    if process.returncode:
                        failed.append(name)
                    said = "fails" if process.returncode else "done"
                    print(time.strftime("%H:%M:%S"), said, name, flush=True)
    finally:
        for process in running.values():
            process.terminate()
    return failed


def read_results(paths):
    """The results in files, or folders, of JSON lines."""
    results = []
    for path in map(pathlib.Path, paths):
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        for file in files:
            for line in file.read_text().splitlines():
                results.append(json.loads(line))
    return results
