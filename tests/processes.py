"""Processes of a test."""

import multiprocessing
import os
import subprocess
import sys
import threading

import torch
import tqdm


def run_python(*arguments, **options):
    """A run of this Python that succeeds."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        **options,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def start(function, *arguments):
    """A process that runs it, and ends with the test's."""
    process = multiprocessing.get_context("fork").Process(
        target=_run, args=(function, *arguments), daemon=True
    )
    process.start()
    return process


def run_as_two(function, folder):
    """function(rank, folder) in two processes of a gloo group; both succeed."""
    processes = [start(_join, function, rank, folder) for rank in range(2)]
    for process in processes:
        process.join()
        assert process.exitcode == 0


def _join(function, rank, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.distributed.init_process_group(
        "gloo", f"file://{folder / 'rendezvous'}", rank=rank, world_size=2
    )
    function(rank, folder)
    torch.distributed.destroy_process_group()


def _run(function, *arguments):
    # Processes share the lock of the progress bars: one that is killed while
    # it draws would leave the test's own bars waiting forever.
    tqdm.tqdm.set_lock(threading.RLock())
    function(*arguments)
