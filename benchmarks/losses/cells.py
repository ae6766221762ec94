"""Cells of the comparison: which are to do, who does them, what they found."""

import concurrent.futures
import datetime
import hashlib
import json
import multiprocessing
import os
import pathlib
import re
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

HPARAMS = pathlib.Path(__file__).parents[2] / "hparams"
RESULTS, SCORES = "results.jsonl", "scores.npy"


class Cell(NamedTuple):
    """One training."""

    system: str
    seed: int
    fold: int | None  # None: the trials are of the test speakers
    classes: int | None  # None: all


def settings_of(system, made_from, common, device):
    """All that makes a result what it is, but for seed, fold and classes."""
    hparams, overrides = find_system(system)
    common = {**training.SMALL, **common}
    return {
        "hparams": hparams,
        "overrides": {**common, **overrides},
        "common": common,  # to all systems that are compared
        "frames": training.FRAMES,
        "precision": training.PRECISION,
        "device": device.partition(":")[0],
        "features": made_from,
    }


def name_of(cell, settings):
    """The name of a cell's folder, which differs wherever the result would."""
    text = json.dumps([cell, settings], sort_keys=True).encode()
    system = re.sub(r"[^\w.]+", "_", cell.system)
    return f"{system}.{cell.seed}-{hashlib.sha256(text).hexdigest()[:8]}"


def run_cell(cell, work_folder, common, device="cpu"):
    """Trains and measures, and appends a line to the results.

    Nothing is done if there is a result, or if another process is at work.
    Returns what was done.
    """
    data = features.read(work_folder)
    settings = settings_of(cell.system, data.made_from, common, device)
    name = name_of(cell, settings)
    folder = work_folder / "cells" / name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / "cell.lock", timeout=0):
            if name in done(work_folder):
                return f"{name} was done before"
            result = {"cell": name, **_measure(cell, data, settings, folder)}
            with (
                filelock.FileLock(work_folder / "results.lock"),
                open(work_folder / RESULTS, "a") as file,
            ):
                file.write(json.dumps(result) + "\n")
            return f"{name} is done"
    except filelock.Timeout:
        return f"{name} is at work in another process"


def _measure(cell, data, settings, folder):
    began, made_at = time.monotonic(), commit()
    resumed = (folder / "train_log.txt").is_file()
    selected = training.select(data.rows, cell.fold, cell.classes)
    trials = make_trials(selected[2])  # fails now rather than after training
    hparams = HPARAMS / settings["hparams"]
    embeddings, figures = training.train(
        cell.seed, selected, data.frames, settings, hparams, folder
    )
    scores = score(embeddings, trials)
    with atomic_path(folder / SCORES) as temporary:
        np.save(temporary, scores)
    return {
        **cell._asdict(),
        **figures,
        "settings": settings,
        "metrics": measure(scores, trials),
        "seconds": None if resumed else round(time.monotonic() - began),
        "time": datetime.datetime.now().astimezone().isoformat("T", "seconds"),
        "commit": made_at,
        "machine": machine(settings["device"]),
    }


def done(work_folder):
    """The names of the cells that have a result."""
    path = work_folder / RESULTS
    return {r["cell"] for r in read_results(path)} if path.is_file() else set()


def read_results(path):
    """The results in a file of JSON lines, or in a work folder."""
    path = pathlib.Path(path)
    path = path / RESULTS if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"{path} is missing: run the comparison first")
    results = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            result = json.loads(line)
            find_system(result["system"])
            result["folder"] = path.parent / "cells" / result["cell"]
            results[result["cell"]] = result
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}, line {number} is no result: remove the line"
            ) from error
    return list(results.values())


def run_all(cells, work_folder, common, device, jobs):
    """Runs cells, each in a process of one thread; one that fails is named."""
    os.environ["OMP_NUM_THREADS"] = "1"
    spawn = multiprocessing.get_context("spawn")
    same, failed = (work_folder, common, device), 0
    with concurrent.futures.ProcessPoolExecutor(jobs, spawn) as pool:
        running = {pool.submit(run_cell, c, *same): c.system for c in cells}
        try:
            for future in concurrent.futures.as_completed(running):
                error = future.exception()
                failed += error is not None
                said = f"a cell of {running[future]} has failed: {error}"
                said = future.result() if error is None else said
                print(time.strftime("%H:%M:%S"), said, flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        raise InputError(
            f"{failed} cells have failed: run the same command to try again"
        )
