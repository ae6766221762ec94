"""From a folder to the CSV files."""

import csv

import numpy as np
import pytest
import soundfile

from speechbrain_hyperbolic.dataio.corpus import (
    find_audio,
    list_audio,
    prepare_corpus,
    read_speakers,
    read_splits,
    read_utterances,
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


@pytest.mark.parametrize("root", ["", "wav", "aac", "audio"])
def test_layouts(tmp_path, root):
    add(tmp_path / root, "a/1.wav", "a/s1/2.flac", "b/s/3.ogg", "b/4.m4a")
    (tmp_path / root / "a" / "notes.txt").write_text("not audio")
    assert list(list_audio(tmp_path)) == ["a/1", "a/s1/2", "b/4", "b/s/3"]


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
    assert find_audio(tmp_path, ["a/1"]) == {"a/1": tmp_path / "a/1.WAV"}


def test_spaces_are_named(tmp_path):
    add(tmp_path, "my speaker/1.wav")
    with pytest.raises(InputError, match="my speaker/1.wav has a space"):
        list_audio(tmp_path)


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
    prepare_corpus(tmp_path / "data", tmp_path, ["a"], [50, 50])
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
