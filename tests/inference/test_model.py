"""A model from a stranger: loaded exactly, or refused in one line."""

import json
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.extraction import Encoder
from speechbrain_hyperbolic.inference.model import (
    CONFIG,
    WEIGHTS,
    ModelConfig,
    build_modules,
    load_model,
    measure_thresholds,
    read_config,
    save_model,
)
from tests.conftest import ROOT
from tests.inference.models import (
    ENCODERS,
    MEASURED,
    OWN,
    make_model,
    voice,
)

FUZZ = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    make_model(path, thresholds=MEASURED, trials={"list": "a.txt", "n": 10**6})
    return path


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def change_config(folder, change):
    """Rewrites config.json after ``change`` has edited its fields."""
    fields = json.loads((folder / CONFIG).read_text())
    change(fields)
    (folder / CONFIG).write_text(json.dumps(fields))


def refusal(folder):
    """The one line by which a model is refused."""
    with pytest.raises(InputError) as error:
        load_model(folder)
    check_line(error.value)
    return str(error.value)


def check_line(error):
    assert str(error).isprintable() and len(str(error)) < 1000


@pytest.mark.parametrize("encoder", ENCODERS)
def test_round_trip(tmp_path, encoder):
    fields = {"score": "hyperbolic", "clip_c": 2.0, "thresholds": MEASURED}
    config, model = make_model(tmp_path, encoder, **fields)
    loaded, modules = load_model(tmp_path, trusted=OWN)
    assert loaded == config
    assert not any(module.training for module in modules.values())
    expected = model.state_dict()
    found = modules["embedding_model"].state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    stock = build_modules(config, trusted=OWN) | {"embedding_model": model}
    waveforms = torch.from_numpy(voice())[None]
    torch.testing.assert_close(
        Encoder(**modules)(waveforms),
        Encoder(**stock)(waveforms),
        rtol=0,
        # The stock x-vector's pooling adds noise, even in evaluation.
        atol=1e-3 if encoder == "xvector" else 0,
    )


def test_a_class_that_is_not_trusted_is_not_even_imported(tmp_path):
    make_model(tmp_path, "own")
    assert f"trusted=[{OWN[0]!r}]" in refusal(tmp_path)
    module = tmp_path / "evil_module.py"
    module.write_text("raise SystemExit('it ran')")
    sys.path.insert(0, str(tmp_path))
    try:
        change_config(
            tmp_path,
            lambda f: f["embedding_model"].update({"class": "evil_module.X"}),
        )
        assert "class evil_module.X, expected one of" in refusal(tmp_path)
        with pytest.raises(SystemExit):
            load_model(tmp_path, trusted=["evil_module.X"])
    finally:
        sys.path.remove(str(tmp_path))


def test_the_stock_class_loads_it_without_this_package(folder, tmp_path):
    _, modules = load_model(folder)
    waveform = torch.from_numpy(voice())[None]
    torch.save(waveform, tmp_path / "waveform.pt")
    script = f"""
import sys, torch
sys.modules["speechbrain_hyperbolic"] = None  # an import fails
from speechbrain.inference.speaker import SpeakerRecognition
model = SpeakerRecognition.from_hparams({str(folder)!r},
    savedir={str(tmp_path)!r}, run_opts={{"device": "cpu"}})
waveform = torch.load({str(tmp_path / "waveform.pt")!r})
print(model.encode_batch(waveform).flatten().tolist())
print(model.hparams.model_config["thresholds"]["eer"])
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    vector, threshold = map(json.loads, done.stdout.splitlines()[-2:])
    expected = Encoder(**modules)(waveform)[0]
    np.testing.assert_allclose(vector, expected, rtol=0, atol=1e-6)
    assert threshold == MEASURED.eer


def test_a_module_of_a_folder_in_yaml(folder):
    yaml = f"""
encoder: !apply:speechbrain_hyperbolic.pretrained_module
    - {folder}
    - embedding_model
"""
    found = load_hyperpyyaml(yaml)["encoder"].state_dict()
    _, modules = load_model(folder)
    expected = modules["embedding_model"].state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=30),
    st.lists(st.integers(0, 40), min_size=1, max_size=300),
)
def test_thresholds_by_definition(target, nontarget):
    thresholds = measure_thresholds(target, nontarget)
    rates = [
        r for r in (0.1, 0.01, 0.001) if round(r * len(nontarget), 6) >= 10
    ]
    assert list(map(float, thresholds.false_accepts)) == rates
    nontarget = np.array(nontarget)
    candidates = sorted({*target, *nontarget.tolist()})
    for rate, found in thresholds.false_accepts.items():
        lowest = next(
            t for t in candidates if np.mean(nontarget > t) <= float(rate)
        )
        assert found == lowest

    def gap(threshold):
        missed = np.mean(np.array(target) <= threshold)
        return abs(missed - np.mean(nontarget > threshold))

    assert gap(thresholds.eer) == min(map(gap, [-np.inf, *candidates]))


WRONG_FIELDS = {
    "unknown field": ({"code": "import os"}, "'code'"),
    "missing field": ({"embedding_model": ...}, "'embedding_model'"),
    "first version": ({"format": "speechbrain-hyperbolic 1"}, "export the mod"),
    "text for a number": ({"sample_rate": "16000"}, "sample_rate is '16000'"),
    "huge number": ({"sample_rate": 10**30}, "sample_rate is 1000"),
    "NaN": ({"clip_c": float("nan")}, "clip_c is nan"),
    "no such score": ({"score": "euclidean"}, "score is 'euclidean'"),
    "no class name": ({"mean_var_norm": {"class": "os"}}, "mean_var_norm is"),
    "no EER": ({"thresholds": {"false_accepts": {}}}, "'eer'"),
    "no such rate": (
        {"thresholds": {"eer": 0.5, "false_accepts": {"one": 0.5}}},
        "false_accepts is {'one': 0.5}",
    ),
}
WRONG_ARGUMENTS = {
    "unknown": ({"activation_": "torch.nn.ReLU"}, "'activation_'"),
    "text for a class": ({"activation": "torch.nn.ReLU"}, "can't be built"),
    "huge width": ({"lin_neurons": 10**9}, "'lin_neurons' is 1000000000"),
    "object": ({"channels": {"a": 1}}, "'channels' is {'a': 1}"),
    "large widths": ({"channels": [200000] * 5}, "does not fit"),
}


@pytest.mark.parametrize("case", WRONG_FIELDS)
def test_wrong_fields(copy, case):
    fields, message = WRONG_FIELDS[case]

    def change(config):
        config.update(fields)
        for name in [n for n, value in config.items() if value is ...]:
            del config[name]

    change_config(copy, change)
    line = refusal(copy)
    assert line.startswith(str(copy / CONFIG)) and message in line


@pytest.mark.parametrize("case", WRONG_ARGUMENTS)
def test_wrong_arguments(copy, case):
    arguments, message = WRONG_ARGUMENTS[case]
    change_config(copy, lambda c: c["embedding_model"].update(arguments))
    line = refusal(copy)
    assert line.startswith(str(copy)) and message in line


def test_modules_that_build_but_do_not_work(copy):
    """A global normalization has no statistics, which no file keeps."""
    change_config(
        copy, lambda c: c["mean_var_norm"].update({"norm_type": "global"})
    )
    assert "can't embed 0.1 s of audio" in refusal(copy)


def test_only_the_encoder_may_have_weights(folder):
    fields = read_config(folder).to_dict()
    fields["compute_features"] |= {"requires_grad": True}
    with pytest.raises(InputError, match="compute_features has weights"):
        save_model(folder, ModelConfig.from_dict(fields), {})


def test_a_config_that_is_too_deep(copy):
    for content in ("[" * 100000, '{"format":' + "[" * 900 + "]" * 900 + "}"):
        (copy / CONFIG).write_text(content)
        assert CONFIG in refusal(copy)


@settings(max_examples=60, **FUZZ)
@given(content=st.binary(max_size=200), name=st.sampled_from([CONFIG, WEIGHTS]))
def test_arbitrary_bytes(copy, content, name):
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(content)
    assert name in refusal(copy)
    (copy / name).write_bytes(whole)


def paths_into(value, path=()):
    """The paths to all parts of a JSON value but itself."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*path, key)
        if isinstance(item, (dict, list)):
            yield from paths_into(item, (*path, key))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=100, **FUZZ)
@given(data=st.data())
def test_any_change_of_the_config(copy, folder, data):
    """It is refused, or the model is still complete."""
    fields = json.loads((folder / CONFIG).read_text())
    *path, last = data.draw(st.sampled_from(list(paths_into(fields))))
    inner = fields
    for key in path:
        inner = inner[key]
    inner[last] = data.draw(JSON)
    (copy / CONFIG).write_text(json.dumps(fields))
    try:
        config, modules = load_model(copy)
    except InputError as error:
        check_line(error)
    else:
        again = json.loads(json.dumps(config.to_dict()))
        assert ModelConfig.from_dict(again) == config
        assert Encoder(**modules)(torch.randn(1, 16000)).shape == (1, 8)


@settings(max_examples=100, **FUZZ)
@given(data=st.data())
def test_damaged_weights(copy, folder, data):
    raw = bytearray((folder / WEIGHTS).read_bytes())
    cut = data.draw(st.booleans())
    if cut:
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    else:
        (header,) = struct.unpack("<Q", raw[:8])
        raw[data.draw(st.integers(0, 8 + header - 1))] ^= 1
    (copy / WEIGHTS).write_bytes(raw)
    # A change of white space, or of metadata, may do nothing.
    try:
        load_model(copy)
        assert not cut
    except InputError as error:
        assert WEIGHTS in str(error)
        check_line(error)


def test_weights_that_claim_a_huge_size(copy):
    """What the header claims is not allocated."""
    tensor = {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}
    header = json.dumps({"w": tensor}).encode()
    content = struct.pack("<Q", len(header)) + header
    (copy / WEIGHTS).write_bytes(content)
    assert WEIGHTS in refusal(copy)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_missing_file(copy, name):
    (copy / name).unlink()
    assert f"{name} is missing" in refusal(copy)


def test_a_model_that_does_not_work_is_not_saved(copy):
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    config = read_config(copy)
    state = build_modules(config)["embedding_model"].state_dict()
    broken = {name: value * float("nan") for name, value in state.items()}
    for message, weights in {"does not fit": {}, "not finite": broken}.items():
        with pytest.raises(InputError, match=message):
            save_model(copy, config, weights)
        after = {path.name: path.read_bytes() for path in copy.iterdir()}
        assert after == before


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        make_model(tmp_path / "file")
