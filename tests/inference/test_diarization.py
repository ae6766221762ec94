"""Who speaks when, with an encoder that hears the pitch alone."""

import json
import math
import random
import types

import pytest
import torch
from pyannote.database.util import load_rttm
from torchaudio.functional import detect_pitch_frequency

from benchmarks.diarization import error_rate, mix
from speechbrain_hyperbolic.cli import main
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.inference.diarization import diarize

RATE = 16000


def encode_batch(windows):
    """[B, 1, 2]: an octave is a quarter of a circle."""
    pitch = detect_pitch_frequency(windows, RATE).median(1).values
    angle = torch.log2(pitch / 100) * math.pi / 2
    return torch.stack([angle.cos(), angle.sin()], 1).unsqueeze(1)


MODEL = types.SimpleNamespace(
    sample_rate=RATE,
    channel=None,
    config=types.SimpleNamespace(thresholds=None),
    encode_batch=encode_batch,
)


@pytest.fixture(scope="module")
def conversation(speechocean):
    """A woman and a man, and their turns."""
    torch.manual_seed(0)
    audio = speechocean / "audio"
    voices = {name: [*audio.glob(f"{name}/*")] for name in ("0024", "0461")}
    return mix(
        {k: sorted(v) for k, v in voices.items()}, 2, 8, random.Random(0)
    )


@pytest.mark.parametrize("speakers", [None, 2])
def test_turns_are_found(conversation, speakers):
    waveform, truth = conversation
    turns = diarize(MODEL, waveform, speakers=speakers)
    assert [turn.start for turn in turns] == sorted(t.start for t in turns)
    assert turns[0].speaker == "speaker1"
    assert error_rate([(truth, turns)]) < 0.1
    one = diarize(MODEL, waveform, speakers=1)
    assert {turn.speaker for turn in one} == {"speaker1"}
    assert error_rate([(truth, one)]) > 0.3


def test_what_cannot_be_done(conversation):
    waveform, _ = conversation
    with pytest.raises(InputError, match="too few for 99 speakers"):
        diarize(MODEL, waveform, speakers=99)
    with pytest.raises(InputError, match="speakers is 0, expected 1 or more"):
        diarize(MODEL, waveform, speakers=0)
    with pytest.raises(InputError, match="no speech"):
        diarize(MODEL, torch.sin(torch.arange(5.0 * RATE) / 10) / 2)


def test_the_command(folder, speechocean, tmp_path, capsys):
    """Its turns, the file that it writes, and a file that it can't read."""
    clip = next(speechocean.glob("audio/0024/*"))
    options = ["--speakers=1", "-o", str(tmp_path / "a.rttm"), "--json"]
    files = [str(clip), str(tmp_path / "none.wav")]
    assert main(["diarize", "--model", str(folder), *options, *files]) == 0
    found = capsys.readouterr()
    turns = [json.loads(line) for line in found.out.splitlines()]
    assert {turn["speaker"] for turn in turns} == {"speaker1"}
    assert len(load_rttm(tmp_path / "a.rttm")[clip.stem]) == len(turns)
    assert "none.wav is missing" in found.err
