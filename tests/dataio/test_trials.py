"""Trial lists: read, refused, made."""

import contextlib
import functools
import http.server
import random
import socket
import threading

import numpy as np
import pytest

from speechbrain_hyperbolic.dataio import trials as trials_module
from speechbrain_hyperbolic.dataio.corpus import read_corpus
from speechbrain_hyperbolic.dataio.make_trials import (
    main,
    make_trial_list,
    make_trials,
)
from speechbrain_hyperbolic.dataio.trials import (
    Trial,
    TrialList,
    fetch_trials,
    read_trials,
    trial_speakers,
    write_trials,
)
from speechbrain_hyperbolic.errors import InputError
from tests.dataio.test_corpus import add

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


def test_repeated_trials_count(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("1 a/v1.2/1 a/.wav\r\n\n0 a/1 b/1\n1 a/v1.2/1.OGG a/.wav\n")
    same = Trial(1, "a/v1.2/1", "a/.wav")
    assert list(read_trials(path)) == [same, (0, "a/1", "b/1"), same]


TRIALS = [Trial(1, "a/s/1", "a/s/2"), Trial(0, "a/s/1", "b/s/1")]
LABEL_FIRST, LABEL_LAST = "label enroll test", "enroll test label"
WITH_SIDE, MIDDLE = "enroll test side label", "enroll label test"


def trial_list(form, target, nontarget, separator=" "):
    lines = []
    for label, enroll, test in TRIALS:
        fields = {"enroll": f"{enroll}.wav", "test": f"{test}.wav"}
        fields |= {"label": target if label else nontarget}
        fields |= {"side": "a", "score": "0.25"}
        lines.append(separator.join(fields[role] for role in form.split()))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("separator", [" ", "\t", ",", ", ", ";"])
@pytest.mark.parametrize(
    "labels",
    [
        *(("1", "0"), ("1.0", "0.0"), ("1", "-1"), ("TRUE", "FALSE")),
        *(("tgt", "imp"), ("yes", "no"), ("T", "F"), ("Target", "impostor")),
    ],
)
@pytest.mark.parametrize(
    "form",
    [LABEL_FIRST, LABEL_LAST, MIDDLE, f"{LABEL_LAST} score", WITH_SIDE],
)
def test_forms(tmp_path, form, labels, separator):
    path = tmp_path / "t.txt"
    path.write_text(trial_list(form, *labels, separator))
    trials = read_trials(path)
    assert list(trials) == TRIALS
    assert " ".join(trials.columns) == form


LIST = trial_list(LABEL_FIRST, "1", "0")


@pytest.mark.parametrize(
    "text",
    [
        "label enroll test\n" + LIST,
        "# a comment\n\n// another\n" + LIST,
        "modelid\tsegmentid\tside\ttargettype\n"
        + trial_list(WITH_SIDE, "target", "nontarget", "\t"),
        "Enrol,Test,Same_Speaker,note\n"
        + trial_list(LABEL_LAST, "1", "0", ",").replace("\n", ",x\n"),
        'enroll,test,label\n"a/s/1","a/s/2",1\n"a/s/1","b/s/1",0\n',
        LIST.replace("a/s", "./a/s").replace("b/s", ".//b/s"),
        LIST.replace("/", "\\"),
        LIST.replace(" a/", " wav/a/").replace(" b/", " wav/b/"),
        LIST.replace(" a/", " VoxCeleb/wav/a/").replace(" b/", " wav/b/"),
        LIST.replace(" a/", " CORPUS/a/").replace(" b/", " file://CORPUS/b/"),
        LIST.replace(".wav", ".m4a"),
        LIST.replace(".wav", ""),
        LIST.replace(".wav", "").replace("/", "-"),  # as in Kaldi
    ],
)
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"]
)
def test_lists_in_the_field(tmp_path, text, encoding):
    folder = tmp_path / "VoxCeleb" / "wav"
    add(folder, *(f"{u}.flac" for u in ("a/s/1", "a/s/2", "b/s/1")))
    path = tmp_path / "t.txt"
    text = text.replace("CORPUS", str(folder))
    path.write_text(text.replace("\n", "\r\n"), encoding, newline="")
    for source in (folder, folder.parent):
        trials = read_trials(path, corpus=read_corpus(source))
        assert list(trials) == TRIALS and not trials.missing


@pytest.mark.parametrize(
    "text",
    ["a/1 a/2\n", "enroll,test\na/1,a/2\n", "a/1 a/2 a\n", "a/1 a/2 0.25\n"],
)
def test_blind_lists(tmp_path, text, caplog):
    """Such as NIST's, without its key."""
    caplog.set_level("INFO")
    (tmp_path / "t.txt").write_text(text)
    found = read_trials(tmp_path / "t.txt")
    assert list(found) == [(-1, "a/1", "a/2")] and not found.labeled
    assert "read as 'enroll test" in caplog.text


def test_models_named_by_numbers(tmp_path):
    (tmp_path / "m.txt").write_text("0 a/1 a/2\n1 b/1\n")
    text = "0 a/3.wav 1\n1 a/3.wav 0\n0 b/2.wav 0\n1 b/2.wav 1\n"
    (tmp_path / "t.txt").write_text(text)
    trials = read_trials(tmp_path / "t.txt", tmp_path / "m.txt")
    assert trials.columns == ("enroll", "test", "label")
    assert [t.label for t in trials] == [1, 0, 0, 1]
    (tmp_path / "t.txt").write_text("0 3 1\n1 4 0\n")
    trials = read_trials(tmp_path / "t.txt", tmp_path / "m.txt")
    assert [t.test for t in trials] == ["3", "4"]


def test_leading_zeros_and_what_is_missing(tmp_path, caplog):
    add(tmp_path, "0001/1.wav", "0002/1.wav")
    path = tmp_path / "t.txt"
    path.write_text("1 1/1.wav 0001/1.wav\n0 0001/1 2/9.wav\n")
    corpus = read_corpus(tmp_path)
    trials = read_trials(path, None, corpus)
    assert trials.utterances == ["0001/1", "0002/9"]
    assert trials.missing == ("0002/9",) and "such as 0002/9" in caplog.text
    path.write_text("0 1/1 2/1\n1 2/1 0001/1\n1 2/1 2/1\n")  # both labels
    with pytest.raises(InputError, match="line 2: line 1 has the same trial"):
        read_trials(path, None, corpus)
    assert "2 of 3 trials compare an utterance with itself, or" in caplog.text


def test_an_extension_within_a_name(tmp_path):
    """utt.m4a.wav loses its extension once, however often it is written."""
    add(tmp_path / "c", "a/utt.m4a.wav", "a/utt.flac", "1/0.wav")
    corpus = read_corpus(tmp_path / "c")
    assert list(corpus.recordings) == ["1/0", "a/utt", "a/utt.m4a"]
    trials = [Trial(1, "a/utt.m4a", "a/utt"), Trial(0, "a/utt.m4a", "1/0")]
    for number in range(3):
        write_trials(trials, tmp_path / "t.txt")
        with_corpus = read_trials(tmp_path / "t.txt", None, corpus)
        trials = list(read_trials(tmp_path / "t.txt"))
        assert list(with_corpus) == trials, number
    assert TrialList.of(trials).utterances == ["a/utt", "1/0", "a/utt.m4a"]


@contextlib.contextmanager
def serving(folder):
    """The address of a server of a folder's files."""
    handler = http.server.SimpleHTTPRequestHandler
    handler = functools.partial(handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


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
        assert not folder.exists()
        url = f"{address}/veri_test2.txt"
        path = fetch_trials(url, folder)
    assert list(read_trials(path)) == [Trial(1, "a/1", "a/2")]
    assert fetch_trials(url, folder) == path  # without the server


def test_a_server_that_never_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(trials_module, "_PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/list.txt"
        with pytest.raises(InputError, match="can't download .*timed out"):
            fetch_trials(url, tmp_path)
    assert not list(tmp_path.iterdir())


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


def test_what_two_microphones_heard_is_no_trial():
    names = [f"{s}/{s}_{i}_mic{m}" for s in "ab" for i in "12" for m in "12"]
    targets = [t for t in make_trials(names) if t.label]
    assert len(targets) == 8
    assert all(one[:-1] != other[:-1] for _, one, other in targets)


def test_too_few_impostor_pairs_are_all_taken():
    names = [*(f"a/{i}" for i in range(15)), "b/1"]
    labels = np.array([trial.label for trial in make_trials(names)])
    assert labels.sum() == 100 and (labels == 0).sum() == 15


def test_speakers_and_files_of_a_made_list(tmp_path, monkeypatch, capsys):
    data, path = tmp_path / "data", tmp_path / "t.txt"
    add(data, *(f"{s}/{i}.wav" for s in "abcd" for i in range(2)))
    (data / "speakers.csv").write_text(
        "spk_id,split\na,train\nb,test\nc,train\nd,test\n"
    )
    (data / "b" / "empty.wav").touch()
    monkeypatch.setattr("sys.argv", ["make_trials", str(data), str(path)])
    main()
    trials = read_trials(path)
    assert {*trials.utterances} == {"b/0", "b/1", "d/0", "d/1"}
    assert "t.txt: 2 target, 2 impostor trials" in capsys.readouterr().out
    assert "empty.wav" in (tmp_path / "t.txt.skipped").read_text()
    trials = make_trial_list(data, path, test_share=1)
    assert trial_speakers(TrialList.of(trials)) == set("abcd")
    (data / "speakers.csv").unlink()
    assert len(trial_speakers(TrialList.of(make_trial_list(data, path)))) == 2
    with pytest.raises(InputError, match="4 speakers: too few to reserve 4"):
        make_trial_list(data, path, test_share=0.9)
