"""Trial lists: read, made, refused."""

import random
import subprocess
import sys

import pytest

from speechbrain_hyperbolic.dataio.trials import (
    Trial,
    fetch_trials,
    make_trial_list,
    make_trials,
    read_trials,
    trial_speakers,
    write_trials,
)
from speechbrain_hyperbolic.errors import InputError
from tests.dataio.test_corpus import add


@pytest.mark.parametrize(
    "line, trial",
    [
        ("1 a/s/1.wav b/s/2.wav", Trial(1, "a/s/1", "b/s/2")),
        ("0 a/1.m4a b/2", Trial(0, "a/1", "b/2")),
        ("0\ta/v1.2/1.flac  b/2.OGG\r", Trial(0, "a/v1.2/1", "b/2")),
    ],
)
def test_read(tmp_path, line, trial):
    path = tmp_path / "t.txt"
    path.write_text(f"\n{line}\n")
    assert read_trials(path) == [trial]


@pytest.mark.parametrize(
    "line", ["1 a/1", "2 a/1 b/1", "a/1 b/1 1", "1 a/1 b/1 0.5", "target a b"]
)
def test_malformed_line_is_numbered(tmp_path, line):
    path = tmp_path / "t.txt"
    path.write_text(f"1 a/1 a/2\n0 a/1 b/1\n{line}\n")
    with pytest.raises(InputError, match="line 3: .*'label enrol test'"):
        read_trials(path)


@pytest.mark.parametrize("name", ["../x/1", "a/../../x", "/etc/1.wav"])
def test_a_path_that_leaves_the_corpus(tmp_path, name):
    path = tmp_path / "t.txt"
    path.write_text(f"1 a/1 a/2\n0 a/1 {name}\n")
    with pytest.raises(InputError, match="line 2: .* leaves the corpus"):
        read_trials(path)


def test_unusable_files_get_no_trials(tmp_path):
    data = tmp_path / "data"
    add(data, *(f"{s}/{i}.wav" for s in "abc" for i in range(3)))
    (data / "speakers.csv").write_text("spk_id,split\na,test\nb,test\n")
    (data / "a" / "empty.wav").touch()
    trials = make_trial_list(data, tmp_path / "t.txt", "decode")
    assert {u for t in trials for u in t[1:]} == {
        f"{s}/{i}" for s in "ab" for i in range(3)
    }
    assert "empty.wav" in (tmp_path / "t.txt.skipped").read_text()


def test_missing_and_empty(tmp_path):
    with pytest.raises(InputError, match="no such trial list"):
        read_trials(tmp_path / "none.txt")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(InputError, match="has no trials"):
        read_trials(tmp_path / "empty.txt")


def test_round_trip(tmp_path):
    trials = make_trials(f"{s}/{i}" for s in "abc" for i in range(4))
    write_trials(trials, tmp_path / "t.txt")
    assert read_trials(tmp_path / "t.txt") == trials


@pytest.mark.parametrize("speakers, utterances", [(2, 2), (5, 6), (40, 20)])
def test_made_lists_are_balanced_and_distinct(speakers, utterances):
    names = [f"s{s}/{i}" for s in range(speakers) for i in range(utterances)]
    trials = make_trials(names, pairs_per_speaker=30)
    assert len({(t.enrol, t.test) for t in trials}) == len(trials)
    for trial in trials:
        same = trial.enrol.split("/")[0] == trial.test.split("/")[0]
        assert trial.label == same and trial.enrol != trial.test
    targets = sum(t.label for t in trials)
    assert targets == speakers * min(30, utterances * (utterances - 1) // 2)
    assert len(trials) == 2 * targets
    random.Random(1).shuffle(names)
    assert make_trials(names, pairs_per_speaker=30) == trials
    if speakers > 2:
        assert make_trials(names, pairs_per_speaker=30, seed=1) != trials


@pytest.mark.parametrize("names", [[], ["a/1", "a/2"], ["a/1", "b/1"]])
def test_too_little_for_a_list(names):
    with pytest.raises(InputError, match="needs at least two speakers"):
        make_trials(names)


def test_split_column_decides(tmp_path):
    add(tmp_path, *(f"{s}/{i}.wav" for s in "abcd" for i in range(2)))
    (tmp_path / "speakers.csv").write_text(
        "spk_id,split\na,train\nb,test\nc,train\nd,test\n"
    )
    trials = make_trial_list(tmp_path, tmp_path / "t.txt")
    assert trial_speakers(trials) == {"b", "d"}


def test_command_line(tmp_path):
    add(tmp_path, *(f"s{s}/{i}.wav" for s in range(10) for i in range(3)))
    command = [sys.executable, "-m", "speechbrain_hyperbolic.dataio.trials"]
    done = subprocess.run(
        [*command, tmp_path, tmp_path / "t.txt"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(trial_speakers(read_trials(tmp_path / "t.txt"))) == 2
    done = subprocess.run(
        [*command, tmp_path / "none", tmp_path / "u.txt"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "is not a folder" in done.stderr
    assert not (tmp_path / "u.txt").exists()


def test_fetch(tmp_path):
    assert fetch_trials("here.txt", tmp_path).name == "here.txt"
    url = "http://127.0.0.1:9/veri_test2.txt"  # the discard port: refused
    with pytest.raises(InputError, match="can't be downloaded.*makes one"):
        fetch_trials(url, tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "veri_test2.txt").write_text("1 a/1 a/2\n")
    assert fetch_trials(url, tmp_path) == tmp_path / "veri_test2.txt"
