"""Strategies of the files that are no audio: dicts, name -> bytes."""

import csv
import functools
import io
import json
import pathlib
import struct
import tempfile

import numpy as np
import safetensors.numpy
from hypothesis import strategies as st

from benchmarks.fuzz.audio_files import whole_file
from benchmarks.fuzz.mutations import (
    DEEP,
    FLOATS,
    NUMBERS,
    ODD_TEXT,
    TEXT,
    damaged,
    damaged_text,
    replaced,
)
from speechbrain_hyperbolic.dataio.corpus import COLUMNS
from speechbrain_hyperbolic.inference.model_folder import (
    CONFIG,
    WEIGHTS,
    ModelConfig,
    Thresholds,
    build_modules,
    save_model,
)
from speechbrain_hyperbolic.inference.voiceprints import FORMAT

MODEL = "c0ffee"  # of the voiceprints


def _mostly(usual, odd, share=40):
    """A strategy that is odd once in so many times."""
    return st.integers(0, share).flatmap(lambda n: odd if n == share else usual)


_IDS = st.builds(
    "{}/{}{}".format,
    st.sampled_from(["id1", "id2", "é", "test", "enroll"]),
    st.sampled_from(["1", "2", "b/1", "id3-sing-1"]),
    st.sampled_from(["", ".wav", ".FLAC"]),
)
_MODELS = st.sampled_from(["id1", "id1-enroll", "id2", "id3"])
_SPACE = _mostly(
    st.just(" "), st.sampled_from(["\t", "  ", "\xa0", "\x85"]), 90
)


@st.composite
def _table(draw, rows):
    """Text of rows, whose fields are apart by some space."""
    lines = [
        "".join(draw(_SPACE) + f if i else f for i, f in enumerate(fields))
        for fields in draw(st.lists(rows, max_size=8))
    ]
    return draw(damaged_text("\n".join(lines) + draw(st.sampled_from("\n "))))


@st.composite
def _trials(draw):
    mapped = draw(st.booleans())
    models = _mostly(_MODELS if mapped else _IDS, TEXT)
    tests = _mostly(_IDS, TEXT)
    # A label for each list: two are often of one pair.
    labels = st.just(draw(st.sampled_from("01")))
    names = draw(st.sampled_from([None, {"1": "target", "0": "nontarget"}]))
    labels = _mostly(labels, st.sampled_from("01") | TEXT, 25)
    if names:
        rows = st.tuples(models, tests, labels.map(lambda x: names.get(x, x)))
    else:
        rows = st.tuples(labels, models, tests)
    files = {"trials.txt": draw(_table(rows))}
    if mapped:
        lines = [
            f"{model} {' '.join(draw(st.lists(tests, min_size=1, max_size=3)))}"
            for model in ("id1", "id2", "id3")
        ]
        files["enrol.map"] = draw(damaged_text("\n".join(lines), most=1))
    return files


TRIALS = _trials()

SCORES = _table(
    st.tuples(
        _mostly(_IDS, TEXT),
        _mostly(_IDS, TEXT),
        _mostly(st.sampled_from("01"), TEXT),
        _mostly(st.floats(-1e9, 1e9).map(repr), FLOATS | TEXT, 20),
    )
).map(lambda text: {"scores.txt": text})


@st.composite
def _csv(draw, header, rows):
    """A CSV file as Python's writer writes it, then damaged."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator=draw(st.sampled_from("\n\r")))
    writer.writerow(header)
    for row in rows:
        drop = draw(_mostly(st.just(0), st.integers(-1, 2)))
        row = [*row, "more"] if drop < 0 else row[: len(row) - drop]
        try:
            writer.writerow(row)
        except csv.Error:  # what Python can't write, it may have to read
            file.write(",".join(map(str, row)) + "\n")
    return draw(damaged_text(file.getvalue(), most=1))


@st.composite
def _speakers(draw):
    header = draw(
        st.permutations(["spk_id", "sex", "split", "accent"]).map(
            lambda names: names[: draw(st.integers(2, 4))]
        )
    )
    usual = {
        "spk_id": st.integers(0, 10**6).map("id{}".format),
        "sex": st.sampled_from(["f", "m", ""]),
        "split": st.sampled_from(["train", "test", " Test", ""]),
        "accent": st.sampled_from(["north", "south, east", 'the "old"']),
    }
    rows = [
        [draw(_mostly(usual[name], TEXT)) for name in header]
        for _ in range(draw(st.integers(0, 6)))
    ]
    return {"speakers.csv": draw(_csv(header, rows))}


SPEAKERS = _speakers()


@st.composite
def _prepared(draw):
    wavs = ["$data_root/a.wav", "$data_root/b.flac"]
    odd = TEXT.map("$data_root/{}".format)
    files = {
        "a.wav": whole_file(".wav", "WAV", "PCM_16"),
        "b.flac": whole_file(".flac", "FLAC", "PCM_16"),
    }
    for name in ("train.csv", "dev.csv"):
        rows = []
        for index in range(draw(st.integers(2, 5))):
            start = draw(_mostly(st.integers(0, 800), NUMBERS | TEXT, 60))
            stop = draw(_mostly(st.integers(801, 1600), NUMBERS | TEXT, 60))
            number = draw(_mostly(st.just(index), st.just(0), 60))
            row = {
                "ID": f"id{number % 2}/{number}",
                "duration": draw(_mostly(st.just(0.1), FLOATS | TEXT, 60)),
                "wav": draw(_mostly(st.just(wavs[index % 2]), odd, 60)),
                "start": start,
                "stop": stop,
                "spk_id": draw(_mostly(st.just(f"id{index % 2}"), TEXT, 60)),
            }
            rows.append([*row.values()])
        header = draw(
            _mostly(
                st.just(COLUMNS),
                st.integers(0, 5).flatmap(
                    lambda at: ODD_TEXT.map(
                        lambda text: [*COLUMNS[:at], text, *COLUMNS[at + 1 :]]
                    )
                ),
            )
        )
        files[name] = draw(_csv(header, rows))
    return files


PREPARED = _prepared()

_ARGUMENTS = {
    "ecapa": {
        "input_size": 8,
        "channels": [8, 8, 8, 8, 24],
        "kernel_sizes": [5, 3, 3, 3, 1],
        "dilations": [1, 2, 3, 4, 1],
        "groups": [1, 1, 1, 1, 1],
        "attention_channels": 4,
        "res2net_scale": 2,
        "se_channels": 4,
        "lin_neurons": 4,
    },
    "xvector": {
        "in_channels": 8,
        "tdnn_blocks": 5,
        "tdnn_channels": [4, 4, 4, 4, 8],
        "tdnn_kernel_sizes": [5, 3, 3, 1, 1],
        "tdnn_dilations": [1, 2, 3, 1, 1],
        "lin_neurons": 4,
    },
    "resnet": {
        "input_size": 8,
        "channels": [4, 4, 4, 4],
        "block_sizes": [1, 1, 1, 1],
        "strides": [1, 2, 2, 2],
        "lin_neurons": 4,
    },
}


_MEASURED = ("score", "clip_c", "thresholds", "trials")


@functools.cache
def _model(encoder):
    """The bytes of the two files."""
    config = ModelConfig(
        16000,
        8,
        encoder,
        _ARGUMENTS[encoder],
        "hyperbolic",
        3.0,
        Thresholds(0.3, {"0.1": 0.2, "0.01": 0.4}),
        {"list": "veri_test.txt", "n_target": 50, "eer": 0.05}
        | {"eer_interval": [0.04, 0.06], "target_mean": 0.6},
    )
    state = build_modules(config)["embedding_model"].state_dict()
    with tempfile.TemporaryDirectory() as folder:
        save_model(folder, config, state)
        return [
            (pathlib.Path(folder) / n).read_bytes() for n in (CONFIG, WEIGHTS)
        ]


@st.composite
def _models(draw):
    # ResNet first: with it PyTorch imports most, which takes a second.
    config, weights = _model(draw(st.sampled_from([*_ARGUMENTS][::-1])))
    kinds = ["fields", "measured", "text", "header", "values", "values"]
    where = draw(_mostly(st.sampled_from(kinds), st.just("deep")))
    if where in ("fields", "measured"):
        fields = json.loads(config)
        part = fields
        if where == "measured":  # what need not fit the weights
            part = {key: fields[key] for key in _MEASURED}
        changed = draw(replaced(part))
        if where == "measured" and isinstance(changed, dict):
            changed = {**fields, **changed}
        text = json.dumps(changed)
        config = text.encode("utf-8", "surrogatepass")
    elif where == "text":
        config = draw(damaged(config, most=2))
    elif where == "deep":
        config = config.replace(b'"hyperbolic"', draw(DEEP).encode())
    elif where == "header":
        weights = draw(damaged_tensors(weights))
    else:
        at = 8 + struct.unpack_from("<Q", weights)[0]
        weights = weights[:at] + draw(damaged(weights[at:], most=2))
    return {CONFIG: config, WEIGHTS: weights}


@st.composite
def damaged_tensors(draw, data):
    """A safetensors file, damaged in its header's fields or anywhere."""
    if draw(st.booleans()):
        return draw(damaged(data, most=2, near=[0, 8]))
    (length,) = struct.unpack_from("<Q", data)
    header = draw(replaced(json.loads(data[8 : 8 + length])))
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 40)) == 40:
        text = text.replace(b"[", draw(DEEP).encode(), 1)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


MODELS = _models()


@st.composite
def _voiceprints(draw):
    count, size = draw(st.integers(0, 4)), draw(st.integers(1, 6))
    names = st.text(min_size=1, max_size=8).filter(str.isprintable)
    names = draw(
        st.lists(
            _mostly(names, TEXT, 20),
            min_size=count,
            max_size=count,
            unique=True,
        )
    )
    vectors = np.random.default_rng(count).normal(size=(count, size))
    header = {"format": FORMAT, "model": MODEL, "names": json.dumps(names)}
    if draw(st.integers(0, 5)) == 5:
        key = draw(st.sampled_from([*header]))
        header[key] = draw(TEXT | DEEP)
    dtype = draw(
        _mostly(st.just("f4"), st.sampled_from(["f8", "i4", "f2"]), 20)
    )
    data = safetensors.numpy.save({"vectors": vectors.astype(dtype)}, header)
    if draw(st.booleans()):
        data = draw(damaged_tensors(data))
    return {"store.safetensors": data}


VOICEPRINTS = _voiceprints()

_BASE = """\
seed: 1234
margin: 0.2
scale: 30
sentence_len: 3.0
channels: [8, 8, 24]
optimiser:
    lr: 0.001
    betas: [0.9, 0.999]
product: !ref <margin> * <scale>
output_folder: !ref results/<seed>
"""
_TOP = """\
--- !apply:speechbrain_hyperbolic.hparams.flatten
data_folder: !PLACEHOLDER
recipe: !include:base.yaml
    data_folder: !ref <data_folder>
    margin: 0.1
"""
_KEYS = ["seed", "margin", "scale", "channels", "optimiser", "data_folder"]
_VALUES = st.one_of(
    st.integers(-5, 1000).map(str),
    st.floats(-10, 10).map(repr),
    st.sampled_from(
        ["a/b", "'it''s'", "[1, 2]", "{lr: 0.1}", "null", "true", "1e-3"]
        + ["!ref <seed>", "!ref <seed> + 1", "!ref results/<margin>"]
    ),
)
# Each list has those before it nine times.
_ALIASES = "[&a0 [1]"
for _n in range(9):
    _ALIASES += f", &a{_n + 1} [{', '.join(9 * [f'*a{_n}'])}]"
_ALIASES += "]"
# None that names code: whoever types an option may run what they like.
_ODD_VALUES = (
    st.sampled_from(
        [
            "!ref <none>",
            "!ref <",
            "!ref <seed> / 0",
            "&a [*a]",
            "*a",
            "[1",
            "{",
            "-",
        ]
        + [
            "!PLACEHOLDER",
            "!!int x",
            "!!timestamp x",
            "!!binary x",
            "0b",
            "1_0",
        ]
        + ["2001-99-99", "? [a]", "[" * 3000, "%", "@", "`", "|", ">", "<<: 1"]
        + [
            "!!float x",
            "!!set {a, b}",
            "!!omap [a: 1]",
            "!copy <seed>",
            "!name:",
            _ALIASES,
        ]
    )
    | TEXT
)


@st.composite
def _overrides(draw):
    lines = [] if draw(st.integers(0, 9)) == 9 else ["data_folder: /data"]
    for _ in range(draw(st.integers(0, 4))):
        key = draw(_mostly(st.sampled_from(_KEYS), TEXT | NUMBERS, 20))
        lines.append(f"{key}: {draw(_mostly(_VALUES, _ODD_VALUES, 12))}")
    text = "\n".join(lines)
    if draw(st.integers(0, 9)) == 9:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(TEXT) + text[at:]
    files = {"base.yaml": _BASE.encode(), "hparams.yaml": _TOP.encode()}
    name = draw(st.sampled_from([None, None, *files]))
    if name:
        files[name] = draw(_damaged_yaml(files[name].decode()))
    return {**files, "overrides.yaml": text.encode("utf-8", "replace")}


@st.composite
def _damaged_yaml(draw, text):
    """With another value, as another document, or damaged anywhere."""
    kind = draw(st.sampled_from(["value", "value", "whole", "any"]))
    if kind == "whole":
        return draw(_ODD_VALUES | DEEP).encode("utf-8", "surrogatepass")
    if kind == "value":
        lines = text.splitlines()
        at = draw(st.integers(0, len(lines) - 1))
        key = lines[at].partition(": ")[0]
        lines[at] = f"{key}: {draw(_VALUES | _ODD_VALUES)}"
        text = "\n".join(lines)
    return draw(damaged_text(text))


OVERRIDES = _overrides()
