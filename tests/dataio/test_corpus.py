"""Which folder is the speaker, of layouts in the field, and their audio."""

import functools
import json
import os
import unicodedata

import pytest

from speechbrain_hyperbolic import cli
from speechbrain_hyperbolic.dataio.corpus import count_reasons, read_corpus
from speechbrain_hyperbolic.dataio.preparation import prepare_corpus, read_csv
from speechbrain_hyperbolic.dataio.trials import check_names, read_trials
from speechbrain_hyperbolic.errors import InputError
from tests.dataio.test_audio import tone, write


def add(folder, *utterances, seconds=1.0, rate=16000):
    for utterance in utterances:
        path = folder / utterance
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, tone(seconds, rate), rate)


def test_audio_that_is_missing(tmp_path):
    add(tmp_path, "a/1.WAV", "a/2.Flac")
    assert list(read_corpus(tmp_path).paths()) == ["a/1", "a/2"]
    find = read_corpus(tmp_path).find
    for name in ("a/1", "a/1.m4a"):  # the extension does not matter
        assert find(name).path == str(tmp_path / "a/1.WAV")
    missing = ["a/3", "a/1/1", "b/1", "a", "3", "b/a/1", "a\0/1"]
    assert not any(map(find, missing))


def test_several_folders(tmp_path):
    """The first one that has an utterance is used."""
    add(tmp_path / "one" / "wav", "a/1.flac", "a/1.ogg", "b/s/2.wav")
    add(tmp_path / "two", "a/1.wav", "b/s/2.wav", "b/s/3.wav")
    both = f"{tmp_path / 'one'}, {tmp_path / 'two'}"
    for name, path in {
        "b/s/3": "two/b/s/3.wav",
        "a/1": "one/wav/a/1.flac",
        "b/s/2": "one/wav/b/s/2.wav",
    }.items():
        assert read_corpus(both).find(name).path == str(tmp_path / path)
    with pytest.raises(InputError, match="are both utterance a/1: rename"):
        read_corpus(tmp_path / "one").paths()


def test_bad_folders_and_names(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        read_corpus(f"{tmp_path},").paths()
    with pytest.raises(InputError, match="has no audio"):
        read_corpus(tmp_path).paths()
    add(tmp_path, "a/1.wav")
    for name, shown in ((b"my 1", "my 1"), (b"\xff", "udcff")):
        folder = os.fsencode(tmp_path / "a/")
        (path,) = os.listdir(folder)
        os.rename(folder + b"/" + path, folder + b"/" + name + b".wav")
        with pytest.raises(InputError, match=f"{shown}.*: rename it"):
            read_corpus(tmp_path).paths()


LIBRI = [
    f"{part}/{s}/{c}/{s}-{c}-{i:04}.flac"
    for part, s in (("train-clean-100", 103), ("dev-other", 26))
    for c in (1240, 1241)
    for i in range(2)
]


@pytest.mark.parametrize(
    "layout, files, speakers",
    [
        ("LibriSpeech", LIBRI, "103 26"),
        ("LibriSpeech", [f"LibriSpeech/{f}" for f in LIBRI], "103 26"),
        ("LibriTTS", ["dev/84/121/84_121_000007_000001.wav"], "84"),
        ("TIMIT", ["TRAIN/DR1/FCJF0/SA1.WAV"], "FCJF0"),
        ("VCTK", ["wav48/p225/p225_001.wav", "txt/p225/p225_001.txt"], "p225"),
        ("VoxCeleb", ["dev/aac/id00012/21Uxsk56VDQ/00001.wav"], "id00012"),
        ("AISHELL", ["x/wav/train/S0002/BAC009S0002W0122.wav"], "S0002"),
        ("Speech Commands", ["bed/0a7c2a8d_nohash_0.wav"], "0a7c2a8d"),
        ("below test, train", ["train/a/1.wav", "test/b/1.wav"], "a b"),
        ("below train/SPEECHDATA", ["train/SPEECHDATA/SV1/1.wav"], "SV1"),
        ("below female, male", ["male/01/1.wav", "female/02/1.wav"], "01 02"),
        # A speaker called data, wav or Val
        ("utterance", ["data/1.wav", "a/1.wav", "wav/1.wav"], "a data wav"),
        ("utterance", ["Val/s1/1.wav", "a/s1/1.wav"], "Val a"),
        ("utterance", ["spk1/x/1.wav", "spk2/y/1.wav"], "spk1 spk2"),
        ("utterance", ["en_01/1.wav", "de_02/1.wav"], "de_02 en_01"),
        ("utterance", ["ABA/wav/1.wav", "SKA/wav/1.wav"], "ABA SKA"),
        ("utterance", ["a/1.wav", ".Trash-1000/b/1.wav", "a/._1.wav"], "a"),
        ("utterance", ["a/1.wav", "__MACOSX/a/1.wav", "@eaDir/1.wav"], "a"),
        ("utterance", ["a/1.wav", "lost+found/1.wav", "#recycle/1.wav"], "a"),
    ],
)
def test_layout(tmp_path, layout, files, speakers):
    add(tmp_path, *(f for f in files if not f.endswith(".txt")))
    (tmp_path / "speakers.tsv").write_text("READER\tSUBSET\n9\ttrain-clean\n")
    corpus = read_corpus(tmp_path)
    assert layout in corpus.layouts[0]
    assert sorted(corpus.speakers) == speakers.split()
    if layout == "LibriSpeech":
        sessions = {r.session for r in corpus.recordings.values()}
        assert sessions == {"1240", "1241"}
    for id, recording in corpus.recordings.items():
        assert id.split("/")[0] == recording.speaker
        # The path below the folder names the utterance, as does the id.
        assert corpus.find(id) == corpus.find(recording.name) == recording


@pytest.mark.parametrize(
    "files, readings",
    [
        (
            ["en/ann/1.wav", "en/bo/1.wav", "de/cy/1.wav"],
            ["=1: 2 speakers (de, en)", "=2: 3 speakers (ann, bo, cy)"],
        ),
        (["day1/ann/1.wav", "day2/ann/1.wav"], ["=1: 2 ", "=2: 1 "]),
        (["2020-01-02/ann/1.wav", "2020-01-03/bo/1.wav"], ["=1: 2 ", "=2: 2 "]),
        (["mine/ann/1.wav", "mine/bo/1.wav"], ["=1: 1 ", "=2: 2 "]),
        (["train/ann/1.wav", "bo/1.wav"], ["=1: 2 ", "=2: 1 "]),
        (["male/01/1.wav", "female/01/1.wav"], ["01 is below female and"]),
        (["ann_1.wav", "bo_1.wav"], ["no folders"]),
        (["hall/ann/1.wav", "attic/ann/1.wav"], ["=1: 2 ", "=2: 1 "]),
        (["en/s101/1.wav", "fr-FR/s201/1.wav"], ["=1: 2 ", "=2: 2 "]),
        (["en/audio/1.wav", "fr_fr/audio/1.wav"], ["=1: 2 ", "=2: 1 "]),
        (["V1/wav/id1/x/1.wav", "V2/wav/id3/x/1.wav"], ["=1: 2 ", "=3: 2 "]),
        (["enroll/ann.wav", "test/ann-2.wav"], ["no folder has the name"]),
        (["c1/01/01_1.wav", "c2/01/01_2.wav"], ["=1: 2 ", "=2: 1 "]),
        ([f"{s}/1.wav" for s in ("a-day1", "a-day2", "b-day1")], ["2 folders"]),
        (["Ann/1.wav", "ann/2.wav"], ["Ann and ann differ in case only"]),
    ],
)
def test_ambiguous_layouts_are_refused(tmp_path, files, readings):
    add(tmp_path, *files)
    with pytest.raises(InputError) as error:
        read_corpus(tmp_path)
    for reading in readings:
        assert reading in str(error.value)


def test_speaker_level(tmp_path):
    add(tmp_path, "en/ann/1.wav", "en/bo/1.wav", "de/cy/1.wav", "de/ann_2.wav")
    for level, speakers in (
        (1, "de en"),
        ("2", "ann bo cy"),
        (r"([^/]+)/[^/]+$", "ann bo cy de"),
        (r"/([a-z]+)[/_]\d$", "ann bo cy"),
        (r"^(.+)/", "de de-cy en-ann en-bo"),
    ):
        corpus = read_corpus(tmp_path, level)
        assert sorted(corpus.speakers) == speakers.split()
    assert read_corpus(tmp_path, 2).skipped == {
        str(tmp_path / "de/ann_2.wav"): "is not in the speaker_level 2 layout"
    }
    one = "expected .* one group"
    for level, message in {"7": "fits no file", "(": one, "a": one}.items():
        with pytest.raises(InputError, match=message):
            read_corpus(tmp_path, level)


def test_links_end(tmp_path):
    add(tmp_path / "c", "a/1.wav", "b/1.wav")
    add(tmp_path / "elsewhere", "2.wav")
    links = {"a/loop": "..", "b/loop": "../..", "0": "b", "e": "nowhere"}
    links["a/2.wav"] = "1.wav"
    for link, target in {**links, "d": "../elsewhere"}.items():
        os.symlink(target, tmp_path / "c" / link)
    corpus = read_corpus(tmp_path / "c")
    assert list(corpus.recordings) == ["a/1", "b/1", "d/2"]
    counts = count_reasons(corpus.skipped)
    assert counts == {
        "is a link to a folder that is read already": 3,
        "is a file that is read already": 1,
        "is no audio": 1,
    }


def test_files_are_found_by_folder(tmp_path, monkeypatch):
    """With no call for each file, which a disk on a network answers slowly."""
    add(tmp_path, *(f"{s}/{i}.wav" for s in "ab" for i in range(20)))
    calls = []
    for name in ("lstat", "stat", "open"):
        real = getattr(os, name)
        spy = functools.partial(
            lambda f, *a, **k: calls.append(a) or f(*a, **k), real
        )
        monkeypatch.setattr(os, name, spy)
    assert len(read_corpus(tmp_path).paths()) == 40
    assert not [a for a in calls if str(a[0]).endswith(".wav")]


def test_results_of_runs_are_no_speakers(tmp_path, monkeypatch):
    """Neither those of this run, nor of others."""
    add(tmp_path, "a/1.wav", "runs/ham/generated/1.wav", "b/1.wav")
    monkeypatch.chdir(tmp_path)
    own = read_corpus(".", outputs="runs/ham/save")
    assert list(own.paths()) == ["a/1", "b/1"]
    (tmp_path / "runs/ham/run.lock").touch()
    corpus = read_corpus(tmp_path)
    assert sorted(corpus.speakers) == ["a", "b"]
    assert corpus.skipped == {
        str(tmp_path / "runs" / "ham"): "is a folder of a run's results"
    }


def test_names_of_a_mac(tmp_path):
    """NFD on disk, NFC in the table and in the list."""
    nfc = "Zoë"
    nfd = unicodedata.normalize("NFD", nfc)
    names = f"{nfd}/é {nfd}/2 a/1 b/1 b/2".split()
    add(tmp_path, *(f"{name}.wav" for name in names))
    (tmp_path / "speakers.csv").write_text(f"spk_id,split\n{nfc},test\n")
    (tmp_path / "t.txt").write_text(f"1 {nfc}/é.wav {nfd}/2.wav\n")
    trials = read_trials(tmp_path / "t.txt", corpus=read_corpus(tmp_path))
    assert trials.utterances == [f"{nfc}/2", f"{nfc}/é"] and not trials.missing
    assert all(map(read_corpus(tmp_path).find, trials.utterances))
    prepare_corpus(tmp_path, tmp_path / "save", [])
    rows = read_csv(tmp_path / "save/train.csv").values()
    assert {row["spk_id"] for row in rows} == {"a", "b"}
    (tmp_path / "list.csv").write_text(f"path,speaker\n{nfc}/2.wav,z\n")
    (path,) = read_corpus(tmp_path / "list.csv").paths().values()
    assert (tmp_path / path).is_file()


@pytest.mark.parametrize(
    "table, held_out",
    [
        ('spk_id,split,note\n1,TEST,"one\ntwo"\n,,\n2,,\n', {"0001"}),
        ("spk_id,split\n0001 ,test \n", {"0001"}),
        ("speaker;split\n0001;eval\n", {"0001"}),
        ("speaker_id\tset\n1.0\tdev\n0002\ttrain\n3\ttrain\n", {"0001"}),
        ("spk_id,split\n0001,val\n0002,train\n0003,test\n", {"0001", "0003"}),
        ("VoxCeleb1 ID\tGender\tSet\n0001\tf\ttest\n0002\tm\tdev\n", {"0001"}),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_speakers_csv_of_any_program(tmp_path, table, held_out, encoding):
    add(tmp_path, "0001/1.wav", "0002/1.wav", "0003/1.wav")
    name = {"utf-16": "speakers (1).tsv", "cp1252": "speakers.csv.txt"}
    (tmp_path / name.get(encoding, "Speakers.CSV")).write_text(table, encoding)
    assert read_corpus(tmp_path).held_out([]) == held_out


def test_leaks(tmp_path):
    """A row or a trial that matches nothing is named, with the nearest."""
    names = "anna/1 anna/2 bert/1 bert/2 0003/1 0003/2".split()
    add(tmp_path, *(f"{name}.wav" for name in names))
    table = tmp_path / "speakers.csv"
    table.write_text("spk_id,split\nanan,test\n")
    with pytest.raises(InputError, match="anan is not .* nearest name is anna"):
        prepare_corpus(tmp_path, tmp_path / "save", [])
    table.unlink()
    with pytest.raises(InputError, match="brt, .* nearest name is bert"):
        prepare_corpus(tmp_path, tmp_path / "save", ["anna", "brt"])
    with pytest.raises(InputError, match="one training speaker, bert"):
        prepare_corpus(tmp_path, tmp_path / "save", ["ANNA", "3"])
    table.write_text("spk_id,split\n3,train\n0003,test\n")
    with pytest.raises(InputError, match="0003 is in the splits train and"):
        read_corpus(tmp_path)
    table.unlink()
    nested = read_corpus(tmp_path, outputs=tmp_path / "anna/x")
    assert "anna/1" in nested.paths()
    # A list of another corpus, such as VoxCeleb1's for VoxCeleb2
    prepare_corpus(tmp_path, tmp_path / "save", ["id10270"])
    corpus, path = read_corpus(tmp_path), tmp_path / "t.txt"
    path.write_text("1 id10270/5r0d/1.wav x9\n")
    check_names(read_trials(path, corpus=corpus), corpus, path)
    for line in (
        "my/anna/1 my/bert/9.wav",
        "s_anna/1 id3/x/2",
        "anna%2f1 bert%2f2",
    ):
        path.write_text(f"1 {line}\n")
        with pytest.raises(InputError, match="0 of 2 .* where .* has 0003/1"):
            check_names(read_trials(path, corpus=corpus), corpus, path)
    (tmp_path / "bert" / "3.wav").symlink_to(tmp_path / "anna" / "1.wav")
    with pytest.raises(InputError, match="two speakers, anna and bert"):
        read_corpus(tmp_path).paths()


def test_check(tmp_path, capsys):
    files = [f"{s}/{i}.wav" for s in "abcd" for i in "12"]
    add(tmp_path / "c" / "wav", *files)
    (tmp_path / "c" / "wav" / "a" / "bad.wav").write_bytes(b"RIFF")
    (tmp_path / "t.csv").write_text("enroll,test,label\na/1,a/2,1\nb/1,a/3,0\n")
    before = sorted(tmp_path.rglob("*"))
    data, trials = str(tmp_path / "c"), str(tmp_path / "t.csv")
    arguments = ["check", data, "--trials", trials]
    assert cli.main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["speakers"] == 4 and found["utterances"] == 8
    assert found["hours"] == pytest.approx(8 / 3600, abs=1e-4)
    assert sum(found["skipped"].values()) == 1
    assert found["example"]["speaker"] == "a"
    assert found["columns"] == ["enroll", "test", "label"]
    counts = ("target", "nontarget", "unlabeled", "test_speakers", "missing")
    assert [found[c] for c in counts] == [1, 1, 0, 2, 1]
    assert found["kept_from_training"] == 2
    assert cli.main(arguments) == 0
    assert "layout: speaker/[session/]utterance" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
