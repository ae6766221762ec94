"""The Brain of the training recipe."""

import functools
import inspect
import logging
import math
import os
import statistics
import time
from collections.abc import Callable, Sized
from typing import Any

import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.distributed import ddp_all_reduce
from speechbrain.utils.logger import get_logger
from torch.distributed import ReduceOp
from torch.nn.parallel import DistributedDataParallel

from speechbrain_hyperbolic.augment import SpeakerAugmenter
from speechbrain_hyperbolic.dataio.crops import SharedEpochCounter
from speechbrain_hyperbolic.dataio.files import naming_the_file
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.nnet.schedulers import margin_schedules
from speechbrain_hyperbolic.training.monitor import (
    EpochStatistics,
    StatisticsLog,
    duration,
    stop_diverged,
)
from speechbrain_hyperbolic.training.processes import gather, seed_step

logger = get_logger(__name__)

FEW_UTTERANCES = 20  # below, the validation's error is given as a count
PREFETCH = 4  # batches that each worker reads ahead


def fused(opt_class: Callable) -> Callable:
    """An optimizer's class that takes its step in few kernels, if it can."""
    parameters = inspect.signature(opt_class).parameters
    keywords = getattr(opt_class, "keywords", {})
    if "opt_class" in keywords:  # of fine_tuning_optimizer
        inner = fused(keywords["opt_class"])
        return functools.partial(opt_class, opt_class=inner)
    if "fused" not in parameters or keywords.keys() & {"fused", "foreach"}:
        return opt_class
    return functools.partial(opt_class, fused=True)


class SpeakerBrain(sb.Brain):
    """Trains an encoder and a classifier on speaker labels, as the stock
    recipe does and from the same keys of an hparams file.

    But the losses of an utterance's views are added, as published; statistics
    of the geometry are logged; margin schedules advance with the optimizer; a
    killed run resumes exactly. A loss or gradient that is not finite ends the
    training, unless ``nonfinite_patience`` (0) allows so many in an epoch.

    Arguments
    ---------
    modules : dict
        ``compute_features``, ``mean_var_norm``, ``embedding_model`` and
        ``classifier``.
    opt_class : callable
        From parameters to an optimizer.
    hparams : dict
        ``classifier``, ``compute_cost``, ``epoch_counter``, ``lr_annealing``,
        ``train_logger``, ``error_stats``, ``output_folder``, and optionally
        ``wav_augment``, ``tensorboard_folder`` and ``seed``.
    *args, **kwargs
        run_opts and checkpointer of the stock Brain.
    """

    def __init__(
        self,
        modules: dict[str, torch.nn.Module] | None = None,
        opt_class: Callable[..., torch.optim.Optimizer] | None = None,
        hparams: dict[str, Any] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        defaults = {
            "nonfinite_patience": 0,
            "wav_augment": None,
            "tensorboard_folder": None,
            "seed": 0,
            "deterministic": False,
            "compile_module_keys": ["embedding_model"],  # if --compile is given
        }
        hparams = defaults | (hparams or {})
        super().__init__(modules, opt_class, hparams, *args, **kwargs)
        if opt_class is not None and self.device_type == "cuda":
            self.opt_class = fused(opt_class)
        if self.hparams.deterministic:
            # A warning names what can't repeat its bits on CUDA, such as the
            # gradient of ECAPA's reflection padding.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.backends.cudnn.benchmark = False
        self.statistics = EpochStatistics()
        self.epoch_seconds: list[float] = []  # since the program began
        self.schedules = margin_schedules(self.hparams.compute_cost)

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """As the stock method; a GPU without memory gives one line."""
        try:
            super().fit(*args, **kwargs)
        except torch.OutOfMemoryError as error:
            what = ". ".join(str(error).split(". ")[:2])
            raise InputError(
                f"{what}: lower --batch_size, --channels or, with very many "
                "speakers, --chunk_size; --precision=bf16 also takes less"
            ) from error

    def compute_forward(
        self, batch: PaddedBatch, stage: sb.Stage
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The outputs, or with a ``chunk_size`` the loss; and the lengths."""
        batch = batch.to(self.device, non_blocking=True)
        waveforms, lengths = batch.sig
        augment = self.hparams.wav_augment
        if stage == sb.Stage.TRAIN and augment is not None:
            if isinstance(augment, SpeakerAugmenter):
                augment.go_to(self.hparams.epoch_counter.current, self.step)
            waveforms, lengths = augment(waveforms, lengths)

        features = self.modules.compute_features(waveforms)
        features = self.modules.mean_var_norm(features, lengths)
        embeddings = self.modules.embedding_model(features, lengths)
        if stage == sb.Stage.TRAIN:
            self.statistics.add_embeddings(embeddings)
            cost = self.hparams.compute_cost
            chunked = getattr(cost, "chunk_size", None)
            if chunked and not self.data_parallel_backend:
                labels = self.labels(batch, stage)
                loss = self.modules.classifier(embeddings, labels, cost)
                return loss, lengths
        return self.modules.classifier(embeddings), lengths

    def compute_objectives(
        self,
        predictions: tuple[torch.Tensor, torch.Tensor],
        batch: PaddedBatch,
        stage: sb.Stage,
    ) -> torch.Tensor:
        """The mean loss, a scalar."""
        outputs, lengths = predictions
        labels = self.labels(batch, stage)
        if outputs.ndim:
            loss = self.hparams.compute_cost(outputs, labels, lengths)
        else:  # computed with the outputs, chunk by chunk
            loss = outputs

        if stage != sb.Stage.TRAIN:
            self.error_metrics.append(batch.id, outputs, labels, lengths)
        elif hasattr(self.hparams.lr_annealing, "on_batch_end"):
            self.hparams.lr_annealing.on_batch_end(self.optimizer)
        return loss

    def labels(self, batch: PaddedBatch, stage: sb.Stage) -> torch.Tensor:
        """The label of each view, shape [views * batch, 1]."""
        labels = batch.spk_id_encoded.data
        augment = self.hparams.wav_augment
        if stage == sb.Stage.TRAIN and augment is not None:
            labels = augment.replicate_labels(labels)
        return labels

    def fit_batch(self, batch: PaddedBatch) -> torch.Tensor:
        """As the stock method, but it waits for the device only once."""
        epoch = self.hparams.epoch_counter.current
        seed_step(self.hparams.seed, epoch, self.step)
        should_step = self.step % self.grad_accumulation_factor == 0
        self.on_fit_batch_start(batch, should_step)
        with self.no_sync(not should_step):
            with self.training_ctx:
                outputs = self.compute_forward(batch, sb.Stage.TRAIN)
                loss = self.compute_objectives(outputs, batch, sb.Stage.TRAIN)
            # Published: the losses of an utterance's views are added.
            views = len(outputs[1]) / len(batch.id)
            total = views * loss / self.grad_accumulation_factor
            self.scaler.scale(total).backward()
        norm = self.clip_gradients() if should_step else loss.new_zeros(())

        values = torch.stack([loss.detach(), norm])
        infinite = (~values.isfinite()).to(values.dtype)
        infinite = ddp_all_reduce(infinite, ReduceOp.MAX)
        values = torch.cat([values, infinite])
        loss_value, norm_value, infinite_loss, infinite_norm = values.tolist()
        # A gradient scaler expects overflows and skips such steps itself.
        if infinite_loss or (infinite_norm and not self.scaler.is_enabled()):
            if infinite_loss or not self.skip_nonfinite_grads:
                self.nonfinite_count += 1
            self.skip_batch(batch, loss_value, norm_value)
            if should_step:
                self.scaler.update()
        elif should_step:
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.zero_grad(set_to_none=True)
            self.optimizer_step += 1
            for schedule in self.schedules:
                schedule.step()
            if math.isfinite(norm_value):  # else an overflow in fp16
                self.statistics.gradient_norms.append(norm_value)
        self.on_fit_batch_end(batch, outputs, loss, should_step)
        return torch.tensor(loss_value)

    def clip_gradients(self) -> torch.Tensor:
        """Scales a large gradient down and returns its norm before."""
        self.scaler.unscale_(self.optimizer)
        return torch.nn.utils.clip_grad_norm_(
            self.modules.parameters(), self.max_grad_norm
        )

    def skip_batch(self, batch: PaddedBatch, loss: float, norm: float) -> None:
        """Drops the gradient, or ends the training if patience is lost."""
        if self.nonfinite_count > self.nonfinite_patience:
            stop_diverged(
                self.hparams.output_folder,
                list(batch.id),
                loss,
                norm,
                epoch=self.hparams.epoch_counter.current,
                step=self.step,
                lr=self.optimizer.param_groups[0]["lr"],
            )
        self.zero_grad(set_to_none=True)
        logger.warning(
            f"Batch {self.step} is skipped: its loss is {loss} and the norm "
            f"of its gradient {norm}."
        )

    def make_dataloader(
        self, dataset: Any, stage: sb.Stage, *args: Any, **loader_kwargs: Any
    ) -> torch.utils.data.DataLoader:
        """As the stock method; shards have an order of their own."""
        workers = bool(loader_kwargs.get("num_workers"))
        shared = isinstance(self.hparams.epoch_counter, SharedEpochCounter)
        options: dict[str, Any] = {
            # Workers' seeds drawn from the global generator, as by default,
            # would be drawn again in a resumed epoch and change what follows.
            "generator": torch.Generator(),
            "pin_memory": self.device_type == "cuda",
            # Workers may stay for all epochs if they see which epoch it is.
            "persistent_workers": workers and shared,
            "prefetch_factor": PREFETCH if workers else None,
            **loader_kwargs,
        }
        sampler = getattr(dataset, "sampler", None)
        train, size = stage == sb.Stage.TRAIN, options.get("batch_size") or 1
        alone = getattr(self.hparams, "wav_augment", None) is None
        if train and alone and isinstance(dataset, Sized):
            processes = int(os.environ.get("WORLD_SIZE", 1))
            rows = math.ceil(len(dataset) / processes)
            if rows > size and rows % size == 1:
                options["drop_last"] = True  # one row has no variance
                logger.warning("The last utterance of each epoch is left out.")
        if train and sampler is not None:
            options |= {"sampler": sampler, "shuffle": False}
            self.train_sampler = sampler  # whose epoch the stock Brain sets
        return super().make_dataloader(dataset, stage, *args, **options)

    def _should_save_intra_epoch_ckpt(self, *since: float) -> bool:
        """As the stock method, but not while gradients are accumulated."""
        due = super()._should_save_intra_epoch_ckpt(*since)
        return due and self.step % self.grad_accumulation_factor == 0

    def _wrap_distributed(self) -> None:
        """As the stock method; on CPUs without SyncBatchNorm, for GPUs only."""
        if not self.distributed_launch or self.device_type != "cpu":
            super()._wrap_distributed()
            return
        for name, module in self.modules.items():
            if any(p.requires_grad for p in module.parameters()):
                self.modules[name] = DistributedDataParallel(
                    module, find_unused_parameters=self.find_unused_parameters
                )

    def on_fit_start(self) -> None:
        """Resumes from the newest checkpoint and says so."""
        if self.checkpointer is not None:
            add = self.checkpointer.add_recoverable
            for number, schedule in enumerate(self.schedules):
                add(f"margin_schedule{number}", schedule, optional_load=True)
        super().on_fit_start()

        counter = self.hparams.epoch_counter
        self.statistics_log = StatisticsLog(
            self.hparams.output_folder,
            self.hparams.tensorboard_folder,
            first_epoch=counter.current + 1,
            train_log=getattr(self.hparams.train_logger, "save_file", None),
        )
        newest = self.checkpointer and self.checkpointer.find_checkpoint()
        if newest:
            logger.info(
                f"Resuming from {newest.path}, after epoch {counter.current} "
                f"of {counter.limit}."
            )

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Begins an epoch's statistics."""
        if stage != sb.Stage.TRAIN:
            self.error_metrics = self.hparams.error_stats()
            return
        self.epoch_began = time.monotonic()
        self.statistics = EpochStatistics()

    def on_stage_end(
        self, stage: sb.Stage, stage_loss: float, epoch: int | None = None
    ) -> None:
        """Anneals the learning rate, logs the epoch and saves a checkpoint."""
        if stage == sb.Stage.TRAIN:
            self.train_stats = {
                "loss": statistics.fmean(gather(stage_loss)),
                **self.statistics.summarize(
                    self.hparams.classifier, self.hparams.compute_cost
                ),
            }
            return
        error_rate = self.error_metrics.summarize("average")
        if stage != sb.Stage.VALID:
            return

        lr = self.optimizer.param_groups[0]["lr"]
        _, new_lr = self.hparams.lr_annealing(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = new_lr
        self.log_epoch(
            {"epoch": epoch, "lr": lr},
            {"loss": stage_loss, "ErrorRate": error_rate},
        )
        self.checkpointer.save_and_keep_only(
            meta={"ErrorRate": error_rate},
            min_keys=["ErrorRate"],
            verbosity=logging.DEBUG,
        )

    def log_epoch(self, meta: dict[str, Any], valid: dict[str, Any]) -> None:
        """One short line, the train log's too, and all statistics."""
        train_loss = {"loss": self.train_stats["loss"]}
        count = len(self.error_metrics.scores)
        error = f"error {100 * valid['ErrorRate']:.1f} %"
        if count < FEW_UTTERANCES:  # whose rate would look measured
            wrong = round(count * valid["ErrorRate"])
            error = f"{wrong} of {count} utterances wrong"
            valid["utterances"] = count
        train_logger = self.hparams.train_logger
        with naming_the_file(getattr(train_logger, "save_file", "train_log")):
            train_logger.log_stats(meta, train_loss, valid, verbose=False)
        self.statistics_log.add(meta, self.train_stats, valid)

        self.epoch_seconds.append(time.monotonic() - self.epoch_began)
        times = f"{self.epoch_seconds[-1]:.3g} s"
        epoch, limit = meta["epoch"], self.hparams.epoch_counter.limit
        if epoch < limit:
            left = (limit - epoch) * statistics.fmean(self.epoch_seconds)
            times += f", {duration(left)} left"
        logger.info(
            f"epoch {epoch}/{limit}: lr {meta['lr']:.2g}, "
            f"loss {train_loss['loss']:.3g}, valid loss {valid['loss']:.3g}, "
            f"{error}, {times}"
        )
