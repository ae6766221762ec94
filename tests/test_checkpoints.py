"""Checkpoints survive a kill, and their average is the mean."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer

from speechbrain_hyperbolic.checkpoints import (
    AveragedPretrainer,
    RecentCheckpointer,
    average_epochs,
    find_epochs,
)
from speechbrain_hyperbolic.distributed import GivenUp
from speechbrain_hyperbolic.errors import InputError, one_line
from tests.processes import run_as_two


def model_of(value):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(value)
    return model


def save(checkpointer, model, values, **kwargs):
    for value in values:
        model.load_state_dict(model_of(value).state_dict())
        checkpointer.save_and_keep_only(
            meta={"ErrorRate": abs(value - 2)}, min_keys=["ErrorRate"], **kwargs
        )


def test_keeps_the_last_epochs_and_the_best(tmp_path):
    model = model_of(0)
    checkpointer = RecentCheckpointer(
        tmp_path, keep_epochs=3, recoverables={"embedding_model": model}
    )
    save(checkpointer, model, range(1, 9))
    kept = sorted(c.meta["ErrorRate"] for c in checkpointer.list_checkpoints())
    assert kept == [0, 4, 5, 6]  # the best, and the last three
    assert not list((tmp_path / "partial").iterdir())


def test_mid_epoch_checkpoints_do_not_push_epochs_out(tmp_path):
    model = model_of(0)
    checkpointer = RecentCheckpointer(
        tmp_path, keep_epochs=2, recoverables={"embedding_model": model}
    )
    save(checkpointer, model, [5, 6])
    ends = [c.path for c in checkpointer.find_checkpoints()]
    for step in range(3):  # as Brain saves within an epoch
        checkpointer.save_and_keep_only(
            end_of_epoch=False, num_to_keep=1, meta={"step": step}
        )
    assert find_epochs(tmp_path, 5) == ends
    # Of those within an epoch only the newest is of use.
    assert len(checkpointer.list_checkpoints()) == 3
    assert checkpointer.find_checkpoint().meta["step"] == 2


def test_meta_of_a_stranger_runs_nothing(tmp_path):
    """YAML that would run code is refused, on every SpeechBrain release."""
    folder = tmp_path / "CKPT+evil"
    folder.mkdir()
    (folder / "CKPT.yaml").write_text(
        f"!!python/object/apply:os.mkdir ['{tmp_path / 'ran'}']\n"
    )
    with pytest.raises(InputError, match="no checkpoint of a finished epoch"):
        average_epochs(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_weights_of_a_stranger_run_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"0.weight": Evil()}, tmp_path / "embedding_model.ckpt")
    pretrainer = AveragedPretrainer(
        tmp_path, loadables={"embedding_model": model_of(0)}
    )
    with pytest.raises(InputError, match="embedding_model.ckpt is damaged"):
        pretrainer.load_collected()
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_encoder(tmp_path):
    state = torch.nn.Sequential(torch.nn.Linear(5, 3)).state_dict()
    torch.save(state, tmp_path / "embedding_model.ckpt")
    pretrainer = AveragedPretrainer(
        tmp_path, loadables={"embedding_model": model_of(0)}
    )
    with pytest.raises(InputError, match=r"0.weight is .3, 5.*--training="):
        pretrainer.load_collected()


def test_weights_with_more_than_the_module_has(tmp_path):
    state = model_of(0).state_dict() | {"theta": torch.zeros(1)}
    torch.save(state, tmp_path / "embedding_model.ckpt")
    pretrainer = AveragedPretrainer(
        tmp_path, loadables={"embedding_model": model_of(0)}
    )
    with pytest.raises(InputError, match="its theta is .1,., .* missing"):
        pretrainer.load_collected()


def test_modules_that_a_folder_has_not(tmp_path):
    torch.save(model_of(0).state_dict(), tmp_path / "embedding_model.ckpt")
    both = {"embedding_model": model_of(0), "classifier": model_of(0)}
    with pytest.raises(InputError, match="has no classifier: pass the save"):
        AveragedPretrainer(tmp_path, loadables=both).collect_files()
    names = ["embedding_model"]
    AveragedPretrainer(tmp_path, loadables=both, names=names).load_collected()
    with pytest.raises(InputError, match="pretrain_modules has encoder"):
        AveragedPretrainer(tmp_path, loadables=both, names=["encoder"])


def test_average(tmp_path):
    model = model_of(0)
    checkpointer = RecentCheckpointer(
        tmp_path, recoverables={"embedding_model": model}
    )
    save(checkpointer, model, [100, 2, 4, 6, 8, 10])
    model.load_state_dict(model_of(1000).state_dict())
    checkpointer.save_and_keep_only(end_of_epoch=False)
    state = average_epochs(tmp_path, 5)
    for name, tensor in model.state_dict().items():
        assert state[name].dtype == tensor.dtype
        assert (state[name] == 6).all()
    for path, value in ((tmp_path, 9), (None, 7)):
        other = model_of(7)
        pretrainer = AveragedPretrainer(
            path, count=2, loadables={"embedding_model": other}
        )
        pretrainer.collect_files()
        pretrainer.load_collected()
        assert all((t == value).all() for t in other.state_dict().values())


def test_exported_folder(tmp_path):
    torch.save(model_of(3).state_dict(), tmp_path / "embedding_model.ckpt")
    model = model_of(0)
    AveragedPretrainer(
        tmp_path, loadables={"embedding_model": model}
    ).load_collected()
    assert (model[0].weight == 3).all()


@pytest.mark.parametrize("folder", ["", "missing"])
def test_nothing_to_average(tmp_path, folder):
    with pytest.raises(InputError, match="no checkpoint of a finished epoch"):
        average_epochs(tmp_path / folder)


def test_keep_epochs_out_of_range(tmp_path):
    with pytest.raises(InputError, match="keep_epochs is 0"):
        RecentCheckpointer(tmp_path, keep_epochs=0)


def test_named_checkpoints_are_replaced(tmp_path):
    model = model_of(1)
    checkpointer = RecentCheckpointer(tmp_path, recoverables={"m": model})
    for step in (1, 2):
        checkpointer.save_checkpoint(name="best", meta={"step": step})
    (found,) = checkpointer.list_checkpoints()
    assert found.path.name == "CKPT+best" and found.meta["step"] == 2


SAVER = """
import sys, torch
from speechbrain_hyperbolic.checkpoints import RecentCheckpointer
model = torch.nn.Linear(1000, 1000)
saver = RecentCheckpointer(sys.argv[1], recoverables={"a": model, "b": model})
while True:
    saver.save_and_keep_only()
    print("saved", flush=True)
"""


def test_a_kill_leaves_only_whole_checkpoints(tmp_path):
    """SIGKILL at five moments; the stock Checkpointer reads what is left."""
    for attempt in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVER, tmp_path],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        process.stdout.readline()
        time.sleep(0.03 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        model = torch.nn.Linear(1000, 1000)
        reader = Checkpointer(tmp_path, {"a": model, "b": model})
        assert reader.recover_if_possible() is not None
        for checkpoint in reader.list_checkpoints():
            assert set(checkpoint.paramfiles) == {"a", "b"}
            for file in checkpoint.paramfiles.values():
                torch.load(file)


class SlowCheckpointer(RecentCheckpointer):
    """On a file system that takes its time from a folder to its files."""

    def _construct_checkpoint_objects(self, folders):
        time.sleep(0.3)
        return super()._construct_checkpoint_objects(folders)


def save_as(rank, folder):
    """One of two processes, of which the first deletes what's superseded."""
    os.environ["RANK"] = str(rank)
    torch.distributed.init_process_group(
        "gloo", f"file://{folder / 'rendezvous'}", rank=rank, world_size=2
    )
    kind = SlowCheckpointer if rank else RecentCheckpointer
    checkpointer = kind(folder, 1, recoverables={"m": torch.nn.Linear(1, 1)})
    for _ in range(3):
        checkpointer.save_and_keep_only()
    torch.distributed.destroy_process_group()


def test_no_process_looks_at_what_another_deletes(tmp_path):
    run_as_two(save_as, tmp_path)
    assert len(RecentCheckpointer(tmp_path).list_checkpoints()) == 1


def give_up_as(rank, folder):
    """One of two processes, of which the first finds the disk full."""
    os.environ["RANK"] = str(rank)
    torch.distributed.init_process_group(
        "gloo", f"file://{folder / 'rendezvous'}", rank=rank, world_size=2
    )

    def save(value, path):
        if rank == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        while path.parent.exists():
            time.sleep(0.01)
        torch.save(value, path)

    checkpointer = RecentCheckpointer(
        folder, recoverables={"m": {}}, custom_save_hooks={"m": save}
    )
    with pytest.raises(GivenUp if rank else OSError) as raised:
        checkpointer.save_checkpoint()
    if rank == 0:
        assert "CKPT.yaml: No space left" in one_line(raised.value)


def test_one_process_gives_up_what_another_saves(tmp_path):
    """That one does not tell of files that are gone."""
    run_as_two(give_up_as, tmp_path)
    assert not (tmp_path / "partial").exists()
