"""The web page, in a real browser: Debian's chromium and chromium-driver."""

import contextlib
import os
import re
import runpy
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from speechbrain_hyperbolic import HyperbolicSpeakerRecognition
from speechbrain_hyperbolic.inference.model import Thresholds
from speechbrain_hyperbolic.inference.voiceprints import VoiceprintStore
from tests.conftest import ROOT
from tests.inference.models import RATE, make_model, voice

pytest.importorskip("gradio", reason="gradio is absent: the extra app")

APP = ROOT / "app" / "app.py"
MARKUP = "<img src=x onerror='document.title=1'>"
SECONDS_TO_WAIT = 60
RESULT = "#result .html-container"  # beside it, Gradio shows its progress
load = HyperbolicSpeakerRecognition.from_pretrained


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips of two voices by name, and one that is too short."""
    folder = tmp_path_factory.mktemp("clips")
    soundfile.write(folder / "low.wav", voice(1, 2), RATE)
    soundfile.write(folder / "high.flac", voice(2, 2), RATE)
    soundfile.write(folder / "short.wav", voice(1, 0.125), RATE)
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """Its EER threshold tells the two voices apart, the other one does not."""
    folder = tmp_path_factory.mktemp("model")
    thresholds = Thresholds(0.998, {"0.1": 0.9})  # the score is 0.996
    make_model(folder, thresholds=thresholds)
    return folder


@pytest.fixture(scope="module")
def model(model_folder):
    model = load(model_folder)
    model.vad = False  # the clips are noise
    return model


@contextlib.contextmanager
def serving(folder, **environment):
    """The address of the app, run as a user does, and its log."""
    log = folder / "app.log"
    environment["GRADIO_TEMP_DIR"] = str(folder / "uploads")
    environment["PYTHONUNBUFFERED"] = "1"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, APP],
            stdout=file,
            stderr=file,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
    try:
        while not (found := re.search(r"http://127\S+", log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield found.group(), log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS_TO_WAIT)


@pytest.fixture(scope="module")
def app(tmp_path_factory, model_folder, model, clips):
    """A running app that has enrolled speakers."""
    folder = tmp_path_factory.mktemp("app")
    store = VoiceprintStore(model.fingerprint)
    store.add(MARKUP, model.enroll([clips["low.wav"]]))
    for i in range(5):
        store.add(f"speaker {i}", model.enroll([voice(10 + i)]))
    path = folder / "store.safetensors"
    store.save(path)
    environment = {"MODEL": str(model_folder), "VOICEPRINTS": str(path)}
    with serving(folder, VAD="0", **environment) as served:
        yield served


class Page:
    """What a visitor does and sees."""

    def __init__(self, browser, address):
        self.browser = browser
        browser.get(address)
        self.find("#compare")

    def wait(self, condition):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, SECONDS_TO_WAIT, 0.1).until(
            lambda _: condition()
        )

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def find(self, selector):
        """The first one, which may take a while to appear."""
        return self.wait(lambda: self.all(selector))[0]

    def text(self, selector):
        return self.browser.execute_script(
            "return document.querySelector(arguments[0])?.innerText ?? ''",
            selector,
        )

    def upload(self, *paths):
        for i, path in enumerate(paths, 1):
            self.find(f"#clip-{i} input[type=file]").send_keys(str(path))
            # Then there is a player.
            self.find(f"#clip-{i} [aria-label=Clear]")
            self.wait(lambda i=i: not self.all(f"#clip-{i} input[type=file]"))

    def compare(self):
        """Presses the button by the keyboard; returns the answer."""
        self.find("#compare").send_keys("\ue007")  # Enter
        return self.wait(lambda: self.text(RESULT).strip())


@pytest.fixture
def page(browser, app):
    address, log = app
    yield Page(browser, address)
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("second", ["low.wav", "high.flac"])
def test_decision_is_that_of_the_model(page, model, clips, second):
    page.upload(clips["low.wav"], clips[second])
    answer = page.compare()
    score, same = model.verify_files(clips["low.wav"], clips[second])
    assert bool(same) == (second == "low.wav")
    verdict = "Same speaker" if same else "Different speakers"
    assert answer.startswith(verdict)
    place = "" if same else "not "
    assert (
        f"The score, {score.item():.3f}, is {place}above the threshold, "
        f"{model.threshold_at():.3f}." in answer
    )
    picture = page.find("#picture img")
    assert page.wait(lambda: picture.get_property("naturalWidth")) > 100
    assert "among 6 enrolled speakers" in picture.get_attribute("alt")
    assert page.browser.title == "Same speaker?"  # no name has run as code
    # The other threshold decides anew.
    page.all("#criterion label")[1].click()
    page.wait(lambda: page.text(RESULT).startswith("Same speaker"))
    # An answer disappears with its clips.
    page.find("#clip-2 [aria-label=Clear]").click()
    page.wait(lambda: not page.text(RESULT).strip())
    assert not page.all("#picture img")
    assert page.compare().startswith("Clip 2 is missing: please record")


def test_bad_clip_is_answered_on_the_page(page, clips):
    page.upload(clips["low.wav"], clips["short.wav"])
    words = "Clip 2: short.wav has 0.125 seconds, expected 0.5 to 120"
    assert page.compare().startswith(words)
    assert not page.all("#picture img")


def test_uploads_are_deleted_when_the_server_stops(
    browser, tmp_path, model_folder, clips
):
    """Also while a page is open."""
    with serving(tmp_path, MODEL=str(model_folder)) as (address, _):
        Page(browser, address).upload(clips["low.wav"])
        assert list(tmp_path.glob("uploads/**/low.wav"))
    assert not list(tmp_path.glob("uploads/**/low.wav"))


def test_model_is_asked_for(monkeypatch, capsys):
    monkeypatch.delenv("MODEL", raising=False)
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(APP)
    assert capsys.readouterr().err.startswith("error: MODEL is not set: ")


def test_decisions_without_a_threshold_and_by_distance(
    monkeypatch, model_folder, tmp_path
):
    monkeypatch.setenv("MODEL", str(model_folder))
    decision = runpy.run_path(APP)["decision"]
    make_model(tmp_path, score="hyperbolic", clip_c=4.0)
    model = load(tmp_path)
    # Minus the distance of opposite points of norm 0.5, and of one point
    least = -2 * np.log(3)
    for score, place in ((least, 0), (least / 2, 50), (0, 100)):
        answer = decision(model, score, None)
        assert f'class="tick score" style="left: {place:.2f}%"' in answer
        assert "No decision" in answer and "Same speaker" not in answer
