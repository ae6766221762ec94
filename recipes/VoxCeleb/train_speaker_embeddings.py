#!/usr/bin/env python3
"""Trains a speaker encoder with a hyperbolic softmax loss.

> python train_speaker_embeddings.py hparams/ham_ecapa.yaml \
      --data_folder=/path/to/VoxCeleb

Any key of the hparams file can be given as --key=value. The same command
resumes a run that was interrupted. The result, the average of the last epochs,
is <output_folder>/model, which the stock SpeakerRecognition loads.
"""

import pathlib
import sys

import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process, run_on_main
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.corpus import data_folders
from speechbrain_hyperbolic.dataio.files import lock_run
from speechbrain_hyperbolic.errors import InputError, exit_on_error
from speechbrain_hyperbolic.hparams import (
    HPARAMS,
    find_hparams,
    load_hparams,
    read_nodes,
    save_resolved,
)
from speechbrain_hyperbolic.hub.export import export_model
from speechbrain_hyperbolic.hub.run_folder import read_module
from speechbrain_hyperbolic.inference.config import MODULES
from speechbrain_hyperbolic.training.brain import SpeakerBrain
from speechbrain_hyperbolic.training.datasets import (
    make_datasets,
    prepare,
    save_labels,
)
from speechbrain_hyperbolic.training.processes import (
    end_together,
    keep_freed_memory,
    start_processes,
)
from speechbrain_hyperbolic.training.resume import check_resumable

logger = get_logger(__name__)


def main():
    """Loads the hparams file and trains."""
    # All crops have one length, so the auto-tuner pays off.
    torch.backends.cudnn.benchmark = True
    keep_freed_memory()
    hparams_file, run_opts, overrides = sb.parse_arguments(sys.argv[1:])
    start_processes(run_opts)
    hparams_file = find_hparams(hparams_file, __file__)
    hparams = load_hparams(hparams_file, overrides)
    with lock_run(hparams["output_folder"]):
        train(hparams_file, run_opts, overrides, hparams)


def warn_of_modules(settings):
    """Says before the training what could not be exported after it."""
    try:
        nodes = read_nodes(settings)
        for key in MODULES:
            read_module(settings, nodes, key)
    except InputError as error:
        logger.warning(f"{error}. The weights will be in the save folder only.")


def train(hparams_file, run_opts, overrides, hparams):
    """Prepares, trains and exports."""
    output_folder = hparams["output_folder"]
    data_folders(hparams["data_folder"])
    sb.create_experiment_directory(output_folder)
    check_resumable(hparams_file, overrides, hparams)
    run_on_main(save_resolved, args=[hparams_file, overrides, output_folder])
    warn_of_modules(pathlib.Path(output_folder) / HPARAMS)

    run_on_main(prepare, args=[hparams])
    train_data, valid_data, label_encoder = make_datasets(hparams)
    run_on_main(save_labels, args=[label_encoder, hparams])
    for key in ("prepare_noise_data", "prepare_rir_data"):
        if key in hparams:
            run_on_main(hparams[key])

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
        folder = export_model(output_folder)
        logger.info(f"The trained model is in {folder}.")


if __name__ == "__main__":
    with exit_on_error(), end_together():
        main()
