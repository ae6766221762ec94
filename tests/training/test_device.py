"""What a GPU needs, as far as a CPU can tell."""

import functools
import os

import pytest
import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.epoch_loop import EpochCounter
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from speechbrain_hyperbolic.dataio.crops import SharedEpochCounter
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.lobes.classifiers import HyperbolicClassifier
from speechbrain_hyperbolic.nnet import margins
from speechbrain_hyperbolic.nnet.losses import MarginSoftmax
from speechbrain_hyperbolic.nnet.similarity import MAPS
from speechbrain_hyperbolic.training.brain import fused
from tests.training.brains import Doubles, fit, ham, joint, make_batches
from tests.training.brains import make_brain as make

READS = {
    "tolist",
    "numpy",
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "_unique2",
    "equal",
}


class Lists(TorchFunctionMode):
    """Tells of tolist(), which on a CPU calls no operation."""

    def __init__(self, tell):
        super().__init__()
        self.tell = tell

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.tell(getattr(function, "__name__", ""), args)
        return function(*args, **(kwargs or {}))


class Waits(TorchDispatchMode):
    """The tensors that are read, for which a step would wait, and copies."""

    def __init__(self):
        super().__init__()
        self.tensors, self.copies = set(), []
        self.lists = Lists(self.note)

    def __enter__(self):
        self.lists.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.lists.__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name().split("::")[1].split(".")[0]
        self.note(name, args)
        device = (kwargs or {}).get("device")
        if name == "_to_copy" and device not in (None, args[0].device):
            self.copies.append((args[0].device, device))
        return function(*args, **(kwargs or {}))

    def note(self, name, args):
        masks = name == "index" and any(
            i is not None and i.dtype == torch.bool for i in args[1]
        )
        if name in READS or masks:
            # tolist() may read the elements of a CPU tensor one by one.
            self.tensors.add(args[0].untyped_storage().data_ptr())


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("head", [ham, joint])
def test_a_step_reads_one_tensor(tmp_path, head, chunk_size, views):
    hparams = {"wav_augment": Doubles()} if views == 2 else {}
    brain = fit(make(tmp_path, *head(chunk_size=chunk_size), **hparams))
    brain.step = 1
    (batch,) = make_batches(1)
    with Waits() as waits:
        brain.fit_batch(batch)
    assert len(waits.tensors) == 1


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize("kind", ["additive", "top-k", "real", "angular"])
@pytest.mark.parametrize("map", MAPS)
def test_head_and_cost_read_and_copy_nothing(map, kind, chunk_size, device):
    """Fake tensors have no values to read; backward is for the CPU only."""
    with FakeTensorMode():
        try:
            torch.zeros(1, device=device)[0]
        except RuntimeError:
            pytest.skip("torch needs a driver for fake tensors on CUDA")
    loss_fn = {
        "additive": margins.AdditiveMargin(),
        "top-k": margins.AdditiveMargin(top_k=0 if chunk_size else 2),
        "real": margins.RealAdditiveMargin(),
        "angular": margins.AdditiveAngularMargin(),
    }[kind]
    learned = {"learn_curvature": map == "exponential"}
    head = HyperbolicClassifier(
        6, out_neurons=10, sub_centers=2, map=map, **learned
    )
    with FakeTensorMode():
        for module in head.modules():
            for name, value in module._parameters.items():
                if value is not None:
                    fake = torch.empty(value.shape, device=device)
                    module._parameters[name] = torch.nn.Parameter(fake)
        x = torch.randn(5, 1, 6, device=device, requires_grad=True)
        labels = torch.zeros(5, 1, dtype=torch.int64, device=device)
        with Waits() as waits:
            loss = head(x, labels, MarginSoftmax(loss_fn, chunk_size))
            if device == "cpu":
                loss.backward()
    assert loss.device.type == device
    assert not waits.tensors and not waits.copies


def test_an_overflow_in_float16_is_skipped(tmp_path):
    """By the scaler, which lowers its scale; it is no reason to stop."""
    brain = make(tmp_path, *ham())
    before = [p.detach().clone() for p in brain.modules.parameters()]
    brain.scaler = torch.GradScaler("cpu", init_scale=2.0**127)
    fit(brain, steps=1)
    assert all(map(torch.equal, before, brain.modules.parameters()))
    assert brain.scaler.get_scale() == 2.0**126
    assert brain.nonfinite_count == 0


class Greedy(torch.nn.Linear):
    def forward(self, x, lengths=None):
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total "
            "capacity of 79.11 GiB of which 1.00 GiB is free."
        )


def test_a_full_gpu_is_one_line(tmp_path):
    brain = make(tmp_path, *ham())
    brain.modules.embedding_model = Greedy(6, 6)
    expected = "^CUDA out of memory. Tried to allocate 2.00 GiB: lower --batch"
    with pytest.raises(InputError, match=expected):
        fit(brain)


def who_reads(name, counter):
    return torch.tensor([float(os.getpid()), counter.current])


@pytest.mark.parametrize("counter_class", [SharedEpochCounter, EpochCounter])
def test_workers_see_the_epoch(tmp_path, counter_class):
    """They stay for all epochs, unless the counter is not shared."""
    counter = counter_class(3)
    brain = make(tmp_path, *ham(), epoch_counter=counter)
    dataset = DynamicItemDataset({str(n): {} for n in range(4)})
    read = functools.partial(who_reads, counter=counter)
    dataset.add_dynamic_item(read, ["id"], ["sig"])
    dataset.set_output_keys(["sig"])
    loader = brain.make_dataloader(
        dataset, sb.Stage.VALID, num_workers=1, collate_fn=lambda rows: rows
    )
    found = [row["sig"] for _ in counter for (row,) in loader]
    assert [int(epoch) for _, epoch in found] == [1] * 4 + [2] * 4 + [3] * 4
    workers = {int(process) for process, _ in found}
    assert len(workers) == (1 if counter_class is SharedEpochCounter else 3)
    assert loader.prefetch_factor == 4 and not loader.pin_memory
    brain.make_dataloader(dataset, sb.Stage.VALID, num_workers=0)


def test_optimizers_are_fused_if_they_can_be():
    adam = functools.partial(torch.optim.Adam, lr=0.01)
    optimizer = fused(adam)([torch.nn.Parameter(torch.zeros(1))])
    assert optimizer.defaults["fused"] and optimizer.defaults["lr"] == 0.01
    for given in (
        functools.partial(adam, fused=False),
        functools.partial(adam, foreach=True),
        torch.optim.Rprop,
    ):
        assert fused(given) is given


def test_compile_is_for_the_encoder(tmp_path):
    """Unless modules are named, as by --compile_module_keys."""
    brain = make(tmp_path, *ham(), run_opts={"compile": True})
    brain._compile()
    compiled = torch._dynamo.eval_frame.OptimizedModule
    assert [n for n, m in brain.modules.items() if isinstance(m, compiled)] == [
        "embedding_model"
    ]
