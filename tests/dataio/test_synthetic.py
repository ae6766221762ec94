"""Tests of the synthetic corpus, on corpora of a few speakers."""

import csv
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_hyperbolic.dataio import synthetic
from speechbrain_hyperbolic.dataio.synthetic import make_synthetic_corpus
from speechbrain_hyperbolic.errors import InputError

loader = pytest.importorskip("espeakng_loader")

TINY = {"n_train": 3, "n_test": 2, "utterances": (3, 2), "progress": False}
COLUMNS = ["spk_id", "sex", "split", "accent", "family", "variant", "pitch"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_synthetic_corpus(tmp_path_factory.mktemp("c") / "c", **TINY)


def start(code, *arguments, **environment):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command_line(*arguments):
    code = (
        "import runpy, sys; runpy.run_module(sys.argv.pop(1), None, '__main__')"
    )
    child = start(code, "speechbrain_hyperbolic.dataio.synthetic", *arguments)
    out, err = child.communicate(timeout=60)
    return child.returncode, out, err


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


def read_speech(folder, speaker):
    paths = sorted((folder / speaker["spk_id"]).glob("*.wav"))
    return [soundfile.read(path)[0] for path in paths]


def median_f0(samples, rate=16000):
    """Median over loud 40 ms frames of the autocorrelation's best lag."""
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


def test_layout_and_csv(corpus):
    speakers = read_speakers(corpus)
    assert list(speakers[0]) == COLUMNS
    assert [s["split"] for s in speakers] == ["train"] * 3 + ["test"] * 2
    expected = {"speakers.csv", "corpus.json"}
    for speaker in speakers:
        for place in range(3 if speaker["split"] == "train" else 2):
            expected.add(f"{speaker['spk_id']}/utt{place + 1:02d}.wav")
    assert set(hashes(corpus)) == expected
    manifest = json.loads((corpus / "corpus.json").read_text())
    assert manifest["utterances"] == 3 * 3 + 2 * 2
    assert "synthetic" in manifest["about"]


def test_audio_is_16_khz_mono_pcm_neither_silent_nor_clipped(corpus):
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
    assert manifest["hours"] == pytest.approx(seconds / 3600, abs=0.001)


def test_another_process_makes_the_same_bytes(corpus, tmp_path):
    code = (
        "import sys; from speechbrain_hyperbolic.dataio import synthetic as s;"
        f" s.make_synthetic_corpus(sys.argv[1], **{TINY})"
    )
    child = start(code, tmp_path / "c", OMP_NUM_THREADS="1", PYTHONHASHSEED="7")
    assert child.wait(timeout=60) == 0, child.stderr.read()
    assert hashes(tmp_path / "c") == hashes(corpus)


def test_a_speaker_is_the_same_whatever_else_is_made(corpus, tmp_path):
    less = {**TINY, "utterances": (1, 2)}
    made = hashes(make_synthetic_corpus(tmp_path / "c", **less))
    made.pop("corpus.json")
    assert made.items() <= hashes(corpus).items()


def test_another_seed_makes_another_corpus(corpus, tmp_path):
    other = hashes(make_synthetic_corpus(tmp_path / "c", seed=1, **TINY))
    assert not set(other.values()) & set(hashes(corpus).values())


def test_second_call_finds_the_corpus(corpus, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    began = time.monotonic()
    assert make_synthetic_corpus(str(corpus), **TINY) == corpus
    assert time.monotonic() - began < 0.5
    after = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    assert after == before


def test_interrupted_run_leaves_nothing_that_looks_finished(corpus, tmp_path):
    code = (
        "import sys; from speechbrain_hyperbolic.dataio import synthetic as s;"
        " s.make_synthetic_corpus(sys.argv[1], seed=5)"
    )
    folder = tmp_path / "c"
    child = start(code, folder)
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


@pytest.mark.parametrize("manifest", [None, "{", "[1]", '{"a": 1}', b"\xff"])
def test_foreign_folder_is_refused_and_left_alone(tmp_path, manifest):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("ten years")
    if manifest is not None:
        data = manifest if isinstance(manifest, bytes) else manifest.encode()
        (folder / "corpus.json").write_bytes(data)
    before = hashes(tmp_path)
    with pytest.raises(InputError, match="mine: expected a synth") as error:
        make_synthetic_corpus(folder, **TINY)
    assert "\n" not in str(error.value)
    assert hashes(tmp_path) == before


def test_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("ten years")
    with pytest.raises(InputError, match="file: expected a synthetic corpus"):
        make_synthetic_corpus(tmp_path / "file", **TINY)


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"n_train": 4}, {"utterances": (3, 3)}]
)
def test_corpus_with_other_parameters_is_refused(corpus, other):
    before = hashes(corpus)
    with pytest.raises(InputError, match="made from") as error:
        make_synthetic_corpus(corpus, **{**TINY, **other})
    assert "\n" not in str(error.value)
    assert hashes(corpus) == before


@pytest.mark.parametrize(
    ("other", "key"),
    [
        ({"n_train": 1}, "n_train"),
        ({"n_test": 0}, "n_test"),
        ({"utterances": (3, 0)}, "utterances"),
        ({"seed": -1}, "seed"),
        ({"n_train": 10000}, "at most"),
    ],
)
def test_numbers_out_of_range(tmp_path, other, key):
    with pytest.raises(InputError, match=key):
        make_synthetic_corpus(tmp_path / "c", **{**TINY, **other})
    assert not list(tmp_path.iterdir())


def test_missing_loader_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(
        InputError, match=r"pip install speechbrain-hyperbolic\[demo\]$"
    ):
        make_synthetic_corpus(tmp_path / "c", **TINY)
    assert not list(tmp_path.iterdir())


def test_broken_library_is_one_line(tmp_path, monkeypatch):
    broken = tmp_path / "library"
    broken.write_text("not a library")
    monkeypatch.setattr(loader, "get_library_path", lambda: str(broken))
    with pytest.raises(InputError, match="does not work") as error:
        make_synthetic_corpus(tmp_path / "c", **TINY)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "sizes", [(2, 2), (3, 2), (12, 5), (13, 4), (50, 30), (151, 3)]
)
def test_speakers_of_every_size(seed, sizes):
    speakers = synthetic._draw_speakers(seed, *sizes, (1, 1))
    assert len({s.spk_id for s in speakers}) == len(speakers) == sum(sizes)
    groups = {}
    for split, size in zip(("train", "test"), sizes, strict=True):
        mine = [s for s in speakers if s.split == split]
        assert len(mine) == size
        assert {s.sex for s in mine} == {"m", "f"}
        assert len({s.accent for s in mine}) >= 2
        groups[split] = {(s.accent, s.variant) for s in mine}
        # Those of a group differ by pitch, and by nothing else.
        assert len({(s.accent, s.variant, s.pitch) for s in mine}) == size
    assert not groups["train"] & groups["test"]
    for speaker in speakers:
        assert speaker.variant in synthetic.FAMILIES[speaker.family]
    if sizes == (50, 30):
        sexes = [s.sex for s in speakers]
        assert sexes.count("f") == sexes.count("m") == 40
        assert len({s.accent for s in speakers}) == len(synthetic.ACCENTS)


def test_the_library_ships_every_voice():
    shipped = Path(loader.get_data_path(), "voices", "!v")
    for family, variants in synthetic.FAMILIES.items():
        for variant in variants:
            text = (shipped / variant).read_text().lower()
            other = "female" if family.startswith("male") else "gender male"
            assert other not in text
    engine = loader.get_library_path(), loader.get_data_path()
    line = {"text": "Near the river.", "rate": 170, "pitch": 50, "range": 50}
    spoken = set()
    for accent in synthetic.ACCENTS:
        speaker = synthetic.Speaker("s", "m", "test", accent, "", "m3", 50)
        spoken.add(synthetic._speak(engine, speaker, 1, [line])[0])
    assert len(spoken) == len(synthetic.ACCENTS)


def test_women_have_a_higher_voice_than_men(corpus):
    f0 = {"m": [], "f": []}
    for speaker in read_speakers(corpus):
        f0[speaker["sex"]] += map(median_f0, read_speech(corpus, speaker))
    assert max(f0["m"]) < 150 < min(f0["f"])


def test_speakers_of_a_group_differ_by_pitch(corpus):
    low, _, high = read_speakers(corpus)[:3]
    names = ["accent", "family", "variant"]
    assert [low[name] for name in names] == [high[name] for name in names]
    assert int(low["pitch"]) < int(high["pitch"])
    low, high = (
        [median_f0(samples) for samples in read_speech(corpus, speaker)]
        for speaker in (low, high)
    )
    assert max(low) < min(high)


def test_resampling_agrees_with_torchaudio():
    time_22k = np.arange(3 * 22050) / 22050
    pitch = 2 * np.pi * 150 * time_22k
    wave = sum(np.sin(k * pitch + k * k) for k in range(1, 45))
    pcm = (500 * wave).astype("<i2").tobytes()

    class Flat:
        """Draw no tilt, no noise (SNR 200 dB) and 20 dB below full scale."""

        draws = iter([0, 0, 200, -20])

        def uniform(self, low, high):
            return next(self.draws)

        def standard_normal(self, size):
            return np.random.default_rng(0).standard_normal(size)

    found = synthetic._record(pcm, Flat()) / 32768
    torchaudio = pytest.importorskip("torchaudio")
    torch = pytest.importorskip("torch")
    expected = torchaudio.functional.resample(
        torch.from_numpy(wave), 22050, 16000, lowpass_filter_width=64
    ).numpy()
    size = min(len(found), len(expected))
    assert size > 47900
    middle = slice(1000, size - 1000)
    found, expected = found[middle], expected[middle]
    assert found.std() == pytest.approx(0.1, rel=0.02)
    # At the start some samples are trimmed as silence: find the shift.
    shift = max(
        range(-20, 21), key=lambda n: np.dot(np.roll(found, n), expected)
    )
    found = np.roll(found, shift)
    cosine = np.dot(found, expected) / (
        np.linalg.norm(found) * np.linalg.norm(expected)
    )
    assert cosine > 0.99


def test_texts_hardly_repeat():
    texts = {
        synthetic._sentence(np.random.default_rng([0, 1, place]))
        for place in range(500)
    }
    assert len(texts) == 500


def test_command_line(corpus, tmp_path):
    # The default corpus takes too long: let the small one pass for it.
    folder = tmp_path / "c"
    folder.mkdir()
    manifest = json.loads((corpus / "corpus.json").read_text())
    manifest["made_from"].update(
        seed=4, n_train=50, n_test=30, utterances=[16, 12]
    )
    (folder / "corpus.json").write_text(json.dumps(manifest))
    code, out, _ = command_line(folder, "--seed", 4)
    assert code == 0
    path, summary = out.splitlines()
    assert path == str(folder)
    assert "synthetic" in summary and "seed 4" in summary

    code, out, err = command_line(folder, "--seed", 5)
    assert (code, out) == (1, "")
    assert err.startswith("error: ") and len(err.splitlines()) == 1
