#!/usr/bin/env python3
"""Verifies a trained encoder on a trial list: EER, minDCF, scores, DET curve.

> python speaker_verification.py hparams/verification_ham_ecapa.yaml \
      --data_folder=/path/to/VoxCeleb1 [--score=hyperbolic]

Leaves scores.txt, results.json and det.png in the output folder.
"""

import sys

import numpy as np
import speechbrain as sb
from speechbrain.utils.distributed import infer_device
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic import verification
from speechbrain_hyperbolic.dataio.corpus import read_speakers
from speechbrain_hyperbolic.dataio.trials import fetch_trials, read_trials
from speechbrain_hyperbolic.errors import exit_on_input_error
from speechbrain_hyperbolic.geometry import check_c
from speechbrain_hyperbolic.hparams import load_hparams
from speechbrain_hyperbolic.plots import plot_det

logger = get_logger(__name__)


def main():
    """Embeds, scores, evaluates."""
    hparams_file, run_opts, overrides = sb.parse_arguments(sys.argv[1:])
    hparams = load_hparams(hparams_file, overrides)
    output_folder = hparams["output_folder"]
    data_folder = hparams["data_folder"]
    speakers = read_speakers(data_folder)
    verification.check_score(hparams["score"])
    check_c(hparams["clip_c"])
    sb.create_experiment_directory(output_folder, hparams_file, overrides)

    trial_list = fetch_trials(
        hparams["verification_file"], hparams["save_folder"]
    )
    trials = read_trials(trial_list)
    paths = verification.locate(trials, data_folder, trial_list)

    hparams["pretrainer"].collect_files()
    hparams["pretrainer"].load_collected()
    encoder = verification.Encoder(
        hparams["compute_features"],
        hparams["mean_var_norm"],
        hparams["embedding_model"],
        run_opts["device"] or infer_device(),
    )
    embeddings = verification.embed(encoder, paths, hparams["sample_rate"])
    scores = verification.score_trials(
        trials, embeddings, hparams["score"], hparams["clip_c"]
    )
    verification.write_scores(trials, scores, f"{output_folder}/scores.txt")
    results = verification.evaluate_trials(
        trials, scores, speakers, hparams["bootstrap_replicates"]
    )
    verification.write_results(results, f"{output_folder}/results.json")
    labels = np.array([t.label for t in trials])
    encoder_name = hparams["pretrain_path"] or "the untrained encoder"
    plot_det(
        {
            f"{encoder_name}, {hparams['score']}": (
                scores[labels == 1],
                scores[labels == 0],
            )
        },
        f"{output_folder}/det.png",
        title=trial_list.name,
    )
    logger.info(
        f"{hparams['score']} scores of {encoder_name} on {trial_list}; "
        f"{verification.interval_note(results)}:\n"
        + verification.format_results(results)
    )
    logger.info(f"scores.txt, results.json and det.png are in {output_folder}")


if __name__ == "__main__":
    with exit_on_input_error():
        main()
