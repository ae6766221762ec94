"""Trains a few steps, alone or as one of the processes of torchrun.

python -m torch.distributed.run --nproc_per_node=2 tests/distributed_jobs.py \
    <folder>

leaves what each process has seen in <folder>/<job>.<rank>.pt.
"""

import contextlib
import os
import pathlib
import sys

import speechbrain as sb
import torch
from speechbrain.augment.augmenter import Augmenter
from speechbrain.dataio.dataset import DynamicItemDataset
from torch.utils.data import DistributedSampler

from speechbrain_hyperbolic.distributed import start_processes
from speechbrain_hyperbolic.hparams import load_hparams
from speechbrain_hyperbolic.nnet.batch_norm import use_process_batch_norm
from speechbrain_hyperbolic.training import SpeakerBrain, make_datasets

HPARAMS = pathlib.Path(__file__).parents[1] / "hparams"
SPEAKERS = 5
# In batches of 8: two, and one of 4.
UTTERANCES = 20
BATCH = 8
EPOCHS = 4
# Job -> hparams file, views of an utterance, batches in a step
JOBS = {
    "ham": ("ham_ecapa", 1, 1),
    "joint": ("eh_am_ecapa", 1, 1),
    "joint_accumulated": ("eh_am_ecapa", 1, 2),
    "learnt_curvature_views": ("ham_learnable_ecapa", 2, 1),
}
# What each process has of a batch of the batch norm, shape [., 3, 5]
PARTS = (2, 5)
MOMENTA = (0.1, None)


class Echo(torch.nn.Module):
    """An augmentation that is the same wherever an utterance is."""

    def forward(self, waveforms):
        return 0.5 * waveforms.roll(7, 1)


class RecordingBrain(SpeakerBrain):
    """Keeps the loss of each batch."""

    losses = ()

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        self.losses += (loss.item(),)


def load(job, folder):
    """The hparams of a job: a small encoder, and nothing drawn at random."""
    name, views, _ = JOBS[job]
    hparams = load_hparams(
        HPARAMS / f"{name}.yaml",
        {
            "data_folder": "none",
            "output_folder": str(folder / job),
            "channels": 8,
            "out_n_neurons": SPEAKERS,
            "number_of_epochs": EPOCHS,
        },
    )
    hparams["modules"]["mean_var_norm"] = hparams["input_norm"]
    # The stock one's weight is float32 whatever the default is.
    hparams["classifier"].to(torch.get_default_dtype())
    del hparams["wav_augment"]
    if views > 1:
        hparams["wav_augment"] = Augmenter(
            parallel_augment=True,
            concat_original=True,
            min_augmentations=1,
            max_augmentations=1,
            augmentations=[Echo()],
        )
    return hparams


def utterances(count):
    """Noise, with a label."""
    generator = torch.Generator().manual_seed(count)
    return DynamicItemDataset(
        {
            str(number): {
                "sig": torch.randn(3200, generator=generator),
                "spk_id_encoded": torch.tensor([number % SPEAKERS]),
            }
            for number in range(count)
        },
        output_keys=["id", "sig", "spk_id_encoded"],
    )


def train(job, folder, run_opts, processes, dtype=torch.float64, change=0.0):
    """Trains on the batches that all processes together have.

    In float64, where rounding stays small for as many steps.

    Arguments
    ---------
    job : str
        Of ``JOBS``.
    folder : pathlib.Path
    run_opts : dict
        SpeechBrain's.
    processes : int
    dtype : torch.dtype
    change : float
        Of the weights before the first step, relative.

    Returns
    -------
    record : dict
        The losses of this process, and the weights at the end.
    """
    _, _, batches = JOBS[job]
    torch.set_default_dtype(dtype)
    hparams = load(job, folder)
    brain = RecordingBrain(
        hparams["modules"],
        hparams["opt_class"],
        hparams,
        {
            **run_opts,
            "grad_accumulation_factor": batches,
            "noprogressbar": True,
        },
        hparams["checkpointer"],
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in brain.modules.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.mul_(1 + change * noise)
    data = utterances(UTTERANCES)
    options = {"shuffle": True}
    if processes == 1:
        # The order of the samplers of several processes, of which process r
        # takes every row r, r + processes, ...: the batches have the same rows.
        brain.train_sampler = DistributedSampler(data, 1, 0)
        options = {"sampler": brain.train_sampler}
    brain.fit(
        hparams["epoch_counter"],
        data,
        utterances(6),
        train_loader_kwargs={"batch_size": BATCH // processes, **options},
        valid_loader_kwargs={"batch_size": 4},
    )
    torch.set_default_dtype(torch.float32)
    names = ("embedding_model", "classifier")
    return {
        "losses": torch.tensor(brain.losses, dtype=torch.float64),
        "weights": {name: hparams[name].state_dict() for name in names},
        "statistics": brain.train_stats,
    }


class Stop(Exception):
    """Within an epoch."""


class StoppingBrain(RecordingBrain):
    """Keeps the utterances of each epoch, and its mean loss here."""

    stop_at = None
    means = ()

    def on_fit_start(self):
        super().on_fit_start()
        self.read = {}

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        super().on_fit_batch_end(batch, outputs, loss, should_step)
        epoch = self.hparams.epoch_counter.current
        self.read.setdefault(epoch, []).extend(batch.id)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        super().on_stage_end(stage, stage_loss, epoch)
        if stage == sb.Stage.TRAIN:
            self.means += (stage_loss,)

    def _save_intra_epoch_ckpt(self):
        super()._save_intra_epoch_ckpt()
        if self.step == self.stop_at:
            raise Stop


def train_from_shards(folder, output, run_opts, stop_at=None):
    """Trains two epochs, in batches of 4 of a process; or goes on with that.

    Arguments
    ---------
    folder : pathlib.Path
        With shards.
    output : str
        The output folder, in there.
    run_opts : dict
        SpeechBrain's.
    stop_at : int
        The batch of the first epoch after whose checkpoint it stops.

    Returns
    -------
    record : dict
        What this process has seen.
    """
    hparams = load_hparams(
        HPARAMS / "ham_shards_ecapa.yaml",
        {
            "data_folder": str(folder / "shards"),
            "output_folder": str(folder / output),
            "channels": 8,
            "out_n_neurons": 6,
            "number_of_epochs": 2,
            "batch_size": 4,
            "num_workers": 0,
            "sentence_len": 0.3,
        },
    )
    del hparams["wav_augment"]
    brain = StoppingBrain(
        hparams["modules"],
        hparams["opt_class"],
        hparams,
        {
            **run_opts,
            "ckpt_interval_minutes": 0,
            "ckpt_interval_steps": 2,
            "noprogressbar": True,
        },
        hparams["checkpointer"],
    )
    brain.stop_at = stop_at
    train, valid, _ = make_datasets(hparams)
    options = hparams["dataloader_options"]
    with contextlib.suppress(Stop):
        brain.fit(
            hparams["epoch_counter"],
            train,
            valid,
            train_loader_kwargs=options,
            valid_loader_kwargs=options,
        )
    log = folder / output / "train_log.txt"
    return {
        "read": brain.read,
        "losses": torch.tensor(brain.losses),
        "means": brain.means,
        "weights": hparams["embedding_model"].state_dict(),
        "log": log.read_text() if log.is_file() else "",
    }


def normalise(norm, parts, weights):
    """Two batches through a batch norm, and back from a weighted sum.

    Arguments
    ---------
    norm : torch.nn.Module
    parts, weights : list of torch.Tensor
        Shape [batch, 3, 5] each.

    Returns
    -------
    values : dict
        Output, gradients and buffers by name.
    """
    for part, weight in zip(parts, weights, strict=True):
        part.requires_grad_()
        output = norm(part)
        (weight * output).sum().backward()
    gradients = {name: p.grad for name, p in norm.named_parameters()}
    return {
        "output": output.detach(),
        "gradient": part.grad,
        "parameters": gradients,
        "buffers": dict(norm.named_buffers()),
        "evaluated": norm.eval()(part).detach(),
    }


def batch_norm(momentum):
    """One with parameters that show, and two batches and weights for it.

    Arguments
    ---------
    momentum : float

    Returns
    -------
    norm : torch.nn.BatchNorm1d
    batches, weights : list of torch.Tensor
        Shape [sum(PARTS), 3, 5] each.
    """
    generator = torch.Generator().manual_seed(0)
    norm = torch.nn.BatchNorm1d(3, momentum=momentum)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, 2.0]))
    # Far from zero, where a sum of squares would cancel.
    batches, weights = (
        [
            shift + torch.randn(sum(PARTS), 3, 5, generator=generator)
            for _ in range(2)
        ]
        for shift in (100.0, 0.0)
    )
    return norm, batches, weights


def normalise_part(rank, momentum):
    """What a process sees of ``normalise``."""
    norm, batches, weights = batch_norm(momentum)
    model = torch.nn.Sequential(norm)
    use_process_batch_norm(model)
    parts, weights = (
        [batch.split(PARTS)[rank].clone() for batch in whole]
        for whole in (batches, weights)
    )
    return normalise(model[0], parts, weights)


def main(folder):
    """Every job, one after the other."""
    _, run_opts, _ = sb.parse_arguments(
        ["none", "--distributed_backend=gloo", "--device=cpu"]
    )
    start_processes(run_opts)
    rank = int(os.environ["RANK"])
    for job in JOBS:
        record = train(job, folder, run_opts, processes=2)
        torch.save(record, folder / f"{job}.{rank}.pt")
    shards = [
        train_from_shards(folder, output, run_opts, stop_at)
        for output, stop_at in (
            ("whole", None),
            ("stopped", 2),
            ("stopped", None),
            ("of one", None),
        )
    ]
    torch.save(shards, folder / f"shards.{rank}.pt")
    norms = [normalise_part(rank, momentum) for momentum in MOMENTA]
    torch.save(norms, folder / f"batch_norm.{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
