"""Who speaks when: speech is cut into short windows, which are clustered."""

from typing import NamedTuple

import numpy as np
import torch
from sklearn.cluster import AgglomerativeClustering

from speechbrain_hyperbolic.dataio.audio import repeat_to
from speechbrain_hyperbolic.dataio.files import StrPath, write_text
from speechbrain_hyperbolic.dataio.speech import speech_segments
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.inference.recognition import (
    HyperbolicSpeakerRecognition,
)
from speechbrain_hyperbolic.inference.waveforms import Audio, read_audio

# In seconds. A turn of another speaker begins anywhere, also without a pause.
_WINDOW, _HOP = 1.5, 0.75
_PAUSE, _MARGIN = 0.5, 0.1
# Windows of 1.5 s score lower than the utterances that thresholds are measured
# on. See benchmarks/diarization.py.
_OF_THRESHOLD = 0.5
_NOT_MEASURED = 0.3
_LEAST = 4  # windows of a speaker who counts
_BATCH = 64  # windows


class Turn(NamedTuple):
    """A stretch of speech of one speaker."""

    start: float  # seconds
    stop: float
    speaker: str  # speaker1, speaker2, ... in the order of their first turns


def diarize(
    model: HyperbolicSpeakerRecognition,
    audio: Audio,
    sample_rate: int | None = None,
    speakers: int | None = None,
) -> list[Turn]:
    """Finds who speaks when in a recording of several people.

    Windows of 1.5 s, 0.75 s apart, are clustered. Where people speak at the
    same time, one of them is found.

    Arguments
    ---------
    model : HyperbolicSpeakerRecognition
        Its ``channel`` is respected; speech is always looked for.
    audio : path, file object, array or tensor
        As for ``model.embed``.
    sample_rate : int
        That of an array, in Hz; None means the model's.
    speakers : int
        Their number; None means that it is estimated: that of groups that
        speak 3 s or more, and whose windows have a mean cosine with other
        groups' below half of the model's threshold at the EER.

    Returns
    -------
    turns : list of Turn
        In order of time.

    Example
    -------
    >>> turns = [Turn(0.0, 2.5, "speaker1"), Turn(3.0, 4.0, "speaker2")]
    >>> path = getfixture("tmp_path") / "call.rttm"
    >>> write_rttm(path, {"call": turns})
    >>> print(path.read_text().splitlines()[1])
    SPEAKER call 1 3.000 1.000 <NA> <NA> speaker2 <NA> <NA>
    """
    if speakers is not None and speakers < 1:
        raise InputError(f"speakers is {speakers}, expected 1 or more")
    rate = model.sample_rate
    name, parts = read_audio(audio, sample_rate, rate, model.channel)
    waveform = torch.cat([*parts])
    segments = speech_segments(waveform, rate, _PAUSE, _MARGIN)
    if not segments:
        raise InputError(f"{name} has no speech: replace or leave it out")
    spans = [span for segment in segments for span in _cut(*segment, rate)]
    if speakers is not None and len(spans) < speakers:
        raise InputError(
            f"{name} has {len(spans)} windows of speech, too few for "
            f"{speakers} speakers: pass a smaller number"
        )
    measured = model.config.thresholds
    threshold = _OF_THRESHOLD * measured.eer if measured else _NOT_MEASURED
    labels = _cluster(_embed(model, waveform, spans), speakers, threshold)
    return _turns(spans, labels, rate)


def _cut(start: int, stop: int, rate: int) -> list[tuple[int, int]]:
    """Equal parts of a segment, each the middle of a window."""
    count = max(1, round((stop - start) / (_HOP * rate)))
    bounds = np.linspace(start, stop, count + 1).astype(int).tolist()
    return list(zip(bounds, bounds[1:], strict=False))


def _embed(
    model: HyperbolicSpeakerRecognition,
    waveform: torch.Tensor,
    spans: list[tuple[int, int]],
) -> np.ndarray:
    size = int(_WINDOW * model.sample_rate)
    windows = []
    for start, stop in spans:
        first = max(0, min((start + stop - size) // 2, len(waveform) - size))
        windows.append(repeat_to(waveform[first : first + size], size))
    with torch.no_grad():
        batches = [
            model.encode_batch(torch.stack(windows[i : i + _BATCH])).flatten(1)
            for i in range(0, len(windows), _BATCH)
        ]
    return torch.cat(batches).cpu().numpy()


def _cluster(
    vectors: np.ndarray, speakers: int | None, threshold: float
) -> np.ndarray:
    """The number of each window's group."""
    if len(vectors) == 1:
        return np.zeros(1, int)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    if speakers is None:
        groups = AgglomerativeClustering(
            n_clusters=None,
            distance_threshold=1 - threshold,
            metric="cosine",
            linkage="average",
        ).fit_predict(vectors)
        speakers = max(1, int(np.sum(np.bincount(groups) >= _LEAST)))
    # Ward's linkage, since the mean cosine makes groups of single windows.
    return AgglomerativeClustering(speakers).fit_predict(vectors)


def _turns(
    spans: list[tuple[int, int]], labels: np.ndarray, rate: int
) -> list[Turn]:
    """Joins neighboring parts of a speaker."""
    names: dict[int, str] = {}
    turns: list[Turn] = []
    for span, label in zip(spans, labels.tolist(), strict=True):
        name = names.setdefault(label, f"speaker{len(names) + 1}")
        start, stop = (sample / rate for sample in span)
        if turns and turns[-1].speaker == name and turns[-1].stop >= start:
            start = turns.pop().start
        turns.append(Turn(start, stop, name))
    return turns


def write_rttm(path: StrPath, recordings: dict[str, list[Turn]]) -> None:
    """Writes turns in NIST's format, whose names have no blanks."""
    lines = [
        f"SPEAKER {'_'.join(name.split())} 1 {turn.start:.3f} "
        f"{turn.stop - turn.start:.3f} <NA> <NA> {turn.speaker} <NA> <NA>\n"
        for name, turns in recordings.items()
        for turn in turns
    ]
    write_text(path, "".join(lines))
