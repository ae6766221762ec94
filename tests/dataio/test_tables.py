"""Tables that are wrong, damaged or hostile are refused in one line."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_hyperbolic.dataio.corpus import (
    read_corpus,
    read_speaker_table,
)
from speechbrain_hyperbolic.dataio.preparation import read_csv
from speechbrain_hyperbolic.dataio.scores import read_score_table, write_scores
from speechbrain_hyperbolic.dataio.trials import (
    read_enrollment,
    read_trials,
    write_trials,
)
from speechbrain_hyperbolic.errors import InputError
from tests.dataio.test_audio import ANY
from tests.dataio.test_corpus import add


def read_splits(path):
    add(path.parent, "a/1.wav")
    return read_corpus(path.parent).splits()


def read_kaldi(path):
    path.with_name("utt2spk").write_text("u1 a\n")
    path.with_name("wav.scp").touch()
    return read_corpus(path.parent)


READERS = {
    "trials.txt": read_trials,
    "enroll.map": read_enrollment,
    "scores.txt": read_score_table,
    "train.csv": read_csv,
    "speakers.csv": read_splits,
    "wav.scp": read_kaldi,
    "spk2utt": read_kaldi,
    "list.csv": read_corpus,
    "list.json": read_corpus,
}
GOOD = "1 a/1 a/2\n0 a/1 b/1\n"
HEADER = "ID,duration,wav,start,stop,spk_id\n"
WRONG = {
    "trials.txt": [
        (None, "no such trial list"),
        ("\n", "has no trials"),
        ("enroll,test,label\n", "has no trials"),
        (GOOD + "-1 a/1 c/1\n", "line 3: label -1 after 0"),
        (GOOD + "a/1 b/1 1", "line 3: 'a/1 b/1 1' is no trial, exp"),
        (GOOD + "1 a/1 b/1 0.5", "line 3: '1 a/1 b/1 0.5' is no trial, exp"),
        (GOOD + "0 a/1 a/2", "line 3: line 1 has the same trial"),
        (GOOD + "0 a/1 a/../../x", "line 3: .* leaves the corpus"),
        (GOOD + "0 a/1 ../\x1b[2J", "line 3: .* leaves the corpus"),
        (GOOD + "0 a/1 C:\\data\\a\\1.wav", "line 3: .* leaves the corpus"),
    ],
    "enroll.map": [
        ("a a/1\nb\n", "line 2: expected 'model utterance ...', .* for b"),
        ("a a/1 a/1.wav\n", "line 1: .*no utterance twice, for a"),
        ("a a/1\na a/2\n", "line 2: .*one line for each model .* for a"),
        ("a ../x/1\n", "line 1: ../x/1 leaves the corpus"),
        ("\x1b[2J\n", r"line 1: .* for '\\x1b\[2J'"),
        ("\n", "is empty"),
    ],
    "scores.txt": [
        (None, "no such score file"),
        ("\n", "has no scores"),
        ("a/1 a/2 1 0.5\na/1 b/1 0 nan\n", "line 2: 'a/1 b/1 0 nan' is not a"),
        ("a/1\x0ca/2 1 0.5\n\na/1 b/1 1\n", "line 3: 'a/1 b/1 1' is not a"),
    ],
    "train.csv": [
        (None, "train.csv is missing"),
        (HEADER, "no utterances"),
        (HEADER + "a/1,0.1,a.wav,0,800,\n", "line 2: spk_id is ''"),
        (HEADER + "a/1,0.1,a.wav,1e3,800,a\n", "line 2: .*start < stop"),
        (HEADER + "a/1,0.1,a.wav,800,800,a\n", "line 2: .*start < stop"),
        (HEADER + 2 * "a/1,0.1,a.wav,0,800,a\n", "line 3: ID a/1 is also on"),
    ],
    "speakers.csv": [
        ("name,sex\na,f\n", "no column spk_id"),
        ("spk_id,sex,sex\na,f,m\n", "has the column sex twice"),
        ("spk_id,sex\na,f,x\n", "line 2: expected 2 fields"),
        ("spk_id,sex\na,f\n,m\n", "line 3: spk_id is ''"),
        ("spk_id,sex\na\x1b[2J,f\n", "line 2: spk_id is"),
        ("spk_id,split\na,train\na,test\n", "line 3: a has a second"),
        ("spk_id,split\na,later\n", "split of a is 'later', expected"),
        ("spk_id\nZo\u0081\n", "can't be read as CSV"),
    ],
    "wav.scp": [
        ("u1 sox a.wav -t wav - |\n", "a command, which is never"),
        ("u1 a.wav\nu1 b.wav\n", "line 2: .* each name once, not 'u1 b.wav'"),
    ],
    "spk2utt": [("a u1\nb u1\n", "name two speakers of u1: correct one")],
    "list.csv": [
        ("path,who\na.wav,a\n", "has no column spk_id"),
        ("path,speaker\na.wav,NaN\n", "line 2: expected a path and a"),
        (
            "wav,spk_id,start,stop\na.wav,a,0,9\n",
            "duration.* in place of start",
        ),
        ("path,speaker,offset\na.wav,a,x\n", "offset is 'x'"),
        ("path,speaker,split\n1,a,train\n2,a,test\n", "one split"),
    ],
    "list.json": [
        ('{"audio_filepath": "a.wav"}\n', "line 1: expected a path"),
        ('{"audio_filepath": 1\n', "line 1 is no JSON"),
    ],
}


@pytest.mark.parametrize(
    "name, text, message",
    [(name, *case) for name, cases in WRONG.items() for case in cases],
)
def test_wrong_tables(tmp_path, name, text, message):
    path = tmp_path / name
    if text is not None:
        path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=message) as caught:
        READERS[name](path)
    assert str(tmp_path) in str(caught.value)
    assert str(caught.value).isprintable()


def test_scores_of_the_stock_script(tmp_path):
    path = tmp_path / "scores.txt"
    text = "\ufeffa/s/1 b/s/2 0 -0.250000\na/s/1 a/é/3 1 1.000000\n"
    path.write_text(text, encoding="utf-8")
    enroll, test, labels, scores = read_score_table(path)
    assert enroll == ["a/s/1", "a/s/1"] and test == ["b/s/2", "a/é/3"]
    assert labels.tolist() == [0, 1] and labels.dtype == int
    assert scores.tolist() == [-0.25, 1.0] and scores.dtype == np.float64


def rows_of(*words):
    return st.lists(st.sampled_from(words) | st.text(max_size=4), max_size=7)


TRIAL = rows_of("1", "0", "2", "target", "a/1", "a/1.wav", "../c", "/", ".wav")
SCORE = rows_of("0", "1", "nan", "1e999", "a/1", "0.5", " ", "\x0c")
FOUND = st.just("a/1"), st.just("é/2"), st.sampled_from("01")
# Of each kind: the header, what separates the fields, the rows
ROWS = {
    "trials.txt": ("", " ", TRIAL),
    "enroll.map": ("", " ", TRIAL),
    "scores.txt": ("", " ", SCORE | st.tuples(*FOUND, st.floats().map(repr))),
    "train.csv": (HEADER, ",", rows_of("0", "1", "nan", "9" * 5000, "a", '"')),
    "speakers.csv": ("spk_id,split\n", ",", rows_of("a", "test", '"')),
}


@pytest.mark.parametrize("name", ROWS)
@given(data=st.data())
@ANY
def test_any_table_is_read_or_refused(tmp_path, name, data):
    """What is read is the same when it is written and read again."""
    path, again = tmp_path / name, tmp_path / "new folder" / name
    header, separator, rows = ROWS[name]
    lines = data.draw(st.lists(rows, max_size=4))
    text = header + "".join(separator.join(line) + "\n" for line in lines)
    path.write_bytes(text.encode() + data.draw(st.binary(max_size=9)))
    read = read_speaker_table if name == "speakers.csv" else READERS[name]
    try:
        found = read(path)
    except InputError as error:
        assert str(path) in str(error) and str(error).isprintable()
        return
    if name == "trials.txt":
        assert set(found.labels.tolist()) <= {-1, 0, 1}
        assert not any(".." in u.split("/") for u in found.utterances)
        write_trials(found, again)
        labels = [trial.label for trial in read_trials(again)]
        assert labels == [trial.label for trial in found]
    elif name == "scores.txt":
        assert np.isfinite(found.scores).all()
        write_scores(again, *found)
        for column, same in zip(found, read_score_table(again), strict=True):
            assert np.array_equal(column, same)
    elif name == "train.csv":
        for row in found.values():
            assert 0 <= row["start"] < row["stop"]
    elif name == "speakers.csv":
        assert all(speaker.isprintable() and speaker for speaker in found)
