"""The ONNX file against the stock modules, run by onnxruntime."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.processing.features import STFT

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hub import onnx as hub_onnx
from speechbrain_hyperbolic.inference.model_folder import (
    ModelConfig,
    Thresholds,
    build_modules,
    fingerprint,
    load_model,
    save_model,
)
from speechbrain_hyperbolic.scoring.extraction import Encoder

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ENCODERS = {
    "ecapa": {
        "input_size": 80,
        "channels": [32, 32, 32, 32, 96],
        "attention_channels": 16,
        "lin_neurons": 24,
    },
    "xvector": {
        "in_channels": 80,
        "tdnn_channels": [32, 32, 32, 32, 48],
        "lin_neurons": 24,
    },
    "resnet": {
        "input_size": 80,
        "channels": [8, 8, 16, 16],
        "block_sizes": [1, 1, 1, 1],
        "lin_neurons": 24,
    },
}


def write_model(folder, encoder, sample_rate=16000, **fields):
    """A model whose batch normalisation is not the identity."""
    torch.manual_seed(0)
    config = ModelConfig(sample_rate, 80, encoder, ENCODERS[encoder], **fields)
    state = build_modules(config)["embedding_model"].state_dict()
    for name, value in state.items():
        if name.endswith(("running_mean", "running_var")):
            value.copy_(torch.rand_like(value) + 0.5)
    save_model(folder, config, state)
    return folder


@pytest.fixture(scope="module", params=ENCODERS)
def exported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    hub_onnx.export_onnx(write_model(folder, request.param))
    return folder


def embed(path, waveforms):
    session = onnxruntime.InferenceSession(path)
    return session.run(None, {"waveform": waveforms.numpy()})[0]


def speech_like(batch, samples):
    """Noise of a level that varies by 120 dB."""
    generator = torch.Generator().manual_seed(samples)
    level = torch.linspace(0, -6, samples)
    return torch.randn(batch, samples, generator=generator) / 5 * 10**level


def assert_same(found, expected):
    unit, of_expected = (
        x / np.linalg.norm(x, axis=1, keepdims=True) for x in (found, expected)
    )
    np.testing.assert_allclose(unit, of_expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose((unit * of_expected).sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(
        np.linalg.norm(found, axis=1),
        np.linalg.norm(expected, axis=1),
        rtol=1e-4,
    )


@pytest.mark.parametrize(
    ("batch", "samples"),
    [
        (1, 1600),
        (1, 8000),
        (1, 8001),
        (5, 12345),
        (2, 16159),
        (7, 48000),
        (1, 160_079),
        (2, 320_000),
    ],
)
def test_embeddings_are_those_of_the_stock_modules(exported, batch, samples):
    _, modules = load_model(exported)
    waveforms = speech_like(batch, samples)
    expected = Encoder(**modules)(waveforms).numpy()
    assert_same(embed(exported / "model.onnx", waveforms), expected)


def test_embeddings_of_real_speech(exported, speechocean):
    _, modules = load_model(exported)
    path = min(speechocean.glob("audio/*/*"))
    waveform = audio.load(path, 16000).unsqueeze(0)
    expected = Encoder(**modules)(waveform).numpy()
    assert_same(embed(exported / "model.onnx", waveform), expected)


def test_silence_has_a_finite_embedding(exported):
    waveforms = torch.zeros(1, 16000)
    _, modules = load_model(exported)
    found = embed(exported / "model.onnx", waveforms)
    # That of a zero input is small: it is compared as such.
    expected = Encoder(**modules)(waveforms).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_file_is_whole_and_says_what_it_is(exported):
    path = exported / "model.onnx"
    assert sorted(p.name for p in exported.iterdir()) == [
        "config.json",
        "model.onnx",
        "model.safetensors",
    ]
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path)
    (waveform,), (embedding,) = session.get_inputs(), session.get_outputs()
    assert (waveform.name, waveform.shape) == ("waveform", ["batch", "time"])
    assert (embedding.name, embedding.shape) == ("embedding", ["batch", 24])
    config, modules = load_model(exported)
    assert session.get_modelmeta().custom_metadata_map == {
        "format": "speechbrain-hyperbolic 1",
        "sample_rate": "16000",
        "fingerprint": fingerprint(
            config, modules["embedding_model"].state_dict()
        ),
    }


def test_the_file_names_nothing_of_the_machine(exported):
    content = (exported / "model.onnx").read_bytes()
    assert b".py" not in content
    assert str(exported).encode() not in content


def test_x_vector_is_the_expectation_of_the_stock_one(tmp_path):
    path = hub_onnx.export_onnx(write_model(tmp_path, "xvector"))
    _, modules = load_model(tmp_path)
    encoder = Encoder(**modules)
    waveforms = speech_like(1, 8000)
    draws = torch.cat([encoder(waveforms) for _ in range(1000)]).double()
    found = torch.from_numpy(embed(path, waveforms))[0]
    z = (found - draws.mean(0)) / (draws.std(0) / len(draws) ** 0.5)
    # Of 24 numbers; without the noise's mean they'd be some hundred.
    assert z.abs().max() < 6


def test_other_sample_rate(tmp_path):
    """The window of 25 ms is shorter than the transform there."""
    path = hub_onnx.export_onnx(
        write_model(tmp_path / "model", "ecapa", 8000),
        tmp_path / "new" / "other.onnx",
    )
    assert path == tmp_path / "new" / "other.onnx"
    assert not (tmp_path / "model" / "model.onnx").exists()
    _, modules = load_model(tmp_path / "model")
    waveforms = speech_like(2, 12345)
    expected = Encoder(**modules)(waveforms).numpy()
    assert_same(embed(path, waveforms), expected)


@pytest.mark.parametrize("sample_rate", [8000, 11025, 16000])
@pytest.mark.parametrize("samples", [1600, 4321])
def test_power_spectrum_in_float64(sample_rate, samples):
    stft = STFT(sample_rate)
    waveforms = speech_like(2, samples)
    found = hub_onnx.PowerSpectrum(stft)(waveforms).numpy()
    window = np.zeros(400)
    start = (400 - stft.win_length) // 2
    window[start : start + stft.win_length] = stft.window
    padded = np.pad(waveforms.double().numpy(), [(0, 0), (200, 200)])
    frames = np.stack(
        [
            padded[:, s : s + 400] * window
            for s in range(0, samples + 1, stft.hop_length)
        ],
        axis=1,
    )
    expected = np.abs(np.fft.rfft(frames)) ** 2
    assert found.shape == expected.shape
    loudest = expected.max(-1, keepdims=True)
    np.testing.assert_allclose(found / loudest, expected / loudest, atol=5e-6)


def test_features_are_those_of_the_stock_fbank():
    fbank = Fbank(n_mels=80)
    waveforms = speech_like(3, 32_100) * torch.tensor([[1.0], [0.1], [0.0]])
    encoder = hub_onnx.WaveformEncoder(
        fbank, torch.nn.Identity(), torch.nn.Identity()
    )
    found = encoder.filterbank(encoder.spectrum(waveforms))
    expected = fbank(waveforms)
    # The limit is that of each utterance, 80 dB below its loudest.
    spans = (expected.amax((1, 2)) - expected.amin((1, 2))).tolist()
    assert spans == pytest.approx([80, 80, 0], abs=1e-4)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_the_usage_in_the_docstring(tmp_path):
    thresholds = Thresholds(0.5, {})
    hub_onnx.export_onnx(
        write_model(tmp_path, "xvector", thresholds=thresholds)
    )
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, speech_like(1, 9000)[0].numpy(), 16000)
    lines = [x for x in hub_onnx.__doc__.split("\n") if x.startswith("    ")]
    code = textwrap.dedent("\n".join(lines))
    code += (
        "\nimport sys\nprint(sys.modules.keys() & {'torch', 'speechbrain'})\n"
    )
    command = [sys.executable, "-I", "-c", code]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["1.000, same speaker: True", "set()"]


def test_embedding_error():
    expected = np.array([[6.0, 8.0], [0.0, 1.0]])
    error = hub_onnx.embedding_error
    assert error(expected, expected) == 0
    assert error(expected * 1.01, expected) == pytest.approx(0.01)
    turned = expected[:, ::-1]
    assert error(turned, expected) == pytest.approx(1)
    assert np.isnan(error(expected * np.nan, expected))


def test_a_file_that_disagrees_is_not_written(tmp_path, monkeypatch):
    write_model(tmp_path, "xvector")
    (tmp_path / "model.onnx").write_text("the former one")
    # Not by rounding alone: a filter bank that is not the model's.
    convert = hub_onnx._convert

    def wrong(encoder, sample_rate):
        encoder.filterbank = Fbank(n_mels=80, f_max=7000).compute_fbanks
        return convert(encoder, sample_rate)

    monkeypatch.setattr(hub_onnx, "_convert", wrong)
    with pytest.raises(InputError, match="model.onnx is not written: .*differ"):
        hub_onnx.export_onnx(tmp_path)
    assert (tmp_path / "model.onnx").read_text() == "the former one"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    write_model(tmp_path, "xvector")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"onnxruntime.*hyperbolic\[onnx\]"):
        hub_onnx.export_onnx(tmp_path)
    assert not (tmp_path / "model.onnx").exists()


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(InputError, match="config.json is missing"):
        hub_onnx.export_onnx(tmp_path)


def test_a_folder_as_the_file(tmp_path):
    write_model(tmp_path, "xvector")
    with pytest.raises(InputError, match="is a folder"):
        hub_onnx.export_onnx(tmp_path, tmp_path)


def test_a_model_too_large_for_one_file(tmp_path, monkeypatch):
    write_model(tmp_path, "xvector")
    monkeypatch.setattr(hub_onnx, "_MAX_BYTES", 1000)
    with pytest.raises(InputError, match="an ONNX file holds 1000 at most"):
        hub_onnx.export_onnx(tmp_path)
