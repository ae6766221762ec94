"""Files that are whole or absent; one run at a time on a folder."""

import multiprocessing
import os
import signal
import socket
import time

import pytest

from speechbrain_hyperbolic.dataio.files import atomic_path, lock_run
from speechbrain_hyperbolic.errors import InputError


def test_a_file_is_whole_or_as_before(tmp_path):
    path = tmp_path / "new" / "a.txt"
    (tmp_path / "link").symlink_to(path)
    for name, text in ((path, "first"), (tmp_path / "link", "second")):
        with atomic_path(name) as temporary:
            temporary.write_text(text)
            assert temporary.suffix == ".txt"
        assert path.read_text() == text
    with pytest.raises(KeyError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(InputError, match="new is not a file: choose"):
        atomic_path(path.parent).__enter__()
    umask = os.umask(0o027)
    with atomic_path(path) as temporary:
        temporary.write_text("third")
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o640


def hold(folder, connection):
    """A run with a worker that outlives it."""
    with lock_run(folder):
        worker = multiprocessing.Process(target=time.sleep, args=(60,))
        worker.start()
        connection.send(worker.pid)
        time.sleep(60)


def test_a_second_run_is_refused_until_the_first_is_killed(tmp_path):
    folder = tmp_path / "new" / "out"
    receiver, sender = multiprocessing.Pipe(duplex=False)
    first = multiprocessing.get_context("fork").Process(
        target=hold, args=(folder, sender)
    )
    first.start()
    worker = receiver.recv()
    try:
        with pytest.raises(InputError) as caught, lock_run(folder):
            pass
        holder = f"process {first.pid} on {socket.gethostname()}"
        assert f"{folder} is in use by {holder}: wait" in str(caught.value)
    finally:
        first.kill()
        first.join()
    with lock_run(folder):  # though the worker lives
        os.kill(worker, signal.SIGKILL)
