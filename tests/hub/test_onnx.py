"""The ONNX file against the stock modules, run by onnxruntime."""

import re
import shutil

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.extraction import Encoder
from speechbrain_hyperbolic.hub import onnx as hub_onnx
from speechbrain_hyperbolic.hub.card import make_card
from speechbrain_hyperbolic.hub.onnx import export_onnx
from speechbrain_hyperbolic.inference.model import (
    fingerprint,
    load_model,
    save_model,
)
from tests.hub.test_card import TRAINING
from tests.inference.models import make_config, make_model
from tests.processes import run_python

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
NAMES = ("ecapa", "xvector")


def write_model(folder, encoder, **fields):
    """A model folder whose batch normalization is not the identity."""
    config, model = make_model(folder, encoder, **fields)
    state = model.state_dict()
    for name, value in state.items():
        if name.endswith(("running_mean", "running_var")):
            value.copy_(torch.rand_like(value) + 0.5)
    save_model(folder, config, state)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Encoder -> a model folder with an ONNX file; a conversion takes long."""
    folders = {name: tmp_path_factory.mktemp(name) for name in NAMES}
    write_model(folders["ecapa"], "ecapa")
    # At 8 kHz the window of 25 ms is shorter than the transform.
    config = make_config("xvector")
    features = {"deltas": True, "f_max": 3500, "sample_rate": 8000}
    write_model(
        folders["xvector"],
        "xvector",
        sample_rate=8000,
        compute_features=config.compute_features | features,
        embedding_model=config.embedding_model | {"in_channels": 72},
    )
    for folder in folders.values():
        assert export_onnx(folder) == folder / "model.onnx"
    return folders


@pytest.fixture(params=NAMES)
def exported(request, folders):
    return folders[request.param]


def embed(path, waveforms):
    session = onnxruntime.InferenceSession(path)
    return session.run(None, {"waveform": waveforms.numpy()})[0]


def expect(folder, waveforms):
    _, modules = load_model(folder)
    return Encoder(*modules.values())(waveforms).numpy()


def speech_like(batch, samples):
    """Noise of a level that varies by 120 dB."""
    generator = torch.Generator().manual_seed(samples)
    level = torch.linspace(0, -6, samples)
    return torch.randn(batch, samples, generator=generator) / 5 * 10**level


@pytest.mark.parametrize(
    ("batch", "samples"), [(1, 1600), (5, 12345), (1, 320_000)]
)
def test_embeddings_are_those_of_the_stock_modules(exported, batch, samples):
    waveforms = speech_like(batch, samples)
    found = embed(exported / "model.onnx", waveforms)
    expected = expect(exported, waveforms)
    norms = np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(
        found / norms, expected / norms, rtol=0, atol=1e-4
    )


def test_the_file_says_what_it_is(exported):
    path = exported / "model.onnx"
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path)
    (waveform,), (embedding,) = session.get_inputs(), session.get_outputs()
    assert (waveform.name, waveform.shape) == ("waveform", ["batch", "time"])
    assert (embedding.name, embedding.shape) == ("embedding", ["batch", 8])
    config, modules = load_model(exported)
    state = modules["embedding_model"].state_dict()
    assert session.get_modelmeta().custom_metadata_map == {
        "sample_rate": str(config.sample_rate),
        "fingerprint": fingerprint(config, state),
    }
    content = path.read_bytes()  # no path of this machine
    assert b".py" not in content and str(exported).encode() not in content


def test_the_usage_on_the_card(folders, tmp_path):
    """Without PyTorch and SpeechBrain."""
    shutil.copytree(folders["ecapa"], tmp_path, dirs_exist_ok=True)
    config, _ = load_model(tmp_path)
    names = ("a.wav", "b.wav")
    for name, samples in zip(names, (8000, 9000), strict=True):
        waveform = speech_like(1, samples)[0].clamp(-1, 1).numpy()
        soundfile.write(tmp_path / name, waveform, 16000)
    text = make_card("m", config, TRAINING, onnx=True).text
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[-1]
    code += "import sys\nprint(sys.modules.keys() & {'torch', 'speechbrain'})\n"
    run = run_python("-I", "-c", code, cwd=tmp_path)
    score, modules = run.stdout.splitlines()
    waves = [audio.load(tmp_path / name, 16000)[None] for name in names]
    vectors = [expect(tmp_path, waveform)[0] for waveform in waves]
    a, b = (vector / np.linalg.norm(vector) for vector in vectors)
    assert score == f"cosine {a @ b:.3f}" and modules == "set()"


def test_a_file_that_disagrees_is_not_written(folders, tmp_path, monkeypatch):
    """As if the conversion had gone wrong: it gives another model."""
    write_model(tmp_path, "xvector")
    (tmp_path / "model.onnx").write_text("the former one")
    other = onnx.load(folders["ecapa"] / "model.onnx")
    monkeypatch.setattr(hub_onnx, "_convert", lambda *_: other)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="model.onnx is not written: .*differ"):
        export_onnx(tmp_path)
    assert (tmp_path / "model.onnx").read_text() == "the former one"
    assert sorted(tmp_path.iterdir()) == before
