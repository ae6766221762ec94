"""What the processes of ``test_sharding`` compute, each its part."""

import os
import pathlib

import speechbrain as sb
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from speechbrain_hyperbolic.checkpoints import RecentCheckpointer
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.lobes.heads import CentreClassifier, JointClassifier
from speechbrain_hyperbolic.lobes.sharded import (
    ShardedCentreClassifier,
    clip_gradients,
)
from speechbrain_hyperbolic.lobes.similarity import (
    ClippedDistance,
    Cosine,
    Dot,
    ExactDistance,
    SmoothDistance,
)
from speechbrain_hyperbolic.nnet.losses import JointLoss, MarginSoftmax
from speechbrain_hyperbolic.nnet.margins import (
    AdditiveAngularMargin,
    AdditiveMargin,
    MarginSchedule,
    RealAdditiveMargin,
)
from speechbrain_hyperbolic.sharded_state import load_optimizer, save_optimizer
from speechbrain_hyperbolic.statistics import geometry_statistics
from speechbrain_hyperbolic.training import SpeakerBrain

CLASSES, DIM = 11, 5
# Rows of each process, as many in all.
BATCHES = {1: [6], 2: [4, 2], 3: [2, 3, 1]}
LEARNT = {"learnable": True, "learn_scale": True}
SYSTEMS = {
    "softmax": (Dot, {}, AdditiveMargin),
    "am": (Cosine, {}, AdditiveMargin),
    "aam": (Cosine, {}, AdditiveAngularMargin),
    "ram": (Cosine, {}, RealAdditiveMargin),
    "ham": (ClippedDistance, {"learn_scale": True}, AdditiveMargin),
    "exact": (ExactDistance, {"curvature": 0.5, **LEARNT}, AdditiveMargin),
    "smooth": (SmoothDistance, {"learn_scale": True}, AdditiveMargin),
}
CASES = [
    (name, dtype, sub_centres, top_k, chunk_size)
    for name in SYSTEMS
    for dtype in (torch.float64, torch.float32)
    for sub_centres in (1, 3)
    for top_k in (0, 2, 20)
    for chunk_size in (None, 2)
]


def whole_batch(dtype=torch.float64, seed=0):
    """Of all processes: embeddings on both sides of the caps, and labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(6, 1, DIM, generator=generator, dtype=torch.float64)
    x = x / x.norm(dim=-1, keepdim=True)
    x = x * (0.1 + torch.rand(6, 1, 1, generator=generator))
    labels = torch.randint(CLASSES, (6, 1), generator=generator)
    return x.to(dtype), labels


def own(rows, rank, world_size):
    """The part of a process."""
    return rows.split(BATCHES[world_size])[rank]


def make(kind, name, sub_centres=1, dtype=torch.float64, **options):
    """A head, whose centres are on both sides of the caps."""
    torch.manual_seed(1)
    similarity, arguments, _ = SYSTEMS[name]
    head = kind(
        DIM,
        out_neurons=CLASSES,
        similarity=similarity(**arguments),
        sub_centres=sub_centres,
        init_std=0.5,
        **options,
    )
    return head.to(dtype)


def cost_of(name, top_k=0, chunk_size=None):
    _, _, loss_fn = SYSTEMS[name]
    return MarginSoftmax(loss_fn(0.2, 5.0, top_k, 0.1), chunk_size)


def learn(head, cost, x, labels):
    """Loss and gradients of one step; the loss is scaled as views scale it."""
    x = x.clone().requires_grad_()
    loss = head(x, labels, cost)
    (2 * loss).backward()
    gradients = {k: p.grad for k, p in head.named_parameters()}
    return {"loss": loss.detach(), "x": x.grad, **gradients}


def joint(kind):
    heads = [make(kind, "exact"), make(kind, "ram")]
    costs = [cost_of("exact"), cost_of("ram")]
    return JointClassifier(heads), JointLoss(costs, [0.7, 0.3])


class Encoder(torch.nn.Linear):
    """Embeddings, by a layer that starts the same everywhere."""

    def __init__(self):
        torch.manual_seed(2)
        super().__init__(DIM, DIM, dtype=torch.float64)


def optimizer_of(parameters):
    return torch.optim.Adam(parameters, lr=0.05, weight_decay=1e-3)


def train(modules, optimizer, cost, steps, rank=0, world_size=1):
    """Steps with clipping; their losses and norms."""
    found = []
    for step in steps:
        x, labels = (
            own(rows, rank, world_size) for rows in whole_batch(seed=step)
        )
        loss = modules["classifier"](modules["encoder"](x), labels, cost)
        loss.backward()
        parameters = optimizer.param_groups[0]["params"]
        norm = clip_gradients(parameters, modules, 0.1)
        optimizer.step()
        optimizer.zero_grad()
        found.append((loss.item(), norm.item()))
    return found


def checkpointer_of(folder, modules, optimizer):
    """As SpeakerBrain makes it."""
    checkpointer = RecentCheckpointer(
        folder,
        recoverables={
            "classifier": modules["classifier"],
            "encoder": getattr(modules["encoder"], "module", None)
            or modules["encoder"],
        },
    )
    checkpointer.add_recoverable(
        "optimizer",
        optimizer,
        lambda o, path, end: load_optimizer(o, path, modules=modules),
        lambda o, path: save_optimizer(o, path, modules=modules),
    )
    return checkpointer


def trainable(kind, **options):
    """Modules in an order in which the head isn't last."""
    modules = torch.nn.ModuleDict(
        {
            "classifier": make(kind, "exact", 2, **options),
            "encoder": Encoder(),
        }
    )
    cost = MarginSoftmax(
        AdditiveMargin(MarginSchedule(last_step=8), 5.0), chunk_size=3
    )
    return modules, cost


def refused(function):
    try:
        function()
    except InputError as error:
        return str(error)
    return None


def brain_of(kind, head, **options):
    """A Brain that is about to distribute a head."""
    return kind(
        {"classifier": head},
        run_opts={"device": "cpu", "distributed_backend": "gloo"},
        **options,
    )


def message_of_stock_brain():
    head = make(ShardedCentreClassifier, "ham")
    return refused(brain_of(sb.Brain, head)._wrap_distributed)


def message_of_stock_brain_with_two_heads():
    head, _ = joint(ShardedCentreClassifier)
    return refused(brain_of(sb.Brain, head)._wrap_distributed)


def message_of_gradient_scaler():
    head = make(ShardedCentreClassifier, "ham")
    brain = brain_of(SpeakerBrain, head, opt_class=optimizer_of)
    brain.scaler = torch.GradScaler("cpu", enabled=True)  # as of fp16
    return refused(brain.init_optimizers)


def message_of_outputs():
    head = make(ShardedCentreClassifier, "ham")
    return refused(lambda: head(whole_batch()[0]))


def message_of_few_classes():
    return refused(lambda: ShardedCentreClassifier(DIM, out_neurons=1))


def message_of_mixed_heads():
    heads = [make(ShardedCentreClassifier, "am"), make(CentreClassifier, "am")]
    brain = brain_of(SpeakerBrain, JointClassifier(heads))
    return refused(brain._wrap_distributed)


def compute(rank, world_size, folder):
    """One process of as many; what it finds, for the file of its rank."""
    found = {}
    for case in CASES:
        name, dtype, sub_centres, top_k, chunk_size = case
        head = make(ShardedCentreClassifier, name, sub_centres, dtype)
        batch = (own(v, rank, world_size) for v in whole_batch(dtype))
        found[str(case)] = learn(head, cost_of(name, top_k, chunk_size), *batch)
    batch = [own(v, rank, world_size) for v in whole_batch()]
    found["joint"] = learn(*joint(ShardedCentreClassifier), *batch)

    head = make(ShardedCentreClassifier, "exact", 2)
    with torch.no_grad():
        found["outputs"] = head(batch[0])
    found["statistics"] = geometry_statistics(head, None, None)

    modules, cost = trainable(ShardedCentreClassifier)
    modules["encoder"] = DistributedDataParallel(modules["encoder"])
    optimizer = optimizer_of(modules.parameters())
    found["trained"] = train(
        modules, optimizer, cost, range(10), rank, world_size
    )
    found["state"] = {k: v.clone() for k, v in modules.state_dict().items()}
    checkpointer = checkpointer_of(folder / "trained", modules, optimizer)
    checkpointer.save_checkpoint()
    found["more"] = train(
        modules, optimizer, cost, range(10, 13), rank, world_size
    )
    # What others have trained
    for source in ("plain", "2", "3"):
        path = folder.parent / source / "trained"
        if not path.exists():
            continue
        modules, cost = trainable(ShardedCentreClassifier)
        modules["encoder"] = DistributedDataParallel(modules["encoder"])
        cost.loss_fn.margin.steps.fill_(10)
        optimizer = optimizer_of(modules.parameters())
        checkpointer = checkpointer_of(path, modules, optimizer)
        checkpointer.recover_if_possible()
        found[f"more of {source}"] = train(
            modules, optimizer, cost, range(10, 13), rank, world_size
        )

    found["sampled"] = sampling(batch, folder)
    found["messages"] = [
        message_of_stock_brain(),
        message_of_stock_brain_with_two_heads(),
        message_of_outputs(),
        message_of_few_classes(),
        message_of_mixed_heads(),
        message_of_gradient_scaler(),
    ]
    return found


def sampling(batch, folder):
    """Three steps, and the last two once more, from a checkpoint."""

    def step(head):
        head.zero_grad()
        return learn(head, cost_of("exact", 2), *batch)

    head = make(ShardedCentreClassifier, "exact", 2, sampled=1)
    checkpointer = RecentCheckpointer(
        folder / "sampled", recoverables={"classifier": head}
    )
    found = [step(head)]
    checkpointer.save_checkpoint()
    found += [step(head), step(head)]
    head = make(ShardedCentreClassifier, "exact", 2, sampled=1)
    checkpointer.add_recoverable("classifier", head)
    checkpointer.recover_if_possible()
    return [*found, step(head), step(head)]


def run(rank, folder):
    """A process, which takes part in a group of 2 and in one of 3."""
    # SpeechBrain asks for these.
    os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(rank)
    torch.set_num_threads(1)
    folder = pathlib.Path(folder)
    for world_size in (2, 3):
        if rank >= world_size:
            continue
        distributed.init_process_group(
            "gloo",
            init_method=f"file://{folder}/group{world_size}",
            rank=rank,
            world_size=world_size,
        )
        here = folder / str(world_size)
        here.mkdir(exist_ok=True)
        torch.save(compute(rank, world_size, here), here / f"rank{rank}")
        distributed.destroy_process_group()
