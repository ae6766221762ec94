"""The web page, in a real browser: Debian's chromium and chromium-driver."""

import contextlib
import os
import pathlib
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
import uuid

import numpy as np
import pytest
import soundfile

from speechbrain_hyperbolic.inference.model import Thresholds, save_model
from speechbrain_hyperbolic.inference.recognition import (
    HyperbolicSpeakerRecognition,
)
from speechbrain_hyperbolic.inference.voiceprints import VoiceprintStore
from tests.conftest import ROOT
from tests.inference.models import RATE, make_config, make_model

pytest.importorskip("gradio", reason="gradio is absent: the extra app")

APP = ROOT / "app" / "app.py"
MARKUP = "<img src=x onerror='document.title=1'>"
SECONDS_TO_WAIT = 60
RESULT = "#result .html-container"  # beside it, Gradio shows its progress
load = HyperbolicSpeakerRecognition.from_pretrained


def buzz(pitch, seed, seconds=2.0):
    """A buzz with a vowel's color and some noise, [time]."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    wave = sum(
        np.sin(2 * np.pi * pitch * k * time) / k * rng.uniform(0.2, 1)
        for k in range(1, 20)
    )
    return 0.1 * wave + rng.normal(0, 0.005, len(time))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips by name: two voices, and what is no clip."""
    folder = tmp_path_factory.mktemp("clips")
    low, high = buzz(110, 1), buzz(230, 2)
    soundfile.write(folder / "low.wav", low, RATE)
    soundfile.write(folder / "high.flac", high, RATE)
    soundfile.write(folder / "silent.wav", 0 * low, RATE)
    soundfile.write(folder / "short.wav", low[:2000], RATE)
    soundfile.write(folder / "long.flac", buzz(110, 3, 121), RATE)
    (folder / "text.wav").write_text("no audio\n" * 1000)
    whole = (folder / "low.wav").read_bytes()
    with open(folder / "large.wav", "wb") as file:
        file.write(whole)
        file.truncate(21 * 2**20)
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, clips):
    """Its EER threshold tells the two voices apart, the other one does not."""
    folder = tmp_path_factory.mktemp("model")
    _, encoder = make_model(folder)
    model = load(folder)
    low, high = (model.embed(clips[n]) for n in ("low.wav", "high.flac"))
    score = model.score(low, high)
    assert score < 0.999
    thresholds = Thresholds((score + 1) / 2, {"0.1": score - 0.1})
    config = make_config(thresholds=thresholds)
    save_model(folder, config, encoder.state_dict())
    return folder


@pytest.fixture(scope="module")
def model(model_folder):
    return load(model_folder)


def get(request):
    return urllib.request.urlopen(request, timeout=SECONDS_TO_WAIT)


@contextlib.contextmanager
def serving(folder, **environment):
    """The address of the app, run as a user does, and its log."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    log = folder / "app.log"
    environment["GRADIO_SERVER_PORT"] = str(port)
    environment["GRADIO_TEMP_DIR"] = str(folder / "uploads")
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, APP],
            stdout=file,
            stderr=file,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
    address = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(10 * SECONDS_TO_WAIT):
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(OSError), get(address):
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        yield address, log
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
        store.add(f"speaker {i}", model.enroll([buzz(90 + 40 * i, 10 + i)]))
    path = folder / "store.safetensors"
    store.save(path)
    with serving(
        folder, MODEL=str(model_folder), VOICEPRINTS=str(path)
    ) as served:
        yield served


@pytest.fixture(scope="module")
def browser(tmp_path_factory, clips):
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="selenium is absent"
    )
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium or chromium-driver is absent: apt-get install")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        *("headless", "no-sandbox", "disable-gpu", "no-first-run"),
        *("disable-background-networking", "disable-component-update"),
        *("disable-sync", "disable-quic"),
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        # A microphone that plays a clip
        "use-fake-ui-for-media-stream",
        "use-fake-device-for-media-stream",
        f"use-file-for-fake-audio-capture={clips['low.wav']}",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


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

    def screenshot(self, path, width):
        """At the width of a device, of the whole page."""
        metrics = {"width": width, "deviceScaleFactor": 1, "mobile": False}
        for height in (900, "document.documentElement.scrollHeight"):
            height = self.browser.execute_script(f"return {height}")
            self.browser.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {**metrics, "height": height},
            )
        assert self.browser.save_screenshot(str(path))
        wide = "return document.documentElement.scrollWidth"
        assert self.browser.execute_script(wide) <= width
        self.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture
def page(browser, app):
    address, log = app
    yield Page(browser, address)
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("second", ["low.wav", "high.flac"])
def test_decision_is_that_of_the_model(page, model, clips, tmp_path, second):
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
    assert "Clip 1: 2.0 s" in page.text("#details")
    picture = page.find("#picture img")
    assert page.wait(lambda: picture.get_property("naturalWidth")) > 100
    assert "among 6 enrolled speakers" in picture.get_attribute("alt")
    folder = pathlib.Path(os.environ.get("TEST_SCREENSHOTS", tmp_path))
    for width in (1200, 390):
        page.screenshot(folder / f"{clips[second].stem}-{width}.png", width)
    # The other threshold decides anew.
    page.all("#criterion label")[1].click()
    page.wait(lambda: page.text(RESULT).startswith("Same speaker"))
    # An answer disappears with its clips.
    page.find("#clip-2 [aria-label=Clear]").click()
    page.wait(lambda: not page.text(RESULT).strip())
    assert not page.all("#picture img")
    assert page.compare().startswith("Clip 2 is missing: please record")


def test_clip_that_was_deleted_is_asked_for_again(page, app, clips):
    page.upload(clips["high.flac"], clips["high.flac"])
    for upload in (app[1].parent / "uploads").rglob("high.flac"):
        upload.unlink()
    assert page.compare().startswith("Clip 1 is no longer there: please")


@pytest.mark.parametrize(
    "name, words",
    [
        ("text.wav", "text.wav can"),
        ("silent.wav", "silent"),
        ("short.wav", "short.wav has 0.125 seconds, expected 0.5 to 120"),
        ("long.flac", "long.flac has 121 seconds, expected 0.5 to 120"),
    ],
)
def test_bad_clip_is_answered_on_the_page(page, clips, name, words):
    page.upload(clips["low.wav"], clips[name])
    answer = page.compare()
    assert answer.startswith("Clip 2: ") and answer.endswith(".")
    assert words in answer and "\n" not in answer and "/" not in answer
    assert not page.all("#picture img")


def test_large_file_is_refused(page, clips):
    page.find("#clip-1 input[type=file]").send_keys(str(clips["large.wav"]))
    page.wait(lambda: "maximum allowed size of 20" in page.text("body"))


def test_recording(page, clips):
    page.upload(clips["low.wav"], clips["low.wav"])
    page.find("#clip-1 [aria-label=Clear]").click()
    page.find("#clip-1 [aria-label='Record audio']").click()
    page.find("#clip-1 .record-button").click()
    page.wait(lambda: re.search("0:0[1-9]", page.text("#clip-1")))
    page.find("#clip-1 .stop-button").click()
    page.find("#clip-1 [aria-label=Play]")
    # The player is there before the recording has come to the server.
    page.wait(lambda: "The score, " in page.compare())
    seconds = re.search(r"Clip 1: ([\d.]+) s", page.text("#details"))[1]
    assert 1 <= float(seconds) < SECONDS_TO_WAIT


def test_page_asks_no_other_host_and_runs_no_name(page, browser, clips):
    browser.get_log("performance")  # the browser's own start is in it
    browser.refresh()
    page.upload(clips["low.wav"], clips["low.wav"])
    page.compare()
    page.find("#picture img")
    assert browser.title == "Same speaker?"
    log = "".join(entry["message"] for entry in browser.get_log("performance"))
    assert "/assets/" in log
    hosts = set(re.findall(r'"url":"(?:https?|wss?)://([^/"]+)', log))
    assert hosts and all(host.startswith("127.0.0.1:") for host in hosts)


def test_uploads_are_deleted_when_the_server_stops(
    tmp_path, model_folder, clips
):
    """Also while a page is open."""
    uploads = tmp_path / "uploads"
    with (
        contextlib.ExitStack() as open_page,
        serving(tmp_path, MODEL=str(model_folder)) as (address, _),
    ):
        boundary = uuid.uuid4().hex
        body = (
            f"--{boundary}\r\nContent-Disposition: form-data; "
            'name="files"; filename="low.wav"\r\n\r\n'
        ).encode()
        body += clips["low.wav"].read_bytes() + f"\r\n--{boundary}--".encode()
        request = urllib.request.Request(
            f"{address}gradio_api/upload",
            body,
            {"Content-Type": f"multipart/form-data; boundary={boundary}"},
        )
        with get(request) as response:
            assert response.status == 200
        assert [p.name for p in uploads.rglob("*.wav")] == ["low.wav"]
        listening = get(f"{address}gradio_api/heartbeat/abc")
        open_page.enter_context(listening)
    assert not list(uploads.rglob("*.wav"))


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
