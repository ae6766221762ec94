"""Cells of the comparison: which are to do, who does them, what they found."""

import concurrent.futures
import contextlib
import datetime
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from typing import NamedTuple

import filelock
import numpy as np

from benchmarks import commit, machine
from benchmarks.losses import features, training
from benchmarks.losses.systems import find_system
from benchmarks.losses.trials import make_trials, measure, score
from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError

ROOT = pathlib.Path(__file__).parents[2]
HPARAMS = ROOT / "hparams"
RESULTS = "results.jsonl"
SCORES = "scores.npy"


class Cell(NamedTuple):
    """One training: what a line of results says of it."""

    system: str
    seed: int
    fold: int | None  # None: the trials are of the test speakers
    classes: int | None  # None: all


def settings_of(cell, made_from, common, device):
    """All that makes a result what it is, but for seed, fold and classes."""
    system = find_system(cell.system)
    return {
        "hparams": system.hparams,
        "overrides": {**training.SMALL, **common, **system.overrides},
        "common": {**training.SMALL, **common},
        "frames": training.FRAMES,
        "precision": training.PRECISION,
        "device": device.partition(":")[0],
        "features": made_from,
    }


def folder_name(cell, settings):
    """A name that differs wherever the result would."""
    text = json.dumps([cell, settings], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    system = re.sub(r"[^\w.]+", "_", cell.system)
    return f"{system}.{cell.seed}-{digest}"


def run_cell(cell, work_folder, common, device="cpu"):
    """Trains and measures, and appends a line to the results.

    Nothing is done if there is a result, or if another process is at work.
    """
    data = features.read(work_folder)
    settings = settings_of(cell, data.made_from, common, device)
    name = folder_name(cell, settings)
    folder = work_folder / "cells" / name
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(filelock.Timeout):
        with filelock.FileLock(folder / "cell.lock", timeout=0):
            if name in done(work_folder):
                return
            result = _measure(cell, data, settings, folder)
            line = json.dumps({"cell": name, **result}) + "\n"
            with filelock.FileLock(work_folder / "results.lock"):
                with open(work_folder / RESULTS, "a") as file:
                    file.write(line)


def _measure(cell, data, settings, folder):
    began, made_at = time.monotonic(), commit()
    resumed = (folder / "train_log.txt").is_file()
    selected = training.select(data.rows, cell.fold, cell.classes)
    trials = make_trials(selected[2])  # fails now rather than after training
    embeddings, figures = training.train(
        find_system(cell.system),
        cell.seed,
        selected,
        data.frames,
        settings,
        HPARAMS,
        folder,
    )
    scores = score(embeddings, trials)
    with atomic_path(folder / SCORES) as temporary:
        with open(temporary, "wb") as file:
            np.save(file, scores)
    now = datetime.datetime.now(datetime.UTC)
    return {
        **cell._asdict(),
        **figures,
        "settings": settings,
        "metrics": measure(scores, trials),
        "seconds": None if resumed else round(time.monotonic() - began),
        "time": now.isoformat(timespec="seconds"),
        "commit": made_at,
        "machine": machine(settings["device"]),
    }


def done(work_folder):
    """The names of the cells that have a result."""
    path = work_folder / RESULTS
    return {r["cell"] for r in read_results(path)} if path.is_file() else set()


def read_results(path):
    """The results in a file of JSON lines; a repeated cell counts once."""
    path = pathlib.Path(path)
    if path.is_dir():
        path = path / RESULTS
    if not path.is_file():
        raise InputError(f"{path} is missing: run the comparison first")
    results = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            result = json.loads(line)
            _, name = Cell(*(result[k] for k in Cell._fields)), result["cell"]
            find_system(result["system"])
            result["folder"] = path.parent / "cells" / name
            results[name] = result | {"metrics": dict(result["metrics"])}
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}, line {number} is no result: remove the line"
            ) from error
    return list(results.values())


def run_all(cells, work_folder, options, common, jobs, device):
    """Runs cells, each in a process of one thread; returns those not done."""
    made_from = features.read(work_folder).made_from
    names = {
        c: folder_name(c, settings_of(c, made_from, common, device))
        for c in cells
    }
    already = done(work_folder)
    waiting = [cell for cell in cells if names[cell] not in already]
    print(f"{len(waiting)} of {len(cells)} cells are to do", flush=True)
    running = []

    def start(cell):
        folder = work_folder / "cells" / names[cell]
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.losses", "cell"]
        command += [json.dumps(cell), *options]
        with open(folder / "log.txt", "a") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            running.append(process)
            failed = process.wait()
        clock = time.strftime("%H:%M:%S")
        said = f"failed, see {folder}/log.txt" if failed else "ended"
        print(clock, names[cell], said, flush=True)

    pool = concurrent.futures.ThreadPoolExecutor(jobs)
    try:
        list(pool.map(start, waiting))
    finally:  # also when this process is told to end
        pool.shutdown(wait=False, cancel_futures=True)
        for process in running:
            process.terminate()
    already = done(work_folder)
    return [names[cell] for cell in cells if names[cell] not in already]
