"""The recipes' scripts, each in a process of its own.

They are forked from a server that has imported what takes seconds to import.
"""

import contextlib
import multiprocessing
import os
import pathlib
import runpy
import signal
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[1]
VOXCELEB = ROOT / "recipes" / "VoxCeleb"
TRAIN = VOXCELEB / "train_speaker_embeddings.py"

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    [
        "matplotlib.pyplot",
        "speechbrain.lobes.models.ECAPA_TDNN",
        "speechbrain_hyperbolic.augment",
        "speechbrain_hyperbolic.dataio.noise",
        "speechbrain_hyperbolic.evaluation.results",
        "speechbrain_hyperbolic.hub.export",
        "speechbrain_hyperbolic.lobes.classifiers",
        "speechbrain_hyperbolic.training.brain",
        "speechbrain_hyperbolic.training.datasets",
        "torch._dynamo",  # which an optimizer imports
    ]
)


class Script:
    """A script that runs beside the test, until the end of a ``with``.

    ``log`` is the file of its output; ``arguments`` are the script's path and
    its own; ``first`` is called in its process before it starts.
    """

    def __init__(self, log, *arguments, first=None):
        self.log = log
        log.write_text("")  # it is read before the script opens it
        self.process = _processes.Process(
            target=_run, args=([str(a) for a in arguments], log, first)
        )
        self.process.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        # With its workers: one that has not yet begun to watch its parent
        # would live forever.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def kill(self):
        """By SIGKILL, if it has not ended."""
        self.process.kill()
        self.process.join()

    def wait_for(self, condition):
        """Until it is true; fails with the output if the script ends."""
        while not condition():
            assert self.process.is_alive(), self.printed()
            time.sleep(1e-3)

    def finish(self):
        """Its exit code, negative if it was killed, and its output."""
        self.process.join()
        return self.process.exitcode, self.printed()

    def printed(self):
        return self.log.read_text(encoding="utf-8", errors="replace")


def succeed(*arguments):
    """What a script prints that succeeds."""
    code, printed = run_script(*arguments)
    assert code == 0, printed
    return printed


def run_script(*arguments):
    """Its exit code and its output."""
    with tempfile.TemporaryDirectory() as folder:
        with Script(pathlib.Path(folder) / "log", *arguments) as script:
            return script.finish()


def _run(arguments, log, first):
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    # As a script has it on Linux, and not as the server that forked this
    multiprocessing.set_start_method("fork", force=True)
    if first:
        first()
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")
