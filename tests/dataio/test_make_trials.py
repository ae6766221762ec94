"""Trial lists for corpora that have none."""

import random
import subprocess
import sys

import pytest

from speechbrain_hyperbolic.dataio.make_trials import (
    make_trial_list,
    make_trials,
)
from speechbrain_hyperbolic.dataio.trials import (
    TrialList,
    read_trials,
    trial_speakers,
)
from speechbrain_hyperbolic.errors import InputError
from tests.dataio.test_corpus import add


def test_unusable_files_get_no_trials(tmp_path):
    data = tmp_path / "data"
    add(data, *(f"{s}/{i}.wav" for s in "abc" for i in range(3)))
    (data / "speakers.csv").write_text("spk_id,split\na,test\nb,test\n")
    (data / "a" / "empty.wav").touch()
    trials = make_trial_list(data, tmp_path / "t.txt", check_audio="decode")
    assert {u for t in trials for u in t[1:]} == {
        f"{s}/{i}" for s in "ab" for i in range(3)
    }
    assert "empty.wav" in (tmp_path / "t.txt.skipped").read_text()


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
    assert trial_speakers(TrialList.of(trials)) == {"b", "d"}
    trials = make_trial_list(tmp_path, tmp_path / "t.txt", test_share=1)
    assert trial_speakers(TrialList.of(trials)) == set("abcd")


def test_command_line(tmp_path):
    add(tmp_path, *(f"s{s}/{i}.wav" for s in range(10) for i in range(3)))
    command = [
        sys.executable,
        "-m",
        "speechbrain_hyperbolic.dataio.make_trials",
    ]
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
