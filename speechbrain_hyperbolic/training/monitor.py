"""What training logs about its geometry, and reports when it diverges."""

import math
import os
import pathlib
import re
from typing import Any, NoReturn

import torch
from speechbrain.utils.distributed import (
    ddp_barrier,
    if_main_process,
    main_process_only,
)

from speechbrain_hyperbolic.dataio.files import (
    StrPath,
    naming_the_file,
    write_json,
    write_text,
)
from speechbrain_hyperbolic.dataio.tables import read_table, write_table
from speechbrain_hyperbolic.errors import InputError, requires
from speechbrain_hyperbolic.training.processes import gather

# Embeddings kept of an epoch, enough for a 5 % quantile
SAMPLE = 2048
# How near the largest radius counts as on the cap, relative to it
CAP_TOLERANCE = 1e-4
QUANTILES = (0.05, 0.5, 0.95)


class EpochStatistics:
    """Collects a training epoch's statistics without reading the device."""

    def __init__(self) -> None:
        self.embeddings: torch.Tensor | None = None
        self.gradient_norms: list[float] = []

    def add_embeddings(self, embeddings: torch.Tensor) -> None:
        """Keeps the last embeddings, shape [batch, 1, D]."""
        last = embeddings.detach().squeeze(1)
        if self.embeddings is not None:
            last = torch.cat([self.embeddings, last])
        self.embeddings = last[-SAMPLE:]

    def summarize(
        self, classifier: torch.nn.Module, cost: torch.nn.Module | None
    ) -> dict[str, float]:
        """The mean gradient norm, and the geometry over all processes."""
        statistics = {}
        if norms := self.gradient_norms:
            statistics["gradient_norm"] = math.fsum(norms) / len(norms)
        embeddings = None
        if self.embeddings is not None:
            last = self.embeddings[self.embeddings.isfinite().all(dim=1)]
            embeddings = torch.cat(gather(last.cpu())).to(last.device)
        return statistics | geometry_statistics(classifier, cost, embeddings)


def geometry_statistics(
    classifier: torch.nn.Module,
    cost: torch.nn.Module | None,
    embeddings: torch.Tensor | None = None,
) -> dict[str, float]:
    """Statistics of hyperbolic heads; other heads have none.

    ``cap_...`` are shares on the cap, the largest radius that the map allows;
    ``radius_...`` are quantiles, in units of curvature -1, after the embedding
    scale. A joint classifier's names start with ``head1_``, ``head2_``, ...
    """
    heads: Any = getattr(classifier, "heads", [classifier])
    losses: Any = getattr(cost, "losses", [cost] * len(heads))
    statistics = {}
    for number, (head, loss) in enumerate(zip(heads, losses, strict=True), 1):
        prefix = f"head{number}_" if len(heads) > 1 else ""
        for name, value in _head_statistics(head, loss, embeddings).items():
            statistics[f"{prefix}{name}"] = value
    return statistics


@torch.no_grad()
def _head_statistics(
    head: Any, cost: Any, embeddings: torch.Tensor | None
) -> dict[str, float]:
    similarity: Any = getattr(head, "similarity", None)
    if not hasattr(similarity, "points"):
        return {}
    statistics: dict[str, float] = {}
    if embeddings is not None and len(embeddings):
        # In float32, as in the head: autocast gives bfloat16 embeddings.
        dtype = torch.promote_types(embeddings.dtype, torch.float32)
        vectors = embeddings.to(dtype).unsqueeze(1)
        training = head.blocks.training
        head.blocks.eval()  # which leaves the batch norms' statistics as is
        for block in head.blocks:
            vectors = block(vectors)
        head.blocks.train(training)
        points = similarity.points(vectors.squeeze(1), embeddings=True)
        statistics |= _radii("embeddings", points.radius, similarity.cap)
    centers = similarity.points(head.weight)
    statistics |= _radii("centers", centers.radius, similarity.cap)
    statistics["curvature"] = float(similarity.curvature)
    statistics["embedding_scale"] = float(similarity.embedding_scale)
    loss_fn = getattr(cost, "loss_fn", None)
    margin = getattr(loss_fn, "margin", None)
    margin = getattr(loss_fn, "current_margin", margin)
    if margin is not None:
        statistics["margin"] = float(margin)
    return statistics


def _radii(name: str, radius: torch.Tensor, cap: float) -> dict[str, float]:
    on_cap = radius >= cap * (1 - CAP_TOLERANCE)
    quantiles = radius.quantile(radius.new_tensor(QUANTILES)).tolist()
    return {f"cap_{name}": on_cap.float().mean().item()} | {
        f"radius_{name}_{round(100 * q):02}": value
        for q, value in zip(QUANTILES, quantiles, strict=True)
    }


def summary_writer_class() -> Any:
    """TensorBoard's, or an InputError that says how to install it."""
    with requires("tensorboard", "--tensorboard_folder, unless it is null,"):
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter


class StatisticsLog:
    """Each epoch's statistics: the geometry as a table, all in TensorBoard.

    A resumed run drops what follows its checkpoint, in the train log too.
    """

    def __init__(
        self,
        output_folder: StrPath,
        tensorboard_folder: StrPath | None = None,
        first_epoch: int = 1,
        train_log: StrPath | None = None,
    ) -> None:
        self.path = pathlib.Path(output_folder) / "geometry.csv"
        self.rows: list[dict[str, Any]] = []
        if self.path.is_file():
            rows = [row for _, row in read_table(self.path, ["epoch"])]
            self.rows = [row for row in rows if int(row["epoch"]) < first_epoch]
        if train_log and if_main_process() and os.path.isfile(train_log):
            text = pathlib.Path(train_log).read_text("utf-8")
            late = re.search(rf"^epoch: {first_epoch}\b", text, re.MULTILINE)
            if late:
                write_text(train_log, text[: late.start()])
        self.board: Any = None
        if tensorboard_folder and if_main_process():
            # The stock TensorboardLogger would begin at step 1 again.
            self.board = summary_writer_class()(
                str(tensorboard_folder), purge_step=first_epoch
            )

    @main_process_only
    def add(
        self,
        meta: dict[str, Any],
        train: dict[str, float],
        valid: dict[str, float],
    ) -> None:
        """An epoch's, named as the arguments of a stock train logger."""
        row = {k: f"{v:.6g}" for k, v in train.items() if k != "loss"}
        self.rows.append({"epoch": meta["epoch"], **row})
        names = [*dict.fromkeys(name for row in self.rows for name in row)]
        rows = ([row.get(name, "") for name in names] for row in self.rows)
        write_table(rows, self.path, names)
        if self.board is None:
            return
        values = {"lr": meta["lr"]}
        values |= {f"{name}/train": value for name, value in train.items()}
        values |= {f"{name}/valid": value for name, value in valid.items()}
        with naming_the_file(self.board.log_dir):
            for tag, value in values.items():
                self.board.add_scalar(tag, value, meta["epoch"])
            self.board.flush()


def duration(seconds: float) -> str:
    """A time in words, to two digits or so."""
    for unit, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            digits = 0 if seconds >= 10 * unit else 1
            return f"{seconds / unit:.{digits}f} {name}"
    return f"{seconds:.0f} s"


def stop_diverged(
    output_folder: StrPath,
    ids: list[str],
    loss: float,
    gradient_norm: float,
    **place: Any,
) -> NoReturn:
    """Writes diverged.json and ends the training, called by all processes."""
    batches = gather((loss, ids))
    batches = [b for b in batches if not math.isfinite(b[0])] or batches
    report = {
        **place,
        "loss": repr(batches[0][0]),  # as text: JSON has no NaN
        "gradient_norm": repr(gradient_norm),
        "ids": [name for _, part in batches for name in part],
    }
    path = pathlib.Path(output_folder) / "diverged.json"
    if if_main_process():
        write_json(path, report)
    ddp_barrier()  # the first process that ends would end the others
    raise InputError(
        f"epoch {place['epoch']}, batch {place['step']} has the loss "
        f"{report['loss']} and the gradient norm {report['gradient_norm']}: "
        f"{path} lists its utterances; check them, or pass --lr below "
        f"{place['lr']:g} and another --output_folder. The last checkpoint is "
        "intact"
    )
