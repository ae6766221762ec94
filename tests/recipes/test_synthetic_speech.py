"""The synthetic corpus, with a few speakers."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from recipes.OwnCorpus import synthetic_speech
from recipes.OwnCorpus.synthetic_speech import make_synthetic_corpus
from speechbrain_hyperbolic.errors import InputError
from tests.conftest import ROOT
from tests.scripts import run_script, succeed

loader = pytest.importorskip("espeakng_loader")

TINY = {"n_train": 3, "n_test": 2, "utterances": (3, 2)}
COLUMNS = ["spk_id", "sex", "split", "accent", "family", "variant", "pitch"]
SCRIPT = ROOT / "recipes" / "OwnCorpus" / "synthetic_speech.py"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_synthetic_corpus(tmp_path_factory.mktemp("c") / "c", **TINY)


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_layout_and_audio(corpus):
    with open(corpus / "speakers.csv", newline="") as file:
        speakers = list(csv.DictReader(file))
    assert list(speakers[0]) == COLUMNS
    assert [s["split"] for s in speakers] == ["train"] * 3 + ["test"] * 2
    expected = {"speakers.csv", "corpus.json"}
    for speaker in speakers:
        for place in range(3 if speaker["split"] == "train" else 2):
            expected.add(f"{speaker['spk_id']}/utt{place + 1:02d}.wav")
    assert set(content(corpus)) == expected
    seconds = 0
    for path in corpus.glob("*/*.wav"):
        samples, rate = soundfile.read(path)
        assert (rate, soundfile.info(path).subtype) == (16000, "PCM_16")
        assert 2 * rate < len(samples) < 4.5 * rate
        assert 0.015 < samples.std() < 0.07 and np.abs(samples).max() < 0.96
        seconds += len(samples) / rate
    manifest = json.loads((corpus / "corpus.json").read_text())
    assert manifest["utterances"] == 3 * 3 + 2 * 2
    assert manifest["hours"] == pytest.approx(seconds / 3600, abs=0.001)
    assert "synthetic" in manifest["about"]


def test_a_killed_process_leaves_nothing_that_looks_finished(corpus, tmp_path):
    """Made again, it has the bytes of one that was not killed."""
    code = f"""
import os, sys, soundfile
from recipes.OwnCorpus.synthetic_speech import make_synthetic_corpus

write = soundfile.write
def killed(path, *given):
    os.kill(os.getpid(), 9) if "spk003" in str(path) else write(path, *given)
soundfile.write = killed
make_synthetic_corpus(sys.argv[1], **{TINY})
"""
    command = [sys.executable, "-c", code, tmp_path / "c"]
    assert subprocess.run(command, cwd=ROOT).returncode == -9
    (unfinished,) = tmp_path.iterdir()
    assert unfinished.name != "c"
    make_synthetic_corpus(tmp_path / "c", **TINY)
    assert os.listdir(tmp_path) == ["c"]
    assert content(tmp_path / "c") == content(corpus)


def test_the_arguments_make_the_bytes(corpus, tmp_path):
    """A speaker does not depend on the others' number of utterances."""
    less = {**TINY, "utterances": (1, 2)}
    made = content(make_synthetic_corpus(tmp_path / "less", **less))
    made.pop("corpus.json")
    assert made.items() <= content(corpus).items()
    other = content(make_synthetic_corpus(tmp_path / "other", seed=1, **TINY))
    assert not set(other.values()) & set(content(corpus).values())


@pytest.mark.parametrize("manifest", [None, b"{", b"[1]"])
def test_a_foreign_folder_is_refused_and_left_alone(tmp_path, manifest):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("ten years")
    if manifest is not None:
        (folder / "corpus.json").write_bytes(manifest)
    before = content(tmp_path)
    with pytest.raises(InputError, match="mine holds something else"):
        make_synthetic_corpus(folder, **TINY)
    assert content(tmp_path) == before


def test_too_many_speakers(tmp_path):
    with pytest.raises(InputError, match="expected at most 154 speakers"):
        make_synthetic_corpus(tmp_path / "c", n_train=150, n_test=5)
    assert not list(tmp_path.iterdir())


def test_a_missing_or_broken_library(corpus, tmp_path, monkeypatch):
    broken = tmp_path / "library"
    broken.write_text("not a library")
    with monkeypatch.context() as patched:
        patched.setattr(loader, "get_library_path", lambda: str(broken))
        with pytest.raises(InputError, match="does not work") as raised:
            make_synthetic_corpus(tmp_path / "c", **TINY)
    assert "\n" not in str(raised.value)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    message = r"pip install -e .\.\[demo\]"
    with pytest.raises(InputError, match=message):
        make_synthetic_corpus(tmp_path / "c", **TINY)
    assert not (tmp_path / "c").exists()
    # A finished corpus needs no library.
    assert make_synthetic_corpus(str(corpus), **TINY) == corpus


@pytest.mark.parametrize("sizes", [(2, 2), (50, 30), (151, 3)])
def test_speakers_of_every_size(sizes):
    """Both sexes in each split, and no voice in both splits."""
    speakers = synthetic_speech._draw_speakers(0, *sizes)
    assert len({s.spk_id for s in speakers}) == len(speakers) == sum(sizes)
    voices = []
    for split, size in zip(("train", "test"), sizes, strict=True):
        own = [s for s in speakers if s.split == split]
        assert len({(s.accent, s.variant, s.pitch) for s in own}) == size
        assert {s.sex for s in own} == {"m", "f"}
        voices.append({(s.accent, s.variant) for s in own})
    assert not voices[0] & voices[1]


def test_command_line(corpus, tmp_path):
    # The default corpus takes too long: let the small one pass for it.
    folder = tmp_path / "c"
    folder.mkdir()
    manifest = json.loads((corpus / "corpus.json").read_text())
    manifest["made_from"].update(n_train=50, n_test=30, utterances=[16, 12])
    (folder / "corpus.json").write_text(json.dumps(manifest))
    printed = succeed(SCRIPT, folder)
    assert printed.startswith(f"{folder}\n")
    assert "synthetic speech made with eSpeak NG, no recordings" in printed
    code, printed = run_script(SCRIPT, corpus)  # of other parameters
    assert code == 2
    assert printed.startswith(f"error: {corpus} holds ")
    assert printed.count("\n") == 1
