#!/usr/bin/env python3
"""Trains a speaker encoder with a hyperbolic softmax loss.

> python train_speaker_embeddings.py hparams/ham_ecapa.yaml \
      --data_folder=/path/to/VoxCeleb

Any key of the hparams file can be given as --key=value. A run that was
interrupted goes on from its last checkpoint. The result is the mean of the
last epochs, in <output_folder>/model, for the stock SpeakerRecognition.
"""

import sys

import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process, run_on_main
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.corpus import data_folders
from speechbrain_hyperbolic.dataio.run_lock import lock_run
from speechbrain_hyperbolic.distributed import end_together, start_processes
from speechbrain_hyperbolic.errors import exit_on_input_error
from speechbrain_hyperbolic.export import export_model
from speechbrain_hyperbolic.hparams import (
    load_hparams,
    nest_overrides,
    save_resolved,
)
from speechbrain_hyperbolic.memory import keep_freed_memory
from speechbrain_hyperbolic.training import (
    SpeakerBrain,
    check_resumable,
    make_datasets,
    prepare,
    save_labels,
)

logger = get_logger(__name__)


def main():
    """Loads the hparams file and trains."""
    # The crops have one length, so the auto-tuner pays.
    torch.backends.cudnn.benchmark = True
    keep_freed_memory()
    hparams_file, run_opts, overrides = sb.parse_arguments(sys.argv[1:])
    overrides = nest_overrides(hparams_file, overrides)
    start_processes(run_opts)
    hparams = load_hparams(hparams_file, overrides)
    with lock_run(hparams["output_folder"]):
        train(hparams_file, run_opts, overrides, hparams)


def train(hparams_file, run_opts, overrides, hparams):
    """Prepares, trains, and exports."""
    output_folder = hparams["output_folder"]
    data_folders(hparams["data_folder"])
    check_resumable(hparams_file, overrides, hparams)
    sb.create_experiment_directory(output_folder)
    run_on_main(save_resolved, args=[hparams_file, overrides, output_folder])

    run_on_main(prepare, args=[hparams])
    train_data, valid_data, label_encoder = make_datasets(hparams)
    run_on_main(save_labels, args=[label_encoder, hparams])
    run_on_main(hparams["prepare_noise_data"])
    run_on_main(hparams["prepare_rir_data"])

    brain = SpeakerBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.fit(
        brain.hparams.epoch_counter,
        train_data,
        valid_data,
        train_loader_kwargs=hparams["dataloader_options"],
        valid_loader_kwargs=hparams["dataloader_options"],
    )
    if if_main_process() and not brain.debug:
        folder = export_model(
            hparams_file, overrides, hparams, f"{output_folder}/model"
        )
        logger.info(f"The trained model is in {folder}.")


if __name__ == "__main__":
    with exit_on_input_error(), end_together():
        main()
