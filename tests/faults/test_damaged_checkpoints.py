"""Checkpoints that are not what was saved."""

import pathlib
import subprocess

import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_hyperbolic.checkpoints import (
    AveragedPretrainer,
    RecentCheckpointer,
    average_epochs,
)
from speechbrain_hyperbolic.dataio.checksums import SUMS
from speechbrain_hyperbolic.errors import InputError
from tests.faults.runs import Run


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def zero_a_block(path):
    content = bytearray(path.read_bytes())
    content[512:1024] = bytes(512)
    path.write_bytes(content)


DAMAGES = [
    (truncate, "embedding_model.ckpt"),
    (flip_a_bit, "embedding_model.ckpt"),
    (zero_a_block, "embedding_model.ckpt"),
    (pathlib.Path.unlink, "embedding_model.ckpt"),
    (truncate, "CKPT.yaml"),
    (pathlib.Path.unlink, "CKPT.yaml"),
    (truncate, SUMS),
]


def checkpointer_on(folder):
    model = torch.nn.Linear(50, 50)
    return RecentCheckpointer(folder, recoverables={"embedding_model": model})


def fill(checkpointer, value):
    with torch.no_grad():
        for parameter in checkpointer.recoverables[
            "embedding_model"
        ].parameters():
            parameter.fill_(value)


def save(folder, values):
    """A checkpoint for each value; the folders, by age."""
    checkpointer = checkpointer_on(folder)
    folders = []
    for value in values:
        fill(checkpointer, value)
        folders.append(checkpointer.save_checkpoint().path)
    return folders


def recovered(folder):
    checkpointer = checkpointer_on(folder)
    checkpointer.recover_if_possible()
    return checkpointer.recoverables["embedding_model"].bias[0].item()


@pytest.mark.parametrize("damage, name", DAMAGES)
def test_falls_back_and_says_so(tmp_path, caplog, damage, name):
    *_, newest = save(tmp_path, [1, 2, 3])
    damage(newest / name)

    state = average_epochs(tmp_path, 2)
    assert (state["weight"] == 1.5).all()
    assert f"{newest} is left out, it is damaged: {name} is" in caplog.text

    caplog.clear()
    assert recovered(tmp_path) == 2
    assert f"{newest} is damaged ({name} is" in caplog.text
    aside = tmp_path / "damaged" / newest.name
    assert f"moved to {aside}" in caplog.text and aside.is_dir()

    caplog.clear()
    assert recovered(tmp_path) == 2
    assert (average_epochs(tmp_path, 2)["weight"] == 1.5).all()
    assert "damaged" not in caplog.text


@pytest.mark.parametrize("damage, name", DAMAGES)
def test_none_is_whole(tmp_path, damage, name):
    """Every time, not only at first: it never starts from scratch."""
    for folder in save(tmp_path, [1, 2]):
        damage(folder / name)
    for _ in range(2):
        with pytest.raises(InputError, match=f"no checkpoint .*{name} is "):
            recovered(tmp_path)
    with pytest.raises(InputError, match="no checkpoint of a finished"):
        average_epochs(tmp_path)


def test_those_without_checksums(tmp_path):
    """Of earlier runs and of the stock class, which also reads ours."""
    folders = save(tmp_path, [1, 2])
    for folder in folders:
        (folder / SUMS).unlink()
    assert recovered(tmp_path) == 2
    assert (average_epochs(tmp_path)["weight"] == 1.5).all()

    checkpointer = checkpointer_on(tmp_path)
    fill(checkpointer, 3)
    stock = Checkpointer(tmp_path, checkpointer.recoverables)
    stock.save_checkpoint()
    assert recovered(tmp_path) == 3

    fill(checkpointer, 4)
    checkpointer.save_checkpoint()
    fill(checkpointer, 0)
    stock.recover_if_possible()
    model = stock.recoverables["embedding_model"]
    assert (model.weight == 4).all()


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("change", [truncate, empty])
def test_damage_without_checksums(tmp_path, caplog, change):
    """Of what a copy has broken off, or a file system has lost."""
    first, newest = save(tmp_path, [1, 2])
    for folder in (first, newest):
        (folder / SUMS).unlink()
        (folder / "notes.txt").touch()  # no part of it
    change(newest / "embedding_model.ckpt")
    assert recovered(tmp_path) == 1
    assert f"{newest} is damaged (embedding_model.ckpt is trun" in caplog.text


def test_a_line_of_checksums_is_lost(tmp_path, caplog):
    _, newest = save(tmp_path, [1, 2])
    lines = (newest / SUMS).read_text().splitlines(keepends=True)
    (newest / SUMS).write_text(lines[0])
    flip_a_bit(newest / "embedding_model.ckpt")
    assert recovered(tmp_path) == 1
    assert f"embedding_model.ckpt is not in {SUMS}" in caplog.text


def test_somebody_elses_files(tmp_path):
    """As a Mac and an editor leave them."""
    _, newest = save(tmp_path, [1, 2])
    for name in ("._embedding_model.ckpt", "a.ckpt.bak", "notes.txt"):
        (newest / name).touch()
    assert recovered(tmp_path) == 2


def test_an_exported_model(tmp_path):
    """It has no checksums, and is a zip file, whose end is missing."""
    model = torch.nn.Linear(50, 50)
    path = tmp_path / "embedding_model.ckpt"
    torch.save(model.state_dict(), path)
    loadables = {"embedding_model": model}
    AveragedPretrainer(tmp_path, loadables=loadables).load_collected()
    truncate(path)
    with pytest.raises(InputError, match=f"{path} is damaged .*put a copy"):
        AveragedPretrainer(tmp_path, loadables=loadables).load_collected()


def test_a_second_tool_agrees(tmp_path):
    """The checksums are for sha256sum, too."""
    (folder,) = save(tmp_path, [1])
    check = ["sha256sum", "--check", "--strict", SUMS]
    assert subprocess.run(check, cwd=folder).returncode == 0
    listed = {
        line.split()[1] for line in (folder / SUMS).read_text().splitlines()
    }
    assert listed | {SUMS} == {path.name for path in folder.iterdir()}
    flip_a_bit(folder / "embedding_model.ckpt")
    assert subprocess.run(check, cwd=folder).returncode == 1


def test_a_run_goes_on_from_the_one_before(corpus, resumable):
    before, newest = sorted((resumable / "save").glob("CKPT*"))
    flip_a_bit(newest / "optimizer.ckpt")
    with Run(corpus, resumable) as run:
        code, printed = run.finish()
    assert code == 0, printed
    assert f"{newest} is damaged (optimizer.ckpt is not what was" in printed
    assert f"Resuming from {before}, after epoch 1 of 2" in printed

    for folder in (resumable / "save").glob("CKPT*"):
        truncate(folder / "embedding_model.ckpt")
    with Run(corpus, resumable, "--number_of_epochs=3") as run:
        assert "has no checkpoint that is whole" in run.error()
