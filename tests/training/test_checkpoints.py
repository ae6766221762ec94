"""Checkpoints survive kills and damage, and their average is the mean."""

import os
import pathlib
import resource
import time

import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_hyperbolic.errors import InputError, one_line
from speechbrain_hyperbolic.training.checkpoints import (
    SUMS,
    AveragedPretrainer,
    RecentCheckpointer,
    average_epochs,
)
from tests.processes import start


def model_of(value):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(value)
    return model


def checkpointer_on(folder, kind=RecentCheckpointer, **options):
    recoverables = {"embedding_model": model_of(0)}
    return kind(folder, recoverables=recoverables, **options)


def save(checkpointer, values, **options):
    """A checkpoint for each value; the folders, by age."""
    model, folders = checkpointer.recoverables["embedding_model"], []
    for value in values:
        model.load_state_dict(model_of(value).state_dict())
        meta = {"ErrorRate": abs(value - 2)}
        folders.append(checkpointer.save_checkpoint(meta, **options).path)
    return folders


def recovered(folder, kind=RecentCheckpointer):
    checkpointer = checkpointer_on(folder, kind)
    checkpointer.recover_if_possible()
    model = checkpointer.recoverables["embedding_model"]
    return model[0].bias[0].item()


def load(path, count=5):
    loadables = {"embedding_model": model_of(7)}
    AveragedPretrainer(path, count, loadables).load_collected()
    return loadables["embedding_model"]


def test_the_last_epochs_and_the_best_are_kept(tmp_path):
    checkpointer = checkpointer_on(tmp_path, keep_epochs=3)
    for value in range(1, 9):
        checkpointer.save_and_keep_only(
            meta={"ErrorRate": abs(value - 2)}, min_keys=["ErrorRate"]
        )
    for step in range(3):  # within an epoch, as the stock Brain calls it
        checkpointer.save_and_keep_only(
            end_of_epoch=False,
            ckpt_predicate=lambda c: "step" in c.meta,
            meta={"step": step},
        )
    found = checkpointer.find_checkpoints()
    assert found[0].meta["step"] == 2
    assert [c.meta["ErrorRate"] for c in found[1:]] == [6, 5, 4, 0]
    assert not list((tmp_path / "partial").iterdir())


def save_forever(folder):
    model = torch.nn.Linear(1000, 1000)
    saver = RecentCheckpointer(folder, recoverables={"a": model, "b": model})
    while True:
        saver.save_and_keep_only()


def test_a_kill_leaves_only_whole_checkpoints(tmp_path):
    """SIGKILL at several moments; the stock class reads what is left."""
    for attempt in range(8):
        before = set(tmp_path.glob("CKPT*"))
        process = start(save_forever, tmp_path)
        while set(tmp_path.glob("CKPT*")) <= before:
            assert process.is_alive()
        time.sleep(0.02 * attempt)
        process.kill()
        process.join()
        model = torch.nn.Linear(1000, 1000)
        reader = Checkpointer(tmp_path, {"a": model, "b": model})
        assert reader.recover_if_possible() is not None
        for checkpoint in reader.list_checkpoints():
            assert set(checkpoint.paramfiles) == {"a", "b"}
            for file in checkpoint.paramfiles.values():
                torch.load(file)


def save_too_large(folder):
    """In a process that may not write more than 100 kB into a file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    recoverables = {"small": model_of(0), "large": torch.nn.Linear(300, 300)}
    saver = RecentCheckpointer(folder, recoverables=recoverables)
    with pytest.raises(OSError) as raised:
        saver.save_and_keep_only()
    line = one_line(raised.value)
    assert f"{folder}/partial/CKPT" in line and "free some space" in line


def test_a_failed_write_leaves_what_there_was(tmp_path):
    """It names the file, as on a full disk, and frees the space."""
    save(checkpointer_on(tmp_path), [1])
    before = {*tmp_path.glob("CKPT*"), *tmp_path.glob("CKPT*/*")}
    process = start(save_too_large, tmp_path)
    process.join()
    assert process.exitcode == 0
    assert set(tmp_path.rglob("*")) == before and recovered(tmp_path) == 1


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES = [
    (truncate, "embedding_model.ckpt"),
    (flip_a_bit, "embedding_model.ckpt"),
    (pathlib.Path.unlink, "embedding_model.ckpt"),
    (truncate, "CKPT.yaml"),
    (pathlib.Path.unlink, "CKPT.yaml"),
    (truncate, SUMS),
]


@pytest.mark.parametrize("damage, name", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_left_out(
    tmp_path, caplog, damage, name
):
    *_, newest = save(checkpointer_on(tmp_path), [1, 2, 3])
    damage(newest / name)
    assert (average_epochs(tmp_path, 2)["0.weight"] == 1.5).all()
    assert recovered(tmp_path) == 2
    lines = [record.getMessage() for record in caplog.records]
    named = [line for line in lines if f"{newest} is left out" in line]
    assert len(named) == 2 and all(name in line for line in named)
    for folder in tmp_path.glob("CKPT*"):
        (folder / name).unlink(missing_ok=True)
        (folder / "CKPT.yaml").unlink(missing_ok=True)
    for _ in range(2):  # it never starts from scratch by itself
        with pytest.raises(InputError, match="has no checkpoint that is whole"):
            recovered(tmp_path)


def test_stock_checkpoints(tmp_path):
    """They are read and averaged, and the stock class reads ours."""
    save(checkpointer_on(tmp_path, Checkpointer), [1, 3])
    assert recovered(tmp_path) == 3
    assert (average_epochs(tmp_path)["0.weight"] == 2).all()
    save(checkpointer_on(tmp_path), [4])
    assert recovered(tmp_path, Checkpointer) == 4


def test_files_of_a_stranger_run_nothing(tmp_path):
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(ran),)

    torch.save({"0.weight": Evil()}, tmp_path / "embedding_model.ckpt")
    with pytest.raises(InputError, match="is missing, damaged or not a file"):
        load(tmp_path)
    assert not ran.exists()


def test_average(tmp_path):
    checkpointer = checkpointer_on(tmp_path, keep_epochs=9)
    save(checkpointer, [100, 2, 4, 6, 8, 10])
    save(checkpointer, [1000], end_of_epoch=False)
    state = average_epochs(tmp_path, 5)
    for name, tensor in model_of(6).state_dict().items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor)
    assert (load(tmp_path, count=2)[0].weight == 9).all()
    assert (load(None)[0].weight == 7).all()


def test_a_run_without_checkpoints_starts_from_the_pretrainer(tmp_path):
    torch.save(model_of(3).state_dict(), tmp_path / "embedding_model.ckpt")
    checkpointer = checkpointer_on(tmp_path / "save")
    model = checkpointer.recoverables["embedding_model"]
    checkpointer.pretrainer = AveragedPretrainer(
        tmp_path, loadables={"embedding_model": model}
    )
    assert checkpointer.recover_if_possible() is None
    assert (model[0].weight == 3).all()
    save(checkpointer, [4])
    model.load_state_dict(model_of(0).state_dict())
    assert checkpointer.recover_if_possible() and (model[0].weight == 4).all()


def test_weights_that_a_folder_lacks(tmp_path):
    with pytest.raises(InputError, match="no checkpoint of a finished epoch"):
        load(tmp_path)
    other = torch.nn.Sequential(torch.nn.Linear(5, 3))
    torch.save(other.state_dict(), tmp_path / "embedding_model.ckpt")
    with pytest.raises(InputError, match=r"has another embedding_model \(Err"):
        load(tmp_path)
    torch.save(model_of(0).state_dict(), tmp_path / "embedding_model.ckpt")
    both = {"embedding_model": model_of(0), "classifier": model_of(0)}
    with pytest.raises(InputError, match="has no classifier: pass the save"):
        AveragedPretrainer(tmp_path, loadables=both).load_collected()
    names = ["embedding_model"]
    AveragedPretrainer(tmp_path, loadables=both, names=names).load_collected()
    with pytest.raises(InputError, match="pretrain_modules has encoder"):
        AveragedPretrainer(tmp_path, loadables=both, names=["encoder"])
