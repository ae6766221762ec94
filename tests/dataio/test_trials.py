"""Trial lists: read, refused, made."""

import contextlib
import http.server
import random
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechbrain_hyperbolic.dataio.make_trials import (
    main,
    make_trial_list,
    make_trials,
)
from speechbrain_hyperbolic.dataio.trials import (
    Trial,
    TrialList,
    fetch_trials,
    read_enrollment,
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
        ("1 a/.wav b/1.wav", Trial(1, "a/.wav", "b/1")),
    ],
)
def test_read(tmp_path, line, trial):
    path = tmp_path / "t.txt"
    path.write_text(f"{line}\n\n", encoding="utf-8")
    assert list(read_trials(path)) == [trial]


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


def test_enrollment_file(tmp_path):
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
    enroll, test = trials.speakers()
    assert enroll.tolist() == ["id00800", "id00800", "id00801"]
    assert test.tolist() == ["id00800", "id00801", "id00801"]
    assert trial_speakers(trials) == {"id00800", "id00801"}
    (tmp_path / "trials.lst").write_text("id00800-enroll a/1 0\nx a/1 0\n")
    with pytest.raises(InputError, match="line 2: x is not among the 2 models"):
        read_trials(tmp_path / "trials.lst", tmp_path / "enroll.map")


@pytest.mark.parametrize(
    "text, message",
    [
        ("a a/1\nb\n", "line 2: expected 'model utterance ...', .* for b"),
        ("a a/1 a/1.wav\n", "line 1: .*no utterance twice, for a"),
        ("a a/1\na a/2\n", "line 2: .*one line for each model .* for a"),
        ("a ../x/1\n", "line 1: ../x/1 leaves the corpus"),
        ("\x1b[2J\n", r"line 1: .* for '\\x1b\[2J'"),
        ("\n", "is empty"),
    ],
)
def test_bad_enrollment_file(tmp_path, text, message):
    (tmp_path / "enroll.map").write_text(text)
    with pytest.raises(InputError, match=message):
        read_enrollment(tmp_path / "enroll.map")


def test_repeated_trials_count_and_are_reported(tmp_path, caplog):
    path = tmp_path / "t.txt"
    path.write_text("1 a/1 a/2\n0 a/1 b/1\n1 a/1.wav a/2\n")
    assert len(read_trials(path)) == 3
    assert "1 of 3 trials repeat another one" in caplog.text
    path.write_text("1 a/1 a/2\n0 a/1 a/2\n")
    with pytest.raises(InputError, match="line 2: line 1 has the same trial"):
        read_trials(path)


WORDS = st.sampled_from(
    ["1", "0", "2", "target", "a/1", "a/1.wav", "b/2", "../c", "/", ".wav"]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)


@given(
    st.lists(st.lists(WORDS, max_size=4), max_size=4),
    st.booleans(),
    st.binary(max_size=3),
)
@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_list_is_read_or_refused(tmp_path, lines, enrolls, junk):
    """What is read is the same when it is written and read again."""
    path, again = tmp_path / "a.txt", tmp_path / "b.txt"
    text = "".join(" ".join(line) + "\n" for line in lines)
    path.write_bytes(text.encode() + junk)
    try:
        if enrolls:
            read_enrollment(path)
            return
        trials = read_trials(path)
    except InputError as error:
        assert str(path) in str(error) and str(error).isprintable()
        return
    assert set(trials.labels.tolist()) <= {-1, 0, 1}
    assert not any(".." in u.split("/") for u in trials.utterances)
    write_trials(trials, again)
    assert [t.label for t in read_trials(again)] == [t.label for t in trials]


# ---------------------------------------------------------------- download


@contextlib.contextmanager
def serving(folder, requests=None):
    """The address of a server of a folder's files; notes what is asked."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def log_message(self, *args):
            if requests is not None:
                requests.append(args)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.01]).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_fetch(tmp_path):
    assert fetch_trials("here.txt", tmp_path).name == "here.txt"
    served, folder = tmp_path / "served", tmp_path / "lists"
    served.mkdir()
    (served / "veri_test2.txt").write_text("1 a/1 a/2\n")
    (served / "page.txt").write_text("<html>no list</html>\n")
    with serving(served) as address:
        for name in ("none.txt", "page.txt"):
            with pytest.raises(InputError, match="can't download.*makes one"):
                fetch_trials(f"{address}/{name}", folder)
        assert not list(folder.iterdir())
        url = f"{address}/veri_test2.txt"
        path = fetch_trials(url, folder)
    assert list(read_trials(path)) == [Trial(1, "a/1", "a/2")]
    assert fetch_trials(url, folder) == path  # without the server


# -------------------------------------------------------------- made lists


@pytest.mark.parametrize("speakers, utterances", [(2, 2), (5, 6), (40, 20)])
def test_made_lists_are_balanced_and_distinct(tmp_path, speakers, utterances):
    names = [f"s{s}/{i}" for s in range(speakers) for i in range(utterances)]
    trials = make_trials(names, pairs_per_speaker=30)
    assert len({(t.enroll, t.test) for t in trials}) == len(trials)
    for trial in trials:
        same = trial.enroll.split("/")[0] == trial.test.split("/")[0]
        assert trial.label == same and trial.enroll != trial.test
    targets = sum(t.label for t in trials)
    assert targets == speakers * min(30, utterances * (utterances - 1) // 2)
    assert len(trials) == 2 * targets
    random.Random(1).shuffle(names)
    assert make_trials(names, pairs_per_speaker=30) == trials
    if speakers > 2:
        assert make_trials(names, pairs_per_speaker=30, seed=1) != trials
    write_trials(trials, tmp_path / "t.txt")
    assert list(read_trials(tmp_path / "t.txt")) == trials


def test_too_few_impostor_pairs_are_all_taken():
    names = [*(f"a/{i}" for i in range(15)), "b/1"]
    labels = np.array([trial.label for trial in make_trials(names)])
    assert labels.sum() == 100 and (labels == 0).sum() == 15


def test_speakers_and_files_of_a_made_list(tmp_path):
    data, path = tmp_path / "data", tmp_path / "t.txt"
    add(data, *(f"{s}/{i}.wav" for s in "abcd" for i in range(2)))
    (data / "speakers.csv").write_text(
        "spk_id,split\na,train\nb,test\nc,train\nd,test\n"
    )
    (data / "b" / "empty.wav").touch()
    trials = make_trial_list(data, path, check_audio="decode")
    assert {u for t in trials for u in t[1:]} == {"b/0", "b/1", "d/0", "d/1"}
    assert "empty.wav" in (tmp_path / "t.txt.skipped").read_text()
    trials = make_trial_list(data, path, test_share=1)
    assert trial_speakers(TrialList.of(trials)) == set("abcd")
    (data / "speakers.csv").unlink()
    with pytest.raises(InputError, match="4 speakers: too few to reserve 4"):
        make_trial_list(data, path, test_share=0.9)


def test_command_line(tmp_path, monkeypatch, capsys):
    add(tmp_path, *(f"s{s}/{i}.wav" for s in range(10) for i in range(3)))
    for folder in (tmp_path, tmp_path / "none"):
        path = folder / "trials.txt"
        monkeypatch.setattr("sys.argv", ["make_trials", str(folder), str(path)])
        with contextlib.suppress(SystemExit):
            main()
    assert len(trial_speakers(read_trials(tmp_path / "trials.txt"))) == 2
    printed = capsys.readouterr()
    assert "trials.txt: 6 target, 6 impostor trials" in printed.out
    assert "error: data_folder" in printed.err and not path.exists()
