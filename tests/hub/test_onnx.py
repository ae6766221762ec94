"""The ONNX file against the stock modules, run by onnxruntime."""

import functools
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.processing.features import STFT

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.extraction import Encoder
from speechbrain_hyperbolic.hub import onnx as hub_onnx
from speechbrain_hyperbolic.hub.card import make_card
from speechbrain_hyperbolic.inference.model import fingerprint, load_model
from tests.hub.models import ENCODERS, write_model
from tests.hub.test_card import TRAINING

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Encoder -> a model folder with an ONNX file; a conversion takes long."""

    @functools.cache
    def make(encoder):
        folder = write_model(tmp_path_factory.mktemp(encoder), encoder)
        hub_onnx.export_onnx(folder)
        return folder

    return make


@pytest.fixture(params=ENCODERS)
def exported(request, folders):
    return folders(request.param)


def embed(path, waveforms):
    session = onnxruntime.InferenceSession(path)
    return session.run(None, {"waveform": waveforms.numpy()})[0]


def expect(folder, waveforms):
    """By PyTorch and the stock modules."""
    _, modules = load_model(folder)
    return Encoder(*modules.values())(waveforms).numpy()


def speech_like(batch, samples):
    """Noise of a level that varies by 120 dB."""
    generator = torch.Generator().manual_seed(samples)
    level = torch.linspace(0, -6, samples)
    return torch.randn(batch, samples, generator=generator) / 5 * 10**level


def assert_same(found, expected):
    norms = [
        np.linalg.norm(x, axis=1, keepdims=True) for x in (found, expected)
    ]
    np.testing.assert_allclose(
        found / norms[0], expected / norms[1], rtol=0, atol=1e-4
    )
    np.testing.assert_allclose(*norms, rtol=1e-4)


@pytest.mark.parametrize(
    ("batch", "samples"),
    [(1, 1600), (5, 12345), (7, 48001), (1, 320_000)],
)
def test_embeddings_are_those_of_the_stock_modules(exported, batch, samples):
    waveforms = speech_like(batch, samples)
    found = embed(exported / "model.onnx", waveforms)
    assert_same(found, expect(exported, waveforms))


def test_embeddings_of_real_speech(exported, speechocean):
    path = min(speechocean.glob("audio/*/*"))
    waveform = audio.load(path, 16000).unsqueeze(0)
    found = embed(exported / "model.onnx", waveform)
    assert_same(found, expect(exported, waveform))


def test_the_file_says_what_it_is(exported):
    path = exported / "model.onnx"
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path)
    (waveform,), (embedding,) = session.get_inputs(), session.get_outputs()
    assert (waveform.name, waveform.shape) == ("waveform", ["batch", "time"])
    assert (embedding.name, embedding.shape) == ("embedding", ["batch", 24])
    config, modules = load_model(exported)
    state = modules["embedding_model"].state_dict()
    assert session.get_modelmeta().custom_metadata_map == {
        "sample_rate": "16000",
        "fingerprint": fingerprint(config, state),
    }
    content = path.read_bytes()  # no path of this machine
    assert b".py" not in content and str(exported).encode() not in content


def test_x_vector_is_the_expectation_of_the_stock_one(folders):
    _, modules = load_model(folders("xvector"))
    encoder = Encoder(*modules.values())
    waveforms = speech_like(1, 8000)
    draws = torch.cat([encoder(waveforms) for _ in range(1000)]).double()
    found = torch.from_numpy(
        embed(folders("xvector") / "model.onnx", waveforms)
    )[0]
    z = (found - draws.mean(0)) / (draws.std(0) / len(draws) ** 0.5)
    # Of 24 numbers; without the mean of the noise they would be some hundred.
    assert z.abs().max() < 6


def test_other_features_and_another_path(tmp_path):
    """At 8 kHz the window of 25 ms is shorter than the transform."""
    encoder = ENCODERS["resnet"] | {"input_size": 240}
    features = {"deltas": True, "f_max": 3500}
    model = write_model(tmp_path / "model", encoder, 8000, features=features)
    path = hub_onnx.export_onnx(model, tmp_path / "new" / "other.onnx")
    assert path == tmp_path / "new" / "other.onnx"
    assert not (model / "model.onnx").exists()
    waveforms = speech_like(2, 12345)
    assert_same(embed(path, waveforms), expect(model, waveforms))


@pytest.mark.parametrize("sample_rate", [8000, 11025, 16000])
@pytest.mark.parametrize("samples", [1600, 4321])
def test_the_spectrum_in_float64(sample_rate, samples):
    stft = STFT(sample_rate)
    waveforms = speech_like(2, samples)
    found = hub_onnx.ConvolutionalSTFT(stft)(waveforms).numpy()
    found = found[..., 0] + 1j * found[..., 1]
    window = np.zeros(400)
    start = (400 - stft.win_length) // 2
    window[start : start + stft.win_length] = stft.window
    padded = np.pad(waveforms.double().numpy(), [(0, 0), (200, 200)])
    starts = range(0, samples + 1, stft.hop_length)
    frames = np.stack([padded[:, s : s + 400] * window for s in starts], axis=1)
    expected = np.fft.rfft(frames)
    assert found.shape == expected.shape
    loudest = np.abs(expected).max(-1, keepdims=True)
    np.testing.assert_allclose(found / loudest, expected / loudest, atol=2e-6)


def test_the_usage_on_the_card(folders, tmp_path):
    """Without PyTorch and SpeechBrain."""
    shutil.copytree(folders("ecapa"), tmp_path, dirs_exist_ok=True)
    config, _ = load_model(tmp_path)
    for name, samples in (("a.wav", 8000), ("b.wav", 9000)):
        waveform = speech_like(1, samples)[0].clamp(-1, 1).numpy()
        soundfile.write(tmp_path / name, waveform, 16000)
    text = make_card("m", config, TRAINING, onnx=True).text
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[-1]
    code += "import sys\nprint(sys.modules.keys() & {'torch', 'speechbrain'})\n"
    command = [sys.executable, "-I", "-c", code]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    score, modules = run.stdout.splitlines()
    vectors = [
        expect(tmp_path, audio.load(tmp_path / name, 16000)[None])[0]
        for name in ("a.wav", "b.wav")
    ]
    a, b = (vector / np.linalg.norm(vector) for vector in vectors)
    assert score == f"cosine {a @ b:.3f}" and modules == "set()"


def test_a_file_that_disagrees_is_not_written(folders, tmp_path, monkeypatch):
    """As if the conversion had gone wrong: it gives another model."""
    write_model(tmp_path, "xvector")
    (tmp_path / "model.onnx").write_text("the former one")
    other = onnx.load(folders("resnet") / "model.onnx")
    monkeypatch.setattr(hub_onnx, "_convert", lambda *_: other)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="model.onnx is not written: .*differ"):
        hub_onnx.export_onnx(tmp_path)
    assert (tmp_path / "model.onnx").read_text() == "the former one"
    assert sorted(tmp_path.iterdir()) == before


def test_what_can_not_be_exported(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="config.json is missing"):
        hub_onnx.export_onnx(tmp_path)
    write_model(tmp_path, "xvector")
    with pytest.raises(InputError, match="is a folder"):
        hub_onnx.export_onnx(tmp_path, tmp_path)
    with pytest.raises(InputError, match="compute_features is Identity"):
        hub_onnx.WaveformEncoder(*[torch.nn.Identity()] * 3)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"onnxruntime.*hyperbolic\[onnx\]"):
        hub_onnx.export_onnx(tmp_path)
    assert not (tmp_path / "model.onnx").exists()
