"""The augmented copies, against a loop over the utterances in float64."""

import collections

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_hyperbolic.augment import (
    BABBLE,
    MUSIC,
    NOISE,
    REVERB,
    SpeakerAugmenter,
)
from speechbrain_hyperbolic.errors import InputError

RATE, BATCH, TIME = 16000, 60, 9000


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Of other lengths than an utterance; one direct path is late."""
    folder = tmp_path_factory.mktemp("sounds")
    generator = np.random.default_rng(0)
    for number in range(10):
        for kind in ("noise", "music", "speech", "rir"):
            samples = generator.standard_normal(5000 + 1000 * number)
            if kind == "rir":
                samples *= np.exp(-np.arange(len(samples)) / 500) / 10
                samples[100 * number] = -1
            path = folder / kind / f"{number}.wav"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, samples / 5, RATE)
    return folder


def make(sounds, folder, **options):
    return SpeakerAugmenter(
        sounds, sounds / "rir", folder / "bank", RATE, **options
    )


def read(folder, which):
    files = sorted(folder.iterdir())
    return soundfile.read(files[int(which * len(files))])[0]


def piece(sound, place):
    """From a place of the sound, which is repeated if it is short."""
    if len(sound) < TIME:
        return np.resize(np.roll(sound, -int(place * len(sound))), TIME)
    first = int(place * (len(sound) - TIME + 1))
    return sound[first : first + TIME]


def expected(sounds, draws, row, waveforms, end, speech):
    """One utterance's augmented copy, up to its end."""
    clean = waveforms[row, :end].double().numpy()
    pairs = zip(draws.sounds[row], draws.places[row], strict=True)
    voices = list(pairs)[: draws.voices[row]]
    if draws.kinds[row] == REVERB:
        room = read(sounds / "rir", voices[0][0])
        direct = np.abs(room).argmax()
        wet = np.convolve(clean, room)[direct : direct + end]
        return wet * np.abs(clean).mean() / np.abs(wet).mean()
    if draws.kinds[row] == BABBLE and not speech:
        others = [
            waveforms[(row + 1 + int(which * (BATCH - 1))) % BATCH].numpy()
            for which, _ in voices
        ]
        places = [int(place * TIME) for _, place in voices]
        added = sum(np.roll(o, -p) for o, p in zip(others, places, strict=True))
    else:
        kind = {NOISE: "noise", MUSIC: "music", BABBLE: "speech"}
        folder = sounds / kind[draws.kinds[row]]
        added = sum(piece(read(folder, w), place) for w, place in voices)
    added = added[:end] / np.sqrt((added[:end] ** 2).mean())
    level = np.sqrt((clean**2).mean())
    share = 1 / (1 + 10 ** (draws.snr[row] / 20))
    return (1 - share) * clean + share * level * added


@pytest.mark.parametrize("shortest", [0.4, 1])
@pytest.mark.parametrize("speech", [True, False])
def test_equals_a_loop_over_the_utterances(sounds, tmp_path, speech, shortest):
    """Of every kind, to the end of each; what follows is silent."""
    augment = make(sounds, tmp_path)
    if not speech:
        augment.noises.spans.pop("speech")
    lengths = torch.linspace(shortest, 1, BATCH)
    ends = (lengths * TIME).round().int()
    waveforms = torch.randn(BATCH, TIME)
    waveforms *= torch.arange(TIME) < ends[:, None]
    draws = augment.draw(BATCH)
    both, found = augment(waveforms, lengths)
    assert torch.equal(both[:BATCH], waveforms)
    assert torch.equal(found, torch.cat([lengths, lengths]))
    assert set(draws.kinds) == {NOISE, MUSIC, BABBLE, REVERB}
    for row, end in enumerate(ends.tolist()):
        copy = both[BATCH + row].double().numpy()
        truth = expected(sounds, draws, row, waveforms, end, speech)
        assert np.abs(copy[:end] - truth).max() < 1e-4, draws.kinds[row]
        assert not copy[end:].any()


def test_draws(sounds, tmp_path):
    """Of all kinds and in the ranges; a babble is of different voices."""
    draws = make(sounds, tmp_path, noise_snr=[-3, 2]).draw(4000)
    counts = collections.Counter(draws.kinds.tolist())
    assert all(900 < counts[kind] < 1100 for kind in range(4))
    for kind, low, high in ((NOISE, -3, 2), (MUSIC, 5, 15), (BABBLE, 13, 20)):
        snr = draws.snr[draws.kinds == kind]
        assert low <= snr.min() < low + 0.1 and high - 0.1 < snr.max() <= high
    babble = draws.kinds == BABBLE
    assert set(draws.voices[babble]) == {3, 4, 5, 6, 7, 8}
    assert set(draws.voices[~babble]) == {1}
    for which, voices in zip(
        draws.sounds[babble], draws.voices[babble], strict=True
    ):
        assert len({int(voices * w) for w in which[:voices]}) == voices
    counts = np.bincount((10 * draws.sounds[~babble, 0]).astype(int))
    assert counts.min() > 220
    assert len(np.unique(draws.places[:, 0])) == 4000


def test_the_seed_epoch_and_step_decide(sounds, tmp_path):
    """Whatever else is drawn; under the stock script, steps are counted."""
    waveforms, lengths = torch.randn(8, TIME), torch.ones(8)
    augment = make(sounds, tmp_path, seed=3)
    first, second = (augment(waveforms, lengths)[0] for _ in range(2))
    torch.manual_seed(7)
    again = make(sounds, tmp_path, seed=3)
    again.go_to(0, 1)
    assert torch.equal(again(waveforms, lengths)[0], second)
    others = [first]
    for seed, epoch, step in ((3, 1, 1), (3, 0, 2), (4, 0, 1)):
        other = make(sounds, tmp_path, seed=seed)
        other.go_to(epoch, step)
        others.append(other(waveforms, lengths)[0])
    assert all(not torch.equal(other, second) for other in others)
    labels = torch.arange(8)[:, None]
    assert torch.equal(augment.replicate_labels(labels), labels.repeat(2, 1))


def test_silence_and_a_single_utterance(sounds, tmp_path):
    augment = make(sounds, tmp_path)
    augment.noises.spans.pop("speech")
    for waveforms in (torch.zeros(12, TIME), torch.randn(1, TIME)):
        for _ in range(6):
            both, _ = augment(waveforms, torch.ones(len(waveforms)))
            assert both.isfinite().all()


@pytest.mark.parametrize("wrong", [[15, 0], [1], [1, 2, 3]])
def test_a_range_must_ascend(tmp_path, wrong):
    with pytest.raises(InputError, match="lowest and highest number"):
        make(tmp_path, tmp_path, music_snr=wrong)
