"""A classifier head whose centres are spread over the processes."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from speechbrain.utils.distributed import ddp_broadcast

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.lobes.heads import CentreClassifier, JointClassifier
from speechbrain_hyperbolic.lobes.similarity import Dot
from speechbrain_hyperbolic.nnet.losses import MarginSoftmax
from speechbrain_hyperbolic.nnet.sharded import Shard, sharded_margin_softmax
from speechbrain_hyperbolic.sharded_state import Rows, shards_of

# Initial centres are drawn in blocks of as many classes, each of which has a
# seed of its own: so they are the same whatever the number of processes.
BLOCK = 4096


class ShardedCentreClassifier(CentreClassifier):
    """Similarities to very many speakers: a process has a part of them.

    Of C speakers each of W processes holds C / W, with their gradients and
    the state of the optimizer. The loss, and every gradient, is that of a
    ``CentreClassifier`` on the batches of all processes together, up to
    rounding. Without a process group it's that head, on one process.

    It averages nothing and has no copy elsewhere: keep it out of
    DistributedDataParallel, as ``training.SpeakerBrain`` does. The stock
    training script can't, and is refused.

    With ``sampled``, only some of the other speakers count in a step. The sum
    of the softmax is then over these, and nothing corrects for it: the loss is
    lower than of all speakers, by log(1 / share) at most, and a centre is
    pushed away by a share of the batches only. That is as published, with a
    share of 0.1 at next to no loss of accuracy. The gradient is dense, with
    zeros, and so is the optimizer: an Adam moves centres that were not drawn
    by their momentum.

    Source of sampling: An et al., CVPR 2022, arXiv 2203.15565.

    Arguments
    ---------
    input_size : int
        Dimension of the embedding.
    device : str
        Device of the parameters, e.g. "cpu" or "cuda".
    lin_blocks : int
        0: there is one encoder, and it's not here.
    lin_neurons : int
        Not used.
    out_neurons : int
        Number of speakers, of all processes.
    similarity : torch.nn.Module
        See ``lobes.similarity``; None: cosine.
    sub_centres : int
        Centres of a speaker, of which the most similar counts.
    init_std : float
        Standard deviation of the initial centres; None: the similarity's.
    sampled : float or int
        Other speakers that each process draws for a step: a share of its own
        in (0, 1), or how many; None: all.

    Raises
    ------
    InputError
        If a value is out of range, or there are fewer speakers than processes.

    Example
    -------
    >>> head = ShardedCentreClassifier(input_size=192, out_neurons=10)
    >>> head(torch.randn(4, 1, 192)).shape
    torch.Size([4, 1, 10])
    """

    def __init__(
        self,
        input_size: int,
        device: str = "cpu",
        lin_blocks: int = 0,
        lin_neurons: int = 192,
        out_neurons: int = 1211,
        similarity: Dot | None = None,
        sub_centres: int = 1,
        init_std: float | None = None,
        sampled: float | int | None = None,
    ) -> None:
        if lin_blocks:
            raise InputError(
                f"lin_blocks is {lin_blocks}, expected 0: a sharded head has "
                "centres alone, put other layers into the encoder"
            )
        shard = Shard(out_neurons)
        # What is drawn here must not depend on how many centres are here.
        seed = ddp_broadcast(int(torch.randint(2**62, ())))
        with torch.random.fork_rng(devices=[]):
            super().__init__(
                input_size,
                out_neurons=shard.last - shard.first,
                similarity=similarity,
                sub_centres=sub_centres,
                init_std=init_std,
            )
        self.shard = shard
        self.sampled = _check_sampled(sampled)
        # Of the negatives: a checkpoint has it, and a run that goes on draws
        # what it would have drawn.
        self.draws = {"seed": seed, "step": 0}
        self._draw_centres(seed, init_std)
        self.to(device)
        if shard.parts > 1:
            _sum_gradients(self.similarity, shard)

    @property
    def rows(self) -> Rows:
        """Which rows of the weight of all processes this one has."""
        bounds = [self.sub_centres * first for first in self.shard.bounds]
        return Rows(self.shard.part, bounds)

    @torch.no_grad()
    def _draw_centres(self, seed: int, init_std: float | None) -> None:
        if init_std is None:
            init_std = self.similarity.init_std
        first, last = self.rows.first, self.rows.last
        block = BLOCK * self.sub_centres
        # As torch.nn.init.xavier_uniform_ of the whole weight.
        bound = math.sqrt(6 / (self.rows.total + self.weight.shape[1]))
        for number in range(first // block, -(-last // block)):
            start = number * block
            size = min(block, self.rows.total - start)
            values = torch.empty(size, self.weight.shape[1])
            generator = torch.Generator().manual_seed(seed + number)
            if init_std is None:
                values.uniform_(-bound, bound, generator=generator)
            else:
                values.normal_(std=init_std, generator=generator)
            begin, end = max(first, start), min(last, start + size)
            self.weight[begin - first : end - first] = values[
                begin - start : end - start
            ]

    @property
    def _ddp_params_and_buffers_to_ignore(self) -> tuple[()]:
        """What DistributedDataParallel asks for before it copies weights."""
        if self.shard.parts > 1:
            raise InputError(
                "the classifier is sharded, and DistributedDataParallel would "
                "overwrite it: train with train_speaker_embeddings.py of this "
                "package's recipe, or use lobes.heads.CentreClassifier"
            )
        return ()

    def loss(
        self,
        embeddings: torch.Tensor,
        centres: torch.Tensor,
        targets: torch.Tensor,
        cost: MarginSoftmax,
    ) -> torch.Tensor:
        """That of the batches of all processes, see ``CentreClassifier``."""
        negatives = generator = None
        if self.sampled is not None:
            negatives, generator = self._sampling(self.sampled)
        loss = sharded_margin_softmax(
            embeddings,
            centres,
            targets,
            self.similarity,
            cost.loss_fn,
            self.shard,
            self.sub_centres,
            cost.chunk_size,
            negatives,
            generator,
        )
        if loss.requires_grad:
            self.draws["step"] += 1
        return loss

    def _sampling(self, count: float | int) -> tuple[int, torch.Generator]:
        if isinstance(count, float):
            count = math.ceil(count * (self.shard.last - self.shard.first))
        of = "{seed} {step}".format(**self.draws)
        seed = random.Random(f"{of} {self.shard.part}").getrandbits(62)
        return count, torch.Generator().manual_seed(seed)

    def outputs(
        self, embeddings: torch.Tensor, centres: torch.Tensor
    ) -> torch.Tensor:
        """Those of all speakers, see ``CentreClassifier``."""
        alone = self.shard.parts == 1 and self.sampled is None
        if torch.is_grad_enabled() and not alone:
            raise InputError(
                "a sharded or sampled classifier gives outputs under "
                "torch.no_grad() alone: to train, it takes labels and a "
                "MarginSoftmax, as train_speaker_embeddings.py of this "
                "package's recipe gives it"
            )
        compare = super().outputs
        return self.shard.outputs(
            embeddings, lambda rows: compare(rows, centres)
        )

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """From one value for each centre here to those of all centres."""
        return self.shard.gather(values)[0]


def _check_sampled(sampled: float | int | None) -> float | int | None:
    share = isinstance(sampled, float) and 0 < sampled < 1
    count = type(sampled) is int and sampled > 0
    if sampled is not None and not (share or count):
        raise InputError(
            f"sampled is {sampled}, expected a share of the speakers in "
            "(0, 1), how many, or null for all"
        )
    return sampled


def _sum_gradients(similarity: torch.nn.Module, shard: Shard) -> None:
    """Each process has a part of the gradients by what all have alike."""
    for parameter in similarity.parameters():
        # Two heads may have one similarity.
        if not hasattr(parameter, "is_summed"):
            parameter.is_summed = True  # type: ignore[attr-defined]
            parameter.register_hook(shard.sum)


@contextmanager
def kept_from_ddp(modules: Mapping[str, torch.nn.Module]) -> Iterator[None]:
    """Keeps modules with a sharded head from being distributed.

    SpeechBrain wraps those that learn: meanwhile, these don't.

    Arguments
    ---------
    modules : dict
        Name -> torch.nn.Module.

    Raises
    ------
    InputError
        If a module has a sharded head and parameters that are not.
    """
    kept = []
    for name, module in modules.items():
        if not any(rows.parts > 1 for rows in shards_of(module).values()):
            continue
        heads = [module]
        if isinstance(module, JointClassifier):
            heads = list(module.heads)
        if not all(isinstance(h, ShardedCentreClassifier) for h in heads):
            raise InputError(
                f"{name} has a sharded head among others: make all heads "
                "lobes.sharded.ShardedCentreClassifier, or none"
            )
        kept += [p for p in module.parameters() if p.requires_grad]
    for parameter in kept:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in kept:
            parameter.requires_grad_(True)


@torch.no_grad()
def clip_gradients(
    parameters: Sequence[torch.nn.Parameter],
    modules: torch.nn.Module,
    max_norm: float,
) -> torch.Tensor:
    """Clips by the norm of all gradients, those of other processes too.

    Arguments
    ---------
    parameters : list of torch.nn.Parameter
    modules : torch.nn.Module
        Whose they are, with sharded heads or without.
    max_norm : float

    Returns
    -------
    norm : torch.Tensor
        Before clipping, a scalar.

    Example
    -------
    >>> linear = torch.nn.Linear(2, 1)
    >>> linear(torch.ones(1, 2)).sum().backward()
    >>> parameters = list(linear.parameters())
    >>> clip_gradients(parameters, linear, 5.0)
    tensor(1.7321)
    """
    heads = [
        module
        for module in modules.modules()
        if isinstance(module, ShardedCentreClassifier)
    ]
    if all(head.shard.parts == 1 for head in heads):
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    sharded = {id(head.weight) for head in heads}
    squares = {True: 0.0, False: 0.0}
    gradients = []
    for parameter in parameters:
        if parameter.grad is not None:
            gradients.append(parameter.grad)
            norm = torch.linalg.vector_norm(parameter.grad)
            squares[id(parameter) in sharded] += norm.square()
    here = torch.as_tensor(squares[True], device=gradients[0].device)
    norm = (squares[False] + heads[0].shard.sum(here)).sqrt()
    factor = (max_norm / (norm + 1e-6)).clamp(max=1)  # as torch has it
    for gradient in gradients:
        gradient.mul_(factor)
    return norm
