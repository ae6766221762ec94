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
from benchmarks.measure import commit, machine
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError

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


def result_file(work_folder, name):
    """Where a cell's result is, a line of JSON."""
    return work_folder / "cells" / f"{name}.jsonl"


@contextlib.contextmanager
def claimed(path):
    """Whether this process is the only one at work on a cell.

    Arguments
    ---------
    path : pathlib.Path
        Of a file to lock.

    Yields
    ------
    mine : bool
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def settings_of(system, work_folder):
    """All that makes a result what it is, but for the seed and the fold."""
    return {
        "hparams": SYSTEMS[system].hparams,
        "overrides": {**training.SMALL, **SYSTEMS[system].overrides},
        "frames": training.FRAMES,
        "precision": training.PRECISION,
        "features": features.describe(work_folder),
    }


def is_done(system, seed, fold, work_folder):
    """Whether a cell has its result.

    Arguments
    ---------
    system : str
    seed : int
    fold : int or None
    work_folder : pathlib.Path

    Returns
    -------
    done : bool

    Raises
    ------
    InputError
        If it has one of other settings.
    """
    path = result_file(work_folder, cell_name(system, seed, fold))
    if not path.is_file():
        return False
    (before,) = read_results([path])
    if before["settings"] != settings_of(system, work_folder):
        raise InputError(
            f"{path} was measured with other settings than those of now: give "
            "another --work_folder"
        )
    return True


def run_cell(system, seed, fold, data_folder, work_folder):
    """Trains and measures, unless there is a result.

    Nothing is done where another process is at work on the cell.

    Arguments
    ---------
    system : str
    seed : int
    fold : int or None
    data_folder : pathlib.Path
    work_folder : pathlib.Path
    """
    name = cell_name(system, seed, fold)
    with claimed(work_folder / "locks" / name) as mine:
        if not mine or is_done(system, seed, fold, work_folder):
            return
        began, made_at = time.monotonic(), commit()
        folder = work_folder / "trained" / name
        data = features.read(data_folder, work_folder)
        embeddings, rows, resumed = training.train(
            SYSTEMS[system], seed, data, fold, HPARAMS, folder
        )
        with atomic_path(folder / EMBEDDINGS) as temporary:
            with open(temporary, "wb") as file:
                ids = np.array([row["id"] for row in rows])
                np.savez(file, utterances=ids, embeddings=embeddings)
        metrics, draws = scoring.measure(embeddings, rows, data.speakers)
        result = {
            "system": system,
            "seed": seed,
            "fold": fold,
            "corpus": data_folder.name,
            "settings": settings_of(system, work_folder),
            "features": features.digest(work_folder),
            "commit": made_at,
            "machine": machine(),
            "seconds": None if resumed else round(time.monotonic() - began),
            "metrics": metrics,
            "draws": draws,
        }
        with atomic_path(result_file(work_folder, name)) as temporary:
            temporary.write_text(json.dumps(result) + "\n")


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
    failed, elsewhere : list of str
        Cells whose process has ended in an error (their logs say which), and
        those that another run is at work on.
    """
    waiting = [cell for cell in cells if not is_done(*cell, work_folder)]
    running, failed, elsewhere = {}, [], []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                running[cell] = _start(cell, data_folder, work_folder)
                _say("begins", cell)
            time.sleep(0.5)
            for cell, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[cell]
                if process.returncode:
                    failed.append(cell_name(*cell))
                    _say("fails", cell)
                elif is_done(*cell, work_folder):
                    _say("done", cell)
                else:
                    elsewhere.append(cell_name(*cell))
                    _say("is done elsewhere", cell)
    finally:
        for process in running.values():
            process.terminate()
    return failed, elsewhere


def _start(cell, data_folder, work_folder):
    system, seed, fold = cell
    command = [sys.executable, "-m", "benchmarks.losses", "cell", system]
    command += [str(seed), "-" if fold is None else str(fold)]
    command += [f"--data_folder={data_folder}", f"--work_folder={work_folder}"]
    logs = work_folder / "logs"
    logs.mkdir(exist_ok=True)
    with open(logs / f"{cell_name(*cell)}.txt", "a") as log:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _say(what, cell):
    print(time.strftime("%H:%M:%S"), what, cell_name(*cell), flush=True)


def read_results(paths):
    """The results in files, or folders, of JSON lines.

    Arguments
    ---------
    paths : list of str or pathlib.Path

    Returns
    -------
    results : list of dict

    Raises
    ------
    InputError
        If there are none, one is torn or twice there, or its system is not
        one of ours.
    """
    results, seen = [], set()
    for path in map(pathlib.Path, paths):
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        for file in files:
            if not file.is_file():
                raise InputError(f"{file} is missing: no such file of results")
            for number, line in enumerate(file.read_text().splitlines(), 1):
                where = f"{file}, line {number}"
                try:
                    result = json.loads(line)
                    key = (result["system"], result["seed"], result["fold"])
                except (ValueError, KeyError, TypeError) as error:
                    raise InputError(f"{where} is no result") from error
                if result["system"] not in SYSTEMS:
                    raise InputError(f"{where}: {key[0]} is no system of ours")
                if key in seen:
                    raise InputError(
                        f"{where}: {cell_name(*key)} is there twice"
                    )
                seen.add(key)
                results.append(result)
    if not results:
        raise InputError(f"{', '.join(map(str, paths))}: there are no results")
    return results
