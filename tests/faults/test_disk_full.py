"""A disk that is full, or a limit that is met, while something is saved."""

import errno
import functools
import hashlib
import re
import resource
import shutil

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_hyperbolic.dataio.corpus import read_utterances
from speechbrain_hyperbolic.dataio.files import atomic_path, naming_the_file
from speechbrain_hyperbolic.hparams import read_nodes, resolve, save_resolved
from tests.faults.runs import HPARAMS, Run
from tests.processes import start


def digests(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).digest()
        for path in folder.glob("save/CKPT*/*")
    }


def epochs_in(output):
    return re.findall(r"epoch: (\d+)", (output / "train_log.txt").read_text())


def test_goes_on_when_there_is_space_again(corpus, finished, mount):
    """The checkpoint of epoch 3 does not fit, then it does."""
    output = mount("-t", "tmpfs", "-o", "size=4m", "none") / "out"
    shutil.copytree(finished, output)
    before = digests(output)
    filler = output.with_name("filler")
    filler.write_bytes(bytes(shutil.disk_usage(output).free - 2**18))
    options = corpus, output, "--number_of_epochs=3"
    log = {"log": finished.with_name("disk_full.log")}

    with Run(*options, **log) as run:
        error = run.error()
    assert f"{output}/save/partial/CKPT" in error
    assert "No space left on device: make space, and the same" in error
    assert digests(output) == before

    filler.unlink()
    with Run(*options, **log) as run:
        code, printed = run.finish()
    assert code == 0, printed
    assert f"Resuming from {output}/save/CKPT" in printed
    assert len(digests(output)) > len(before)


def test_full_from_the_start(corpus, finished, mount):
    """Nothing of the earlier run is emptied by opening it."""
    output = mount("-t", "tmpfs", "-o", "size=4m", "none") / "out"
    shutil.copytree(finished, output)
    before = digests(output)
    settings = (output / "hyperparams.yaml").read_text()
    filler = output.with_name("filler")
    filler.write_bytes(bytes(shutil.disk_usage(output).free))
    log = finished.with_name("full.log")
    with Run(corpus, output, "--number_of_epochs=3", log=log) as run:
        assert "No space left on device: make space, and" in run.error()
    assert digests(output) == before
    assert (output / "hyperparams.yaml").read_text() == settings


def limit_files(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_limit_of_file_sizes(corpus, resumable):
    """As a quota would be, or a file system that has no larger files."""
    before = digests(resumable)
    with Run(
        corpus,
        resumable,
        "--number_of_epochs=3",
        first=functools.partial(limit_files, 100_000),
    ) as run:
        assert re.search(
            r"save/partial/.*\.ckpt: File too large: raise", run.error()
        )
    assert digests(resumable) == before
    assert not (resumable / "save" / "partial").exists()


def test_the_log_of_epochs(corpus, tmp_path):
    with Run(corpus, tmp_path / "out", "--train_log=/dev/full") as run:
        assert "/dev/full: No space left on device: make" in run.error()


def test_other_files(mount):
    folder = mount("-t", "tmpfs", "-o", "size=64k", "none")
    with (
        pytest.raises(OSError, match="No space.*model") as failed,
        atomic_path(folder / "model.ckpt") as temporary,
    ):
        torch.save(torch.zeros(10**5), temporary)
    assert failed.value.errno == errno.ENOSPC
    assert not list(folder.iterdir())


def test_the_journal_of_a_preparation(mount, tmp_path):
    folder = mount("-t", "tmpfs", "-o", "size=64k", "none")
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16000)
    (folder / "filler").write_bytes(bytes(shutil.disk_usage(folder).free))
    with pytest.raises(OSError, match="No space.*prepare.journal"):
        read_utterances(
            {"a": str(tmp_path / "a.wav")}, journal=folder / "prepare.journal"
        )


def test_what_is_no_want_of_space_leaves_the_file_alone(tmp_path):
    path = tmp_path / "train_log.txt"
    path.write_text("epoch: 1")
    with pytest.raises(RuntimeError, match="lost"), naming_the_file(path):
        raise RuntimeError("lost the other process")
    assert path.read_text() == "epoch: 1"


def test_settings_that_do_not_fit(tmp_path):
    """Those of before stay."""
    resolved = {}
    for margin in (0.1, 0.3):
        overrides = {"data_folder": "/corpus", "margin": margin}
        if resolved:
            process = start(save_small, HPARAMS, overrides, tmp_path)
            process.join()
            assert process.exitcode == 1
        else:
            save_resolved(HPARAMS, overrides, tmp_path)
            resolved = resolve(HPARAMS, overrides)
    assert str(read_nodes(tmp_path / "hyperparams.yaml")) == str(resolved)
    assert len(list(tmp_path.iterdir())) == 1


def save_small(*arguments):
    limit_files(1000)
    save_resolved(*arguments)


def test_a_file_that_is_gone_is_not_made_anew(tmp_path):
    """Of a checkpoint that another process gave up, and removed."""
    with (
        pytest.raises(RuntimeError, match="lost"),
        naming_the_file(tmp_path / "partial"),
    ):
        raise RuntimeError("lost the other process")
    assert not list(tmp_path.iterdir())
