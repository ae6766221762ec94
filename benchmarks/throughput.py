"""Training examples per second, by this package's script and by the stock's.

> SPEECHBRAIN_CLONE=/path/to/speechbrain OMP_NUM_THREADS=2 \
      python -m benchmarks.throughput

Both train the same encoder on the same utterances of noise, in the same
batches, with one augmented copy of each. They take turns, each time in a
process of its own.
"""

import pathlib
import statistics
import sys
import tempfile

from benchmarks import (
    STOCK_RECIPE,
    median_ratio,
    read_options,
    stock_clone,
    table,
)
from benchmarks.corpus import write_recordings, write_sounds
from benchmarks.trainings import HPARAMS, SCRIPT, measure, options_of

SPEAKERS = 5994
STOCK_LOSS = """\
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: !ref <emb_dim>
    out_neurons: !ref <out_n_neurons>

compute_cost: !new:speechbrain.nnet.losses.LogSoftmaxWrapper
    loss_fn: !new:speechbrain.nnet.losses.AdditiveAngularMargin
        margin: !ref <margin>
        scale: !ref <scale>

"""
STOCK_AUGMENT = """\
wav_augment: !new:speechbrain.augment.augmenter.Augmenter
    parallel_augment: True
    concat_original: True
    shuffle_augmentations: True
    min_augmentations: 1
    max_augmentations: 1
    augmentations:
        - !new:speechbrain.augment.time_domain.AddNoise
            csv_file: !ref <noise_source>/noise.csv
            snr_low: 0
            snr_high: 15
            num_workers: !ref <num_workers>
        - !new:speechbrain.augment.time_domain.AddReverb
            csv_file: !ref <noise_source>/rir.csv
            num_workers: !ref <num_workers>

prepare_noise_data: !name:builtins.dict
prepare_rir_data: !name:builtins.dict

"""


def write_stock(path):
    """aam_ecapa.yaml with the stock's head, loss and augmentation."""
    text = (HPARAMS / "aam_ecapa.yaml").read_text()
    before, _, after = text.partition("classifier: !new:")
    after = after[after.index("epoch_counter: !new:") :]
    kept, _, after = after.partition("wav_augment: !new:")
    after = STOCK_AUGMENT + after[after.index("######") :]
    path.write_text(before + STOCK_LOSS + kept + after)


def main():
    options = read_options(
        __doc__,
        device="cpu",
        channels=64,
        batch_size=32,
        num_workers=1,
        rounds=5,
        batches=10,
    )
    clone, steps, size = stock_clone(), options.batches, options.batch_size
    if not clone:
        sys.exit("set SPEECHBRAIN_CLONE to a clone of SpeechBrain")
    stock = clone / STOCK_RECIPE / "train_speaker_embeddings.py"
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_sounds(folder / "sounds", 300)
        recordings = write_recordings(folder / "recordings", 50, (2.1, 4))
        given = options_of(folder, recordings, size, steps, SPEAKERS)
        given |= {
            "device": options.device,
            "channels": options.channels,
            "num_workers": options.num_workers,
            "noise_source": folder / "sounds",
            "rir_source": folder / "sounds" / "rir",
            "data_folder_noise": folder,
        }
        write_stock(folder / "stock.yaml")
        ham, aam = (HPARAMS / f"{loss}_ecapa.yaml" for loss in ("ham", "aam"))
        for what, files in {
            "HAM-Softmax, ham_ecapa.yaml in both scripts": (ham, ham),
            "AAM-Softmax, stock recipe and ours": (folder / "stock.yaml", aam),
        }.items():
            found = [], []
            for number in range(options.rounds):
                for kind, script in enumerate((stock, SCRIPT)):
                    output = folder / f"{files[kind].stem}-{kind}-{number}"
                    found[kind].append(
                        measure(script, files[kind], output, given, steps)
                    )
            times = [[run["step"] for run in runs] for runs in found]
            speeds = [size / statistics.median(t) for t in times]
            ratios = [a / b for a, b in zip(*times, strict=True)]
            row = {"what": what, "stock, examples/s": speeds[0]}
            row |= {"ours": speeds[1], "ours / stock": median_ratio(*times)}
            row["lowest and highest"] = (
                f"{min(ratios):.2f} to {max(ratios):.2f}"
            )
            first = [runs[0]["loss"] for runs in found]
            row |= {"first loss, stock": first[0], "first loss, ours": first[1]}
            rows.append(row)
    print(table(rows))


if __name__ == "__main__":
    main()
