"""Waveform augmentation of the published protocol.

Each utterance gives its clean crop and one augmented copy: in a room, or with
music, babble or noise. What a batch gets is a function of (seed, epoch, step),
so a resumed run needs no state of it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.fft
import torch
from speechbrain.utils.distributed import get_rank

from speechbrain_hyperbolic.dataio.files import StrPath
from speechbrain_hyperbolic.dataio.noise import SoundBank
from speechbrain_hyperbolic.errors import InputError

NOISE, MUSIC, BABBLE, REVERB = range(4)
_EPSILON = 1e-14  # amplitude of silence, as in the stock classes
_ROOM = 1024  # rooms have multiples of it, so that FFTs have few lengths


class Draws(NamedTuple):
    """What a batch is augmented with; a row is an utterance's."""

    kinds: np.ndarray  # [batch]: NOISE, MUSIC, BABBLE or REVERB
    snr: np.ndarray  # [batch], in dB
    voices: np.ndarray  # [batch]: how many sounds are added
    sounds: np.ndarray  # [batch, most voices]: which, in [0, 1)
    places: np.ndarray  # [batch, most voices]: where each begins, in [0, 1)


class SpeakerAugmenter:
    """Adds to the utterances of a batch an augmented copy of each.

    It takes the place of the stock ``Augmenter`` and its readers. Each
    utterance has a kind of augmentation, sounds, an SNR and a room of its own.

    Arguments
    ---------
    noise_source : str or pathlib.Path
        A folder with subfolders ``noise``, ``music`` and ``speech`` (MUSAN), or
        of any audio files, which are then noise and music. Or "download", the
        archive at ``noise_url``; or "generate". Babble is made of ``speech``;
        without it, of the batch's other utterances.
    rir_source : str or pathlib.Path
        Room impulse responses: a folder, of which ``simulated_rirs`` is used if
        it is there (RIRS_NOISES). Or "download" or "generate".
    folder : str or pathlib.Path
        For the sounds in the form in which they are read. Runs can share it.
    sample_rate : int
        Of the utterances, in Hz.
    noise_url : str
        Archive of noise, as in the stock recipe.
    rir_url : str
        Archive of room impulse responses.
    seed : int
        Of the draws.
    noise_snr : sequence of float
        Lowest and highest signal-to-noise ratio of noise, in dB.
    music_snr : sequence of float
        Of music.
    babble_snr : sequence of float
        Of babble.
    babble_speakers : sequence of int
        Fewest and most voices of babble.

    Raises
    ------
    InputError
        If a range is not two numbers that ascend.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> augment = SpeakerAugmenter("generate", "generate", folder, 16000)
    >>> waveforms, lengths = augment(torch.randn(4, 16000), torch.ones(4))
    >>> waveforms.shape, lengths.shape
    (torch.Size([8, 16000]), torch.Size([8]))
    >>> augment.replicate_labels(torch.arange(4))
    tensor([0, 1, 2, 3, 0, 1, 2, 3])
    """

    def __init__(
        self,
        noise_source: StrPath,
        rir_source: StrPath,
        folder: StrPath,
        sample_rate: int,
        noise_url: str = "",
        rir_url: str = "",
        seed: int = 0,
        noise_snr: Sequence[float] = (0, 15),
        music_snr: Sequence[float] = (5, 15),
        babble_snr: Sequence[float] = (13, 20),
        babble_speakers: Sequence[int] = (3, 8),
    ) -> None:
        ranges = [noise_snr, music_snr, babble_snr, babble_speakers]
        for values in ranges:
            if len(values) != 2 or not values[0] <= values[1]:
                raise InputError(
                    f"a range of wav_augment is {values}, expected its lowest "
                    "and highest number, e.g. [3, 8]"
                )
        self.snr_ranges = np.array([*ranges[:3], (0, 0)])
        self.babble_speakers = babble_speakers
        place = folder, sample_rate
        self.noises = SoundBank("noise_source", noise_source, noise_url, *place)
        self.rooms = SoundBank("rir_source", rir_source, rir_url, *place)
        self.seed = seed
        self.go_to(0, 0)

    def prepare(self) -> None:
        """Reads all sounds once, before a training."""
        self.noises.prepare()
        self.rooms.prepare()

    def go_to(self, epoch: int, step: int) -> None:
        """Says what batch comes next. Otherwise, batches are counted."""
        self.epoch, self.step = epoch, step

    def replicate_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """The labels [batch, ...] of both views: [2 * batch, ...]."""
        return torch.cat([labels, labels])

    @torch.no_grad()
    def __call__(
        self, waveforms: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Waveforms [batch, time] and relative lengths [batch], followed by
        those of the augmented copies: [2 * batch, time] and [2 * batch].
        """
        (batch, time), device = waveforms.shape, waveforms.device
        draws = self.draw(batch)
        self.step += 1
        noise, rooms, direct = self.read(draws, time, waveforms.is_cuda)
        noise = noise.to(device, non_blocking=True)
        rooms = rooms.to(device, non_blocking=True)
        snr = _send(draws.snr[:, None].astype(np.float32), device)
        in_room = _send(np.flatnonzero(draws.kinds == REVERB), device)
        if not self.noises.spans.get("speech"):
            self._add_babble(noise, waveforms, draws)

        clean = waveforms
        # On a CPU, the host may ask whether there is padding to leave alone.
        padded = waveforms.is_cuda or bool((lengths < 1).any())
        if padded:
            ends = (lengths * time).round()[:, None]
            inside = torch.arange(time, device=device) < ends
            valid = inside.to(waveforms.dtype)  # faster than a bool
            clean = waveforms * valid
            noise *= valid
        both = waveforms.new_empty(2 * batch, time)
        both[:batch] = waveforms
        copies = mix(clean, noise, snr, out=both[batch:])
        if len(rooms):
            dry = clean[in_room]
            wet = reverberate(dry, rooms, direct)
            if padded:
                wet *= valid[in_room]
            # The mean absolute amplitude stays, as in the stock AddReverb.
            before, after = (x.abs().sum(1, keepdim=True) for x in (dry, wet))
            wet *= before / (after + _EPSILON)
            copies.index_copy_(0, in_room, wet)
        return both, torch.cat([lengths, lengths])

    def draw(self, batch: int) -> Draws:
        """What the utterances get, from the seed, the epoch and the step."""
        seeds = [self.seed, self.epoch, self.step, get_rank() or 0]
        fewest, most = self.babble_speakers
        numbers = np.random.default_rng(seeds).random((batch, 3 + 2 * most))
        kind, snr, count = numbers[:, :3].T
        possible = [BABBLE, *([REVERB] if self.rooms.spans["reverb"] else [])]
        for number, name in ((NOISE, "noise"), (MUSIC, "music")):
            possible += [number] if self.noises.spans[name] else []
        kinds = np.sort(possible)[(kind * len(possible)).astype(int)]
        low, high = self.snr_ranges[kinds].T
        voices = fewest + (count * (most - fewest + 1)).astype(int)
        voices = np.where(kinds == BABBLE, voices, 1)
        # Voice n is from the n-th part of the sounds, so few are heard twice.
        sounds = (np.arange(most) + numbers[:, 3 : 3 + most]) / voices[:, None]
        places = numbers[:, 3 + most :]
        snr = low + snr * (high - low)
        return Draws(kinds, snr, voices, sounds, places)

    def read(
        self, draws: Draws, time: int, pin_memory: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, int]:
        """The noise of each utterance [batch, time], without what the banks do
        not give; the rooms [rooms, longest] of the reverberant ones; and at
        which sample of every room its direct path is.
        """
        names = {NOISE: "noise", MUSIC: "music"}
        if self.noises.spans.get("speech"):
            names[BABBLE] = "speech"
        noise = torch.empty(len(draws.kinds), time, pin_memory=pin_memory)
        for row, out in enumerate(noise.numpy()):
            out[:] = 0
            name = names.get(draws.kinds[row], "")
            for voice in range(draws.voices[row] if name else 0):
                place = draws.sounds[row, voice], draws.places[row, voice]
                out += self.noises.crop(name, *place, time)

        found, peaks = [], []
        for which in draws.sounds[draws.kinds == REVERB, 0]:
            room = self.rooms.sound("reverb", which)
            peak = int(np.abs(room.astype(np.int32)).argmax())
            # What is further away from the direct path is never heard.
            found.append(room[max(0, peak - time) : peak + time])
            peaks.append(min(peak, time))
        direct = max(peaks, default=0)
        starts = [direct - peak for peak in peaks]
        ends = [s + len(r) for s, r in zip(starts, found, strict=True)]
        longest = -(-max(ends, default=1) // _ROOM) * _ROOM
        rooms = torch.zeros(len(found), longest, pin_memory=pin_memory)
        for out, room, start in zip(rooms.numpy(), found, starts, strict=True):
            out[start : start + len(room)] = room
        return noise, rooms, direct

    def _add_babble(
        self, noise: torch.Tensor, batch: torch.Tensor, draws: Draws
    ) -> None:
        """Sums other utterances of the batch, each shifted at random."""
        (count, time), device = batch.shape, batch.device
        rows = np.flatnonzero(draws.kinds == BABBLE)
        others = 1 + (draws.sounds[rows] * max(1, count - 1)).astype(int)
        others = (rows[:, None] + others) % count
        starts = 2 * time * others + (draws.places[rows] * time).astype(int)
        heard = np.arange(starts.shape[1]) < draws.voices[rows, None]
        at = _send(np.where(heard, starts, 0).T.copy(), device)
        gains = _send(heard.T[..., None].astype(np.float32), device)
        # Row n of this view is what begins at sample n.
        pieces = torch.cat([batch, batch], 1).flatten().unfold(0, time, 1)
        babble = torch.zeros_like(noise[: len(rows)])
        for start, gain in zip(at, gains, strict=True):
            babble += gain * pieces[start]
        noise[_send(rows, device)] = babble


def mix(
    speech: torch.Tensor,
    noise: torch.Tensor,
    snr: torch.Tensor,
    out: torch.Tensor,
) -> torch.Tensor:
    """Speech with noise [batch, time] at an SNR [batch, 1] in dB."""
    # As in the stock AddNoise, the RMS amplitudes add up to the speech's.
    share = 1 / (1 + 10 ** (snr / 20))
    level = speech.norm(dim=1, keepdim=True)
    gain = share * level / (noise.norm(dim=1, keepdim=True) + _EPSILON)
    return torch.mul(speech, 1 - share, out=out).addcmul_(noise, gain)


def reverberate(
    speech: torch.Tensor, rooms: torch.Tensor, direct: int
) -> torch.Tensor:
    """Convolves utterances [batch, time] with a room [batch, samples] each.

    The ``direct`` path, at the same sample of all, stays in place. Unlike in
    the stock AddReverb, the end of an utterance does not echo in its beginning.
    """
    time = speech.shape[1]
    # Only samples before the direct path may be those of the end.
    least = time + max(direct, rooms.shape[1] - 1 - direct)
    # FFTs are fastest if a power of 2 is a factor of their length.
    size = 32 * scipy.fft.next_fast_len(-(-least // 32), real=True)
    spectrum = torch.fft.rfft(speech, size).mul_(torch.fft.rfft(rooms, size))
    return torch.fft.irfft(spectrum, size)[:, direct : direct + time]


def _send(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """To the device, which is not waited for."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
