"""The sharded head in real processes, against the plain head in one."""

import math

import pytest
import torch
from speechbrain.utils.parameter_transfer import Pretrainer

from speechbrain_hyperbolic.checkpoints import (
    AveragedPretrainer,
    average_epochs,
)
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.lobes.heads import CentreClassifier
from speechbrain_hyperbolic.lobes.sharded import ShardedCentreClassifier
from speechbrain_hyperbolic.nnet.fused import margin_softmax
from speechbrain_hyperbolic.nnet.sharded import Shard, draw_classes
from speechbrain_hyperbolic.sharded_state import read_state
from speechbrain_hyperbolic.statistics import geometry_statistics
from tests import sharded_ranks as ranks

WORLDS = (2, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sharding")


@pytest.fixture(scope="module")
def plain(folder):
    """Ten steps of the plain head, saved, and three more."""
    modules, cost = ranks.trainable(ShardedCentreClassifier)
    start = modules["classifier"].state_dict()
    modules, cost = ranks.trainable(CentreClassifier)
    modules["classifier"].load_state_dict(start)
    optimizer = ranks.optimizer_of(modules.parameters())
    first = ranks.train(modules, optimizer, cost, range(10))
    state = {k: v.clone() for k, v in modules.state_dict().items()}
    path = folder / "plain" / "trained"
    ranks.checkpointer_of(path, modules, optimizer).save_checkpoint()
    more = ranks.train(modules, optimizer, cost, range(10, 13))
    return first, state, more


@pytest.fixture(scope="module")
def found(folder, plain):
    """World size -> what each process found."""
    torch.multiprocessing.spawn(ranks.run, (str(folder),), nprocs=3)
    return {
        size: [
            torch.load(folder / str(size) / f"rank{rank}")
            for rank in range(size)
        ]
        for size in WORLDS
    }


def close(a, b, dtype=torch.float64):
    tolerance = 1e-11 if dtype is torch.float64 else 1e-5
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def alike(head):
    """The plain head with the centres of a sharded one."""
    name = {"ExactDistance": "exact", "ClippedDistance": "ham"}
    plain = ranks.make(
        CentreClassifier,
        name[type(head.similarity).__name__],
        head.sub_centres,
    )
    plain.load_state_dict(head.state_dict())
    return plain


def check_step(parts, truth, dtype=torch.float64):
    """The parts of the processes together are the step of one."""
    size = len(parts)
    for part in parts:
        close(part["loss"], truth["loss"], dtype)
        for key in truth.keys() - {"loss", "x"}:
            if "weight" not in key:  # what all have alike
                close(part[key], truth[key], dtype)
    # DistributedDataParallel divides by the number of processes.
    close(torch.cat([p["x"] for p in parts]) / size, truth["x"], dtype)
    for key in truth:
        if "weight" in key:
            close(torch.cat([p[key] for p in parts]), truth[key], dtype)


@pytest.mark.parametrize("size", WORLDS)
@pytest.mark.parametrize("name", ranks.SYSTEMS)
def test_a_step_is_that_of_one_process(name, size, found):
    for case in ranks.CASES:
        if case[0] != name:
            continue
        _, dtype, sub_centres, top_k, chunk_size = case
        sharded = ranks.make(ShardedCentreClassifier, name, sub_centres, dtype)
        head = ranks.make(CentreClassifier, name, sub_centres, dtype)
        head.load_state_dict(sharded.state_dict())
        cost = ranks.cost_of(name, top_k)
        truth = ranks.learn(head, cost, *ranks.whole_batch(dtype))
        check_step([r[str(case)] for r in found[size]], truth, dtype)


@pytest.mark.parametrize("size", WORLDS)
def test_several_heads(size, found):
    head, cost = ranks.joint(CentreClassifier)
    sharded, _ = ranks.joint(ShardedCentreClassifier)
    head.load_state_dict(sharded.state_dict())
    truth = ranks.learn(head, cost, *ranks.whole_batch())
    check_step([r["joint"] for r in found[size]], truth)


@pytest.mark.parametrize("size", WORLDS)
def test_outputs_and_statistics_are_of_all_speakers(size, found):
    head = alike(ranks.make(ShardedCentreClassifier, "exact", 2))
    outputs = head(ranks.whole_batch()[0])
    close(torch.cat([r["outputs"] for r in found[size]]), outputs.detach())
    statistics = geometry_statistics(head, None, None)
    for rank in found[size]:
        assert rank["statistics"] == pytest.approx(statistics)


@pytest.mark.parametrize("size", WORLDS)
def test_ten_steps_of_adam_with_clipping(size, found, plain):
    losses, state, more = plain
    assert min(norm for _, norm in losses) > 0.1  # all steps are clipped
    for rank in found[size]:
        for here, there in (
            (rank["trained"], losses),
            (rank["more"], more),
            (rank["more of plain"], more),
            (rank["more of 2"], more),
        ):
            torch.testing.assert_close(here, there, rtol=1e-9, atol=1e-9)
    for key, value in state.items():
        parts = [
            rank["state"][key.replace("encoder.", "encoder.module.")]
            for rank in found[size]
        ]
        whole = torch.cat(parts) if key.endswith("classifier.weight") else None
        for part in parts if whole is None else [whole]:
            torch.testing.assert_close(part, value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", WORLDS)
@pytest.mark.parametrize("kind", [CentreClassifier, ShardedCentreClassifier])
def test_one_process_goes_on(kind, size, found, plain, folder):
    modules, cost = ranks.trainable(kind)
    cost.loss_fn.margin.steps.fill_(10)
    optimizer = ranks.optimizer_of(modules.parameters())
    path = folder / str(size) / "trained"
    ranks.checkpointer_of(path, modules, optimizer).recover_if_possible()
    here = ranks.train(modules, optimizer, cost, range(10, 13))
    torch.testing.assert_close(here, plain[2], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", WORLDS)
def test_average_of_sharded_epochs(size, found, plain, folder):
    path = folder / str(size) / "trained"
    state = average_epochs(path, 5, "classifier")
    for key, value in state.items():
        torch.testing.assert_close(
            value, plain[1][f"classifier.{key}"], rtol=1e-9, atol=1e-9
        )
    for kind in (CentreClassifier, ShardedCentreClassifier):
        modules, _ = ranks.trainable(kind)
        head = modules["classifier"]
        AveragedPretrainer(
            path, loadables={"classifier": head}
        ).load_collected()
        close(head.weight.detach(), state["weight"])


@pytest.mark.parametrize("kind", [CentreClassifier, ShardedCentreClassifier])
def test_stock_pretrainer(kind, found, folder, tmp_path):
    (source,) = (folder / "2" / "trained").glob("CKPT*")
    head = ranks.trainable(kind)[0]["classifier"]
    pretrainer = Pretrainer(
        tmp_path,
        {"classifier": head},
        {"classifier": str(source / "classifier.ckpt")},
    )
    pretrainer.collect_files()
    pretrainer.load_collected()
    state = read_state(source / "classifier.ckpt")
    assert torch.equal(head.weight, state["weight"])


@pytest.mark.parametrize("size", WORLDS)
def test_sampled_classes(size, found):
    """The loss is that of the classes that were drawn; a run that goes on
    draws what it would have drawn.
    """
    x, labels = ranks.whole_batch()
    head = ranks.make(ShardedCentreClassifier, "exact", 2)
    chosen = []
    for step in range(5):
        parts = [rank["sampled"][step] for rank in found[size]]
        weight = torch.cat([part["weight"] for part in parts])
        drawn = weight.unflatten(0, (-1, 2)).abs().sum((1, 2)).nonzero()
        drawn = drawn.squeeze(1)  # with probability 1 these have a gradient
        chosen.append(drawn)
        assert torch.isin(labels, drawn).all()
        assert len(drawn) <= len(labels.unique()) + size
        rows = (2 * drawn.unsqueeze(1) + torch.arange(2)).flatten()
        loss = margin_softmax(
            x.squeeze(1),
            head.weight[rows],
            torch.searchsorted(drawn, labels),
            head.similarity,
            ranks.cost_of("exact", 2).loss_fn,
            2,
        )
        for part in parts:
            close(part["loss"], loss.detach())
    assert chosen[1].equal(chosen[3]) and chosen[2].equal(chosen[4])
    assert not all(drawn.equal(chosen[0]) for drawn in chosen)


def test_draw():
    """Every other class is as likely, and no class comes twice."""
    generator = torch.Generator().manual_seed(0)
    shard = Shard(20)
    labels = torch.tensor([[3], [17], [3]])
    counts = torch.zeros(20)
    for _ in range(2000):
        chosen, targets = draw_classes(shard, labels, 6, generator)
        assert chosen.unique().equal(chosen) and len(chosen) == 8
        assert chosen[targets].equal(labels)
        counts[chosen] += 1
    assert counts[3] == counts[17] == 2000
    others = counts[torch.arange(20) % 14 != 3] / 2000
    deviation = math.sqrt(1 / 3 * 2 / 3 / 2000)
    assert (others - 1 / 3).abs().max() < 4 * deviation
    chosen, _ = draw_classes(shard, labels, 100, generator)
    assert chosen.equal(torch.arange(20))


@pytest.mark.parametrize("size", WORLDS)
def test_what_would_train_wrongly_is_refused(size, found):
    for rank in found[size]:
        stock, joint, outputs, few, mixed, scaler = rank["messages"]
        for message in (stock, joint):
            assert "DistributedDataParallel would overwrite it" in message
        assert "as train_speaker_embeddings.py of this" in outputs
        assert few.startswith("out_neurons is 1, expected at least one class")
        assert mixed.startswith("classifier has a sharded head among others")
        assert scaler.startswith("precision is fp16") and "bf16" in scaler


@pytest.mark.parametrize(
    "options, message",
    [
        ({"lin_blocks": 1}, "lin_blocks is 1, expected 0"),
        ({"sampled": 0}, "sampled is 0, expected a share"),
        ({"sampled": 1.5}, "sampled is 1.5, expected a share"),
        ({"sampled": True}, "sampled is True, expected a share"),
        ({"sub_centres": 0}, "sub_centres is 0"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        ShardedCentreClassifier(4, out_neurons=3, **options)


def test_initial_centres_have_the_spread_of_the_plain_head():
    """Of a head of more than one block."""
    for name, statistic in (
        ("am", torch.std),
        ("am", torch.amax),
        ("ham", torch.std),
    ):
        similarity, arguments, _ = ranks.SYSTEMS[name]
        sharded, plain = (
            kind(16, out_neurons=5000, similarity=similarity(**arguments))
            for kind in (ShardedCentreClassifier, CentreClassifier)
        )
        assert statistic(sharded.weight).item() == pytest.approx(
            statistic(plain.weight).item(), rel=0.02
        )
        assert len(sharded.weight.unique(dim=0)) == 5000


def broken(folder, tmp_path, change):
    """A copy of a checkpoint of two processes with a changed shard."""
    (source,) = (folder / "2" / "trained").glob("CKPT*")
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    shard = tmp_path / "classifier.ckpt.2-of-2"
    change(shard, folder)
    return tmp_path / "classifier.ckpt", shard


def truncate(shard, folder):
    shard.write_bytes(shard.read_bytes()[:-100])


def empty(shard, folder):
    shard.write_bytes(b"")


def remove(shard, folder):
    shard.unlink()


def exchange(shard, folder):
    """With that of another checkpoint of the same head."""
    modules, _ = ranks.trainable(ShardedCentreClassifier)
    rows = modules["classifier"].weight.detach()[:10]
    torch.save({"token": 1, "tensors": [rows]}, shard)


def not_tensors(shard, folder):
    torch.save([1], shard)


@pytest.mark.parametrize("kind", [CentreClassifier, ShardedCentreClassifier])
@pytest.mark.parametrize(
    "change, message",
    [
        (truncate, "is damaged"),
        (empty, "is damaged"),
        (remove, "is missing: the checkpoint is incomplete"),
        (exchange, "is of another checkpoint"),
        (not_tensors, "is no shard"),
    ],
)
def test_a_broken_shard_is_named(
    change, message, kind, found, folder, tmp_path
):
    path, shard = broken(folder, tmp_path, change)
    modules, _ = ranks.trainable(kind)
    pretrainer = AveragedPretrainer(
        tmp_path, loadables={"classifier": modules["classifier"]}
    )
    with pytest.raises(InputError, match=f"{shard} {message}") as raised:
        pretrainer.load_collected()
    assert "\n" not in str(raised.value)


def test_of_another_number_of_speakers(found, folder):
    (source,) = (folder / "2" / "trained").glob("CKPT*")
    head = ShardedCentreClassifier(ranks.DIM, out_neurons=9, sub_centres=2)
    pretrainer = AveragedPretrainer(source, loadables={"classifier": head})
    with pytest.raises(InputError, match="has 22 rows in weight, expected 18"):
        pretrainer.load_collected()
