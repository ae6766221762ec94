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
from speechbrain.utils.distributed import (
    if_main_process,
    is_distributed_initialized,
    run_on_main,
)
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.corpus import data_folders
from speechbrain_hyperbolic.dataio.files import lock_run
from speechbrain_hyperbolic.errors import InputError, exit_on_error
from speechbrain_hyperbolic.hparams import (
    HPARAMS,
    check_keys,
    find_hparams,
    load_hparams,
    read_nodes,
    read_overrides,
    read_settings,
    save_resolved,
)
from speechbrain_hyperbolic.hub.export import export_model
from speechbrain_hyperbolic.hub.run_folder import read_module
from speechbrain_hyperbolic.hub.start import options_of_start
from speechbrain_hyperbolic.inference.config import MODULES
from speechbrain_hyperbolic.training.brain import SpeakerBrain
from speechbrain_hyperbolic.training.checks import (
    SCORE_FILE,
    check_resumable,
    check_space,
    check_training,
    no_trace_if_refused,
)
from speechbrain_hyperbolic.training.datasets import (
    count_speakers,
    make_datasets,
    prepare,
    save_labels,
)
from speechbrain_hyperbolic.training.processes import (
    keep_freed_memory,
    start_processes,
)

logger = get_logger(__name__)


def main():
    """Checks what can be checked, loads the hparams file and trains."""
    # All crops have one length, so the auto-tuner pays off.
    torch.backends.cudnn.benchmark = True
    keep_freed_memory()
    if any(argument.partition("=")[0] == "--c" for argument in sys.argv):
        raise InputError("--c is no option: the c of the paper is --clip_c")
    hparams_file, run_opts, overrides = sb.parse_arguments(sys.argv[1:])
    start_processes(run_opts)
    hparams_file = find_hparams(hparams_file, __file__)
    use = "training, such as hparams/ham_ecapa.yaml"
    check_keys(hparams_file, ["classifier", "compute_cost"], use)
    settings = read_settings(hparams_file, overrides)
    check_training(settings, run_opts)
    folder = settings["output_folder"]
    with no_trace_if_refused(folder, SCORE_FILE), lock_run(folder):
        train(hparams_file, run_opts, overrides, settings)


def warn_of_modules(settings):
    """Says before the training what could not be exported after it."""
    try:
        nodes = read_nodes(settings)
        for key in MODULES:
            read_module(settings, nodes, key)
    except InputError as error:
        logger.warning(f"{error}. The weights will be in the save folder only.")


def complete(overrides, settings):
    """Adds what the data and the model to start from say, unless given."""
    options = read_overrides(overrides)
    if settings.get("pretrain_path") is not None:
        start = options_of_start(settings, options)
        options |= read_overrides(start)
    if "out_n_neurons" in settings and "out_n_neurons" not in options:
        options["out_n_neurons"] = count_speakers(settings)
        logger.info(f"{options['out_n_neurons']} training speakers")
    return options


def train(hparams_file, run_opts, overrides, settings):
    """Prepares, trains and exports."""
    output_folder = settings["output_folder"]
    data_folders(settings["data_folder"])
    # A wrong value is told before the corpus is read, which may take long.
    load_hparams(hparams_file, overrides)
    sb.create_experiment_directory(output_folder)
    run_on_main(prepare, args=[settings])
    overrides = complete(overrides, settings)
    hparams = load_hparams(hparams_file, overrides)
    train_data, valid_data, label_encoder = make_datasets(hparams)
    run_on_main(save_labels, args=[label_encoder, hparams])
    check_resumable(hparams_file, overrides, hparams)
    check_space(hparams)
    run_on_main(save_resolved, args=[hparams_file, overrides, output_folder])
    warn_of_modules(pathlib.Path(output_folder) / HPARAMS)
    for key in ("prepare_noise_data", "prepare_rir_data"):
        if key in hparams and hparams.get("wav_augment") is not None:
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
    with exit_on_error():
        main()
        if is_distributed_initialized():
            # Else threads that gloo leaves running can abort the process.
            torch.distributed.destroy_process_group()
