"""A model from a stranger: loaded exactly, or refused in one line."""

import json
import struct

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.inference.model_folder import (
    CONFIG,
    WEIGHTS,
    ModelConfig,
    Thresholds,
    build_modules,
    load_model,
    measure_thresholds,
    read_config,
    save_model,
)
from speechbrain_hyperbolic.scoring.extraction import Encoder

ARGUMENTS = {
    "ecapa": {
        "input_size": 80,
        "channels": [16, 16, 16, 16, 48],
        "kernel_sizes": [5, 3, 3, 3, 1],
        "dilations": [1, 2, 3, 4, 1],
        "groups": [1, 1, 1, 1, 1],
        "attention_channels": 8,
        "lin_neurons": 8,
    },
    "xvector": {
        "in_channels": 80,
        "tdnn_channels": [16, 16, 16, 16, 48],
        "lin_neurons": 8,
    },
    "resnet": {
        "input_size": 80,
        "channels": [4, 4, 8, 8],
        "block_sizes": [1, 1, 1, 1],
        "lin_neurons": 8,
    },
}
TRIALS = {
    "list": "trials.txt",
    "n_target": 336,
    "n_nontarget": 336,
    "eer": 0.137,
    "eer_interval": [0.077, 0.204],
    "min_dcf_0.01": 0.94,
    "min_dcf_0.01_interval": None,
    "target_mean": 0.8,
    "nontarget_std": 0.1,
}


def make(folder, encoder="ecapa", seed=0, **fields):
    """A model with random weights, saved; gives its encoder."""
    torch.manual_seed(seed)
    config = ModelConfig(
        fields.pop("sample_rate", 16000),
        80,
        encoder,
        ARGUMENTS[encoder],
        **fields,
    )
    model = build_modules(config)["embedding_model"]
    save_model(folder, config, model.state_dict())
    return config, model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    make(path, thresholds=Thresholds(0.3, {"0.01": 0.5}), trials=TRIALS)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    for name in (CONFIG, WEIGHTS):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    return tmp_path


def fields_of(folder):
    return json.loads((folder / CONFIG).read_text())


def write_fields(folder, fields):
    (folder / CONFIG).write_text(json.dumps(fields))


def is_one_line(error):
    text = str(error)
    return "\n" not in text and len(text) < 1000


@pytest.mark.parametrize("encoder", ARGUMENTS)
def test_round_trip(tmp_path, encoder):
    config, model = make(
        tmp_path,
        encoder,
        score="hyperbolic",
        clip_c=2.0,
        thresholds=Thresholds(-1.5, {"0.1": -1.25}),
        trials=TRIALS,
    )
    loaded, modules = load_model(tmp_path)
    assert loaded == config
    assert not any(module.training for module in modules.values())
    expected = model.state_dict()
    found = modules["embedding_model"].state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype is value.dtype
        assert torch.equal(found[name], value), name
    waveforms = torch.randn(2, 16000)
    stock = {**build_modules(config), "embedding_model": model}
    torch.testing.assert_close(
        Encoder(**modules)(waveforms),
        Encoder(**stock)(waveforms),
        rtol=0,
        # The stock x-vector's pooling adds noise, also in evaluation mode.
        atol=1e-3 if encoder == "xvector" else 0,
    )


def test_defaults(tmp_path):
    make(tmp_path)
    config = read_config(tmp_path)
    assert (config.score, config.clip_c) == ("cosine", 3.0)
    assert config.thresholds is None and config.trials is None


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


@pytest.mark.parametrize(
    "n_nontarget, rates",
    [(99, []), (100, ["0.1"]), (10000, ["0.1", "0.01", "0.001"])],
)
def test_only_rates_that_the_trials_resolve(n_nontarget, rates):
    found = measure_thresholds([0.5], np.linspace(0, 1, n_nontarget))
    assert list(found.false_accepts) == rates


BAD_FIELDS = {
    "unknown field": ({"code": "import os"}, "'code'"),
    "no field": ({"encoder": ...}, "'encoder'"),
    "other format": ({"format": "speechbrain-hyperbolic 2"}, "format is"),
    "text for a number": ({"sample_rate": "16000"}, "sample_rate is '16000'"),
    "truth for a number": ({"n_mels": True}, "n_mels is True"),
    "huge number": ({"n_mels": 10**30}, "n_mels is 1000"),
    "negative number": ({"sample_rate": -1}, "sample_rate is -1"),
    "NaN": ({"clip_c": float("nan")}, "clip_c is nan"),
    "infinity": ({"clip_c": float("inf")}, "clip_c is inf"),
    "c below 1": ({"clip_c": 0.5}, "clip_c is 0.5"),
    "no such score": ({"score": "euclidean"}, "score is 'euclidean'"),
    "no such encoder": ({"encoder": "os.system"}, "encoder is 'os.system'"),
    "list for a name": ({"encoder": ["ecapa"]}, "encoder is"),
    "arguments of no object": ({"encoder_arguments": [80]}, "arguments is"),
    "no input size": ({"encoder_arguments": {}}, "'input_size'"),
    "thresholds of no object": ({"thresholds": 0.5}, "thresholds is 0.5"),
    "thresholds without EER": (
        {"thresholds": {"false_accepts": {}}},
        "'eer'",
    ),
    "threshold NaN": (
        {"thresholds": {"eer": float("nan"), "false_accepts": {}}},
        "'eer' is nan",
    ),
    "no such rate": (
        {"thresholds": {"eer": 0.5, "false_accepts": {"one": 0.5}}},
        "rate of false_accepts is 'one'",
    ),
    "unknown of trials": ({"trials": {"path": "/etc"}}, "'path'"),
    "trials NaN": ({"trials": {"eer": float("nan")}}, "'eer' is nan"),
    "half an interval": ({"trials": {"eer_interval": [0.1]}}, "interval"),
    "no trials": ({"trials": {"n_target": 0}}, "n_target is 0"),
}


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_bad_fields(copy, case):
    change, message = BAD_FIELDS[case]
    fields = {**fields_of(copy), **change}
    write_fields(copy, {k: v for k, v in fields.items() if v is not ...})
    with pytest.raises(InputError) as error:
        load_model(copy)
    assert str(copy / CONFIG) in str(error.value)
    assert message in str(error.value)
    assert is_one_line(error.value)


BAD_ARGUMENTS = {
    "unknown": ({"activation": "torch.nn.ReLU"}, "'activation'"),
    "device": ({"device": "cuda"}, "'device'"),
    "other bands": ({"input_size": 40}, "n_mels, which is 80"),
    "huge width": ({"lin_neurons": 10**9}, "lin_neurons is 1000000000"),
    "huge list": ({"channels": [1] * 65}, "list of 1 to 64"),
    "empty list": ({"channels": []}, "list of 1 to 64"),
    "no list": ({"channels": 16}, "channels is 16"),
    "nested list": ({"channels": [[16]] * 5}, "channels is [16]"),
    "fraction": ({"lin_neurons": 8.0}, "lin_neurons is 8.0"),
    "no truth": ({"global_context": 1}, "global_context is 1"),
    "dropout of 2": ({"dropout": 2}, "dropout is 2"),
    "huge product": (
        {"channels": [8192] * 5, "kernel_sizes": [5, 64, 64, 64, 1]},
        "parameters, expected 1000000000 at most",
    ),
    "lists of other lengths": ({"channels": [16, 16]}, "build no ecapa"),
    "groups that don't divide": ({"groups": [3] * 5}, "build no ecapa"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_encoder_arguments(copy, case):
    change, message = BAD_ARGUMENTS[case]
    fields = fields_of(copy)
    fields["encoder_arguments"].update(change)
    write_fields(copy, fields)
    with pytest.raises(InputError) as error:
        load_model(copy)
    assert str(copy / CONFIG) in str(error.value)
    assert message in str(error.value)
    assert is_one_line(error.value)


def test_what_builds_but_does_not_run(tmp_path):
    """Features need a longer FFT at 48 kHz than the stock has."""
    make(tmp_path, sample_rate=48000)
    with pytest.raises(InputError, match="can't embed 0.1 s of audio"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b'{"format": ',
        b"\xff\xfe\x00",
        b"[" * 100000,
        b'{"format":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"sample_rate": ' + b"9" * 5000 + b"}",
        b" " * (2**20 + 1),
    ],
)
def test_config_of_other_content(copy, content):
    (copy / CONFIG).write_bytes(content)
    with pytest.raises(InputError, match=CONFIG) as error:
        load_model(copy)
    assert is_one_line(error.value)


def paths_into(value, path=()):
    """The paths to all parts of a JSON value."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from paths_into(value[key], (*path, key))
    elif isinstance(value, list):
        for key in range(len(value)):
            yield from paths_into(value[key], (*path, key))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 70)
    | st.integers()
    | st.floats()
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_fuzzed_config(copy, folder, data):
    """Any change of any part: it's refused, or the model is still whole."""
    fields = fields_of(folder)
    path = data.draw(st.sampled_from(list(paths_into(fields))))
    new = data.draw(JSON)
    if path:
        inner = fields
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = new
    else:
        fields = new
    write_fields(copy, fields)
    try:
        config, modules = load_model(copy)
    except InputError as error:
        assert is_one_line(error)
    else:
        assert ModelConfig.from_json(config.to_json(), "again") == config
        assert Encoder(**modules)(torch.randn(1, 16000)).shape == (1, 8)


def split(path):
    """The header and the data of a safetensors file."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def join(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_truncated_weights(copy, folder, data):
    whole = (folder / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(
        whole[: data.draw(st.integers(0, len(whole) - 1))]
    )
    with pytest.raises(InputError, match=WEIGHTS) as error:
        load_model(copy)
    assert is_one_line(error.value)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_corrupted_header_of_weights(copy, folder, data):
    raw = bytearray((folder / WEIGHTS).read_bytes())
    (length,) = struct.unpack("<Q", raw[:8])
    index = data.draw(st.integers(0, 8 + length - 1))
    raw[index] ^= data.draw(st.integers(1, 255))
    (copy / WEIGHTS).write_bytes(raw)
    # A change of white space, or of unused metadata, may do nothing.
    try:
        load_model(copy)
    except InputError as error:
        assert WEIGHTS in str(error) and is_one_line(error)


def first_float(header):
    return next(name for name in header if name.endswith("weight"))


def other_name(header, data):
    header["../../evil"] = header.pop(first_float(header))


def other_dtype(header, data):
    header[first_float(header)]["dtype"] = "I32"


def other_shape(header, data):
    header[first_float(header)]["shape"].append(1)


def not_finite(header, data):
    start, _ = header[first_float(header)]["data_offsets"]
    data[start : start + 4] = struct.pack("<f", float("nan"))


@pytest.mark.parametrize(
    "change, message",
    [
        (other_name, "does not fit"),
        (other_dtype, "I32"),
        (other_shape, "does not fit"),
        (not_finite, "NaN or infinite"),
    ],
)
def test_weights_of_another_encoder(copy, change, message):
    header, data = split(copy / WEIGHTS)
    data = bytearray(data)
    change(header, data)
    join(copy / WEIGHTS, header, bytes(data))
    with pytest.raises(InputError, match=message) as error:
        load_model(copy)
    assert str(copy / WEIGHTS) in str(error.value)
    assert is_one_line(error.value)


def test_weights_that_claim_a_huge_size(copy):
    """What the header claims is not allocated."""
    header = {
        "w": {
            "dtype": "F32",
            "shape": [2**40],
            "data_offsets": [0, 2**42],
        }
    }
    join(copy / WEIGHTS, header, b"")
    with pytest.raises(InputError, match=WEIGHTS):
        load_model(copy)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_missing_file_or_a_folder_in_its_place(copy, name):
    (copy / name).unlink()
    for _ in range(2):
        with pytest.raises(InputError, match=name) as error:
            load_model(copy)
        assert is_one_line(error.value)
        (copy / name).mkdir(exist_ok=True)


def test_a_model_that_does_not_fit_is_not_saved(copy):
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    config = read_config(copy)
    state = build_modules(config)["embedding_model"].state_dict()
    broken = {k: v * float("nan") for k, v in state.items()}
    for wrong in ({}, {**state, "more": torch.zeros(1)}, broken):
        with pytest.raises(InputError):
            save_model(copy, config, wrong)
        after = {path.name: path.read_bytes() for path in copy.iterdir()}
        assert after == before


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        make(tmp_path / "file")
