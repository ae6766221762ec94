"""What befalls a recording on its way: channels, noise, rooms, cuts.

Waveforms are mono at 16 kHz, float arrays of shape [time] in [-1, 1]. What is
random is drawn from a generator that is given, so that all is the same again.
"""

import hashlib
import io
import math
from collections.abc import Callable
from typing import NamedTuple

import av
import numpy as np
import scipy.signal

RATE = 16000
# To be raised when a condition gives other waveforms than before.
VERSION = 1
_TELEPHONE = 8000
_BAND = scipy.signal.butter(
    6, (300, 3400), "bandpass", fs=_TELEPHONE, output="sos"
)
_VOICES = 6  # in babble
_DIRECT = 0.0025  # seconds of a room's response that are the direct path's


class Condition(NamedTuple):
    """A way to degrade recordings.

    Arguments
    ---------
    kind : str
        Conditions of one kind draw the same of an utterance, e.g. the same
        noise at each level.
    apply : callable
        Called with a waveform, a numpy Generator, and the waveforms of other
        speakers; gives a waveform.
    snr : float
        Signal-to-noise ratio in dB; None: no noise is added.
    """

    kind: str
    apply: Callable
    snr: float | None = None


def degrade(name, waveform, utterance, voices):
    """Brings a recording into a condition.

    Arguments
    ---------
    name : str
        One of ``CONDITIONS``.
    waveform : np.ndarray
    utterance : str
        Its id, from which all that is random is drawn.
    voices : sequence of np.ndarray
        Waveforms of other speakers, for noise.

    Returns
    -------
    waveform : np.ndarray
        float32; as long, but in a condition that cuts.

    Example
    -------
    >>> speech = np.random.default_rng(0).uniform(-0.1, 0.1, 40000)
    >>> degrade("reverb", speech, "id1/a", []).shape
    (40000,)
    >>> degrade("first2s", speech, "id1/a", []).shape
    (32000,)
    """
    condition = CONDITIONS[name]
    seed = hashlib.sha256(f"{condition.kind}\n{utterance}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(seed, "big"))
    return condition.apply(waveform, generator, voices).astype(np.float32)


def telephone(waveform):
    """A call: 300 to 3400 Hz, sampled at 8 kHz, coded by G.711 (mu-law)."""
    narrow = scipy.signal.resample_poly(waveform, 1, RATE // _TELEPHONE)
    # Forth and back: no delay, and twice the order
    narrow = scipy.signal.sosfiltfilt(_BAND, narrow)
    coded = _code(narrow, _TELEPHONE, "wav", "pcm_mulaw")
    return _fit(coded, len(waveform))


def mp3(waveform, bit_rate=32000):
    """Through LAME; bits a second."""
    coded = _code(waveform, RATE, "mp3", "libmp3lame", bit_rate)
    return _fit(coded, len(waveform))


def opus(waveform, bit_rate=12000):
    """Through libopus as calls and voice messages have it; bits a second."""
    coded = _code(
        waveform, RATE, "ogg", "libopus", bit_rate, {"application": "voip"}
    )
    return _fit(coded, len(waveform))


def add(waveform, noise, snr):
    """Adds noise at a ratio of powers, both over the whole clip.

    Arguments
    ---------
    waveform : np.ndarray
    noise : np.ndarray
        As long.
    snr : float
        In dB.

    Returns
    -------
    waveform : np.ndarray

    Example
    -------
    >>> add(np.ones(2), np.array([5.0, -5.0]), snr=20)
    array([1.1, 0.9])
    """
    power = np.mean(np.square(waveform)) / np.mean(np.square(noise))
    return waveform + noise * np.sqrt(power / 10 ** (snr / 10))


def coloured_noise(generator, samples):
    """Stationary noise that falls by 0 to 9 dB per octave above 30 Hz, the
    kind that the recipe generates for augmentation."""
    slope = generator.uniform(0, 1.5)
    spectrum = np.fft.rfft(generator.standard_normal(samples))
    frequency = np.fft.rfftfreq(samples, 1 / RATE)
    spectrum[0] = 0
    return np.fft.irfft(spectrum / frequency.clip(30) ** slope, samples)


def babble(generator, samples, voices):
    """Several voices at once, each of the same power."""
    count = min(_VOICES, len(voices))
    mixed = np.zeros(samples)
    for index in generator.choice(len(voices), count, replace=False):
        voice = np.roll(voices[index], generator.integers(len(voices[index])))
        # A silent recording stays so.
        level = np.sqrt(np.mean(voice**2)) or 1
        mixed += np.resize(voice, samples) / level
    return mixed


def speech_noise(generator, samples, voices):
    """Stationary noise with the spectrum of speech: babble whose phases are
    drawn anew."""
    spectrum = np.fft.rfft(babble(generator, samples, voices))
    turns = np.exp(2j * np.pi * generator.random(len(spectrum)))
    return np.fft.irfft(np.abs(spectrum) * turns, samples)


def room_response(generator):
    """The response of a room to an impulse, with a total energy of 1.

    The tail is noise that decays by 60 dB in 0.3 to 0.8 s; the direct path,
    which comes at once, has -3 to 3 dB more energy than it.
    """
    decay = generator.uniform(0.3, 0.8)
    ratio = 10 ** (generator.uniform(-3, 3) / 10)
    time = np.arange(round(decay * RATE)) / RATE
    tail = generator.standard_normal(len(time)) * 10 ** (-3 * time / decay)
    tail[time < _DIRECT] = 0
    response = tail / np.linalg.norm(tail)
    response[0] = np.sqrt(ratio)
    return response / np.linalg.norm(response)


def reverberate(waveform, response):
    """As heard in a room; what sounds on after the end is cut."""
    return scipy.signal.fftconvolve(waveform, response)[: len(waveform)]


def _code(waveform, rate, container, codec, bit_rate=None, options=None):
    """Encodes and decodes, in memory; at 16 kHz.

    The containers say by how much a codec delays, and the decoder makes up for
    it.
    """
    file = io.BytesIO()
    # 16 bits are what the codecs take, and the clipping is what a sound card
    # would do.
    pcm = np.round(np.clip(waveform, -1, 1) * 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
    frame.sample_rate = rate
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(
            codec, rate=rate, options=options or {}, layout="mono"
        )
        if bit_rate:
            stream.bit_rate = bit_rate
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as coded:
        (stream,) = coded.streams.audio
        resampler = av.AudioResampler("fltp", "mono", stream.rate)
        blocks = [
            block.to_ndarray()[0]
            for frame in coded.decode(stream)
            for block in resampler.resample(frame)
        ]
        common = math.gcd(RATE, stream.rate)
        return scipy.signal.resample_poly(
            np.concatenate(blocks), RATE // common, stream.rate // common
        )


def _fit(waveform, samples):
    """Cuts the padding of a codec's last frame, or makes up for its lack."""
    missing = max(0, samples - len(waveform))
    return np.pad(waveform[:samples], (0, missing))


def _noisy(kind, make, snr):
    def apply(waveform, generator, voices):
        return add(waveform, make(generator, len(waveform), voices), snr)

    return Condition(kind, apply, snr)


CONDITIONS = {
    "clean": Condition("clean", lambda speech, *_: speech),
    "telephone": Condition("telephone", lambda speech, *_: telephone(speech)),
    "mp3": Condition("mp3", lambda speech, *_: mp3(speech)),
    "opus": Condition("opus", lambda speech, *_: opus(speech)),
    **{
        f"noise{snr}": _noisy("noise", speech_noise, snr) for snr in (15, 10, 5)
    },
    "coloured10": _noisy(
        "coloured", lambda draw, samples, _: coloured_noise(draw, samples), 10
    ),
    "babble10": _noisy("babble", babble, 10),
    "reverb": Condition(
        "reverb",
        lambda speech, draw, _: reverberate(speech, room_response(draw)),
    ),
    "first2s": Condition("first2s", lambda speech, *_: speech[: 2 * RATE]),
    "first1s": Condition("first1s", lambda speech, *_: speech[:RATE]),
}
ABOUT = {
    "clean": "as it is",
    "telephone": "300-3400 Hz at 8 kHz, G.711 mu-law",
    "mp3": "32 kbit/s",
    "opus": "12 kbit/s",
    "noise15, noise10, noise5": "speech-shaped noise at that SNR, in dB",
    "coloured10": "noise of the augmentation's kind, 10 dB",
    "babble10": f"{_VOICES} other test speakers, 10 dB",
    "reverb": "T60 of 0.3 to 0.8 s, direct-to-reverberant ratio of -3 to 3 dB",
    "first2s, first1s": "the first seconds alone",
}
