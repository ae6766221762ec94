"""Trial lists in every form; what their columns are taken for."""

import pytest

from speechbrain_hyperbolic.dataio.corpus import read_corpus
from speechbrain_hyperbolic.dataio.trials import (
    Trial,
    TrialList,
    read_trials,
    write_trials,
)
from speechbrain_hyperbolic.errors import InputError
from tests.dataio.test_corpus import add

TRIALS = [Trial(1, "a/s/1", "a/s/2"), Trial(0, "a/s/1", "b/s/1")]
LABEL_FIRST, LABEL_LAST = "label enroll test", "enroll test label"


def trial_list(form, target, nontarget, separator=" ", extension=".wav"):
    lines = []
    for label, enroll, test in TRIALS:
        fields = {
            "label": target if label else nontarget,
            "enroll": enroll + extension,
            "test": test + extension,
            "side": "a",
            "score": "0.25",
        }
        lines.append(separator.join(fields[role] for role in form.split()))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("separator", [" ", "\t", ",", ", ", ";"])
@pytest.mark.parametrize(
    "labels",
    [
        *(("1", "0"), ("1.0", "0.0"), ("1", "-1"), ("TRUE", "FALSE")),
        *(("tgt", "imp"), ("target", "nontarget"), ("Target", "impostor")),
    ],
)
@pytest.mark.parametrize(
    "form",
    [
        LABEL_FIRST,
        LABEL_LAST,
        "enroll test label score",
        "enroll test side label",
    ],
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
        "# a comment\n\n" + LIST,
        "modelid\tsegmentid\tside\ttargettype\n"
        + trial_list("enroll test side label", "target", "nontarget", "\t"),
        "Enrol,Test,Is_Target,note\n"
        + trial_list(LABEL_LAST, "1", "0", ",").replace("\n", ",x\n"),
        'enroll,test,label\n"a/s/1","a/s/2",1\n"a/s/1","b/s/1",0\n',
        LIST.replace("a/s", "./a/s").replace("b/s", ".//b/s"),
        LIST.replace("/", "\\"),
        LIST.replace(" a/", " wav/a/").replace(" b/", " wav/b/"),
        LIST.replace(" a/", " VoxCeleb/wav/a/").replace(" b/", " wav/b/"),
        LIST.replace(" a/", " CORPUS/a/").replace(" b/", " CORPUS/b/"),
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
    "text, trials",
    [
        ("a/1 a/2\nb/1 a/2\n", [(-1, "a/1", "a/2"), (-1, "b/1", "a/2")]),
        ("enroll,test\na/1,a/2\n", [(-1, "a/1", "a/2")]),
        ("a/1 a/2 a\n", [(-1, "a/1", "a/2")]),  # NIST, without its key
        ("a/1 a/2 0.25\n", [(-1, "a/1", "a/2")]),
    ],
)
def test_blind_lists(tmp_path, text, trials, caplog):
    caplog.set_level("INFO")
    (tmp_path / "t.txt").write_text(text)
    found = read_trials(tmp_path / "t.txt")
    assert list(found) == trials and not found.labeled
    assert "read as 'enroll test" in caplog.text


def test_models_named_by_numbers(tmp_path):
    (tmp_path / "m.txt").write_text("0 a/1 a/2\n1 b/1\n")
    text = "0 a/3.wav 1\n1 a/3.wav 0\n0 b/2.wav 0\n1 b/2.wav 1\n"
    (tmp_path / "t.txt").write_text(text)
    trials = read_trials(tmp_path / "t.txt", tmp_path / "m.txt")
    assert trials.columns == ("enroll", "test", "label")
    assert [t.label for t in trials] == [1, 0, 0, 1]
    (tmp_path / "t.txt").write_text("0 3 1\n1 4 0\n")
    (tmp_path / "m.txt").write_text("0 a/1 a/2\n1 b/1\n")
    trials = read_trials(tmp_path / "t.txt", tmp_path / "m.txt")
    assert [t.test for t in trials] == ["3", "4"]


def test_leading_zeros_and_what_is_missing(tmp_path, caplog):
    add(tmp_path, "0001/1.wav", "0002/1.wav")
    path = tmp_path / "t.txt"
    path.write_text("1 1/1.wav 0001/1.wav\n0 0001/1 2/9.wav\n")
    trials = read_trials(path, corpus=read_corpus(tmp_path))
    assert trials.utterances == ["0001/1", "0002/9"]
    assert trials.missing == ("0002/9",) and "such as 0002/9" in caplog.text


GOOD = "1 a/1 a/2\n0 a/1 b/1\n"


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "no such trial list"),
        ("\n", "has no trials"),
        ("enroll,test,label\n", "has no trials"),
        (GOOD + "-1 a/1 c/1\n", "line 3: label -1 after 0"),
        (GOOD + "1 a/1", "line 3: '1 a/1' is no trial, exp"),
        (GOOD + "2 a/1 b/1", "line 3: '2 a/1 b/1' is no trial, exp"),
        (GOOD + "a/1 b/1 1", "line 3: 'a/1 b/1 1' is no trial, exp"),
        (GOOD + "1 a/1 b/1 0.5", "line 3: '1 a/1 b/1 0.5' is no trial, exp"),
        (GOOD + "0 a/1 ../x/1", "line 3: ../x/1 leaves the corpus"),
        (GOOD + "0 a/1 a/../../x", "line 3: .* leaves the corpus"),
        (GOOD + "0 a/1 ../\x1b[2J", "line 3: .* leaves the corpus"),
        (GOOD + "0 a/1 /elsewhere/a/1.wav", "line 3: .* leaves the corpus"),
        (GOOD + "0 a/1 C:\\data\\a\\1.wav", "line 3: .* leaves the corpus"),
    ],
)
def test_bad_lists(tmp_path, text, message):
    if text is not None:
        (tmp_path / "t.txt").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_trials(tmp_path / "t.txt")
    assert str(error.value).isprintable()


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
