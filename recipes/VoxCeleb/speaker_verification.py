#!/usr/bin/env python3
"""Verifies a trained model on a trial list: error rates, scores, plots.

> python speaker_verification.py hparams/verification.yaml \
      --data_folder=/path/to/VoxCeleb1 --model_folder=/path/to/model \
      [--score=hyperbolic] [--normalization=as-norm] \
      [--calibration_file=/path/to/trials.txt]

It writes scores.txt, results.json, det.png and scores.png to the output folder.
After an interruption, run it again to resume.
"""

import dataclasses
import functools
import logging
import os
import sys

import speechbrain as sb
from speechbrain.utils.distributed import infer_device
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.corpus import read_corpus
from speechbrain_hyperbolic.dataio.files import write_json
from speechbrain_hyperbolic.dataio.scores import write_scores
from speechbrain_hyperbolic.dataio.trials import fetch_trials, read_trials
from speechbrain_hyperbolic.errors import check_positive, exit_on_error
from speechbrain_hyperbolic.evaluation import results, scorer
from speechbrain_hyperbolic.evaluation.calibration import (
    Calibration,
    check_quality,
    features,
)
from speechbrain_hyperbolic.evaluation.extraction import (
    Encoder,
    extract,
    weights_fingerprint,
)
from speechbrain_hyperbolic.evaluation.metrics import check_priors
from speechbrain_hyperbolic.evaluation.normalization import check_normalization
from speechbrain_hyperbolic.evaluation.plots import (
    plot_det,
    plot_score_histogram,
)
from speechbrain_hyperbolic.evaluation.scores import (
    ENROLLMENTS,
    check_choice,
    make_score,
)
from speechbrain_hyperbolic.geometry import check_c
from speechbrain_hyperbolic.hparams import (
    check_keys,
    find_hparams,
    load_hparams,
    read_settings,
)
from speechbrain_hyperbolic.hub.export import (
    UNCALIBRATED,
    add_thresholds,
    score_steps,
)
from speechbrain_hyperbolic.inference.config import MODULES, read_config
from speechbrain_hyperbolic.inference.model import check_device
from speechbrain_hyperbolic.training.checks import (
    SCORE_FILE,
    TRAIN_LOG,
    no_trace_if_refused,
)

logger = get_logger(__name__)


def main():
    """Checks the command line and verifies."""
    hparams_file, run_opts, overrides = sb.parse_arguments(sys.argv[1:])
    hparams_file = find_hparams(hparams_file, __file__)
    use = "verification, such as hparams/verification.yaml"
    check_keys(hparams_file, ["model_folder", "enrollment"], use)
    check_device(run_opts["device"])
    folder = read_settings(hparams_file, overrides)["output_folder"]
    with no_trace_if_refused(folder, TRAIN_LOG):
        hparams = load_hparams(hparams_file, overrides)
        verify(hparams_file, run_opts, overrides, hparams)


def verify(hparams_file, run_opts, overrides, hparams):
    """Embeds, scores, evaluates."""
    corpus = read_corpus(hparams["data_folder"], hparams.get("speaker_level"))
    score = check_options(hparams)
    output_folder = os.path.normpath(hparams["output_folder"])
    sb.create_experiment_directory(output_folder, hparams_file, overrides)
    # Which otherwise fills log.txt with what it thinks of each font
    logging.getLogger("matplotlib").setLevel(logging.INFO)

    # The trials, and others to calibrate on
    trial_list = fetch_trials(
        hparams["verification_file"], hparams["save_folder"]
    )
    trials, paths = open_trials(trial_list, corpus, hparams["enrollment_file"])
    lists = {"verification_file": trials}
    held_out = hparams["calibration_file"]
    if held_out:
        held_out = open_trials(
            held_out, corpus, hparams["calibration_enrollment_file"]
        )
        results.check_both_classes(held_out[0], hparams["calibration_file"])
        scorer.check_held_out(held_out[0], trials)
        lists["calibration_file"] = held_out[0]
    run_folder = os.path.normpath(f"{hparams['model_folder']}/..")
    scorer.warn_of_training_speakers(f"{run_folder}/save/train.csv", **lists)

    # Embeddings and scores
    device = run_opts["device"] or infer_device()
    score_trials = make_scorer(score, hparams, device)
    quality = hparams["calibration_quality"] or []
    scores, sides = score_trials(trials, paths)
    if held_out:
        calibration = Calibration.fit(
            features(*score_trials(*held_out), quality),
            held_out[0].labels,
            quality,
        )
        before = scores
        scores = calibration(features(scores, sides, quality))
        parameters = dataclasses.asdict(calibration)
        write_json(f"{output_folder}/calibration.json", parameters)
    columns = (
        [trials.models[row] for row in trials.enroll],
        [trials.utterances[row] for row in trials.test],
        trials.labels if trials.labeled else None,
    )
    write_scores(f"{output_folder}/{SCORE_FILE}", *columns, scores)
    if held_out:  # whose thresholds an export measures
        write_scores(f"{output_folder}/{UNCALIBRATED}", *columns, before)
    if not trials.labeled:
        logger.info(
            f"{trial_list} has no labels: {output_folder}/scores.txt has the "
            "scores, and there are no error rates"
        )
        return

    # Error rates and plots
    found = results.evaluate_trials(
        trials,
        scores,
        corpus.labels,
        replicates=hparams["bootstrap_replicates"],
        calibrated=bool(held_out),
        p_targets=hparams["p_targets"],
    )
    for result in found.values():  # an export takes only its own model's
        result["encoder"] = weights_fingerprint(
            hparams["embedding_model"].state_dict()
        )
    write_json(f"{output_folder}/results.json", found)
    target, nontarget = scores[trials.labels == 1], scores[trials.labels == 0]
    steps = ", ".join(score_steps(hparams))
    system = f"{hparams['model_folder']}: {steps}"
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
        threshold=found["all trials"]["eer_threshold"],
        xlabel=steps,
    )
    logger.info(
        f"{system} on {trial_list}; {results.interval_note(found)}:\n"
        f"{results.format_results(found)}\n"
        f"scores.txt, results.json, det.png and scores.png: {output_folder}"
    )
    if not hparams["n_crops"] and os.path.isfile(f"{run_folder}/{TRAIN_LOG}"):
        if add_thresholds(hparams["model_folder"], output_folder):
            logger.info(f"The thresholds are in {hparams['model_folder']} too.")


def check_options(hparams):
    """The score, after all options are checked, before long computations."""
    for key in ("bootstrap_replicates", "crop_length", "cohort_utterances"):
        check_positive(key, hparams[key])
    if hparams["clip_c"] is None:
        hparams["clip_c"] = read_config(hparams["model_folder"]).clip_c
    check_c(hparams["clip_c"])
    check_choice("enrollment", hparams["enrollment"], ENROLLMENTS)
    check_priors(hparams["p_targets"])
    check_quality(hparams["calibration_quality"] or [])
    if hparams["normalization"]:
        check_normalization(hparams["normalization"], hparams["top_k"])
    return make_score(hparams["score"], hparams["clip_c"])


def open_trials(path, corpus, enrollment_file):
    """The trials of a list, and where their audio is."""
    trials = read_trials(path, enrollment_file, corpus)
    if trials.labeled:
        results.check_both_classes(trials, path)
    return trials, results.locate(trials, corpus, path)


def make_scorer(score, hparams, device):
    """Everything between audio files and scores."""
    embed = functools.partial(
        extract,
        Encoder(*(hparams[name] for name in MODULES), device),
        sample_rate=read_config(hparams["model_folder"]).sample_rate,
        n_crops=hparams["n_crops"],
        crop_length=hparams["crop_length"],
        cache_folder=hparams["cache_folder"],
        batch_seconds=hparams["batch_seconds"],
        vad=hparams.get("vad", False),
    )
    cohort = None
    if hparams["normalization"]:
        cohort = scorer.read_cohort(
            hparams["cohort_file"], hparams["cohort_utterances"]
        )
    return scorer.Scorer(
        embed,
        score,
        hparams["enrollment"],
        hparams["clip_c"],
        hparams["normalization"],
        cohort,
        hparams["top_k"],
    )


if __name__ == "__main__":
    with exit_on_error():
        main()
