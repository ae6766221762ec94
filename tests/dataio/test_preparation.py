"""From a folder of audio to train.csv and dev.csv."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speechbrain_hyperbolic.dataio.corpus import list_audio, read_speakers
from speechbrain_hyperbolic.dataio.preparation import (
    Utterance,
    prepare_corpus,
    read_csv,
    read_utterances,
    write_csv,
)
from speechbrain_hyperbolic.errors import InputError
from tests.dataio.test_audio import EXTENSIONS, noise, write
from tests.dataio.test_corpus import add


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_csv_holds_the_corpus_once(tmp_path):
    names = [f"{s}/{i}.wav" for s in "abcd" for i in range(5)]
    add(tmp_path / "data", *names, seconds=1.5, rate=8000)
    prepare_corpus(tmp_path / "data", tmp_path, ["d"], [80, 20])
    train, dev = rows(tmp_path / "train.csv"), rows(tmp_path / "dev.csv")
    ids = [row["ID"] for row in train + dev]
    assert sorted(ids) == sorted(f"{s}/{i}" for s in "abc" for i in range(5))
    assert len(dev) == 3
    for row in train + dev:
        assert float(row["duration"]) == 1.5
        # counted at the recipe's rate, not the file's
        assert (row["start"], row["stop"]) == ("0", "24000")
        assert row["spk_id"] == row["ID"][0]
    found = read_csv(tmp_path / "train.csv", "")
    assert list(found) == [row["ID"] for row in train]


def test_split_column_keeps_speakers_out(tmp_path):
    add(tmp_path, *(f"{s}/{i}.wav" for s in "abc" for i in range(2)))
    (tmp_path / "speakers.csv").write_text(
        "spk_id,split\na,train\nb,test\nc,train\n"
    )
    prepare_corpus(tmp_path, tmp_path / "save", [])
    spoken = rows(tmp_path / "save" / "train.csv")
    assert {row["spk_id"] for row in spoken} == {"a", "c"}


def test_every_speaker_trains(tmp_path, caplog):
    add(tmp_path, "lonely/1.wav", *(f"b/{i}.wav" for i in range(4)))
    prepare_corpus(tmp_path, tmp_path / "save", [], [10, 90])
    train = {row["spk_id"] for row in rows(tmp_path / "save" / "train.csv")}
    dev = {row["spk_id"] for row in rows(tmp_path / "save" / "dev.csv")}
    assert train == {"lonely", "b"} and dev == {"b"}
    assert "1 speaker(s) have only one utterance, e.g. lonely" in caplog.text


def test_too_little_to_train(tmp_path):
    add(tmp_path, "a/1.wav", "b/1.wav")
    with pytest.raises(InputError, match="has one utterance"):
        prepare_corpus(tmp_path, tmp_path / "save", [])
    with pytest.raises(InputError, match="leaves no training utterance"):
        prepare_corpus(tmp_path, tmp_path / "save", ["a", "b"])
    for ratio in ([0, 0], [100], [90, -1]):
        with pytest.raises(InputError, match="split_ratio is .* expected two"):
            prepare_corpus(tmp_path, tmp_path / "save", [], ratio)
    with pytest.raises(InputError, match="check_audio is 'listen'"):
        prepare_corpus(tmp_path, tmp_path / "save", [], check_audio="listen")
    prepare_corpus(tmp_path, tmp_path / "save", [], skip_prep=True)
    with pytest.raises(InputError, match="train.csv is missing"):
        read_csv(tmp_path / "save" / "train.csv")


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("check_audio", ["header", "decode"])
def test_unusable_files_are_left_out_and_named(
    tmp_path, extension, check_audio, caplog
):
    data = tmp_path / "data"
    add(data, *(f"a/{i}.wav" for i in range(3)))
    truncated = write(data / f"a/truncated{extension}", noise(5.0), 16000)
    os.truncate(truncated, truncated.stat().st_size // 2)
    (data / f"a/empty{extension}").touch()
    (data / "a/pipe.wav").parent.mkdir(exist_ok=True)
    os.mkfifo(data / "a/pipe.wav")
    write(data / f"a/silent{extension}", 0 * noise(5.0), 16000)
    nan = np.full(16000, np.nan, np.float32)
    soundfile.write(data / "a/nan.wav", nan, 16000, subtype="FLOAT")

    prepare_corpus(data, tmp_path, [], check_audio=check_audio)
    kept = rows(tmp_path / "train.csv") + rows(tmp_path / "dev.csv")
    kept = {row["ID"] for row in kept} - {"a/0", "a/1", "a/2"}
    left_out = {"a/empty", "a/pipe"}
    if check_audio == "decode" or extension != ".flac":
        left_out.add("a/truncated")  # of flac the header does not tell
    if check_audio == "decode":
        left_out |= {"a/silent", "a/nan"}
    assert kept == {"a/truncated", "a/silent", "a/nan"} - left_out
    named = (tmp_path / "skipped.txt").read_text().splitlines()
    assert len(named) == len(left_out)
    for name, line in zip(sorted(left_out), named, strict=True):
        assert f"/{name}." in line and f"left out: {line}" in caplog.text


def test_more_unusable_files_than_are_shown(tmp_path, caplog):
    add(tmp_path, "a/1.wav", "a/2.wav")
    for number in range(600):
        (tmp_path / f"a/empty{number}.flac").touch()
    prepare_corpus(tmp_path, tmp_path / "save", [])
    assert caplog.text.count("left out: ") == 10
    assert "left out 600 files in all, see" in caplog.text
    skipped = (tmp_path / "save" / "skipped.txt").read_text()
    assert len(skipped.splitlines()) == 600


# ------------------------------------------------- again, and where it was


def spoil(path):
    """Other content of the same size and time, which only reading notices."""
    status = path.stat()
    path.unlink()  # hard links to it stay whole
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


PREPARE_AND_DIE = """
import os, pathlib, signal, sys, threading, time
from speechbrain_hyperbolic.dataio.preparation import prepare_corpus

data, save = map(pathlib.Path, sys.argv[1:])

def die():
    journal = save / "prepare.journal"
    while not journal.is_file() or journal.stat().st_size == 0:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=die, daemon=True).start()
prepare_corpus(data, save, [], check_audio="decode")
"""


def test_a_killed_preparation_resumes(tmp_path, caplog):
    data, killed, whole = (tmp_path / n for n in ("data", "killed", "whole"))
    add(data, "s0/0.wav", seconds=0.1)
    for number in range(1, 3000):
        path = data / f"s{number % 8}" / f"{number}.wav"
        path.parent.mkdir(exist_ok=True)
        os.link(data / "s0/0.wav", path)
    prepare_corpus(data, whole, [], check_audio="decode")

    child = [sys.executable, "-c", PREPARE_AND_DIE, data, killed]
    assert subprocess.run(child).returncode == -signal.SIGKILL
    assert os.listdir(killed) == ["prepare.journal"]
    journal = (killed / "prepare.journal").read_text().splitlines()
    rows = [row for line in journal for _, row in json.loads(line)]
    assert 0 < len(rows) < 3000
    for row in rows:
        spoil(pathlib.Path(row[2]))
    caplog.set_level("INFO")
    prepare_corpus(data, killed, [], check_audio="decode")
    assert f"{len(rows)} files were measured before" in caplog.text
    for name in ("train.csv", "dev.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    left = {"train.csv", "dev.csv", "prepare.json"}
    assert set(os.listdir(killed)) == left


def test_a_torn_journal(tmp_path):
    """A kill cuts it anywhere."""
    add(tmp_path, "a/1.wav", "a/2.wav", "b/1.wav")
    paths, journal = list_audio(tmp_path), tmp_path / "journal"
    expected = read_utterances(paths, journal=journal)
    whole = journal.read_bytes()
    for length in range(0, len(whole), 5):
        journal.write_bytes(whole[:length])
        assert read_utterances(paths, journal=journal) == expected
    journal.write_bytes(b"\0\xff\n" + whole)
    assert read_utterances(paths, journal=journal) == expected


def test_what_has_changed_is_measured_again(tmp_path):
    add(tmp_path, "a/0.wav", "a/1.wav", "a/2.wav", "a/3.wav")
    paths, journal = list_audio(tmp_path), tmp_path / "journal"
    read_utterances(paths, journal=journal)
    spoil(tmp_path / "a/0.wav")
    add(tmp_path, "a/1.wav", seconds=2)
    add(tmp_path, "a/2.wav", rate=8000, seconds=2)  # as long in bytes
    (tmp_path / "a/3.wav").unlink()
    for _ in range(2):
        found, problems = read_utterances(paths, 16000, journal=journal)
        assert [u.duration for u in found] == [1, 2, 2]
        assert list(problems) == ["a/3"]
    # It holds for one rate and one check.
    for options in ((8000, "header"), (16000, "decode")):
        found, problems = read_utterances(paths, *options, journal)
        assert [u.stop for u in found] == [2 * options[0]] * 2
        assert list(problems) == ["a/0", "a/3"]


def test_preparation_is_not_repeated(tmp_path, caplog):
    add(tmp_path / "data", "a/1.wav", "a/2.wav", "b/1.wav", "b/2.wav")
    arguments = dict(test_speakers=["b"], split_ratio=[50, 50])
    prepare_corpus(tmp_path / "data", tmp_path, **arguments)
    first = (tmp_path / "train.csv").stat().st_mtime_ns
    caplog.set_level("INFO")
    prepare_corpus(tmp_path / "data", tmp_path, **arguments)
    assert (tmp_path / "train.csv").stat().st_mtime_ns == first
    assert "Prepared before" in caplog.text
    assert "prepared again" not in caplog.text
    prepare_corpus(tmp_path / "data", tmp_path, ["a"], [50, 50])
    assert "prepared again" in caplog.text
    assert {r["spk_id"] for r in rows(tmp_path / "train.csv")} == {"b"}
    add(tmp_path / "data", "c/1.wav", "c/2.wav")
    prepare_corpus(tmp_path / "data", tmp_path, ["a"], [50, 50])
    assert {r["spk_id"] for r in rows(tmp_path / "train.csv")} == {"b", "c"}
    prepare_corpus(tmp_path / "data", tmp_path, [], skip_prep=True)


def test_real_speech(speechocean):
    """Opus files, and the corpus's own split."""
    speakers = read_speakers(speechocean)
    paths = list_audio(speechocean)
    assert len(speakers) == 250 and len(paths) == 5000
    some = dict(list(paths.items())[:40])
    found, problems = read_utterances(some, 16000, "decode")
    assert len(found) == 40 and not problems


# ------------------------------------------------------------ the CSV files

HEADER = "ID,duration,wav,start,stop,spk_id\n"


def test_what_the_stock_preparation_writes(tmp_path):
    path = tmp_path / "train.csv"
    row = Utterance("a--1_0.0_3.0", 3.0, "$data_root/wav/1.wav", 0, 48000, "a")
    write_csv([row], path)
    assert path.read_text().startswith(HEADER)
    assert read_csv(path, "/data") == {
        row.id: {
            "duration": 3.0,
            "wav": "/data/wav/1.wav",
            "start": 0,
            "stop": 48000,
            "spk_id": "a",
        }
    }


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no utterances"),
        ("a/1,0.1,a.wav,0,800\n", "line 2: expected the 6 fields"),
        ("a/1,0.1,a.wav,0,800,\n", "line 2: spk_id is ''"),
        ("a/1,0.1,a\0.wav,0,800,a\n", "line 2: wav is"),
        ("a/1,nan,a.wav,0,800,a\n", "line 2: expected a duration"),
        ("a/1,0.1,a.wav,1e3,800,a\n", "line 2: .*integers start < stop"),
        ("a/1,0.1,a.wav,-1,800,a\n", "line 2: .*integers start < stop"),
        ("a/1,0.1,a.wav,800,800,a\n", "line 2: .*integers start < stop"),
        (f"a/1,0.1,a.wav,0,{10**400},a\n", "line 2: .*integers start < stop"),
        (2 * "a/1,0.1,a.wav,0,800,a\n", "line 3: ID a/1 is on an earlier"),
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
            st.sampled_from(
                ["0", "1", "-1", "nan", "inf", "9" * 5000, "a", '"']
            )
            | st.text(max_size=5),
            min_size=5,
            max_size=7,
        ),
        max_size=3,
    )
)
@settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
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
            assert 0 <= row["start"] < row["stop"] and row["duration"] >= 0
