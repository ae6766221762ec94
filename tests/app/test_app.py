"""The web page, in a real browser: Debian's chromium and chromium-driver."""

import contextlib
import dataclasses
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
import torch

from speechbrain_hyperbolic.inference.model_folder import (
    ModelConfig,
    Thresholds,
    build_modules,
    load_model,
    save_model,
)
from speechbrain_hyperbolic.inference.recognition import (
    HyperbolicSpeakerRecognition,
)
from speechbrain_hyperbolic.inference.voiceprints import VoiceprintStore

pytest.importorskip("gradio", reason="gradio is absent: the extra app")

RATE = 16000
ENCODER = {
    "input_size": 80,
    "channels": [16, 16, 16, 16, 48],
    "kernel_sizes": [5, 3, 3, 3, 1],
    "dilations": [1, 2, 3, 4, 1],
    "groups": [1, 1, 1, 1, 1],
    "attention_channels": 16,
    "lin_neurons": 32,
}
MARKUP = "<img src=x onerror='document.title=1'>"
SECONDS_TO_WAIT = 60
RESULT = "#result .html-container"  # beside it, Gradio shows its progress


def voice(pitch, seed, seconds=2.0):
    """A buzz with a vowel's colour and some noise, shape [time]."""
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
    low, high = voice(110, 1), voice(230, 2)
    broken = low.astype(np.float32)
    broken[1000] = np.nan
    soundfile.write(folder / "low.wav", low, RATE)
    soundfile.write(folder / "high.flac", high, RATE)
    soundfile.write(folder / "nan.wav", broken, RATE, subtype="FLOAT")
    soundfile.write(folder / "silent.wav", 0 * low, RATE)
    soundfile.write(folder / "short.wav", low[:2000], RATE)
    soundfile.write(folder / "long.flac", voice(110, 3, 121), RATE)
    (folder / "text.wav").write_text("no audio\n" * 1000)
    (folder / "empty.wav").touch()
    whole = (folder / "low.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    with open(folder / "large.wav", "wb") as file:
        file.write(whole)
        file.truncate(21 * 2**20)
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, clips):
    """A model that by its EER threshold tells the two voices apart, and by
    that of a false-accept rate of 0.1 does not."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = ModelConfig(RATE, 80, "ecapa", ENCODER)
    state = build_modules(config)["embedding_model"].state_dict()
    save_model(folder, config, state)
    model = HyperbolicSpeakerRecognition.from_pretrained(folder)
    low, high = (model.embed(clips[n]) for n in ("low.wav", "high.flac"))
    score = model.score(low, high)
    assert score < 0.999
    thresholds = Thresholds((score + 1) / 2, {"0.1": score - 0.1})
    config = ModelConfig(RATE, 80, "ecapa", ENCODER, thresholds=thresholds)
    save_model(folder, config, state)
    return folder


@pytest.fixture(scope="module")
def model(model_folder):
    return HyperbolicSpeakerRecognition.from_pretrained(model_folder)


def get(request):
    return urllib.request.urlopen(request, timeout=SECONDS_TO_WAIT)


@contextlib.contextmanager
def serving(folder, root, **environment):
    """The address of the app, run as a user does, and its log."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    log = folder / "app.log"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, root / "app" / "app.py"],
            stdout=file,
            stderr=file,
            env={
                **os.environ,
                "GRADIO_SERVER_PORT": str(port),
                "GRADIO_TEMP_DIR": str(folder / "uploads"),
                **environment,
            },
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
def app(tmp_path_factory, model_folder, model, clips, root):
    """A running app that has enrolled speakers."""
    folder = tmp_path_factory.mktemp("app")
    store = VoiceprintStore(model.fingerprint)
    store.add(MARKUP, model.enrol([clips["low.wav"]]))
    for i in range(5):
        store.add(f"speaker {i}", model.enrol([voice(90 + 40 * i, 10 + i)]))
    store.save(folder / "store.safetensors")
    with serving(
        folder,
        root,
        MODEL=str(model_folder),
        VOICEPRINTS=str(folder / "store.safetensors"),
    ) as (address, log):
        yield address, log


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
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
        *("--no-first-run", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync"),
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        # A microphone that plays a clip.
        *(
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
        ),
        f"--use-file-for-fake-audio-capture={clips['low.wav']}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    service = webdriver.ChromeService(driver)
    browser = webdriver.Chrome(options, service)
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
        """The first that is there, or comes."""
        return self.wait(lambda: self.all(selector))[0]

    def text(self, selector):
        return self.browser.execute_script(
            "return document.querySelector(arguments[0])?.innerText ?? ''",
            selector,
        )

    def upload(self, i, path):
        self.find(f"#clip-{i} input[type=file]").send_keys(str(path))
        # Then there is a player, with or without a waveform.
        self.find(f"#clip-{i} [aria-label=Clear]")
        self.wait(lambda: not self.all(f"#clip-{i} input[type=file]"))

    def compare(self):
        """Presses the button by the keyboard; gives the answer."""
        self.find("#compare").send_keys("\ue007")  # Enter
        return self.answer()

    def answer(self):
        return self.wait(lambda: self.text(RESULT).strip())

    def screenshot(self, name, width, folder):
        """At a width as of a device, all of the page's height."""
        for height in (900, None):
            self.browser.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {
                    "width": width,
                    "height": height
                    or self.browser.execute_script(
                        "return document.documentElement.scrollHeight"
                    ),
                    "deviceScaleFactor": 1,
                    "mobile": width < 500,
                },
            )
        path = folder / name
        assert self.browser.save_screenshot(str(path))
        wide = self.browser.execute_script(
            "return document.documentElement.scrollWidth"
        )
        self.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        assert wide <= width, "the page has to be scrolled sideways"


@pytest.fixture
def page(browser, app):
    address, log = app
    yield Page(browser, address)
    assert "Traceback" not in log.read_text()


@pytest.fixture
def artefacts(tmp_path):
    """Where the screenshots are kept."""
    folder = pathlib.Path(os.environ.get("TEST_ARTEFACTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize("second", ["low.wav", "high.flac"])
def test_decision_is_that_of_the_model(page, model, clips, artefacts, second):
    page.upload(1, clips["low.wav"])
    page.upload(2, clips[second])
    answer = page.compare()
    score, same = model.verify_files(clips["low.wav"], clips[second])
    assert bool(same) == (second == "low.wav")
    verdict = "Same speaker" if same else "Different speakers"
    assert answer.startswith(verdict)
    place = "" if same else "not "
    threshold = model.config.thresholds.eer
    assert (
        f"The score, {score.item():.3f}, is {place}above the threshold, "
        f"{threshold:.3f}." in answer
    )
    assert "Clip 1: 2.0 s" in page.text("#details")
    picture = page.find("#picture img")
    assert page.wait(lambda: picture.get_property("naturalWidth")) > 100
    assert "among 6 enrolled speakers" in picture.get_attribute("alt")
    name = verdict.lower().replace(" ", "-")
    page.screenshot(f"{name}.png", 1200, artefacts)
    page.screenshot(f"{name}-phone.png", 390, artefacts)


def test_other_threshold_decides_anew(page, clips):
    page.upload(1, clips["low.wav"])
    page.upload(2, clips["high.flac"])
    assert page.compare().startswith("Different speakers")
    strict = page.all("#criterion label")[1]
    assert strict.text == "1 false accept in 10"
    strict.click()
    page.wait(lambda: page.text(RESULT).startswith("Same speaker"))


def test_answer_does_not_outlive_its_clips(page, clips):
    page.upload(1, clips["low.wav"])
    page.upload(2, clips["low.wav"])
    page.compare()
    page.find("#clip-2 [aria-label=Clear]").click()
    page.wait(lambda: not page.text(RESULT).strip())
    assert not page.all("#picture img")
    assert page.compare() == "Clip 2 is missing: record or upload it."


def test_clip_that_was_deleted_is_asked_for_again(page, app, clips):
    page.upload(1, clips["high.flac"])
    page.upload(2, clips["high.flac"])
    _, log = app
    (upload,) = (log.parent / "uploads").rglob("high.flac")
    upload.unlink()
    assert page.compare() == "Clip 1 was deleted by now: give it again."


@pytest.mark.parametrize(
    "name, message",
    [
        ("text.wav", "text.wav can't be read as audio"),
        ("empty.wav", "empty.wav can't be read as audio"),
        ("cut.wav", "cut.wav is truncated"),
        ("nan.wav", "nan.wav holds NaN"),
        ("silent.wav", "silent"),
        ("short.wav", "short.wav has 0.125 seconds, expected 0.5 to 120"),
        ("long.flac", "long.flac has 121 seconds, expected 0.5 to 120"),
    ],
)
def test_bad_clip_is_answered_on_the_page(page, clips, name, message):
    page.upload(1, clips["low.wav"])
    page.upload(2, clips[name])
    answer = page.compare()
    assert answer.startswith("Clip 2: ") and answer.endswith(".")
    assert message in answer
    assert "\n" not in answer and "/" not in answer
    assert not page.all("#picture img")


def test_large_file_is_refused(page, clips):
    page.find("#clip-1 input[type=file]").send_keys(str(clips["large.wav"]))
    page.wait(lambda: "maximum allowed size of 20" in page.text("body"))
    assert page.compare() == "Clip 1 is missing: record or upload it."


def test_recording(page, clips):
    page.upload(2, clips["low.wav"])
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
    page.upload(1, clips["low.wav"])
    page.upload(2, clips["low.wav"])
    page.compare()
    page.find("#picture img")
    assert browser.title == "Same speaker?"
    log = "".join(entry["message"] for entry in browser.get_log("performance"))
    assert "/assets/" in log
    hosts = set(re.findall(r'"url":"(?:https?|wss?)://([^/"]+)', log))
    assert hosts and all(host.startswith("127.0.0.1:") for host in hosts)


@pytest.mark.parametrize("page_is_open", [False, True])
def test_uploads_are_deleted_when_the_server_stops(
    tmp_path, model_folder, clips, root, page_is_open
):
    uploads = tmp_path / "uploads"
    with (
        contextlib.ExitStack() as open_page,
        serving(tmp_path, root, MODEL=str(model_folder)) as (address, _),
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
        if page_is_open:
            listening = get(f"{address}gradio_api/heartbeat/abc")
            open_page.enter_context(listening)
    assert not list(uploads.rglob("*.wav"))


def test_model_is_asked_for(monkeypatch, capsys, root):
    monkeypatch.delenv("MODEL", raising=False)
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(root / "app" / "app.py")
    assert capsys.readouterr().err.startswith("error: MODEL is not set: ")


@pytest.fixture(scope="module")
def functions(model_folder, root):
    """Of the app."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL", str(model_folder))
        return runpy.run_path(root / "app" / "app.py")


def test_no_threshold_no_decision(functions, model):
    answer = functions["decision"](model, 0.5, None)
    assert "No decision" in answer and "has not been measured" in answer
    assert "same" not in answer


def test_line_goes_from_the_least_to_the_largest_score(
    functions, model_folder, tmp_path
):
    config, modules = load_model(model_folder)
    config = dataclasses.replace(config, score="hyperbolic", clip_c=4.0)
    save_model(tmp_path, config, modules["embedding_model"].state_dict())
    model = HyperbolicSpeakerRecognition.from_pretrained(tmp_path)
    # Minus the distance of opposite points of norm 0.5, and of one point.
    least = -2 * np.log(3)
    for score, place in ((least, 0), (least / 2, 50), (0, 100)):
        answer = functions["decision"](model, score, None)
        assert f'class="tick score" style="left: {place:.2f}%"' in answer
