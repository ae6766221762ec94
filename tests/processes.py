"""Functions of a test in processes that are forked from it."""

import multiprocessing
import threading

import tqdm


def start(function, *arguments):
    """A process that runs it, and ends with the test's."""
    process = multiprocessing.get_context("fork").Process(
        target=_run, args=(function, *arguments), daemon=True
    )
    process.start()
    return process


def run_as_two(function, folder):
    """function(rank, folder) in each of two processes, which both succeed."""
    processes = [start(function, rank, folder) for rank in range(2)]
    for process in processes:
        process.join()
        assert process.exitcode == 0


def _run(function, *arguments):
    # The lock of the progress bars is shared by processes: one that is killed
    # while it draws would leave the test's own bars waiting for ever.
    tqdm.tqdm.set_lock(threading.RLock())
    function(*arguments)
