"""Trial lists: read and refused."""

import pytest

from speechbrain_hyperbolic.dataio.make_trials import make_trials
from speechbrain_hyperbolic.dataio.trials import (
    Trial,
    TrialList,
    fetch_trials,
    read_enrolment,
    read_trials,
    trial_speakers,
    write_trials,
)
from speechbrain_hyperbolic.errors import InputError


@pytest.mark.parametrize(
    "line, trial",
    [
        ("1 a/s/1.wav b/s/2.wav", Trial(1, "a/s/1", "b/s/2")),
        ("0 a/1.m4a b/2", Trial(0, "a/1", "b/2")),
        ("0\ta/v1.2/1.flac  b/2.OGG\r", Trial(0, "a/v1.2/1", "b/2")),
        ("a/1 b/2.wav 0", Trial(0, "a/1", "b/2")),
        ("\ufeff1 a/1 b/2", Trial(1, "a/1", "b/2")),
        ("a/1 a/2 target", Trial(1, "a/1", "a/2")),
        ("a/1 b/2 nontarget", Trial(0, "a/1", "b/2")),
    ],
)
def test_read(tmp_path, line, trial):
    path = tmp_path / "t.txt"
    path.write_text(f"{line}\n\n", encoding="utf-8")
    assert list(read_trials(path)) == [trial]


@pytest.mark.parametrize(
    "line",
    [
        "1 a/1",
        "2 a/1 b/1",
        "a/1 b/1 1",
        "1 a/1 b/1 1",
        "1 a/1 b/1 0.5",
        "yes a/1 b/1",
    ],
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


def test_missing_and_empty(tmp_path):
    with pytest.raises(InputError, match="no such trial list"):
        read_trials(tmp_path / "none.txt")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(InputError, match="has no trials"):
        read_trials(tmp_path / "empty.txt")


def test_round_trip(tmp_path):
    trials = make_trials(f"{s}/{i}" for s in "abc" for i in range(4))
    write_trials(trials, tmp_path / "t.txt")
    assert list(read_trials(tmp_path / "t.txt")) == trials


def test_arrays_name_each_utterance_once():
    trials = TrialList.of([(1, "a/1", "a/2"), (0, "b/1", "a/2")])
    assert len(trials) == 2
    assert sorted(trials.utterances) == ["a/1", "a/2", "b/1"]
    assert trials.models == ["a/1", "b/1"]
    for model, rows in zip(trials.models, trials.members, strict=True):
        assert [trials.utterances[row] for row in rows] == [model]
    assert [s.tolist() for s in trials.speakers()] == [["a", "b"], ["a", "a"]]


CNCELEB_MAP = """\
id00800-enroll id00800/singing-01-001.wav id00800/movie-02-003.wav
id00801 id00801/vlog-01-001.wav
"""
CNCELEB_LIST = """\
id00800-enroll test/id00800-interview-01-002.wav 1
id00800-enroll test/id00801-drama-03-001.wav 0
id00801-enroll test/id00801-drama-03-001.wav 1
"""


def test_enrolment_map(tmp_path):
    (tmp_path / "enroll.map").write_text(CNCELEB_MAP)
    (tmp_path / "trials.lst").write_text(CNCELEB_LIST)
    trials = read_trials(tmp_path / "trials.lst", tmp_path / "enroll.map")
    assert trials.labels.tolist() == [1, 0, 1]
    members = {
        model: [trials.utterances[row] for row in rows]
        for model, rows in zip(trials.models, trials.members, strict=True)
    }
    assert members == {
        "id00800-enroll": ["id00800/singing-01-001", "id00800/movie-02-003"],
        "id00801": ["id00801/vlog-01-001"],
    }
    assert len(trials.utterances) == 5
    enrol, test = trials.speakers()
    assert enrol.tolist() == ["id00800", "id00800", "id00801"]
    assert test.tolist() == ["id00800", "id00801", "id00801"]
    assert trial_speakers(trials) == {"id00800", "id00801"}


@pytest.mark.parametrize(
    "text, message",
    [
        ("a a/1\nb\n", "line 2: model b has no utterances"),
        ("a a/1 a/1.wav\n", "line 1: model a has one utterance twice"),
        ("a a/1\na a/2\n", "line 2: model a is there before"),
        ("a ../x/1\n", "line 1: ../x/1 leaves the corpus"),
        ("\n", "is empty"),
    ],
)
def test_bad_enrolment_map(tmp_path, text, message):
    (tmp_path / "enroll.map").write_text(text)
    with pytest.raises(InputError, match=message):
        read_enrolment(tmp_path / "enroll.map")


def test_model_that_is_not_enrolled(tmp_path):
    (tmp_path / "enroll.map").write_text(CNCELEB_MAP)
    (tmp_path / "trials.lst").write_text("id00800-enroll a/1 0\nx a/1 0\n")
    with pytest.raises(InputError, match="line 2: x is not in the enrolment"):
        read_trials(tmp_path / "trials.lst", tmp_path / "enroll.map")


def test_repeated_trials_count_and_are_said(tmp_path, caplog):
    path = tmp_path / "t.txt"
    path.write_text("1 a/1 a/2\n0 a/1 b/1\n1 a/1.wav a/2\n")
    assert len(read_trials(path)) == 3
    assert "1 of 3 trials repeat another one" in caplog.text
    path.write_text("1 a/1 a/2\n0 a/1 a/2\n")
    with pytest.raises(
        InputError, match="line 2: the label is not the one of line 1"
    ):
        read_trials(path)


def test_fetch(tmp_path):
    assert fetch_trials("here.txt", tmp_path).name == "here.txt"
    url = "http://127.0.0.1:9/veri_test2.txt"  # the discard port: refused
    with pytest.raises(InputError, match="can't be downloaded.*makes one"):
        fetch_trials(url, tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "veri_test2.txt").write_text("1 a/1 a/2\n")
    assert fetch_trials(url, tmp_path) == tmp_path / "veri_test2.txt"
