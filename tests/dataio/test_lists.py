"""Lists in place of folders: tables, Kaldi folders, manifests."""

import json

import numpy as np
import pytest
import soundfile

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.check import check
from speechbrain_hyperbolic.dataio.corpus import read_corpus
from speechbrain_hyperbolic.dataio.make_trials import make_trial_list
from speechbrain_hyperbolic.dataio.preparation import prepare_corpus, read_csv
from speechbrain_hyperbolic.dataio.trials import read_trials
from speechbrain_hyperbolic.evaluation.results import locate
from tests.dataio.test_corpus import add

NAMES = [f"{s}_{i}" for s in "abc" for i in range(3)]


def write_lines(path, line, header=""):
    """Of each utterance: its name n, speaker s, number i and split."""
    path.write_text(header)
    with open(path, "a") as file:
        for n in NAMES:
            split = "test" if n[0] == "c" else "train"
            file.write(line.format(n=n, s=n[0], i=n[2], split=split) + "\n")
    return path


def csv_list(folder):
    header = "path,speaker,session,gender,split\n"
    line = "wav/{n}.wav,{s},s{i},f,{split}"
    return write_lines(folder / "list.csv", line, header)


def common_voice(folder):
    (folder / "wav").rename(folder / "clips")
    header = "client_id\tpath\tsentence\tgender\tlocale\n"
    line = '{s}\t{n}.wav\tsay "\tfemale\ten'
    write_lines(folder / "validated.tsv", line, header)
    return folder


def kaldi(folder):
    write_lines(folder / "wav.scp", f"{{n}} {folder}/wav/{{n}}.wav")
    write_lines(folder / "utt2spk", "{n} {s}")
    return folder


def kaldi_by_speaker(folder):
    kaldi(folder)
    (folder / "utt2spk").unlink()
    lines = [f"{s} {s}_0 {s}_1 {s}_2\n" for s in "abc"]
    (folder / "spk2utt").write_text("".join(lines))
    return folder


def manifest(folder):
    line = '{{"audio_filepath": "wav/{n}.wav", "speaker": "{s}"}}'
    return write_lines(folder / "manifest.json", line)


@pytest.mark.parametrize(
    "make", [csv_list, common_voice, kaldi, kaldi_by_speaker, manifest]
)
def test_a_list_is_as_good_as_a_folder(tmp_path, make):
    """It is prepared, tried and verified; segments and labels included."""
    data = tmp_path / "data"
    data.mkdir()
    add(data / "wav", *(f"{n}.wav" for n in NAMES))
    source = make(data)
    found = check(source)
    assert (found["speakers"], found["utterances"]) == (3, 9)
    trials = make_trial_list(source, tmp_path / "t.txt", test_share=1)
    for label, one, other in trials:
        assert label == (one[0] == other[0])
    corpus = read_corpus(source)
    listed = read_trials(tmp_path / "t.txt", corpus=corpus)
    assert all(map(audio.info, locate(listed, corpus, "t.txt").values()))
    prepare_corpus(source, tmp_path, ["c"], [50, 50])
    train = read_csv(tmp_path / "train.csv")
    assert {row["spk_id"] for row in train.values()} == {"a", "b"}
    # As other tools name the utterances
    name = f"{source}/wav/a_1.wav" if make is kaldi else "wav/a_1.wav"
    (tmp_path / "t.txt").write_text(f"1 {name} a_2\n0 a_0 c_1.flac\n")
    corpus = read_corpus(source)
    assert not read_trials(tmp_path / "t.txt", None, corpus).missing
    if make is csv_list:
        assert corpus.held_out([]) == {"c"}
        assert corpus.labels["a"]["sex"] == "f"
        assert next(iter(corpus.recordings.values())).session == "s0"


@pytest.mark.parametrize("kind", ["segments", "manifest"])
def test_segments(tmp_path, kind):
    """Two speakers in one file; what is heard are their parts."""
    samples = np.arange(48000) / 96000
    soundfile.write(tmp_path / "call.wav", samples, 16000, subtype="FLOAT")
    parts = {"u1": ("a", 0.5, 1.5), "u2": ("b", 1.5, 2.75)}
    if kind == "segments":
        source = tmp_path
        (tmp_path / "wav.scp").write_text(f"call {tmp_path}/call.wav\n")
        (tmp_path / "utt2spk").write_text("u1 a\nu2 b\n")
        lines = [f"{u} call {p[1]} {p[2]}\n" for u, p in parts.items()]
        (tmp_path / "segments").write_text("".join(lines))
    else:
        source = tmp_path / "m.jsonl"
        rows = [
            {"audio_filepath": "call.wav", "speaker": s, "offset": x}
            | {"duration": y - x}
            for s, x, y in parts.values()
        ]
        source.write_text("\n".join(map(json.dumps, rows)))
    paths = read_corpus(source).paths()
    assert [id[0] for id in paths] == ["a", "b"]
    for path, part in zip(paths.values(), parts.values(), strict=True):
        expected = samples[int(part[1] * 16000) : int(part[2] * 16000)]
        assert audio.info(path).frames == len(expected)
        heard = audio.load(path, 16000).numpy()
        np.testing.assert_allclose(heard, expected, atol=1e-6)
        heard = audio.load(path, 16000, 100, 200).numpy()
        np.testing.assert_allclose(heard, expected[100:200], atol=1e-6)


def test_files_of_a_list_that_are_missing(tmp_path):
    add(tmp_path, "1.wav", "2.wav", "3.wav", "4.wav")
    lines = [f"{i}.wav,x/{'ab'[i % 2]},0,{i // 4}\n" for i in range(1, 6)]
    header = "file,speaker_id,offset,duration\n1.wav,x/b,0.5,9\n"
    (tmp_path / "list.csv").write_text(header + "".join(lines))
    found = check(tmp_path / "list.csv")
    missing = {"is missing or not a file": 1}
    assert found["skipped"] == {"ends after its file": 1} | missing
    assert (found["utterances"], found["speakers"]) == (4, 2)
