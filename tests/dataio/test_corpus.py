"""From a folder to the CSV files."""

import csv
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from speechbrain_hyperbolic.dataio import corpus
from speechbrain_hyperbolic.dataio.corpus import (
    find_audio,
    list_audio,
    prepare_corpus,
    read_speakers,
    read_splits,
    read_utterances,
    speaker_of,
)
from speechbrain_hyperbolic.errors import InputError
from tests.dataio.test_audio import tone, write


def add(folder, *utterances, seconds=1.0, rate=16000):
    for utterance in utterances:
        path = folder / utterance
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, tone(seconds, rate), rate)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("root", ["", "wav", "aac", "audio", "data"])
def test_layouts(tmp_path, root):
    files = ["a/1.wav", "a/s1/2.flac", "b/4.m4a", "b/s/3.ogg"]
    add(tmp_path / root, *files)
    (tmp_path / root / "a" / "notes.txt").write_text("not audio")
    (tmp_path / root / "a" / ".wav").write_text("no name")
    expected = {f.split(".")[0]: str(tmp_path / root / f) for f in files}
    found = list_audio(tmp_path)
    assert found == expected and list(found) == list(expected)
    assert find_audio(tmp_path, reversed(expected)) == expected


def test_audio_that_is_not_there(tmp_path):
    add(tmp_path, "a/1.wav")
    (tmp_path / "a" / "2.wav").mkdir()
    missing = ["a/2", "a/1/1", "b/1", "a", "1", "a/1.wav"]
    assert find_audio(tmp_path, missing) == dict.fromkeys(missing)


def test_the_first_folder_and_extension_are_found(tmp_path):
    add(tmp_path / "one", "a/1.flac", "a/1.ogg", "b/s/2.wav")
    add(tmp_path / "two", "a/1.wav", "b/s/2.wav", "b/s/3.wav")
    found = find_audio(
        f"{tmp_path / 'one'},{tmp_path / 'two'}", ["b/s/3", "a/1", "b/s/2"]
    )
    assert found == {
        "b/s/3": str(tmp_path / "two/b/s/3.wav"),
        "a/1": str(tmp_path / "one/a/1.flac"),
        "b/s/2": str(tmp_path / "one/b/s/2.wav"),
    }


def test_cnceleb(tmp_path):
    """Speakers are below data, what is tried is below eval."""
    add(
        tmp_path,
        "data/id00000/singing-01-001.flac",
        "data/id00800/singing-01-002.flac",
        "eval/enroll/id00800-enroll.flac",
        "eval/test/id00800-singing-01-002.flac",
    )
    training = ["id00000/singing-01-001", "id00800/singing-01-002"]
    assert list(list_audio(tmp_path)) == training
    trials = ["enroll/id00800-enroll", "test/id00800-singing-01-002"]
    assert find_audio(tmp_path, trials + training) == {
        **{t: str(tmp_path / f"eval/{t}.flac") for t in trials},
        **{t: str(tmp_path / f"data/{t}.flac") for t in training},
    }


@pytest.mark.parametrize(
    "utterance, speaker",
    [
        ("id10270/5r0dWxy17C8/00001", "id10270"),
        ("id00800/singing-01-002", "id00800"),
        ("test/id00800-singing-01-002", "id00800"),
        ("enroll/id00800-enroll", "id00800"),
        ("id00800-enroll", "id00800"),
        ("test/1", "test"),
        ("test/session/take-1", "test"),
        ("enroll-me/take-1", "enroll-me"),
        ("alone-1", "alone-1"),
    ],
)
def test_speakers(utterance, speaker):
    assert speaker_of(utterance) == speaker


def test_several_folders(tmp_path):
    add(tmp_path / "one" / "wav", "a/1.wav")
    add(tmp_path / "two", "b/1.wav")
    both = f"{tmp_path / 'one'}, {tmp_path / 'two'}"
    assert list(list_audio(both)) == ["a/1", "b/1"]


def test_two_files_of_one_name(tmp_path):
    add(tmp_path, "a/1.wav", "a/1.flac")
    with pytest.raises(InputError, match="both utterance a/1"):
        list_audio(tmp_path)


def test_no_folder_and_no_audio(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        list_audio(tmp_path / "missing")
    with pytest.raises(InputError, match="holds no audio"):
        list_audio(tmp_path)


def test_speakers_csv_without_its_key(tmp_path):
    (tmp_path / "speakers.csv").write_text("name,sex\na,f\n")
    with pytest.raises(InputError, match="no column spk_id"):
        read_speakers(tmp_path)


def test_spreadsheets_write_speakers_csv(tmp_path):
    """A byte order mark, capitals and spaces are forgiven."""
    text = "spk_id,split\na,Train\nb, TEST\nc,\n"
    (tmp_path / "speakers.csv").write_text(text, encoding="utf-8-sig")
    assert read_splits(tmp_path) == {"a": "train", "b": "test"}


def test_speakers_csv_of_another_encoding_or_split(tmp_path):
    path = tmp_path / "speakers.csv"
    path.write_bytes("spk_id,name\na,Zo\u00eb\n".encode("latin-1"))
    with pytest.raises(InputError, match="is not UTF-8"):
        read_speakers(tmp_path)
    path.write_text("spk_id,split\na,dev\n")
    with pytest.raises(InputError, match="split of a is 'dev', expected"):
        read_splits(tmp_path)


def test_upper_case_extensions(tmp_path):
    add(tmp_path, "a/1.WAV", "a/2.Flac")
    assert list(list_audio(tmp_path)) == ["a/1"]
    assert find_audio(tmp_path, ["a/1"]) == {"a/1": str(tmp_path / "a/1.WAV")}


def test_spaces_are_named(tmp_path):
    add(tmp_path, "my speaker/1.wav")
    with pytest.raises(InputError, match="my speaker/1.wav has a space"):
        list_audio(tmp_path)


def test_names_that_are_not_utf8(tmp_path):
    add(tmp_path, "a/1.wav")
    os.rename(tmp_path / "a/1.wav", os.fsencode(tmp_path) + b"/a/\xff.wav")
    with pytest.raises(InputError, match="udcff.*not plain UTF-8: rename it"):
        list_audio(tmp_path)


def test_a_pipe_is_a_problem(tmp_path):
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "1.wav")
    add(tmp_path, "a/2.wav")
    utterances, problems = read_utterances(list_audio(tmp_path))
    assert [u.id for u in utterances] == ["a/2"] and "1.wav" in problems["a/1"]


def test_results_below_the_corpus_are_no_speaker(tmp_path, monkeypatch):
    add(tmp_path, "a/1.wav", "results/run/generated/noise.wav")
    monkeypatch.chdir(tmp_path)
    assert list(list_audio(".", outputs="results/run/save")) == ["a/1"]


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
    assert "one utterance only of 1 speaker(s), lonely" in caplog.text


def test_only_lonely_speakers(tmp_path):
    add(tmp_path, "a/1.wav", "b/1.wav")
    with pytest.raises(InputError, match="one utterance"):
        prepare_corpus(tmp_path, tmp_path / "save", [])


def test_nothing_left_to_train(tmp_path):
    add(tmp_path, "a/1.wav", "a/2.wav")
    with pytest.raises(InputError, match="leaves no training utterance"):
        prepare_corpus(tmp_path, tmp_path / "save", ["a"])


@pytest.mark.parametrize("extension", [".wav", ".flac", ".ogg", ".m4a"])
def test_unusable_files_are_left_out_and_named(tmp_path, extension, caplog):
    """Empty, truncated, silent, NaN: found before training starts."""
    data = tmp_path / "data"
    add(data, *(f"a/{i}.wav" for i in range(3)))
    noise = np.random.default_rng(0).normal(scale=0.1, size=80000)
    noise = noise.astype(np.float32)
    truncated = write(data / f"a/truncated{extension}", noise, 16000)
    whole = truncated.read_bytes()
    truncated.write_bytes(whole[: len(whole) // 2])
    (data / f"a/empty{extension}").touch()
    write(data / f"a/silent{extension}", 0 * noise, 16000)
    nan = np.full(16000, np.nan, np.float32)
    soundfile.write(data / "a/nan.wav", nan, 16000, subtype="FLOAT")

    prepare_corpus(data, tmp_path, [], check_audio="decode")
    kept = rows(tmp_path / "train.csv") + rows(tmp_path / "dev.csv")
    named = (tmp_path / "skipped.txt").read_text()
    assert {row["ID"] for row in kept} == {"a/0", "a/1", "a/2"}
    for kind in ("empty", "truncated", "silent", "nan"):
        assert f"/a/{kind}." in named and f"/a/{kind}." in caplog.text


def test_headers_alone_find_the_empty(tmp_path):
    add(tmp_path, "a/1.wav")
    (tmp_path / "a/empty.wav").touch()
    found, problems = read_utterances(list_audio(tmp_path), 16000)
    assert [u.id for u in found] == ["a/1"]
    assert list(problems) == ["a/empty"]


def test_several_processes_find_the_same(tmp_path, monkeypatch):
    add(tmp_path, "a/0.wav", "a/1.flac", "b/0.ogg", "b/1.m4a")
    for number in range(2, 600):
        source = tmp_path / ("a/0.wav" if number % 2 else "a/1.flac")
        os.link(source, tmp_path / f"a/{number}{source.suffix}")
    for number in (2, 300, 599):
        path = next(tmp_path.glob(f"a/{number}.*"))
        path.unlink()
        path.write_bytes(b"no audio")
    paths = list_audio(tmp_path)
    expected = read_utterances(paths)
    assert len(expected[0]) == 599 and len(expected[1]) == 3
    monkeypatch.setattr(corpus, "_PATIENCE", -1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    found = read_utterances(paths, journal=tmp_path / "journal")
    assert found == expected
    assert read_utterances(paths, journal=tmp_path / "journal") == expected


def spoil(path):
    """Other content, which only shows when it's read."""
    status = path.stat()
    path.unlink()  # hard links to it stay whole
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


PREPARE_AND_DIE = """
import os, pathlib, signal, sys, threading, time
from speechbrain_hyperbolic.dataio.corpus import prepare_corpus

data, save = map(pathlib.Path, sys.argv[1:])

def die():
    journal = save / "prepare.journal"
    while not journal.is_file() or journal.stat().st_size == 0:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=die, daemon=True).start()
prepare_corpus(data, save, [], check_audio="decode")
"""


def test_a_killed_preparation_goes_on_where_it_was(tmp_path, caplog):
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
    lines = (killed / "prepare.journal").read_text().split("\n")[:-1]
    assert 0 < len(lines) < 3000
    for line in lines:
        spoil(data / line.split(f"{data}/")[1])
    caplog.set_level("INFO")
    prepare_corpus(data, killed, [], check_audio="decode")
    assert f"{len(lines)} of 3000 files were measured before" in caplog.text
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
    for length in range(len(whole)):
        journal.write_bytes(whole[:length])
        assert read_utterances(paths, journal=journal) == expected
        assert journal.read_bytes() == whole
    journal.write_bytes(b"\0\xff\n\t\t\t\n" + whole)
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


def test_a_journal_holds_for_one_check_and_any_rate(tmp_path):
    write(tmp_path / "silent.wav", 0 * tone(), 16000)
    paths, journal = {"a/1": tmp_path / "silent.wav"}, tmp_path / "journal"
    read_utterances(paths, 16000, journal=journal)
    found, _ = read_utterances(paths, 8000, journal=journal)
    assert found[0].stop == 8000
    _, problems = read_utterances(paths, 16000, "decode", journal)
    assert "is silent" in problems["a/1"]


def test_a_problem_is_looked_at_again(tmp_path):
    path, journal = tmp_path / "1.wav", tmp_path / "journal"
    write(path, tone(), 16000)
    good = tmp_path / "good.wav"
    good.write_bytes(path.read_bytes())
    spoil(path)
    assert not read_utterances({"a/1": path}, journal=journal)[0]
    status = path.stat()
    path.write_bytes(good.read_bytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not read_utterances({"a/1": path}, journal=journal)[1]


def test_unknown_check(tmp_path):
    with pytest.raises(InputError, match="check_audio"):
        read_utterances({}, 16000, "listen")


def test_preparation_is_not_repeated(tmp_path, caplog):
    add(tmp_path / "data", "a/1.wav", "a/2.wav", "b/1.wav", "b/2.wav")
    arguments = dict(test_speakers=["b"], split_ratio=[50, 50])
    prepare_corpus(tmp_path / "data", tmp_path, **arguments)
    first = (tmp_path / "train.csv").stat().st_mtime_ns
    caplog.set_level("INFO")
    prepare_corpus(tmp_path / "data", tmp_path, **arguments)
    assert (tmp_path / "train.csv").stat().st_mtime_ns == first
    assert "Prepared before" in caplog.text
    assert "prepared anew" not in caplog.text
    prepare_corpus(tmp_path / "data", tmp_path, ["a"], [50, 50])
    assert "prepared anew" in caplog.text
    train = rows(tmp_path / "train.csv")
    assert {row["spk_id"] for row in train} == {"b"}


def test_new_files_are_noticed(tmp_path):
    add(tmp_path / "data", "a/1.wav", "a/2.wav")
    prepare_corpus(tmp_path / "data", tmp_path, [])
    add(tmp_path / "data", "b/1.wav", "b/2.wav")
    prepare_corpus(tmp_path / "data", tmp_path, [])
    assert {r["spk_id"] for r in rows(tmp_path / "train.csv")} == {"a", "b"}


def test_skip_prep_needs_the_files(tmp_path):
    with pytest.raises(InputError, match="train.csv is missing"):
        prepare_corpus(tmp_path, tmp_path, [], skip_prep=True)


@pytest.mark.parametrize("ratio", [[0, 0], [100], [90, -1]])
def test_split_ratio_out_of_range(tmp_path, ratio):
    add(tmp_path, "a/1.wav", "a/2.wav")
    with pytest.raises(InputError, match="split_ratio is .* expected two"):
        prepare_corpus(tmp_path, tmp_path / "save", [], ratio)


def test_real_speech(speechocean):
    """Opus files, and the corpus's own split."""
    speakers = read_speakers(speechocean)
    paths = list_audio(speechocean)
    assert len(speakers) == 250 and len(paths) == 5000
    some = dict(list(paths.items())[:40])
    found, problems = read_utterances(some, 16000, "decode")
    assert len(found) == 40 and not problems
