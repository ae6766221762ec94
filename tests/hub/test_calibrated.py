"""A calibrated verification, exported with its run."""

import dataclasses
import re
import shutil

import numpy as np
import pytest

from speechbrain_hyperbolic import HyperbolicSpeakerRecognition
from speechbrain_hyperbolic.dataio.files import write_json
from speechbrain_hyperbolic.dataio.scores import read_score_table, write_scores
from speechbrain_hyperbolic.evaluation.calibration import Calibration
from speechbrain_hyperbolic.hub.export import export_run
from speechbrain_hyperbolic.inference.recognition import Embedding


def test_the_model_gives_the_ratio_of_its_calibration(demo, tmp_path):
    """Thresholds are those of the same scores without it."""
    run = shutil.copytree(demo.run, tmp_path / "run")
    plain = HyperbolicSpeakerRecognition.from_pretrained(
        export_run(run, tmp_path / "plain")
    )
    verified = run / "trained"
    table = read_score_table(verified / "scores.txt")
    columns = table.enroll, table.test, table.labels
    write_scores(verified / "uncalibrated.txt", *columns, table.scores)
    write_scores(verified / "scores.txt", *columns, 8 * table.scores - 3)
    calibration = Calibration([8.0, 1.0, -1.0], -3.0, ["radius"])
    write_json(verified / "calibration.json", dataclasses.asdict(calibration))
    path = verified / "hyperparams.yaml"
    option = "calibration_file: held_out.txt\n"
    text = re.sub("(?m)^calibration_file:.*\n", option, path.read_text())
    path.write_text(text)
    model = HyperbolicSpeakerRecognition.from_pretrained(
        export_run(run, tmp_path / "calibrated")
    )
    assert model.threshold_at() == pytest.approx(plain.threshold_at())
    assert model.threshold_at(0.2) == pytest.approx(plain.threshold_at(0.2))
    generator = np.random.default_rng(0)
    a, b = (Embedding(generator.normal(size=8), 2.0) for _ in range(2))
    assert plain.log_likelihood_ratio(a, b) is None
    ratio = model.log_likelihood_ratio(a, b)
    low, high = sorted(np.log([a.radius, b.radius]))
    assert ratio == pytest.approx(8 * model.score(a, b) + low - high - 3)
