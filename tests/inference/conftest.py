"""A model and clips that the tests of this folder share."""

import pytest
import soundfile

from speechbrain_hyperbolic import HyperbolicSpeakerRecognition
from tests.inference.models import MEASURED, RATE, make_model, voice


@pytest.fixture(autouse=True)
def whole_audio(no_vad):
    """The tests of this folder embed noise."""


@pytest.fixture(scope="package")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    make_model(path, thresholds=MEASURED, trials={"list": "a.txt", "n": 9})
    return path


@pytest.fixture(scope="package")
def model(folder):
    return HyperbolicSpeakerRecognition.from_pretrained(folder)


@pytest.fixture(scope="package")
def clips(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips")
    for seed in range(4):
        soundfile.write(path / f"{seed}.wav", voice(seed, 1 + seed / 4), RATE)
    return sorted(path.iterdir())
