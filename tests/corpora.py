"""Synthetic corpora, made in no time."""

import numpy as np
import soundfile


def make_corpus(folder, speakers=6, utterances=8):
    """Synthetic: a tone a speaker, in noise, of 0.5 to 1.2 s; trials; and
    sounds to augment with.
    """
    generator = np.random.default_rng(0)
    for speaker in range(speakers + 2):
        for number in range(utterances):
            path = folder / "corpus" / f"s{speaker}" / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            time = np.arange(generator.integers(8000, 19200)) / 16000
            tone = np.sin(2 * np.pi * 200 * (speaker + 1) * time)
            noise = generator.standard_normal(len(time))
            soundfile.write(path, 0.3 * tone + 0.05 * noise, 16000)
    make_sounds(folder / "sounds")
    (folder / "trials.txt").write_text(
        "".join(
            f"{int(a == b)} s{a + speakers}/0 s{b + speakers}/1\n"
            for a in range(2)
            for b in range(2)
        )
    )
    return folder


def make_sounds(folder):
    """To augment with: noise in folders noise, music and speech, and rir."""
    generator = np.random.default_rng(0)
    for kind in ("noise", "music", "speech", "rir"):
        for number in range(3):
            path = folder / kind / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = generator.standard_normal(160000)
            if kind == "rir":
                samples = samples[:2000] * np.exp(-np.arange(2000) / 300)
            soundfile.write(path, samples / 10, 16000)
    return folder
