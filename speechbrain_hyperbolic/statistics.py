"""What tells during training whether the geometry works, and TensorBoard."""

import collections
import pathlib
from typing import Any

import torch
from speechbrain.utils.distributed import if_main_process, main_process_only
from speechbrain.utils.train_logger import TrainLogger

from speechbrain_hyperbolic.distributed import rows_of_processes
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.lobes.heads import JointClassifier
from speechbrain_hyperbolic.lobes.similarity import HyperbolicSimilarity

# Embeddings of an epoch that are kept, the last ones: its 5 % quantile stands
# on a hundred of them.
SAMPLE = 2048
# How close to the cap, relatively, a radius counts as on it: more than the
# published clip's 1e-5 of the norm, and than what float32 rounds.
CAP_TOLERANCE = 1e-4
QUANTILES = (0.05, 0.5, 0.95)
# Of how many values torch gives a quantile
MOST = 2**24


class EpochStatistics:
    """Gathers the statistics of one training epoch.

    Nothing waits for the GPU until ``summarize``, which all processes of a
    distributed training call: embeddings and centres are those of all.

    Example
    -------
    >>> from speechbrain.lobes.models.ECAPA_TDNN import Classifier
    >>> statistics = EpochStatistics()
    >>> for norm in (1.0, 2.0, float("inf")):
    ...     statistics.add_gradient(torch.tensor(norm))
    >>> statistics.summarize(Classifier(2), cost=None)
    {'gradient_norm': 1.5}
    """

    def __init__(self) -> None:
        self.batches: collections.deque[torch.Tensor] = collections.deque()
        self.norms: list[torch.Tensor] = []

    def add_embeddings(self, embeddings: torch.Tensor) -> None:
        """Keeps the embeddings of a batch, and drops what is too old.

        Arguments
        ---------
        embeddings : torch.Tensor
            Shape [batch, 1, D].
        """
        self.batches.append(embeddings.detach().squeeze(1)[-SAMPLE:])
        kept = sum(map(len, self.batches))
        while kept - len(self.batches[0]) >= SAMPLE:
            kept -= len(self.batches.popleft())

    def add_gradient(self, norm: torch.Tensor) -> None:
        """Notes the norm of a step's gradient.

        Arguments
        ---------
        norm : torch.Tensor
            A scalar.
        """
        self.norms.append(norm.detach())

    def state_dict(self) -> dict[str, Any]:
        """What was gathered, for a checkpoint."""
        norms = torch.stack(self.norms) if self.norms else None
        return {"batches": list(self.batches), "norms": norms}

    def load_state_dict(
        self, state: dict[str, Any], device: str | torch.device
    ) -> None:
        """Goes on from there.

        Arguments
        ---------
        state : dict
            Of ``state_dict``.
        device : str or torch.device
            Of what will be added.
        """
        self.batches = collections.deque(b.to(device) for b in state["batches"])
        norms = state["norms"]
        self.norms = [] if norms is None else list(norms.to(device))

    def summarize(
        self, classifier: torch.nn.Module, cost: torch.nn.Module
    ) -> dict[str, float]:
        """The statistics by name; what was not seen is left out.

        ``gradient_norm`` is the mean over the steps, but for those where it
        is not finite. The others are of ``geometry_statistics``.

        Arguments
        ---------
        classifier : torch.nn.Module
            With one head or several.
        cost : torch.nn.Module
            The loss.

        Returns
        -------
        statistics : dict
            Name -> float.
        """
        statistics = {}
        if self.norms:
            norms = torch.stack(self.norms)
            statistics["gradient_norm"] = norms[norms.isfinite()].mean().item()
        embeddings = None
        if self.batches:
            latest = torch.cat(list(self.batches))[-SAMPLE:]
            embeddings = rows_of_processes(latest)
        return statistics | geometry_statistics(classifier, cost, embeddings)


def geometry_statistics(
    classifier: torch.nn.Module,
    cost: torch.nn.Module | None,
    embeddings: torch.Tensor | None = None,
) -> dict[str, float]:
    """Where embeddings and centres are, and what puts them there.

    Radii are in units of curvature -1, with the embedding scale applied:

    - ``cap_embeddings``, ``cap_centres``: the share that is on the cap, the
      largest radius that the map allows. There the published clip has no
      radial gradient: if all are, the head is a spherical one.
    - ``radius_embeddings_05``, ``_50``, ``_95``, and so for centres: quantiles.
    - ``curvature`` (absolute value), ``embedding_scale`` and ``margin`` now.

    Of a joint head's they begin with ``head1_``, ``head2_``, and so on. A head
    that is not hyperbolic has none.

    Embeddings of a training batch are of the encoder in training mode: of
    augmented crops, normalised by statistics of their batch. The layers of
    the head before its centres are in evaluation mode here, not to learn
    from it.

    Arguments
    ---------
    classifier : CentreClassifier or JointClassifier
        Or any other module, which has no statistics.
    cost : torch.nn.Module
        The loss, a ``JointLoss`` for a joint head.
    embeddings : torch.Tensor
        Shape [N, D]; None: there are none.

    Returns
    -------
    statistics : dict
        Name -> float.

    Example
    -------
    >>> from speechbrain_hyperbolic.lobes.heads import HyperbolicClassifier
    >>> head = HyperbolicClassifier(2, out_neurons=3, c=4.0)
    >>> embeddings = torch.tensor([[0.0, 0.1], [3.0, 4.0]])
    >>> geometry_statistics(head, None, embeddings)["cap_embeddings"]
    0.5
    """
    heads: list[torch.nn.Module] = [classifier]
    if joint := isinstance(classifier, JointClassifier):
        heads = list(classifier.heads)
    losses = getattr(cost, "losses", [cost] * len(heads))
    statistics = {}
    pairs = zip(heads, losses, strict=False)
    for number, (head, loss) in enumerate(pairs, start=1):
        prefix = f"head{number}_" if joint else ""
        for name, value in _head_statistics(head, loss, embeddings).items():
            statistics[prefix + name] = value
    return statistics


@torch.no_grad()
def _head_statistics(
    head: Any,
    loss: torch.nn.Module | None,
    embeddings: torch.Tensor | None,
) -> dict[str, float]:
    similarity = getattr(head, "similarity", None)
    if not isinstance(similarity, HyperbolicSimilarity):
        return {}
    statistics: dict[str, float] = {}
    if embeddings is not None:
        vectors = _before_centres(head, embeddings)
        points = similarity.points(vectors, embeddings=True)
        statistics |= _radii("embeddings", points.radius, similarity.cap)
    radius = head.gather(similarity.points(head.weight).radius)
    statistics |= _radii("centres", radius, similarity.cap)
    statistics["curvature"] = float(similarity.curvature)
    statistics["embedding_scale"] = float(similarity.embedding_scale)
    margin = getattr(getattr(loss, "loss_fn", None), "margin", None)
    if margin is not None:
        statistics["margin"] = float(getattr(margin, "value", margin))
    return statistics


def _before_centres(head: Any, embeddings: torch.Tensor) -> torch.Tensor:
    """What the head compares with its centres, shape [N, D]."""
    # As in the head: not in bfloat16, which autocast makes of an embedding.
    dtype = torch.promote_types(embeddings.dtype, torch.float32)
    x = embeddings.to(dtype).unsqueeze(1)
    training = head.blocks.training
    head.blocks.eval()
    for block in head.blocks:
        x = block(x)
    head.blocks.train(training)
    return x.squeeze(1)


def _radii(name: str, radius: torch.Tensor, cap: float) -> dict[str, float]:
    on_cap = radius >= cap * (1 - CAP_TOLERANCE)
    some = radius[:: -(-len(radius) // MOST)]
    quantiles = some.quantile(radius.new_tensor(QUANTILES)).tolist()
    return {f"cap_{name}": on_cap.float().mean().item()} | {
        f"radius_{name}_{round(100 * q):02}": value
        for q, value in zip(QUANTILES, quantiles, strict=True)
    }


class TensorBoardLogger(TrainLogger):
    """Writes the statistics of epochs for TensorBoard.

    Unlike the stock TensorboardLogger it counts epochs, not its own calls: a
    run that goes on in its folder goes on in the same curves, and what was
    written of an epoch that is trained again is hidden.

    Arguments
    ---------
    folder : str or pathlib.Path
    first_epoch : int
        The next epoch.

    Raises
    ------
    InputError
        If TensorBoard is not installed.

    Example
    -------
    >>> logger = TensorBoardLogger(getfixture("tmpdir"))
    >>> logger.log_stats({"epoch": 1, "lr": 1e-3}, {"loss": 4.0})
    """

    def __init__(
        self, folder: str | pathlib.Path, first_epoch: int = 1
    ) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                f"tensorboard_folder is {folder}, but TensorBoard is not "
                "installed: pip install 'speechbrain-hyperbolic[tensorboard]'"
                ", or pass --tensorboard_folder=null"
            ) from error
        if if_main_process():
            self.writer = SummaryWriter(str(folder), purge_step=first_epoch)

    @main_process_only
    def log_stats(
        self,
        stats_meta: dict[str, float],
        train_stats: dict[str, float] | None = None,
        valid_stats: dict[str, float] | None = None,
        test_stats: dict[str, float] | None = None,
        verbose: bool = False,
    ) -> None:
        """Writes an epoch: ``lr``, ``loss/train``, ``loss/valid``, ...

        Arguments
        ---------
        stats_meta : dict
            Name -> float, with the ``epoch``.
        train_stats, valid_stats, test_stats : dict
            Name -> float.
        verbose : bool
            Not used.
        """
        values = dict(stats_meta)
        epoch = values.pop("epoch")
        stages = {
            "train": train_stats,
            "valid": valid_stats,
            "test": test_stats,
        }
        for stage, statistics in stages.items():
            for name, value in (statistics or {}).items():
                values[f"{name}/{stage}"] = value
        for tag, value in values.items():
            self.writer.add_scalar(tag, value, epoch)
        self.writer.flush()
