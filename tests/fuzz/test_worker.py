"""What fuzzing must notice, in real processes that really fail."""

import errno
import os
import signal
import time

import av
import numpy as np
import pytest
import torch

from benchmarks.fuzz import worker
from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.errors import InputError


def planted(folder):
    """A reader with a fault of each kind."""
    what = (folder / "what").read_text()
    if what == "refuse":
        raise InputError(f"{folder}/what is refused")
    if what == "refuse as FFmpeg does":
        with audio.naming(folder / "what"):
            av.error.err_check(-errno.ENOMEM)
    if what == "hide that there is no memory":
        try:
            torch.empty(2**40)
        except RuntimeError as error:
            raise InputError(f"{folder}/what is refused") from error
    if what == "refuse in two lines":
        raise InputError(f"{folder}/what\nis refused")
    if what == "refuse without a name":
        raise InputError("it is refused")
    if what == "raise":
        raise KeyError("raised")
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    while what == "compute":
        pass
    if what == "wait":
        time.sleep(5.1)
    if what == "fill":
        np.ones(2**27 + 1)
    if what == "ask for more than there is":
        np.empty(2**40)


@pytest.fixture(scope="module")
def read():
    with worker.Worker(planted) as read:
        yield read


@pytest.mark.parametrize(
    "what, kind",
    [
        ("", worker.ACCEPTED),
        ("refuse", worker.REFUSED),
        ("refuse as FFmpeg does", worker.REFUSED),
        ("hide that there is no memory", "MemoryError"),
        ("refuse in two lines", "AssertionError"),
        ("refuse without a name", "AssertionError"),
        ("raise", "KeyError"),
        ("crash", "SIGSEGV"),
        ("compute", "hang over 5 s"),
        ("wait", "hang over 5 s"),
        ("fill", "memory over 1024 MiB"),
        ("ask for more than there is", "MemoryError"),
        ("", worker.ACCEPTED),
    ],
)
def test_a_fault_is_noticed(read, what, kind):
    outcome = read({"what": what.encode()})
    assert outcome.kind == kind
    assert outcome.failed is (kind not in (worker.ACCEPTED, worker.REFUSED))
    if what in ("raise", "crash", "compute"):
        assert "in planted" in outcome.text  # where it was
