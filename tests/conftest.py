"""Where the tests find what lies outside the repository."""

import os
import pathlib
import shutil
import types

import pytest
import torch
from hypothesis import HealthCheck, settings
from speechbrain.utils.importutils import LazyModule

from recipes.OwnCorpus.synthetic_speech import make_synthetic_corpus
from tests.corpora import make_sounds
from tests.scripts import ROOT, run_script

# Hypothesis asks every loaded module for its file; SpeechBrain's lazy modules
# would import optional packages to answer.
LazyModule.__file__ = None
# The same examples on each machine, however slow it is
settings.register_profile(
    "tests",
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
    ],
)
settings.load_profile("tests")

SHARED = pathlib.Path(
    os.environ.get("SBH_SHARED", ROOT.parent / "shared")
).resolve()
SPEAKERS = 12  # of the demo's training
TINY = ("--channels=16", "--batch_size=16", "--num_workers=0")


@pytest.fixture(autouse=True)
def seed():
    """Each test has the same random numbers in any order of tests."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def speechocean():
    """Real speech: 250 speakers, see its SOURCE.md."""
    path = SHARED / "data" / "speechocean762"
    if not path.exists():
        pytest.skip(f"{path} is absent: set SBH_SHARED to the folder of data")
    return path


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """A synthetic corpus, sounds, and a run of recipes/OwnCorpus on them."""
    pytest.importorskip("espeakng_loader")
    folder = tmp_path_factory.mktemp("demo")
    make_synthetic_corpus(
        folder / "corpus", n_train=SPEAKERS, n_test=6, utterances=(6, 6)
    )
    make_sounds(folder / "sounds")
    demo = types.SimpleNamespace(
        corpus=folder / "corpus",
        run=folder / "run",
        trials=folder / "run" / "trials.txt",
        command=[
            ROOT / "recipes" / "OwnCorpus" / "run.py",
            f"--data_folder={folder / 'corpus'}",
            f"--output_folder={folder / 'run'}",
            "--number_of_epochs=2",
            *TINY,
        ],
        sounds=[
            f"--noise_source={folder / 'sounds'}",
            f"--rir_source={folder / 'sounds' / 'rir'}",
        ],
    )
    code, demo.printed = run_script(*demo.command)
    assert code == 0, demo.printed
    return demo


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Debian's chromium, which reaches this machine only."""
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="selenium is not installed"
    )
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium or its driver is missing: apt-get install both")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        *("headless", "no-sandbox", "disable-gpu", "no-first-run"),
        *("disable-background-networking", "window-size=1100,900"),
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture
def no_vad(monkeypatch):
    """For tests whose voices are colored noise, which is no speech."""
    from speechbrain_hyperbolic import HyperbolicSpeakerRecognition

    monkeypatch.setattr(HyperbolicSpeakerRecognition, "vad", False)


@pytest.fixture(scope="session")
def root():
    """The repository."""
    return ROOT
