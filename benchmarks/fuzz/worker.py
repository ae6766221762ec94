"""A process that reads what it is sent, and may end in doing so."""

import contextlib
import faulthandler
import os
import pathlib
import resource
import shutil
import signal
import tempfile
import time
import traceback
from multiprocessing import get_context
from typing import NamedTuple

import av

from speechbrain_hyperbolic.errors import InputError

SECONDS = 5  # that a reader may take, but for those that others compute
_PATIENCE = 60  # seconds by the clock, until a process ends that does nothing
MEMORY = 2**30  # bytes that its process may have
# To the machine's protection; above MEMORY, so that what is asked for is seen.
_ADDRESS_SPACE = 4 * 2**30
_START = 120  # seconds, of the imports

_HANG = f"hang over {SECONDS} s"
ACCEPTED, REFUSED = "accepted", "refused"


class Outcome(NamedTuple):
    """Of one input.

    Arguments
    ---------
    kind : str
        ACCEPTED, REFUSED, or the name of what went wrong.
    seconds : float
        By the clock, without those of waiting for the processor.
    memory : int
        Bytes: the most that was resident in the process while it read.
    text : str
        The refusal, or the traceback.
    """

    kind: str
    seconds: float
    memory: int
    text: str = ""

    @property
    def failed(self):
        """Whether it's neither accepted nor refused as it should be."""
        return self.kind not in (ACCEPTED, REFUSED)


def judge(read, folder):
    """Lets a reader read a folder; its failures go through.

    Arguments
    ---------
    read : callable
        Takes the folder; it asserts what must hold of what it accepts.
    folder : pathlib.Path

    Returns
    -------
    refusal : str
        None: accepted.
    """
    try:
        read(folder)
    except InputError as error:
        if cause := _want_of_memory(error):
            raise MemoryError from cause
        text = str(error)
        # One line without a stranger's control characters; paths may be long.
        assert text.isprintable() and len(text) < 6000, ascii(text)[:2000]
        assert str(folder) in text, f"the file is not named: {text}"
        return text


def _want_of_memory(error):
    """What says so among the causes: without a limit there would be more."""
    while error := error.__cause__ or error.__context__:
        # FFmpeg has a limit of its own, below ours; PyTorch has no type for it.
        if not isinstance(error, av.FFmpegError) and (
            isinstance(error, MemoryError) or "allocate memory" in str(error)
        ):
            return error
    return None


def write(folder, files):
    """Makes a folder anew, with these files.

    Arguments
    ---------
    folder : pathlib.Path
    files : dict
        Name -> bytes.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


class Worker:
    """Reads in a process of its own, in another one after a failure.

    Arguments
    ---------
    read : callable
        Of a module's top level.
    """

    def __init__(self, read):
        self.read = read
        self.first = None
        self.process = None
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="fuzz-"))
        self.log = self.folder / "stderr"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop()
        shutil.rmtree(self.folder)

    def __call__(self, files):
        """The ``Outcome`` of these files."""
        if self.process is None:
            # The simplest of a strategy: with it comes what is imported late.
            self.first = self.first or files
            self._start()
        write(self.folder / "input", files)
        began = time.monotonic()
        try:
            self.pipe.send(self.folder / "input")
            # Longer than it takes the process to end itself, with a traceback.
            ended = self.pipe.poll(2 * _PATIENCE)
            outcome = self.pipe.recv() if ended else None
        except (EOFError, OSError):
            outcome = None
        if outcome is None:
            outcome = self._ended(time.monotonic() - began)
        if outcome.memory > MEMORY:
            self._stop()  # what one left behind is not the next one's
        return outcome

    def _ended(self, seconds):
        self.process.join(1)
        code = self.process.exitcode
        self._stop()
        if code == -signal.SIGPROF or seconds >= _PATIENCE:
            kind = _HANG
        else:
            kind = signal.Signals(-code).name if code and code < 0 else "exit"
        return Outcome(kind, seconds, 0, self.log.read_text(errors="replace"))

    def _start(self):
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(self.read, theirs, self.log), daemon=True
        )
        self.process.start()
        theirs.close()
        write(self.folder / "input", self.first)
        self.pipe.send(self.folder / "input")
        if not self.pipe.poll(_START) or self.pipe.recv() != "ready":
            raise RuntimeError(f"no process to read in: see {self.log}")

    def _stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
            self.process = None


def _serve(read, pipe, log):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    size = _status("VmSize") + _ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open(log, "a") as file:
        for stream in (1, 2):  # decoders in C write there, too
            os.dup2(file.fileno(), stream)
        faulthandler.enable(file)
        faulthandler.register(signal.SIGPROF, file, chain=True)
        with contextlib.suppress(Exception):
            judge(read, pipe.recv())
        pipe.send("ready")
        while True:
            try:
                folder = pipe.recv()
            except EOFError:
                return
            file.truncate(0)
            pipe.send(_read(read, folder, file))


def _read(read, folder, file):
    # The most that is resident is counted from here on.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    faulthandler.dump_traceback_later(_PATIENCE, exit=True, file=file)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of computing
    began = time.monotonic() - _queued()
    kind, text = ACCEPTED, ""
    try:
        text = judge(read, folder)
        kind = ACCEPTED if text is None else REFUSED
    except Exception as error:
        kind, text = type(error).__name__, traceback.format_exc()
    seconds = time.monotonic() - _queued() - began
    signal.setitimer(signal.ITIMER_PROF, 0)
    faulthandler.cancel_dump_traceback_later()
    memory = _status("VmHWM")
    if memory > MEMORY and kind in (ACCEPTED, REFUSED):
        kind = f"memory over {MEMORY >> 20} MiB"
    elif seconds > SECONDS and kind in (ACCEPTED, REFUSED):
        kind = _HANG
    return Outcome(kind, seconds, memory, text or "")


def _queued():
    """Seconds, in all, that other processes had the processor instead."""
    _, waited, _ = pathlib.Path("/proc/self/schedstat").read_text().split()
    return int(waited) / 1e9


def _status(name):
    """Bytes, of this process."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
