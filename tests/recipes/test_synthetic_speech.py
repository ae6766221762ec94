"""The synthetic corpus, with a few speakers."""

import csv
import hashlib
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from recipes.OwnCorpus import synthetic_speech
from recipes.OwnCorpus.synthetic_speech import make_synthetic_corpus
from speechbrain_hyperbolic.errors import InputError
from tests.conftest import ROOT

loader = pytest.importorskip("espeakng_loader")

TINY = {"n_train": 3, "n_test": 2, "utterances": (3, 2), "progress": False}
COLUMNS = ["spk_id", "sex", "split", "accent", "family", "variant", "pitch"]
SCRIPT = ROOT / "recipes" / "OwnCorpus" / "synthetic_speech.py"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_synthetic_corpus(tmp_path_factory.mktemp("c") / "c", **TINY)


def start(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def hashes(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def read_speakers(folder):
    with open(folder / "speakers.csv", newline="") as file:
        return list(csv.DictReader(file))


def median_f0(path):
    """Median over loud 40 ms frames of the autocorrelation's best lag."""
    samples, rate = soundfile.read(path)
    size, lags = int(0.04 * rate), slice(rate // 400, rate // 60)
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    power = (frames**2).mean(1)
    found = []
    for frame in frames[power > 0.3 * power.mean()]:
        spectrum = np.abs(np.fft.rfft(frame - frame.mean(), 2 * size)) ** 2
        correlation = np.fft.irfft(spectrum)[:size]
        best = correlation[lags].argmax() + lags.start
        if correlation[best] > 0.5 * correlation[0]:
            found.append(rate / best)
    return np.median(found)


def test_layout_and_audio(corpus):
    speakers = read_speakers(corpus)
    assert list(speakers[0]) == COLUMNS
    assert [s["split"] for s in speakers] == ["train"] * 3 + ["test"] * 2
    expected = {"speakers.csv", "corpus.json"}
    for speaker in speakers:
        for place in range(3 if speaker["split"] == "train" else 2):
            expected.add(f"{speaker['spk_id']}/utt{place + 1:02d}.wav")
    assert set(hashes(corpus)) == expected
    seconds = 0
    for path in corpus.glob("*/*.wav"):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels) == (16000, 1)
        assert (info.format, info.subtype) == ("WAV", "PCM_16")
        assert 2 < info.duration < 4.5
        seconds += info.duration
        samples, _ = soundfile.read(path)
        assert 0.015 < samples.std() < 0.07
        assert np.abs(samples).max() < 0.96
        assert np.abs(samples.mean()) < 0.001
    manifest = json.loads((corpus / "corpus.json").read_text())
    assert manifest["utterances"] == 3 * 3 + 2 * 2
    assert manifest["hours"] == pytest.approx(seconds / 3600, abs=0.001)
    assert "synthetic" in manifest["about"]


def test_another_process_makes_the_same_bytes(corpus, tmp_path):
    code = (
        "import sys; from recipes.OwnCorpus import synthetic_speech as s;"
        f" s.make_synthetic_corpus(sys.argv[1], **{TINY})"
    )
    child = start("-c", code, tmp_path / "c", PYTHONHASHSEED="7")
    _, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert hashes(tmp_path / "c") == hashes(corpus)


def test_a_speaker_does_not_depend_on_the_others(corpus, tmp_path):
    less = {**TINY, "utterances": (1, 2)}
    made = hashes(make_synthetic_corpus(tmp_path / "c", **less))
    made.pop("corpus.json")
    assert made.items() <= hashes(corpus).items()


def test_another_seed_makes_another_corpus(corpus, tmp_path):
    other = hashes(make_synthetic_corpus(tmp_path / "c", seed=1, **TINY))
    assert not set(other.values()) & set(hashes(corpus).values())


def test_second_call_finds_the_corpus(corpus, monkeypatch):
    before = hashes(corpus)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    assert make_synthetic_corpus(str(corpus), **TINY) == corpus
    assert hashes(corpus) == before


def test_a_killed_process_leaves_nothing_that_looks_finished(corpus, tmp_path):
    folder = tmp_path / "c"
    child = start(SCRIPT, folder, "--seed=5")
    give_up = time.monotonic() + 60
    while not list(tmp_path.rglob("spk003/*.wav")):
        assert child.poll() is None and time.monotonic() < give_up
        time.sleep(0.02)
    child.kill()
    child.communicate()
    assert not folder.exists()
    assert not list(tmp_path.rglob("corpus.json"))
    make_synthetic_corpus(folder, **TINY)
    assert hashes(folder) == hashes(corpus)
    assert os.listdir(tmp_path) == ["c"]


@pytest.mark.parametrize("manifest", [None, b"{", b"[1]", b"\xff"])
def test_a_foreign_folder_is_refused_and_left_alone(tmp_path, manifest):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("ten years")
    if manifest is not None:
        (folder / "corpus.json").write_bytes(manifest)
    before = hashes(tmp_path)
    with pytest.raises(InputError, match="mine holds something else"):
        make_synthetic_corpus(folder, **TINY)
    assert hashes(tmp_path) == before


@pytest.mark.parametrize(
    "other, message",
    [
        ({"n_train": 4}, "holds a synthetic corpus made from"),
        ({"seed": 1}, "holds a synthetic corpus made from"),
    ],
)
def test_a_corpus_with_other_parameters_is_refused(corpus, other, message):
    with pytest.raises(InputError, match=message) as raised:
        make_synthetic_corpus(corpus, **{**TINY, **other})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "other",
    [{"n_train": 1}, {"utterances": (3, 0)}, {"seed": -1}, {"n_train": 10000}],
)
def test_numbers_out_of_range(tmp_path, other):
    with pytest.raises(InputError, match="expected at"):
        make_synthetic_corpus(tmp_path / "c", **{**TINY, **other})
    assert not list(tmp_path.iterdir())


def test_a_missing_or_broken_library(tmp_path, monkeypatch):
    broken = tmp_path / "library"
    broken.write_text("not a library")
    with monkeypatch.context() as patched:
        patched.setattr(loader, "get_library_path", lambda: str(broken))
        with pytest.raises(InputError, match="does not work") as raised:
            make_synthetic_corpus(tmp_path / "c", **TINY)
    assert "\n" not in str(raised.value)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    message = r"pip install speechbrain-hyperbolic\[demo\]$"
    with pytest.raises(InputError, match=message):
        make_synthetic_corpus(tmp_path / "c", **TINY)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("sizes", [(2, 2), (13, 4), (50, 30), (151, 3)])
def test_speakers_of_every_size(sizes):
    speakers = synthetic_speech._draw_speakers(0, *sizes, (1, 1))
    assert len({s.spk_id for s in speakers}) == len(speakers) == sum(sizes)
    groups = {}
    for split, size in zip(("train", "test"), sizes, strict=True):
        own = [s for s in speakers if s.split == split]
        assert len(own) == size
        assert {s.sex for s in own} == {"m", "f"}
        groups[split] = {(s.accent, s.variant) for s in own}
        # Speakers of a group differ in pitch only.
        assert len({(s.accent, s.variant, s.pitch) for s in own}) == size
    assert not groups["train"] & groups["test"]
    if sizes == (50, 30):
        sexes = [s.sex for s in speakers]
        assert sexes.count("f") == sexes.count("m") == 40
        accents = {s.accent for s in speakers}
        assert accents == set(synthetic_speech.ACCENTS)


def test_voices_are_as_the_table_says(corpus):
    low, _, high, *_ = speakers = read_speakers(corpus)
    f0 = {
        s["spk_id"]: [median_f0(p) for p in (corpus / s["spk_id"]).iterdir()]
        for s in speakers
    }
    men, women = (
        sum((f0[s["spk_id"]] for s in speakers if s["sex"] == sex), [])
        for sex in "mf"
    )
    assert max(men) < 150 < min(women)
    same = ["accent", "family", "variant"]
    assert [low[name] for name in same] == [high[name] for name in same]
    assert max(f0[low["spk_id"]]) < min(f0[high["spk_id"]])


def test_command_line(corpus, tmp_path):
    # The default corpus takes too long: let the small one pass for it.
    folder = tmp_path / "c"
    folder.mkdir()
    manifest = json.loads((corpus / "corpus.json").read_text())
    manifest["made_from"].update(
        seed=4, n_train=50, n_test=30, utterances=[16, 12]
    )
    (folder / "corpus.json").write_text(json.dumps(manifest))
    child = start(SCRIPT, folder, "--seed=4")
    path, summary = child.communicate(timeout=60)[0].splitlines()
    assert child.returncode == 0 and path == str(folder)
    assert "synthetic" in summary and "seed 4" in summary
    child = start(SCRIPT, folder, "--seed=5")
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (2, "")
    assert err.startswith("error: ") and len(err.splitlines()) == 1
