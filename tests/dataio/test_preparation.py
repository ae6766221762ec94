"""From a folder of audio to train.csv and dev.csv."""

import os

import numpy as np
import pytest
import soundfile

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.preparation import (
    Utterance,
    prepare_corpus,
    read_csv,
    write_csv,
)
from speechbrain_hyperbolic.errors import InputError
from tests.dataio.test_audio import EXTENSIONS, noise, write
from tests.dataio.test_corpus import add


def prepared(folder):
    """The rows of train.csv and of dev.csv."""
    return [read_csv(folder / f"{name}.csv") for name in ("train", "dev")]


def speakers(table):
    return {row["spk_id"] for row in table.values()}


def test_csv_files_are_the_corpus(tmp_path):
    names = [f"{s}/{i}.wav" for s in "abcd" for i in range(5)]
    add(tmp_path / "data", *names, seconds=1.5, rate=8000)
    prepare_corpus(tmp_path / "data", tmp_path, ["d"], [80, 20])
    train, dev = prepared(tmp_path)
    expected = {f"{s}/{i}" for s in "abc" for i in range(5)}
    assert set(train | dev) == expected and (len(train), len(dev)) == (12, 3)
    for id, row in (train | dev).items():
        assert row["duration"] == 1.5
        # at the recipe's rate, not the file's
        assert (row["start"], row["stop"]) == (0, 24000)
        assert row["spk_id"] == id[0]


def test_split_column_and_lonely_speakers(tmp_path):
    """Test speakers are left out; every other one has training utterances."""
    names = [f"{s}/{i}.wav" for s in "abc" for i in range(4)]
    add(tmp_path, "lonely/1.wav", *names)
    (tmp_path / "speakers.csv").write_text(
        "spk_id,split\na,train\nb,test\nc,train\n"
    )
    prepare_corpus(tmp_path, tmp_path / "save", [], [10, 90])
    train, dev = prepared(tmp_path / "save")
    assert speakers(train) == {"a", "c", "lonely"}
    assert speakers(dev) == {"a", "c"}


def test_too_little_to_train(tmp_path):
    add(tmp_path, "a/1.wav", "b/1.wav")
    with pytest.raises(InputError, match="has one utterance"):
        prepare_corpus(tmp_path, tmp_path / "save", [])
    with pytest.raises(InputError, match="no utterances left to train on"):
        prepare_corpus(tmp_path, tmp_path / "save", ["a", "b"])
    with pytest.raises(InputError, match="check_audio is 'listen'"):
        prepare_corpus(tmp_path, tmp_path / "save", [], check_audio="listen")


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("check_audio", ["header", "decode"])
def test_unusable_files_are_left_out_and_named(
    tmp_path, extension, check_audio, caplog
):
    data = tmp_path / "data"
    add(data, *(f"a/{i}.wav" for i in range(3)), "b/0.wav")
    truncated = write(data / f"a/truncated{extension}", noise(5.0), 16000)
    os.truncate(truncated, truncated.stat().st_size // 2)
    (data / f"a/empty{extension}").touch()
    write(data / f"a/silent{extension}", 0 * noise(5.0), 16000)
    nan = np.full(16000, np.nan, np.float32)
    soundfile.write(data / "a/nan.wav", nan, 16000, subtype="FLOAT")
    (data / "a/notes.txt").touch()

    prepare_corpus(data, tmp_path, [], check_audio=check_audio)
    train, dev = prepared(tmp_path)
    kept = set(train | dev) - {"a/0", "a/1", "a/2", "b/0"}
    left_out = {"a/empty"}
    if check_audio == "decode" or extension != ".flac":
        left_out.add("a/truncated")  # a flac header doesn't tell
    if check_audio == "decode":
        left_out |= {"a/silent", "a/nan"}
    assert kept == {"a/truncated", "a/silent", "a/nan"} - left_out
    named = (tmp_path / "skipped.txt").read_text().splitlines()
    assert f"left out {len(named)} files (" in caplog.text
    assert "a/notes.txt is no audio" in named.pop()
    for name, line in zip(sorted(left_out), named, strict=True):
        assert f"/{name}." in line


def test_speech_only(tmp_path, speechocean):
    """Each file has a second of nothing, a sentence and two of nothing."""
    for speaker in "ab":
        add(tmp_path / "data", f"{speaker}/tone.wav", seconds=3)
        for number, path in enumerate(
            sorted(speechocean.glob("audio/*/*.ogg"))[:2]
        ):
            voice = audio.load(path)
            voice = np.pad(voice, (16000, 32000))
            write(tmp_path / f"data/{speaker}/{number}.wav", voice, 16000)
    prepare_corpus(tmp_path / "data", tmp_path, [], [50, 50], 8000, vad=True)
    train, dev = prepared(tmp_path)
    assert set(train | dev) == {"a/0", "a/1", "b/0", "b/1"}
    for row in (train | dev).values():
        whole = audio.info(row["wav"]).frames / 2
        assert 4000 < row["start"] < 16000
        assert whole - 28000 < row["stop"] < whole - 12000
        assert row["duration"] == (row["stop"] - row["start"]) / 8000
    skipped = (tmp_path / "skipped.txt").read_text().splitlines()
    assert len(skipped) == 2 and "a/tone.wav no speech" in skipped[0]


def test_preparation_is_not_repeated(tmp_path, caplog):
    add(tmp_path / "data", *(f"{s}/{i}.wav" for s in "abc" for i in "12"))
    arguments = dict(test_speakers=["b"], split_ratio=[50, 50])
    prepare_corpus(tmp_path / "data", tmp_path, **arguments)
    first = (tmp_path / "train.csv").stat().st_mtime_ns
    caplog.set_level("INFO")
    caplog.clear()
    prepare_corpus(tmp_path / "data", tmp_path, **arguments)
    assert (tmp_path / "train.csv").stat().st_mtime_ns == first
    assert "Already prepared" in caplog.text
    assert "of 2 speakers: 4 utterances, 0.00 hours, the sh" in caplog.text
    assert "prepared again" not in caplog.text
    prepare_corpus(tmp_path / "data", tmp_path, ["a"], [50, 50])
    assert "prepared again" in caplog.text
    assert speakers(prepared(tmp_path)[0]) == {"b", "c"}
    add(tmp_path / "data", "d/1.wav", "d/2.wav")
    prepare_corpus(tmp_path / "data", tmp_path, ["a"], [50, 50])
    assert speakers(prepared(tmp_path)[0]) == {"b", "c", "d"}


def test_what_the_stock_preparation_writes(tmp_path):
    path = tmp_path / "train.csv"
    row = Utterance("a--1_0.0_3.0", 3.0, "$data_root/wav/1.wav", 0, 48000, "a")
    write_csv([row], path)
    assert path.read_text().startswith("ID,duration,wav,start,stop,spk_id\n")
    expected = row._replace(wav="/data/wav/1.wav")._asdict()
    assert read_csv(path, "/data") == {expected.pop("id"): expected}
