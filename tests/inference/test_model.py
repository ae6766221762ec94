"""A model from a stranger: loaded exactly, or refused in one line."""

import json
import shutil
import struct
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.evaluation.extraction import Encoder
from speechbrain_hyperbolic.inference.model import (
    CONFIG,
    MODULES,
    WEIGHTS,
    Thresholds,
    build_modules,
    load_model,
    measure_thresholds,
    read_config,
    save_model,
)
from tests.inference.models import ENCODERS, FUZZ, MEASURED, OWN, make_model


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def change_config(folder, part=None, **changes):
    """Changes fields of config.json, or arguments of a module; ... deletes."""
    fields = json.loads((folder / CONFIG).read_text())
    target = fields[part] if part else fields
    target.update(changes)
    for name in [name for name, value in changes.items() if value is ...]:
        del target[name]
    (folder / CONFIG).write_text(json.dumps(fields))


def refusal(folder):
    """The one line by which a model is refused."""
    with pytest.raises(InputError) as error:
        load_model(folder)
    line = str(error.value)
    assert line.startswith(str(folder)) and line.isprintable()
    assert len(line) < 1000
    return line


@pytest.mark.parametrize("encoder", ENCODERS)
def test_round_trip(tmp_path, encoder):
    fields = {"score": "hyperbolic", "clip_c": 2.0, "thresholds": MEASURED}
    config, model = make_model(tmp_path, encoder, **fields)
    loaded, modules = load_model(tmp_path, trusted=OWN)
    assert loaded == config
    expected = model.state_dict()
    found = modules["embedding_model"].state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_class_that_is_not_trusted_is_not_even_imported(
    copy, tmp_path, monkeypatch
):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    change_config(copy, "embedding_model", **{"class": "evil_module.X"})
    line = refusal(copy)
    assert "class evil_module.X, expected one of" in line
    assert "trusted=['evil_module.X']" in line
    with pytest.raises(SystemExit):
        load_model(copy, trusted=["evil_module.X"])


def test_thresholds_by_definition():
    rng = np.random.default_rng(0)
    target, nontarget = rng.integers(0, 60, 99), rng.integers(0, 40, 1000)
    found = measure_thresholds(target, nontarget)
    # 0.001 would be one false accept.
    rates = ["0.5", "0.2", "0.1", "0.05", "0.02", "0.01"]
    assert list(found.false_accepts) == rates
    for rate, threshold in found.false_accepts.items():
        assert np.mean(nontarget > threshold) <= float(rate)
        assert np.mean(nontarget > threshold - 1) > float(rate)


def test_thresholds_between_the_measured_rates():
    """Normal scores, of which each rate's threshold is known."""
    normal = NormalDist(0.2, 0.1)
    nontarget = [normal.inv_cdf((i + 0.5) / 20000) for i in range(20000)]
    found = measure_thresholds([0.6, 0.7], nontarget)
    for rate in (0.3, 0.03, 0.0007):
        exact = normal.inv_cdf(1 - rate)
        assert found.at(rate) == pytest.approx(exact, abs=2e-3)
    assert found.at(0.01) == found.false_accepts["0.01"]
    for rate in (0.6, 1e-4):
        with pytest.raises(InputError, match="expected 0.0005 to 0.5"):
            found.at(rate)
    with pytest.raises(InputError, match="expected no rates"):
        Thresholds(0.5, {}).at(0.1)


ENCODER = "embedding_model"
EER_ONLY = {"eer": 0.5, "false_accepts": {"one": 0.5}}
WRONG = [
    (None, {"code": "import os"}, "'code'"),
    (None, {"embedding_model": ...}, "'embedding_model'"),
    (None, {"format": "speechbrain-hyperbolic 1"}, "export the model again"),
    (None, {"sample_rate": "16000"}, "sample_rate is '16000', expected an"),
    (None, {"sample_rate": 10**30}, "sample_rate is 1000"),
    (None, {"clip_c": float("nan")}, "clip_c is nan"),
    (None, {"score": "euclidean"}, "score is 'euclidean'"),
    (None, {"mean_var_norm": {"class": "os"}}, "mean_var_norm is"),
    (None, {"thresholds": {"false_accepts": {}}}, "'eer'"),
    (None, {"calibration": {"weights": [1.0]}}, "calibration is"),
    (None, {"thresholds": EER_ONLY}, "false_accepts is {'one': 0.5}"),
    (ENCODER, {"activation": "torch.nn.ReLU"}, "can't be built"),
    (ENCODER, {"lin_neurons": 10**9}, "'lin_neurons' is 1000000000"),
    (ENCODER, {"channels": {"a": 1}}, "'channels' is {'a': 1}"),
    (ENCODER, {"channels": [200000] * 5}, "does not fit"),
    # A global normalization has statistics, which no file keeps.
    ("mean_var_norm", {"norm_type": "global"}, "can't embed 0.1 s of audio"),
    ("compute_features", {"requires_grad": True}, "has weights"),
]


@pytest.mark.parametrize("part, changes, words", WRONG)
def test_wrong_config(copy, part, changes, words):
    change_config(copy, part, **changes)
    assert words in refusal(copy)


def test_a_config_that_is_too_deep(copy):
    for content in ("[" * 100000, '{"format":' + "[" * 900 + "]" * 900 + "}"):
        (copy / CONFIG).write_text(content)
        assert CONFIG in refusal(copy)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@FUZZ
@given(data=st.data())
def test_any_change_of_the_config(copy, folder, data):
    """It is refused in one line, or the model is still complete."""
    shutil.copy(folder / CONFIG, copy)
    part = data.draw(st.sampled_from([None, "thresholds", *MODULES]))
    fields = json.loads((folder / CONFIG).read_text())
    name = data.draw(st.sampled_from(sorted(fields[part] if part else fields)))
    change_config(copy, part, **{name: data.draw(JSON)})
    try:
        _, modules = load_model(copy)
    except InputError:
        refusal(copy)
    else:
        assert Encoder(**modules)(torch.randn(1, 16000)).shape == (1, 8)


@FUZZ
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
    except InputError:
        assert WEIGHTS in refusal(copy)


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
