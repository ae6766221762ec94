"""Finding the audio of a corpus, and its table of speakers."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_hyperbolic.dataio.corpus import (
    find_audio,
    read_corpus,
    read_speaker_table,
    speaker_of,
)
from speechbrain_hyperbolic.errors import InputError
from tests.dataio.test_audio import ANY, tone, write


def add(folder, *utterances, seconds=1.0, rate=16000):
    for utterance in utterances:
        path = folder / utterance
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, tone(seconds, rate), rate)


@pytest.mark.parametrize("root", ["", "wav", "aac", "audio", "data"])
def test_layouts(tmp_path, root, caplog):
    files = ["a/1.wav", "a/s1/2.flac", "b/4.m4a", "b/s/3.ogg"]
    add(tmp_path / root, *files)
    (tmp_path / root / "a" / "notes.txt").write_text("not audio")
    expected = {f.split(".")[0]: str(tmp_path / root / f) for f in files}
    caplog.set_level("INFO")
    found = read_corpus(tmp_path).paths()
    assert found == expected and list(found) == list(expected)
    assert "1 .txt" in caplog.text
    assert find_audio(tmp_path, reversed(expected)) == expected


def test_audio_that_is_missing(tmp_path):
    add(tmp_path, "a/1.WAV", "a/2.Flac")
    assert list(read_corpus(tmp_path).paths()) == ["a/1", "a/2"]
    for name in ("a/1", "a/1.m4a"):  # the extension does not matter
        assert find_audio(tmp_path, [name]) == {name: str(tmp_path / "a/1.WAV")}
    missing = ["a/3", "a/1/1", "b/1", "a", "3", "b/a/1", "a\0/1"]
    assert find_audio(tmp_path, missing) == dict.fromkeys(missing)


def test_several_folders(tmp_path):
    """The first one that has an utterance is used."""
    add(tmp_path / "one" / "wav", "a/1.flac", "a/1.ogg", "b/s/2.wav")
    add(tmp_path / "two", "a/1.wav", "b/s/2.wav", "b/s/3.wav")
    both = f"{tmp_path / 'one'}, {tmp_path / 'two'}"
    assert find_audio(both, ["b/s/3", "a/1", "b/s/2"]) == {
        "b/s/3": str(tmp_path / "two/b/s/3.wav"),
        "a/1": str(tmp_path / "one/wav/a/1.flac"),
        "b/s/2": str(tmp_path / "one/wav/b/s/2.wav"),
    }
    with pytest.raises(InputError, match="are both utterance a/1: rename"):
        read_corpus(tmp_path / "one").paths()


def test_cnceleb(tmp_path):
    """Speakers are below data, the trials' audio below eval."""
    training = ["id00000/singing-01-001", "id00800/singing-01-002"]
    trials = ["enroll/id00800-enroll", "test/id00800-singing-01-002"]
    add(tmp_path / "data", *(f"{name}.flac" for name in training))
    add(tmp_path / "eval", *(f"{name}.flac" for name in trials))
    assert list(read_corpus(tmp_path).paths()) == training
    assert find_audio(tmp_path, trials + training) == {
        **{t: str(tmp_path / f"eval/{t}.flac") for t in trials},
        **{t: str(tmp_path / f"data/{t}.flac") for t in training},
    }


@pytest.mark.parametrize(
    "utterance, speaker",
    [
        ("id10270/5r0dWxy17C8/00001", "id10270"),
        ("test/id00800-singing-01-002", "id00800"),
        ("enroll/id00800-enroll", "id00800"),
        ("id00800-enroll", "id00800"),
        ("test/session/take-1", "test"),
        ("enroll-me/take-1", "enroll-me"),
    ],
)
def test_speakers(utterance, speaker):
    assert speaker_of(utterance) == speaker


def test_bad_folders_and_names(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        read_corpus(tmp_path / "missing").paths()
    with pytest.raises(InputError, match="has no audio"):
        read_corpus(tmp_path).paths()
    add(tmp_path, "a/1.wav")
    for name, shown in ((b"my 1", "my 1"), (b"\xff", "udcff")):
        folder = os.fsencode(tmp_path / "a/")
        (path,) = os.listdir(folder)
        os.rename(folder + b"/" + path, folder + b"/" + name + b".wav")
        with pytest.raises(InputError, match=f"{shown}.*: rename it"):
            read_corpus(tmp_path).paths()


def test_results_below_the_corpus_are_left_out(tmp_path, monkeypatch):
    add(tmp_path, "a/1.wav", "results/run/generated/noise.wav")
    monkeypatch.chdir(tmp_path)
    assert list(read_corpus(".", outputs="results/run/save").paths()) == ["a/1"]


def test_speakers_csv_of_a_spreadsheet(tmp_path):
    """A byte order mark, capitals and spaces are accepted."""
    text = 'spk_id,split,note\na,Train,"one\ntwo"\nb, TEST,\n,,\nc,,\n'
    (tmp_path / "speakers.csv").write_text(text, encoding="utf-8-sig")
    add(tmp_path, "a/1.wav", "b/1.wav", "c/1.wav")
    corpus = read_corpus(tmp_path)
    assert corpus.splits() == {"a": "train", "b": "test"}
    assert corpus.labels["a"]["note"] == "one\ntwo"


@pytest.mark.parametrize(
    "content, message",
    [
        ("name,sex\na,f\n", "no column spk_id"),
        ("spk_id,sex,sex\na,f,m\n", "has the column sex twice"),
        ("spk_id,sex\na,f,x\n", "line 2: expected 2 fields"),
        ("spk_id,sex\na,f\n,m\n", "line 3: spk_id is ''"),
        ("spk_id,sex\na\x1b[2J,f\n", "line 2: spk_id is"),
        ("spk_id,split\na,train\na,test\n", "line 3: a has a second"),
        ("spk_id,split\na,later\n", "split of a is 'later', expected"),
        ("spk_id\nZo\u0081\n", "can't be read as CSV"),
    ],
)
def test_bad_speakers_csv(tmp_path, content, message):
    (tmp_path / "speakers.csv").write_text(content, encoding="latin-1")
    add(tmp_path, "a/1.wav")
    with pytest.raises(InputError, match=message) as caught:
        read_corpus(tmp_path).splits()
    assert str(tmp_path) in str(caught.value)
    assert str(caught.value).isprintable()


@given(st.sampled_from([b"spk_id,split\n", b""]), st.binary(max_size=60))
@ANY
def test_any_speakers_csv_is_read_or_refused(tmp_path, header, content):
    path = tmp_path / "speakers.csv"
    path.write_bytes(header + content)
    try:
        speakers = read_speaker_table(path)
    except InputError as error:
        assert str(error).isprintable()
    else:
        assert all(name.isprintable() and name for name in speakers)
