#!/usr/bin/env python3
"""Verifies a trained encoder on a trial list: error rates, scores, plots.

> python speaker_verification.py hparams/verification_ham_ecapa.yaml \
      --data_folder=/path/to/VoxCeleb1 [--score=hyperbolic] \
      [--normalisation=as-norm] [--calibration_file=/path/to/trials.txt]

Leaves scores.txt, results.json, det.png and scores.png in the output folder.
Run again after an interruption, it goes on.
"""

import functools
import sys

import speechbrain as sb
from speechbrain.utils.distributed import infer_device
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic import verification
from speechbrain_hyperbolic.dataio.corpus import read_speakers
from speechbrain_hyperbolic.dataio.scores import write_scores
from speechbrain_hyperbolic.dataio.trials import fetch_trials, read_trials
from speechbrain_hyperbolic.errors import exit_on_input_error
from speechbrain_hyperbolic.geometry import check_c
from speechbrain_hyperbolic.hparams import load_hparams
from speechbrain_hyperbolic.plots import plot_det, plot_score_histogram
from speechbrain_hyperbolic.scoring.calibration import check_quality
from speechbrain_hyperbolic.scoring.extraction import (
    Encoder,
    extract,
    weights_fingerprint,
)
from speechbrain_hyperbolic.scoring.normalisation import check_normalisation
from speechbrain_hyperbolic.scoring.scorer import (
    Scorer,
    calibrate,
    check_held_out,
    features,
    read_cohort,
    warn_of_training_speakers,
)
from speechbrain_hyperbolic.scoring.similarity import (
    check_enrolment,
    make_score,
)

logger = get_logger(__name__)


def main():
    """Embeds, scores, evaluates."""
    hparams_file, run_opts, overrides = sb.parse_arguments(sys.argv[1:])
    hparams = load_hparams(hparams_file, overrides)
    output_folder = hparams["output_folder"]
    speakers = read_speakers(hparams["data_folder"])
    score = check_options(hparams)
    sb.create_experiment_directory(output_folder, hparams_file, overrides)

    trial_list = fetch_trials(
        hparams["verification_file"], hparams["save_folder"]
    )
    trials, paths = open_trials(trial_list, hparams, hparams["enrolment_file"])
    lists = {"verification_file": trials}
    held_out = hparams["calibration_file"]
    if held_out:
        held_out = open_trials(
            held_out, hparams, hparams["calibration_enrolment_file"]
        )
        check_held_out(held_out[0], trials)
        lists["calibration_file"] = held_out[0]
    warn_of_training_speakers(hparams["training"]["train_annotation"], **lists)

    scorer = make_scorer(score, hparams, run_opts["device"] or infer_device())
    quality = hparams["calibration_quality"] or []
    if held_out:
        calibration = calibrate(scorer, *held_out, quality)
    scores, sides = scorer(trials, paths)
    if held_out:
        scores = calibration(features(scores, sides, quality))
        calibration.save(f"{output_folder}/calibration.json")

    models, utterances = trials.models, trials.utterances
    write_scores(
        f"{output_folder}/scores.txt",
        [models[row] for row in trials.enrol],
        [utterances[row] for row in trials.test],
        trials.labels,
        scores,
    )
    results = verification.evaluate_trials(
        trials,
        scores,
        speakers,
        hparams["bootstrap_replicates"],
        calibrated=bool(held_out),
    )
    state = hparams["embedding_model"].state_dict()
    for result in results.values():  # so that no other model gets them
        result["encoder"] = weights_fingerprint(state)
    verification.write_results(results, f"{output_folder}/results.json")
    target, nontarget = scores[trials.labels == 1], scores[trials.labels == 0]
    encoder = hparams["pretrain_path"] or "the untrained encoder"
    system = f"{encoder}: {', '.join(scoring_steps(hparams))}"
    plot_det(
        {system: (target, nontarget)},
        f"{output_folder}/det.png",
        title=trial_list.name,
    )
    plot_score_histogram(
        target,
        nontarget,
        f"{output_folder}/scores.png",
        title=trial_list.name,
        threshold=results["all trials"]["eer_threshold"],
        xlabel=", ".join(scoring_steps(hparams)),
    )
    logger.info(
        f"{system} on {trial_list}; {verification.interval_note(results)}:\n"
        + verification.format_results(results)
    )
    logger.info(
        f"scores.txt, results.json, det.png and scores.png are in "
        f"{output_folder}"
    )


def check_options(hparams):
    """The score; all is checked before anything is computed."""
    check_enrolment(hparams["enrolment"])
    check_c(hparams["clip_c"])
    check_quality(hparams["calibration_quality"])
    if hparams["normalisation"]:
        check_normalisation(hparams["normalisation"], hparams["top_k"])
    return make_score(hparams["score"], hparams["clip_c"])


def open_trials(path, hparams, enrolment_file=None):
    """The trials of a list, and where their audio is."""
    trials = read_trials(path, enrolment_file)
    verification.check_both_classes(trials, path)
    return trials, verification.locate(trials, hparams["data_folder"], path)


def make_scorer(score, hparams, device):
    """Everything between audio files and scores."""
    hparams["pretrainer"].collect_files()
    hparams["pretrainer"].load_collected()
    encoder = Encoder(
        hparams["compute_features"],
        hparams["mean_var_norm"],
        hparams["embedding_model"],
        device,
    )
    embed = functools.partial(
        extract,
        encoder,
        sample_rate=hparams["sample_rate"],
        n_crops=hparams["n_crops"],
        crop_length=hparams["crop_length"],
        cache_folder=hparams["cache_folder"],
        batch_seconds=hparams["batch_seconds"],
    )
    cohort = None
    if hparams["normalisation"]:
        cohort = read_cohort(
            hparams["cohort_file"], hparams["cohort_utterances"]
        )
    return Scorer(
        embed,
        score,
        hparams["enrolment"],
        hparams["clip_c"],
        hparams["normalisation"],
        cohort,
        hparams["top_k"],
    )


def scoring_steps(hparams):
    """How the scores are made, in the words of the options."""
    steps = [hparams["score"]]
    if hparams["n_crops"]:
        steps.append(
            f"whole and {hparams['n_crops']} crops of "
            f"{hparams['crop_length']:g} s"
        )
    if hparams["normalisation"]:
        steps.append(hparams["normalisation"])
    if hparams["calibration_file"]:
        steps.append("calibrated")
    return steps


if __name__ == "__main__":
    with exit_on_input_error():
        main()
