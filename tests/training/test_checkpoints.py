"""Checkpoints survive kills and damage, and their average is the mean."""

import errno
import os
import pathlib
import resource
import subprocess
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
    find_epochs,
)
from tests.processes import run_as_two, start


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


def test_the_last_epochs_and_the_best_are_kept(tmp_path):
    checkpointer = checkpointer_on(tmp_path, keep_epochs=3)
    for value in range(1, 9):
        checkpointer.save_and_keep_only(
            meta={"ErrorRate": abs(value - 2)}, min_keys=["ErrorRate"]
        )
    kept = sorted(c.meta["ErrorRate"] for c in checkpointer.list_checkpoints())
    assert kept == [0, 4, 5, 6]
    assert not list((tmp_path / "partial").iterdir())


def test_checkpoints_within_an_epoch_do_not_replace_epochs(tmp_path):
    checkpointer = checkpointer_on(tmp_path, keep_epochs=2)
    ends = save(checkpointer, [5, 6])
    for step in range(3):  # as the stock Brain calls it
        checkpointer.save_and_keep_only(
            end_of_epoch=False,
            num_to_keep=1,
            ckpt_predicate=lambda c: "step" in c.meta,
            meta={"step": step},
        )
    assert find_epochs(tmp_path, 5) == ends[::-1]
    assert len(checkpointer.list_checkpoints()) == 3
    assert checkpointer.find_checkpoint().meta["step"] == 2


def test_named_checkpoints_are_replaced(tmp_path):
    checkpointer = checkpointer_on(tmp_path)
    for step in (1, 2):
        checkpointer.save_checkpoint(name="best", meta={"step": step})
    (found,) = checkpointer.list_checkpoints()
    assert found.path.name == "CKPT+best" and found.meta["step"] == 2


def test_a_clock_that_is_set_back(tmp_path, monkeypatch):
    """The newest checkpoint is the last saved, for the stock class too."""
    checkpointer, now = checkpointer_on(tmp_path), time.time()
    for value, days in enumerate([1, 0, -1, 2, -2]):
        monkeypatch.setattr(time, "time", lambda d=days: now + 86400 * d)
        save(checkpointer, [value])
        assert recovered(tmp_path) == recovered(tmp_path, Checkpointer) == value
        expected = (value + max(value - 1, 0)) / 2
        assert average_epochs(tmp_path, 2)["0.bias"][0] == expected


# Kills, and disks that are full


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
    with pytest.raises(OSError) as raised:
        RecentCheckpointer(
            folder, recoverables=recoverables
        ).save_and_keep_only()
    assert raised.value.errno == errno.EFBIG
    line = one_line(raised.value)
    assert f"{folder}/partial/CKPT" in line and "large.ckpt: File too" in line


def test_a_failed_write_leaves_what_there_was(tmp_path):
    """It names the file, as on a full disk, and frees the space."""
    save(checkpointer_on(tmp_path), [1])
    before = {*tmp_path.glob("CKPT*"), *tmp_path.glob("CKPT*/*")}
    process = start(save_too_large, tmp_path)
    process.join()
    assert process.exitcode == 0
    assert set(tmp_path.rglob("*")) == before and recovered(tmp_path) == 1


class SlowCheckpointer(RecentCheckpointer):
    """Of a file system that takes its time from a folder to its files."""

    def list_checkpoints(self):
        found = super().list_checkpoints()
        time.sleep(0.2)
        assert all(c.path.is_dir() for c in found)
        return found


def save_as(rank, folder):
    kind = SlowCheckpointer if rank else RecentCheckpointer
    checkpointer = checkpointer_on(folder, kind, keep_epochs=1)
    for _ in range(3):
        checkpointer.save_and_keep_only()
        assert checkpointer.find_checkpoint()


def test_no_process_looks_at_what_another_deletes(tmp_path):
    run_as_two(save_as, tmp_path)
    assert len(RecentCheckpointer(tmp_path).list_checkpoints()) == 1


# Damage


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def drop_a_line(path):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if ".ckpt" not in line))


DAMAGES = [
    (truncate, "embedding_model.ckpt"),
    (flip_a_bit, "embedding_model.ckpt"),
    (pathlib.Path.unlink, "embedding_model.ckpt"),
    (truncate, "CKPT.yaml"),
    (pathlib.Path.unlink, "CKPT.yaml"),
    (truncate, SUMS),
    (drop_a_line, SUMS),
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


@pytest.mark.parametrize("damage, name", DAMAGES)
def test_none_is_whole(tmp_path, damage, name):
    """Then it never starts from scratch."""
    for folder in save(checkpointer_on(tmp_path), [1, 2]):
        damage(folder / name)
    for _ in range(2):
        with pytest.raises(InputError, match=f"no checkpoint that .*{name}"):
            recovered(tmp_path)
    with pytest.raises(InputError, match="no checkpoint of a finished"):
        average_epochs(tmp_path)


def test_stock_checkpoints(tmp_path):
    """They are read and averaged, and the stock class reads ours."""
    save(checkpointer_on(tmp_path, Checkpointer), [1, 3])
    assert recovered(tmp_path) == 3
    assert (average_epochs(tmp_path)["0.weight"] == 2).all()
    save(checkpointer_on(tmp_path), [4])
    assert recovered(tmp_path, Checkpointer) == 4


def test_the_files_of_others(tmp_path):
    """As a Mac and an editor leave them."""
    _, newest = save(checkpointer_on(tmp_path), [1, 2])
    for name in ("._embedding_model.ckpt", "a.ckpt.bak", "notes.txt"):
        (newest / name).touch()
    assert recovered(tmp_path) == 2


def test_sha256sum_agrees(tmp_path):
    (folder,) = save(checkpointer_on(tmp_path), [1])
    check = ["sha256sum", "--check", "--strict", SUMS]
    assert subprocess.run(check, cwd=folder).returncode == 0
    text = (folder / SUMS).read_text()
    listed = {line.split()[1] for line in text.splitlines()}
    assert listed | {SUMS} == {path.name for path in folder.iterdir()}


def test_files_of_a_stranger_run_nothing(tmp_path):
    ran = tmp_path / "ran"
    folder = tmp_path / "CKPT+evil"
    folder.mkdir()
    (folder / "CKPT.yaml").write_text(
        f"!!python/object/apply:os.mkdir ['{ran}']\n"
    )
    with pytest.raises(InputError, match="no checkpoint of a finished epoch"):
        average_epochs(tmp_path)

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(ran),)

    torch.save({"0.weight": Evil()}, tmp_path / "embedding_model.ckpt")
    loadables = {"embedding_model": model_of(0)}
    with pytest.raises(
        InputError, match="embedding_model.ckpt is missing, damaged or not"
    ):
        AveragedPretrainer(tmp_path, loadables=loadables).load_collected()
    assert not ran.exists()


# Averages, and what a run starts from


def load(path, **options):
    model = model_of(7)
    AveragedPretrainer(
        path, loadables={"embedding_model": model}, **options
    ).load_collected()
    return model


def test_average(tmp_path):
    checkpointer = checkpointer_on(tmp_path, keep_epochs=9)
    save(checkpointer, [100, 2, 4, 6, 8, 10])
    save(checkpointer, [1000], end_of_epoch=False)
    state = average_epochs(tmp_path, 5)
    for name, tensor in model_of(6).state_dict().items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor)
    for path, value in ((tmp_path, 9), (None, 7)):
        found = load(path, count=2).state_dict().values()
        assert all((tensor == value).all() for tensor in found)


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


OTHERS = [
    (torch.nn.Sequential(torch.nn.Linear(5, 3)).state_dict(), r"is \(3, 5\),"),
    (model_of(0).state_dict() | {"t": torch.zeros(1)}, r"t is \(1,\), .*miss"),
]


@pytest.mark.parametrize("state, words", OTHERS)
def test_weights_of_another_encoder(tmp_path, state, words):
    torch.save(state, tmp_path / "embedding_model.ckpt")
    with pytest.raises(InputError, match=f"has another .*{words}"):
        load(tmp_path)


def test_modules_that_a_folder_lacks(tmp_path):
    torch.save(model_of(0).state_dict(), tmp_path / "embedding_model.ckpt")
    both = {"embedding_model": model_of(0), "classifier": model_of(0)}
    with pytest.raises(InputError, match="has no classifier: pass the save"):
        AveragedPretrainer(tmp_path, loadables=both).load_collected()
    names = ["embedding_model"]
    AveragedPretrainer(tmp_path, loadables=both, names=names).load_collected()
    with pytest.raises(InputError, match="pretrain_modules has encoder"):
        AveragedPretrainer(tmp_path, loadables=both, names=["encoder"])


@pytest.mark.parametrize("folder", ["", "missing"])
def test_nothing_to_average(tmp_path, folder):
    with pytest.raises(InputError, match="no checkpoint of a finished epoch"):
        load(tmp_path / folder)


def test_keep_epochs_out_of_range(tmp_path):
    with pytest.raises(InputError, match="keep_epochs is 0"):
        RecentCheckpointer(tmp_path, keep_epochs=0)
