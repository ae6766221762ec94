"""A training with a sharded head, on one process or under torchrun.

> torchrun --nproc_per_node=2 -m tests.sharded_run corpus output epochs
"""

import os
import pathlib
import sys

import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process, run_on_main

from speechbrain_hyperbolic.export import export_model
from speechbrain_hyperbolic.hparams import load_hparams, nest_overrides
from speechbrain_hyperbolic.training import (
    SpeakerBrain,
    check_resumable,
    make_datasets,
    save_labels,
)

HPARAMS = pathlib.Path(__file__).parents[1] / "hparams/ham_sharded_ecapa.yaml"
SPEAKERS, BATCH = 5, 8


class Pooled(torch.nn.Module):
    """An encoder without batch norm, to which two halves are not a batch."""

    def __init__(self):
        super().__init__()
        self.frames = torch.nn.Linear(80, 32)
        self.pooled = torch.nn.Linear(32, 192)

    def forward(self, x, lengths=None):
        """From [batch, frames, 80] to [batch, 1, 192]."""
        return self.pooled(self.frames(x).tanh().mean(1, keepdim=True))


def train(corpus, output, epochs):
    """Trains as train_speaker_embeddings.py does; the same global batches
    whatever the number of processes.
    """
    processes = int(os.environ.get("WORLD_SIZE", 1))
    overrides = f"""
data_folder: {corpus}
output_folder: {output}
train_annotation: {corpus}/train.csv
valid_annotation: {corpus}/dev.csv
number_of_epochs: {epochs}
out_n_neurons: {SPEAKERS}
sentence_len: 0.5
random_chunk: False
dataloader_options:
    batch_size: {BATCH // processes}
    shuffle: False
    num_workers: 0
encoder: pooled
encoders:
    pooled: !name:tests.sharded_run.Pooled
"""
    overrides = nest_overrides(HPARAMS, overrides)
    hparams = load_hparams(HPARAMS, overrides)
    # Nothing at random
    del hparams["wav_augment"]
    hparams["modules"]["mean_var_norm"] = hparams["input_norm"]
    hparams["sorting"] = "ascending"  # the order of the file
    check_resumable(HPARAMS, overrides, hparams)
    sb.create_experiment_directory(output, HPARAMS, overrides)
    train_data, valid_data, labels = make_datasets(hparams)
    run_on_main(save_labels, args=[labels, hparams])
    brain = SpeakerBrain(
        hparams["modules"],
        hparams["opt_class"],
        hparams,
        {"device": "cpu", "distributed_backend": "gloo"},
        hparams["checkpointer"],
    )
    options = hparams["dataloader_options"]
    brain.fit(
        brain.hparams.epoch_counter,
        train_data,
        valid_data,
        train_loader_kwargs=options,
        valid_loader_kwargs=options,
    )
    if if_main_process():
        export_model(HPARAMS, overrides, hparams, f"{output}/model")


if __name__ == "__main__":
    torch.set_num_threads(1)
    sb.utils.distributed.ddp_init_group({"distributed_backend": "gloo"})
    train(sys.argv[1], sys.argv[2], int(sys.argv[3]))
