"""From a folder of audio to train.csv and dev.csv."""

import csv
import os

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_hyperbolic.dataio.preparation import (
    Utterance,
    prepare_corpus,
    read_csv,
    write_csv,
)
from speechbrain_hyperbolic.errors import InputError
from tests.dataio.test_audio import ANY, EXTENSIONS, noise, write
from tests.dataio.test_corpus import add


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_csv_files_are_the_corpus(tmp_path):
    names = [f"{s}/{i}.wav" for s in "abcd" for i in range(5)]
    add(tmp_path / "data", *names, seconds=1.5, rate=8000)
    prepare_corpus(tmp_path / "data", tmp_path, ["d"], [80, 20])
    train, dev = rows(tmp_path / "train.csv"), rows(tmp_path / "dev.csv")
    ids = [row["ID"] for row in train + dev]
    assert sorted(ids) == sorted(f"{s}/{i}" for s in "abc" for i in range(5))
    assert len(dev) == 3
    for row in train + dev:
        assert float(row["duration"]) == 1.5
        # at the recipe's rate, not the file's
        assert (row["start"], row["stop"]) == ("0", "24000")
        assert row["spk_id"] == row["ID"][0]


def test_split_column_and_lonely_speakers(tmp_path):
    """Test speakers are left out; every other one has training utterances."""
    names = [f"{s}/{i}.wav" for s in "abc" for i in range(4)]
    add(tmp_path, "lonely/1.wav", *names)
    (tmp_path / "speakers.csv").write_text(
        "spk_id,split\na,train\nb,test\nc,train\n"
    )
    prepare_corpus(tmp_path, tmp_path / "save", [], [10, 90])
    train, dev = (rows(tmp_path / f"save/{n}.csv") for n in ("train", "dev"))
    assert {row["spk_id"] for row in train} == {"a", "c", "lonely"}
    assert {row["spk_id"] for row in dev} == {"a", "c"}


def test_too_little_to_train(tmp_path):
    add(tmp_path, "a/1.wav", "b/1.wav")
    with pytest.raises(InputError, match="has one utterance"):
        prepare_corpus(tmp_path, tmp_path / "save", [])
    with pytest.raises(InputError, match="no utterances left to train on"):
        prepare_corpus(tmp_path, tmp_path / "save", ["a", "b"])
    with pytest.raises(InputError, match="check_audio is 'listen'"):
        prepare_corpus(tmp_path, tmp_path / "save", [], check_audio="listen")
    with pytest.raises(InputError, match="train.csv is missing"):
        read_csv(tmp_path / "save" / "train.csv")


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

    prepare_corpus(data, tmp_path, [], check_audio=check_audio)
    kept = rows(tmp_path / "train.csv") + rows(tmp_path / "dev.csv")
    kept = {row["ID"] for row in kept} - {"a/0", "a/1", "a/2", "b/0"}
    left_out = {"a/empty"}
    if check_audio == "decode" or extension != ".flac":
        left_out.add("a/truncated")  # a flac header doesn't tell
    if check_audio == "decode":
        left_out |= {"a/silent", "a/nan"}
    assert kept == {"a/truncated", "a/silent", "a/nan"} - left_out
    named = (tmp_path / "skipped.txt").read_text().splitlines()
    assert len(named) == len(left_out)
    for name, line in zip(sorted(left_out), named, strict=True):
        assert f"/{name}." in line and f"left out: {line}" in caplog.text


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
    kept = {r["spk_id"] for r in rows(tmp_path / "train.csv")}
    assert kept == {"b", "c"}
    add(tmp_path / "data", "d/1.wav", "d/2.wav")
    prepare_corpus(tmp_path / "data", tmp_path, ["a"], [50, 50])
    kept = {r["spk_id"] for r in rows(tmp_path / "train.csv")}
    assert kept == {"b", "c", "d"}


HEADER = "ID,duration,wav,start,stop,spk_id\n"


def test_what_the_stock_preparation_writes(tmp_path):
    path = tmp_path / "train.csv"
    row = Utterance("a--1_0.0_3.0", 3.0, "$data_root/wav/1.wav", 0, 48000, "a")
    write_csv([row], path)
    assert path.read_text().startswith(HEADER)
    expected = row._replace(wav="/data/wav/1.wav")._asdict()
    assert read_csv(path, "/data") == {expected.pop("id"): expected}


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no utterances"),
        ("a/1,0.1,a.wav,0,800,\n", "line 2: spk_id is ''"),
        ("a/1,0.1,a.wav,1e3,800,a\n", "line 2: .*integers start < stop"),
        ("a/1,0.1,a.wav,800,800,a\n", "line 2: .*integers start < stop"),
        (2 * "a/1,0.1,a.wav,0,800,a\n", "line 3: ID a/1 is also on an earl"),
    ],
)
def test_bad_csv(tmp_path, text, message):
    path = tmp_path / "train.csv"
    path.write_text(HEADER + text)
    with pytest.raises(InputError, match=message) as caught:
        read_csv(path, "")
    assert str(path) in str(caught.value) and str(caught.value).isprintable()


@given(
    st.lists(
        st.lists(
            st.sampled_from(["0", "1", "nan", "9" * 5000, "a", '"'])
            | st.text(max_size=5),
            min_size=5,
            max_size=7,
        ),
        max_size=3,
    )
)
@ANY
def test_any_csv_is_read_or_refused(tmp_path, fields):
    text = HEADER + "".join(",".join(row) + "\n" for row in fields)
    path = tmp_path / "train.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        found = read_csv(path, "")
    except InputError as error:
        assert str(error).isprintable()
    else:
        for row in found.values():
            assert 0 <= row["start"] < row["stop"]
