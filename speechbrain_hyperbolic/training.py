"""The training recipe: preparation, data sets and Brain.

It follows the stock VoxCeleb recipe in what it reads from the hparams file,
so that one file serves both.
"""

import functools
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TypeAlias

import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.corpus import prepare_corpus, read_csv
from speechbrain_hyperbolic.dataio.crops import Crop
from speechbrain_hyperbolic.dataio.files import atomic_path, naming_the_file
from speechbrain_hyperbolic.dataio.shards import (
    SHUFFLE_BUFFER,
    ShardDataset,
    Shards,
)
from speechbrain_hyperbolic.dataio.trials import (
    fetch_trials,
    read_trials,
    trial_speakers,
)
from speechbrain_hyperbolic.distributed import (
    mean_over_processes,
    rows_of_processes,
)
from speechbrain_hyperbolic.divergence import stop_diverged
from speechbrain_hyperbolic.errors import InputError, shown
from speechbrain_hyperbolic.hparams import check_same_run
from speechbrain_hyperbolic.lobes.heads import fuses
from speechbrain_hyperbolic.lobes.sharded import clip_gradients, kept_from_ddp
from speechbrain_hyperbolic.nnet.batch_norm import use_process_batch_norm
from speechbrain_hyperbolic.resume import RunState
from speechbrain_hyperbolic.sharded_state import (
    load_optimizer,
    save_optimizer,
    shards_of,
)
from speechbrain_hyperbolic.statistics import (
    EpochStatistics,
    TensorBoardLogger,
)

logger = get_logger(__name__)

_Dataset: TypeAlias = DynamicItemDataset | ShardDataset

# Which output is which speaker
LABELS = "label_encoder.txt"
# What does not change what is learnt may differ when a run goes on; so may
# paths, since folders move.
MAY_CHANGE = {
    "out_n_neurons",  # save_labels compares the speakers themselves
    "number_of_epochs",
    "epoch_counter",  # its class
    "num_workers",
    "skip_prep",
    "check_audio",
    "ckpt_interval_minutes",
    "epochs_to_average",
    "output_folder",
    "save_folder",
    "train_log",
    "tensorboard_folder",
    "data_folder",
    "data_folder_noise",
    "data_folder_rir",
    "pretrain_path",
    "shards_folder",
    "verification_file",
    "enrolment_file",
    "lists_folder",
    "train_annotation",
    "valid_annotation",
    "noise_annotation",
    "music_annotation",
    "speech_annotation",
    "rir_annotation",
}


def check_resumable(
    hparams_file: str | pathlib.Path,
    overrides: str | dict,
    hparams: dict[str, Any],
) -> bool:
    """Refuses to go on with the checkpoints of other settings.

    Arguments
    ---------
    hparams_file : str or pathlib.Path
    overrides : str or dict
    hparams : dict
        The file as loaded, for ``checkpointer`` and ``output_folder``.

    Returns
    -------
    resumes : bool
        Whether there are checkpoints to go on from.

    Raises
    ------
    InputError
        Names the first key that differs, and both its values. Or there is
        nothing where the run is to start from.
    """
    checkpointer = hparams["checkpointer"]
    if not checkpointer.list_checkpoints():
        if checkpointer.pretrainer is not None:
            checkpointer.pretrainer.collect_files()
        return False
    check_same_run(
        hparams_file, overrides, hparams["output_folder"], MAY_CHANGE
    )
    return True


def prepare(hparams: dict[str, Any]) -> None:
    """Writes the CSV files; the speakers of the trial list do not train.

    Arguments
    ---------
    hparams : dict
        With ``data_folder``, ``save_folder``, ``verification_file``,
        ``enrolment_file`` and the options of ``prepare_corpus``. With
        ``shards_folder`` there is nothing to do.
    """
    if hparams.get("shards_folder"):
        return
    trials = read_trials(
        fetch_trials(hparams["verification_file"], hparams["save_folder"]),
        hparams["enrolment_file"],
    )
    prepare_corpus(
        hparams["data_folder"],
        hparams["save_folder"],
        test_speakers=trial_speakers(trials),
        split_ratio=hparams["split_ratio"],
        sample_rate=hparams["sample_rate"],
        check_audio=hparams["check_audio"],
        seed=hparams["seed"],
        skip_prep=hparams["skip_prep"],
    )


def save_labels(
    label_encoder: CategoricalEncoder, hparams: dict[str, Any]
) -> None:
    """Writes which output is which speaker, in the order of the centres.

    Arguments
    ---------
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
    hparams : dict
        With ``save_folder`` and ``checkpointer``.

    Raises
    ------
    InputError
        If there are checkpoints of a run with other speakers, or the head to
        start from has others.
    """
    path = pathlib.Path(hparams["save_folder"]) / LABELS
    checkpointer = hparams["checkpointer"]
    with atomic_path(path) as temporary:
        label_encoder.save(temporary)
        labels = temporary.read_text(encoding="utf-8")
        if checkpointer.list_checkpoints() and _differ(path, labels):
            raise InputError(
                f"{path.parent} holds a run on other speakers: pass another "
                "--output_folder"
            )
        start = checkpointer.pretrainer
        if start and start.path and "classifier" in start.loadables:
            before = pathlib.Path(start.path) / LABELS
            if before.is_file() and _differ(before, labels):
                raise InputError(
                    f"{before} has other speakers than {path.parent}, so its "
                    "centres are not theirs: fine-tune with the data_folder "
                    "and verification_file of that run, or with a new head "
                    "(ham_ecapa_own_speakers.yaml)"
                )


def _differ(path: pathlib.Path, labels: str) -> bool:
    return not path.is_file() or path.read_text(encoding="utf-8") != labels


class SpeakerBrain(sb.Brain):
    """Trains an encoder with a classifier head on speaker labels.

    The train log has the statistics of ``statistics.EpochStatistics``; with a
    key ``tensorboard_folder``, TensorBoard has them too.

    A loss or gradient that is not finite ends the training at once, unless
    the run option ``nonfinite_patience`` says how many batches of an epoch
    may be left out for it.
    """

    train_set: _Dataset | None = None  # where fit is given a loader

    def __init__(
        self,
        modules: dict[str, torch.nn.Module] | None = None,
        opt_class: Callable[..., torch.optim.Optimizer] | None = None,
        hparams: dict[str, Any] | None = None,
        *args: Any,
        **kw: Any,
    ) -> None:
        hparams = {"nonfinite_patience": 0, **(hparams or {})}
        super().__init__(modules, opt_class, hparams, *args, **kw)
        # Else the batch that is passed over would still make a step.
        self.skip_nonfinite_grads |= self.nonfinite_patience > 0

    def compute_forward(
        self, batch: PaddedBatch, stage: sb.Stage
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """From waveforms to the scores of the speakers, or to the loss where
        the head and the loss take this step in one.

        Arguments
        ---------
        batch : PaddedBatch
            With ``sig``, shape [batch, time].
        stage : sb.Stage

        Returns
        -------
        outputs : torch.Tensor
            Shape [views * batch, heads, speakers]; or the loss, a scalar.
        lengths : torch.Tensor
            Relative lengths, shape [views * batch].
        """
        batch = batch.to(self.device)
        waveforms, lengths = batch.sig
        if self._augments(stage):
            waveforms, lengths = self.hparams.wav_augment(waveforms, lengths)
        features = self.modules.compute_features(waveforms)
        features = self.modules.mean_var_norm(features, lengths)
        embeddings = self.modules.embedding_model(features, lengths)
        if stage == sb.Stage.TRAIN:
            self.statistics.add_embeddings(embeddings)
        if self._fuses(stage):
            # Through the module, which distributed training has wrapped.
            labels, cost = self._labels(batch, stage), self.hparams.compute_cost
            return self.modules.classifier(embeddings, labels, cost), lengths
        return self.modules.classifier(embeddings), lengths

    def compute_objectives(
        self,
        predictions: tuple[torch.Tensor, torch.Tensor],
        batch: PaddedBatch,
        stage: sb.Stage,
    ) -> torch.Tensor:
        """The loss, with the labels of every view.

        Arguments
        ---------
        predictions : tuple
            What ``compute_forward`` returned.
        batch : PaddedBatch
            With ``id`` and ``spk_id_encoded``.
        stage : sb.Stage

        Returns
        -------
        loss : torch.Tensor
            A scalar: in training the sum over the views of an utterance, else
            of its only one.
        """
        outputs, lengths = predictions
        labels = self._labels(batch, stage)
        if self._fuses(stage):
            loss = outputs
        else:
            loss = self.hparams.compute_cost(outputs, labels, lengths)
        if stage == sb.Stage.TRAIN:
            if hasattr(self.hparams.lr_annealing, "on_batch_end"):
                self.hparams.lr_annealing.on_batch_end(self.optimizer)
            # Published: the losses of the views of an utterance are added.
            self.views = len(labels) // len(batch.id)
            loss = self.views * loss
        else:
            self.error_metrics.append(batch.id, outputs, labels, lengths)
        return loss

    def _augments(self, stage: sb.Stage) -> bool:
        return stage == sb.Stage.TRAIN and hasattr(self.hparams, "wav_augment")

    def _labels(self, batch: PaddedBatch, stage: sb.Stage) -> torch.Tensor:
        """One for each view, shape [views * batch, 1]."""
        labels = batch.spk_id_encoded.data
        if self._augments(stage):
            labels = self.hparams.wav_augment.replicate_labels(labels)
        return labels

    def _fuses(self, stage: sb.Stage) -> bool:
        """Whether the head computes the loss: not where there are errors to
        count, nor in DataParallel, which would give one for each GPU.
        """
        return (
            stage == sb.Stage.TRAIN
            and not self.data_parallel_backend
            and fuses(self.hparams.classifier, self.hparams.compute_cost)
        )

    def _wrap_distributed(self) -> None:
        """As the stock method, on CPUs too; a sharded head has no copies."""
        if self.distributed_launch and torch.device(self.device).type == "cpu":
            use_process_batch_norm(self.modules)
        with kept_from_ddp(self.modules):
            super()._wrap_distributed()

    def init_optimizers(self) -> None:
        """As the stock method; of a sharded head the state is sharded too."""
        super().init_optimizers()
        sharded = any(r.parts > 1 for r in shards_of(self.modules).values())
        if sharded and self.scaler.is_enabled():
            raise InputError(
                "precision is fp16, whose gradient scaler would skip a step "
                "on some processes alone where the classifier is sharded: "
                "pass --precision=bf16 or fp32"
            )
        if self.checkpointer is not None and self.opt_class is not None:
            self.checkpointer.add_recoverable(
                "optimizer",
                self.optimizer,
                custom_load_hook=functools.partial(
                    load_optimizer, modules=self.modules
                ),
                custom_save_hook=functools.partial(
                    save_optimizer, modules=self.modules
                ),
            )

    def optimizers_step(self) -> None:
        """The stock step, which drops the norm that clipping returns."""
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(
            self.optimizer.param_groups[0]["params"],
            self.modules,
            self.max_grad_norm,
        )
        self.statistics.add_gradient(norm)
        # A gradient scaler skips such steps itself.
        if self.skip_nonfinite_grads and not self.scaler.is_enabled():
            self.check_gradients()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer_step += 1

    def make_dataloader(
        self, dataset: _Dataset, stage: sb.Stage, **loader_kwargs: Any
    ) -> torch.utils.data.DataLoader:
        """The stock loader, which draws the seeds of its workers elsewhere.

        They would be drawn of the generator of augmentation and dropout: once
        more in an epoch that goes on.
        """
        loader_kwargs.setdefault("generator", torch.Generator())
        if isinstance(dataset, ShardDataset):  # it makes the batches
            loader_kwargs |= {"batch_size": None, "shuffle": False}
            loader_kwargs.pop("drop_last", None)
        if stage == sb.Stage.TRAIN:
            self.train_set = dataset
        return super().make_dataloader(dataset, stage, **loader_kwargs)

    def _should_save_intra_epoch_ckpt(self, *since: float) -> bool:
        due = super()._should_save_intra_epoch_ckpt(*since)
        # Gradients that wait for a step are in no checkpoint.
        return due and self.step % self.grad_accumulation_factor == 0

    def on_fit_batch_start(self, batch: PaddedBatch, should_step: bool) -> None:
        """Notes what to name if the batch has a loss that is not finite."""
        self.batch_ids = batch.id

    def check_loss_isfinite(self, loss: torch.Tensor) -> None:
        """As the stock method, and notes the batch if that ends the run.

        A loss that is not finite in one process is not in any: they count
        alike, and end together.
        """
        total = rows_of_processes(loss.detach().reshape(1)).sum()
        patient = self.nonfinite_count < self.nonfinite_patience
        if not (patient or total.isfinite()):
            self._stop("loss", loss, self.statistics.norms)
        super().check_loss_isfinite(total)

    def on_fit_batch_end(
        self,
        batch: PaddedBatch,
        outputs: tuple[torch.Tensor, torch.Tensor],
        loss: torch.Tensor,
        should_step: bool,
    ) -> None:
        """Ends the run after a gradient that no step can mend."""
        skips = self.skip_nonfinite_grads or self.scaler.is_enabled()
        norms = self.statistics.norms
        if should_step and norms and not (skips or norms[-1].isfinite()):
            self._stop("gradient_norm", norms[-1], norms[:-1])

    def _stop(
        self, what: str, value: torch.Tensor, norms: list[torch.Tensor]
    ) -> NoReturn:
        stop_diverged(
            self.hparams.output_folder,
            what,
            value.item(),
            list(self.batch_ids),
            norms,
            epoch=self.hparams.epoch_counter.current,
            step=self.step,
            lr=self.optimizer.param_groups[0]["lr"],
        )

    def on_fit_start(self) -> None:
        """Resumes from the newest checkpoint, and says so."""
        self._start_epoch()
        state = RunState(self)
        if self.checkpointer:
            self.checkpointer.add_recoverable(
                "run_state", state, optional_load=True
            )
        super().on_fit_start()
        newest = self.checkpointer and self.checkpointer.find_checkpoint()
        counter = self.hparams.epoch_counter
        self.loggers = [self.hparams.train_logger]
        folder = getattr(self.hparams, "tensorboard_folder", None)
        if folder:
            self.loggers.append(TensorBoardLogger(folder, counter.current + 1))
        if newest:
            logger.info(
                f"Resuming from {newest.path}, after epoch {counter.current} "
                f"of {counter.limit}."
            )
        state.restore(resumes=bool(newest))

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Starts the statistics of an epoch, but for one that goes on."""
        if stage != sb.Stage.TRAIN:
            self.error_metrics = self.hparams.error_stats()
        elif self.step == 0:
            self._start_epoch()
        elif isinstance(self.train_set, ShardDataset) and epoch is not None:
            self.train_set.go_to(epoch, self.step)

    def _start_epoch(self) -> None:
        self.statistics = EpochStatistics()
        self.views = 1

    def on_stage_end(
        self, stage: sb.Stage, stage_loss: float, epoch: int | None = None
    ) -> None:
        """Anneals the learning rate, logs, and saves a checkpoint."""
        if stage == sb.Stage.TRAIN:
            self.train_stats = {
                # Of a view: comparable to the loss of validation.
                "loss": mean_over_processes(stage_loss) / self.views,
                **self.statistics.summarize(
                    self.hparams.classifier, self.hparams.compute_cost
                ),
            }
            return
        error_rate = self.error_metrics.summarize("average")
        if stage != sb.Stage.VALID:
            return
        lr = self.optimizer.param_groups[0]["lr"]  # of the last step
        _, new_lr = self.hparams.lr_annealing(epoch)
        sb.nnet.schedulers.update_learning_rate(self.optimizer, new_lr)
        for epoch_logger in self.loggers:
            name = type(epoch_logger).__name__
            with naming_the_file(getattr(epoch_logger, "save_file", name)):
                epoch_logger.log_stats(
                    stats_meta={"epoch": epoch, "lr": lr},
                    train_stats=self.train_stats,
                    valid_stats={"loss": stage_loss, "ErrorRate": error_rate},
                )
        self.checkpointer.save_and_keep_only(
            meta={"ErrorRate": error_rate}, min_keys=["ErrorRate"]
        )
        if epoch == self.hparams.epoch_counter.limit:
            self._check_warm_up()

    def _check_warm_up(self) -> None:
        schedule = self.hparams.lr_annealing
        steps = getattr(schedule, "steps", 0)
        if steps and schedule.step < steps:
            logger.warning(
                f"the training ended within its warm-up, after "
                f"{schedule.step} batches: pass --warmup_steps below {steps}"
            )


def make_datasets(
    hparams: dict[str, Any],
) -> tuple[_Dataset, _Dataset, CategoricalEncoder]:
    """Data sets that give a crop and a label for each utterance: for each row
    of the CSV files, or in batches from shards.

    A training crop is drawn anew each epoch; an utterance that is shorter is
    repeated up to it. A validation crop is the middle of the utterance.

    Arguments
    ---------
    hparams : dict
        With ``data_folder``, ``train_annotation``, ``valid_annotation``,
        ``sample_rate``, ``sentence_len`` (seconds), ``random_chunk``,
        ``seed``, ``epoch_counter`` and ``out_n_neurons``. Or, for the two
        annotations, with ``shards_folder``, ``shuffle_buffer`` and
        ``dataloader_options``.

    Returns
    -------
    train, valid : DynamicItemDataset or ShardDataset
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder

    Raises
    ------
    InputError
        If a CSV file is not as ``read_csv`` wants it, validation has a
        speaker that training has not, or ``out_n_neurons`` is not the number
        of training speakers.
    """
    sample_rate = hparams["sample_rate"]
    crop = int(sample_rate * hparams["sentence_len"])
    middle = Crop(crop, sample_rate)
    drawn = Crop(crop, sample_rate, hparams["seed"], hparams["epoch_counter"])
    crops = (drawn if hparams["random_chunk"] else middle), middle
    if hparams.get("shards_folder"):
        return _from_shards(hparams, crops)
    return _from_files(hparams, crops)


def _from_files(
    hparams: dict[str, Any], crops: tuple[Crop, Crop]
) -> tuple[_Dataset, _Dataset, CategoricalEncoder]:
    datasets = [
        sb.dataio.dataset.DynamicItemDataset(
            read_csv(hparams[key], hparams["data_folder"])
        )
        for key in ("train_annotation", "valid_annotation")
    ]
    speakers = {row["spk_id"] for row in datasets[0].data.values()}
    encoder = _encoder(speakers, hparams["train_annotation"], hparams)
    for row in datasets[1].data.values():
        if row["spk_id"] not in speakers:
            raise InputError(
                f"{hparams['valid_annotation']} has the speaker "
                f"{shown(row['spk_id'])}, and {hparams['train_annotation']} "
                "has not: validation is of the speakers of training"
            )
    for dataset, crop in zip(datasets, crops, strict=True):
        dataset.add_dynamic_item(
            crop, takes=["id", "wav", "start", "stop"], provides="sig"
        )
        dataset.add_dynamic_item(
            encoder.encode_label_torch,
            takes="spk_id",
            provides="spk_id_encoded",
        )
    sb.dataio.dataset.set_output_keys(datasets, ["id", "sig", "spk_id_encoded"])
    return *datasets, encoder


def _from_shards(
    hparams: dict[str, Any], crops: tuple[Crop, Crop]
) -> tuple[_Dataset, _Dataset, CategoricalEncoder]:
    folder = pathlib.Path(hparams["shards_folder"])
    train, valid = (Shards(folder / split) for split in ("train", "dev"))
    for shards in (train, valid):
        if shards.sample_rate != hparams["sample_rate"]:
            raise InputError(
                f"{shards.folder} was packed at sample_rate "
                f"{shards.sample_rate}, and now it is {hparams['sample_rate']}"
                ": prepare and pack again"
            )
    strangers = sorted(valid.known - train.known)
    if strangers:
        raise InputError(
            f"{valid.folder} has {strangers[0]}, no speaker of {train.folder}: "
            "pack both of one preparation"
        )
    encoder = _encoder(train.speakers, train.folder, hparams)
    buffer = hparams.get("shuffle_buffer") or SHUFFLE_BUFFER
    size = hparams["dataloader_options"]["batch_size"]
    encode = encoder.encode_label_torch
    return (
        ShardDataset(
            train,
            crops[0],
            encode,
            size,
            buffer,
            hparams["seed"],
            hparams["epoch_counter"],
        ),
        ShardDataset(valid, crops[1], encode, size),
        encoder,
    )


def _encoder(
    speakers: Iterable[str], place: str | pathlib.Path, hparams: dict[str, Any]
) -> CategoricalEncoder:
    encoder = sb.dataio.encoder.CategoricalEncoder()
    # Sorted: the centres are in the same order whatever split was drawn.
    encoder.update_from_iterable(sorted(speakers))
    if len(encoder) != hparams["out_n_neurons"]:
        raise InputError(
            f"out_n_neurons is {hparams['out_n_neurons']}, but {place} has "
            f"{len(encoder)} speakers: pass --out_n_neurons={len(encoder)}"
        )
    encoder.expect_len(hparams["out_n_neurons"])
    return encoder
