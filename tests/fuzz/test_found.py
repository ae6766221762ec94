"""What fuzzing has found, each as small as it gets."""

import os
import struct
import tracemalloc

import av
import numpy as np
import pytest

from benchmarks.fuzz.audio_files import whole_file, with_checksums
from benchmarks.fuzz.worker import judge
from speechbrain_hyperbolic.dataio import audio, windows
from speechbrain_hyperbolic.dataio.corpus import read_csv, read_speakers
from speechbrain_hyperbolic.dataio.scores import read_score_table
from speechbrain_hyperbolic.dataio.trials import read_enrolment, read_trials
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.hparams import load_hparams, resolve
from speechbrain_hyperbolic.inference.voiceprints import VoiceprintStore
from speechbrain_hyperbolic.scoring.scorer import read_cohort

HEADER = "ID,duration,wav,start,stop,spk_id\n"


def refusal(tmp_path, read, name, content):
    """The line that a reader refuses a file with."""
    if isinstance(content, str):
        content = content.encode()
    (tmp_path / name).write_bytes(content)
    line = judge(lambda folder: read(folder / name), tmp_path)
    assert line is not None, "it was read"
    return line


@pytest.mark.parametrize(
    "text, where",
    [
        ("1 a/1 ../\x1b[2J", r"\x1b[2J"),
        ("1 a/1 /\x07", r"\x07"),
    ],
)
def test_names_in_a_trial_list_do_not_reach_the_terminal(tmp_path, text, where):
    assert where in refusal(tmp_path, read_trials, "trials.txt", text)


def test_names_in_an_enrolment_map_do_not_reach_the_terminal(tmp_path):
    line = refusal(tmp_path, read_enrolment, "enrol.map", "\x1b[2J")
    assert r"\x1b[2J" in line


@pytest.mark.parametrize("name", [".wav", "a/.wav"])
def test_an_extension_alone_is_a_name(tmp_path, name):
    path = tmp_path / "trials.txt"
    path.write_text(f"1 {name} b/1.wav")
    assert [tuple(trial) for trial in read_trials(path)] == [(1, name, "b/1")]


def test_a_mark_of_byte_order_is_no_part_of_a_score_file(tmp_path):
    path = tmp_path / "scores.txt"
    path.write_text("\ufeffa/1 a/2 1 0.5", encoding="utf-8")
    assert read_score_table(path).enrol == ["a/1"]


def test_lines_of_a_score_file_are_those_of_an_editor(tmp_path):
    text = "a/1 a/2\x0c1 0.5\na/1 a/2 1 x"
    assert "line 2" in refusal(tmp_path, read_score_table, "scores.txt", text)


@pytest.mark.parametrize(
    "text, what",
    [
        ("sex,spk_id\nf\n", "line 2"),
        ("spk_id,sex\na,f,x\n", "line 2"),
        ("spk_id,sex\na,f\n,m\n", "line 3"),
        ("spk_id,sex\na\x1b[2J,f\n", "line 2"),
        ("spk_id,split\na,train\na,test\n", "line 3"),
        ("spk_id,sex,sex\na,f,m\n", "sex"),
        ("spk_id\n" + "x" * 200_000, "after line 1"),
        (b"spk_id\na\n\xff\n", "UTF-8"),
    ],
)
def test_speakers(tmp_path, text, what):
    def read(path):
        return read_speakers(path.parent)

    assert what in refusal(tmp_path, read, "speakers.csv", text)


def test_a_quoted_line_break_is_part_of_a_field(tmp_path):
    (tmp_path / "speakers.csv").write_text(
        'spk_id,note\na,"one\u2028two\nthree"\n,\n', encoding="utf-8"
    )
    assert read_speakers(tmp_path)["a"]["note"] == "one\u2028two\nthree"


@pytest.mark.parametrize(
    "rows, what",
    [
        ("", "no utterances"),
        ("a/1,0.1,a.wav,0,800\n", "line 2"),
        ("a/1,0.1,a.wav,0,800,\n", "spk_id"),
        ("a/1,nan,a.wav,0,800,a\n", "duration"),
        ("a/1,0.1,a.wav,1e3,800,a\n", "start"),
        ("a/1,0.1,a.wav,-1,800,a\n", "start"),
        ("a/1,0.1,a.wav,800,800,a\n", "stop"),
        (f"a/1,0.1,a.wav,0,{10**400},a\n", "stop"),
        (2 * "a/1,0.1,a.wav,0,800,a\n", "line 3"),
        ("a/1,0.1,a\0.wav,0,800,a\n", "line 2"),
    ],
)
def test_prepared_files(tmp_path, rows, what):
    def read(path):
        return read_csv(path, tmp_path)

    assert what in refusal(tmp_path, read, "train.csv", HEADER + rows)


def test_an_audio_file_of_two_speakers_is_in_no_cohort(tmp_path):
    def read(path):
        return read_cohort(path, per_speaker=1)

    line = refusal(tmp_path, read, "a.csv", "wav,spk_id\n1.wav,a\n1.wav,b\n")
    assert "line 3" in line and "1.wav" in line


ALIASES = "[&a [1]" + "".join(
    f", &{new} [{', '.join(9 * [f'*{old}'])}]"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("read", [load_hparams, resolve])
@pytest.mark.parametrize(
    "overrides, what",
    [
        ("- a", "--key=value"),
        ("text", "--key=value"),
        ("1: 2", "--key=value"),
        ("seed: !ref <none>", "none"),
        ("seed: !PLACEHOLDER", "needs"),
        ("seed: !!int x", "YAML"),
        ("seed: " + "[" * 1200, "brackets"),
        (f"seed: {ALIASES}]\nseed: 1", "aliases"),
        ("\x85\U000f0000: 1\n\U000f0000: 1", "twice|YAML"),
    ],
)
def test_overrides(tmp_path, read, overrides, what):
    path = tmp_path / "a.yaml"
    path.write_text("seed: 1\n")
    with pytest.raises(InputError, match=what) as error:
        read(path, overrides)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("read", [load_hparams, resolve])
@pytest.mark.parametrize(
    "content, what",
    [
        (b"seed: \xff", "UTF-8"),
        (b"", "no keys"),
        (b"-1", "no keys"),
        (b"1: 2", "the key 1, expected a name"),
        (b"? [a]\n: 1", "expected a name"),
        ("a\ufeffb: !PLACEHOLDER".encode(), "needs 'a"),
        (b"seed: " + b"[" * 10**4, "brackets"),
        (b"seed: " + b"[" * 10**5, "characters"),  # took 8 s
        (b"seed: [" + b"1," * 10**5 + b"]", "characters"),  # took 6 s
        (b"seed: [" + b"1," * 10**4 + b"]", "values"),
        (f"seed: {ALIASES}]".encode(), "aliases"),  # took hours
        (b"&a [*a]", "aliases"),
        (b"seed: !ref <a> / 0\na: 1", "zero"),
        (b"seed: !ref <a>", "reference"),
        (b"--- !apply:speechbrain_hyperbolic.hparams.flatten\nseed: 1", "reci"),
        (
            b"--- !apply:speechbrain_hyperbolic.hparams.flatten\n"
            b"recipe: !include:b.yaml",
            "no keys",
        ),
        (
            b"--- !apply:speechbrain_hyperbolic.hparams.flatten\n"
            b"recipe: {1: 2}",
            "expected a name",
        ),
    ],
)
def test_hparams_files(tmp_path, read, content, what):
    (tmp_path / "b.yaml").write_text("5")
    line = refusal(tmp_path, lambda path: read(path, ""), "a.yaml", content)
    assert what in line


@pytest.mark.parametrize(
    "value, what",
    [
        ("!new:torch.nn.Linaer", "There is no such class as torch.nn.Linaer"),
        ("!name:none.at.all", "There is no such entity as none.at.all"),
        ("!module:none", "There is no such module as none"),
        ("!new:torch.nn.Linear [1]", "Invalid argument to class torch.nn.Lin"),
        ("!new:torch.manual_seed", "should be a class"),
        ("!!timestamp x", "YAML"),
    ],
)
def test_tags_that_make_nothing(tmp_path, value, what):
    def read(path):
        return load_hparams(path)

    assert what in refusal(tmp_path, read, "a.yaml", f"seed: {value}\n")


def test_names_in_safetensors_do_not_reach_the_terminal(tmp_path):
    def read(path):
        return VoiceprintStore.load(path, "c0ffee")

    header = '{"a": {"dtype": "\U000f0000", "shape": [], "data_offsets": []}}'
    header = header.encode()
    data = struct.pack("<Q", len(header)) + header
    # Of older releases of safetensors the message has no name.
    assert refusal(tmp_path, read, "a.safetensors", data).isprintable()


def test_a_flac_file_that_claims_more_than_memory_holds(tmp_path):
    data = bytearray(whole_file(".flac", "FLAC", "PCM_16"))
    (old,) = struct.unpack_from(">Q", data, 18)
    struct.pack_into(">Q", data, 18, old >> 36 << 36 | 2**36 - 1)
    line = refusal(tmp_path, audio.load, "a.flac", bytes(data))
    assert "truncated" in line or "can't be read" in line


def test_a_playlist_opens_no_other_file(tmp_path):
    other = tmp_path / "other.m4a"
    other.write_bytes(whole_file(".m4a", "mp4", "aac"))
    text = "ffconcat version 1.0\nfile other.m4a\n"
    assert "a.m4a" in refusal(tmp_path, audio.load, "a.m4a", text)
    with av.open(str(tmp_path / "a.m4a")) as container:
        assert container.streams.audio  # as FFmpeg would do


def test_a_gap_between_the_pages_of_opus(tmp_path):
    """To libsndfile it's then somewhere behind the end."""
    data = bytearray(whole_file(".ogg", "OGG", "OPUS"))
    data[data.rindex(b"OggS") + 20] = 1  # of the page's number
    data = with_checksums(data)
    assert "no samples" in refusal(tmp_path, audio.load, "a.ogg", data)


def test_channels_that_change_in_the_midst(tmp_path):
    data = b"".join(
        whole_file(".aac", "adts", "aac", channels=n) for n in (1, 2)
    )
    for read in (audio.load, lambda path: list(audio.blocks_by_av(path))):
        assert "in its midst" in refusal(tmp_path, read, "a.aac", data)


def test_eight_channels(tmp_path):
    """PyAV has nine planes for them, of which it crashes."""
    path = tmp_path / "a.m4a"
    path.write_bytes(whole_file(".m4a", "mp4", "aac", channels=8))
    assert audio.info(path).channels == 8
    assert len(audio.load(path)) >= 1600
    for rate, samples in audio.blocks_by_av(path):
        assert rate == 16000 and samples.shape[1] == 8


def test_tags_in_another_encoding(tmp_path):
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        container.metadata["title"] = "Zoe?"
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1600), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    assert len(audio.load(path)) >= 1600
    path.write_bytes(path.read_bytes().replace(b"Zoe?", b"Zo\xeb?"))
    assert len(audio.load(path)) >= 1600


@pytest.mark.parametrize("seconds", [59, 61])
def test_many_channels_are_not_held_at_once(tmp_path, seconds):
    """Minutes of eight of them are some kilobytes of FLAC, if silent."""
    channels, rate = 64, 16000
    path = tmp_path / "a.wav"
    block = 2 * channels
    size = block * rate * seconds
    form = (16, 1, channels, rate, rate * block, block, 16)
    path.write_bytes(
        b"RIFF"
        + struct.pack("<I", 36 + size)
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", *form)
        + b"data"
        + struct.pack("<I", size)
    )
    os.truncate(path, 44 + size)  # of zeros, which take no place
    tracemalloc.start()
    count, parts = windows.read_windows(path, rate)
    assert sum(map(len, parts)) == rate * seconds
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == max(1, seconds // 30)
    assert peak < 100e6  # bytes; they are 245e6 together


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(InputError, match="can't be read"):
        audio.load(tmp_path / ("x" * 5000 + ".wav"))
