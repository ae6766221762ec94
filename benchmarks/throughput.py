"""Training examples per second, by this package's script and by the stock's.

> SPEECHBRAIN_CLONE=/path/to/speechbrain OMP_NUM_THREADS=2 \
      python -m benchmarks.throughput [--data_folder CORPUS]

Both train the same encoder on the same utterances, of noise without a corpus,
with the same batches and augmentation. They take turns, each time in a process
of its own.
"""

import pathlib
import statistics
import tempfile

from benchmarks import (
    STOCK_RECIPE,
    median_ratio,
    read_options,
    stock_clone,
    table,
)
from benchmarks.corpus import RATE, write_recordings, write_sounds
from benchmarks.trainings import (
    HPARAMS,
    SCRIPT,
    SENTENCE,
    measure,
    options_of,
)
from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.dataio.corpus import read_corpus
from speechbrain_hyperbolic.errors import InputError, exit_on_error

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


def write_stock_aam(path):
    """aam_ecapa.yaml with the stock's head and loss."""
    text = (HPARAMS / "aam_ecapa.yaml").read_text()
    before, _, after = text.partition("classifier: !new:")
    after = after[after.index("epoch_counter: !new:") :]
    path.write_text(before + STOCK_LOSS + after)


def main():
    options = read_options(
        __doc__,
        data_folder="",
        device="cpu",
        channels=64,
        batch_size=32,
        num_workers=1,
        rounds=5,
        batches=10,
    )
    clone, steps = stock_clone(), options.batches
    if not clone:
        raise InputError(
            "SPEECHBRAIN_CLONE is not set: name a clone of SpeechBrain, whose "
            "recipe this compares with"
        )
    stock = clone / STOCK_RECIPE / "train_speaker_embeddings.py"
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_sounds(folder / "sounds", 8)
        if options.data_folder:
            paths = read_corpus(options.data_folder).paths().values()
            # The stock script stops at a recording shorter than a crop.
            long = [p for p in paths if audio.info(p).frames > SENTENCE * RATE]
        else:
            long = write_recordings(folder / "recordings", 50, (2.1, 4))
        given = options_of(folder, long, options.batch_size, steps, SPEAKERS)
        given |= {
            "device": options.device,
            "channels": options.channels,
            "num_workers": options.num_workers,
            "noise_source": folder / "sounds",
            "rir_source": folder / "sounds" / "rir",
            "data_folder_noise": folder,
        }
        stock_aam = folder / "stock_aam.yaml"
        write_stock_aam(stock_aam)
        ham, aam = (HPARAMS / f"{loss}_ecapa.yaml" for loss in ("ham", "aam"))
        for what, files in {
            "HAM-Softmax, ham_ecapa.yaml in both": (ham, ham),
            "AAM-Softmax, stock head and loss against ours": (stock_aam, aam),
        }.items():
            found = [], []
            for number in range(options.rounds):
                for kind, script in enumerate((stock, SCRIPT)):
                    output = folder / f"{files[kind].stem}-{kind}-{number}"
                    found[kind].append(
                        measure(script, files[kind], output, given, steps)
                    )
            times = [[run["step"] for run in runs] for runs in found]
            speeds = [options.batch_size / statistics.median(t) for t in times]
            ratios = [a / b for a, b in zip(*times, strict=True)]
            low, high = min(ratios), max(ratios)
            row = {"what": what, "stock, examples/s": speeds[0]}
            row |= {"ours": speeds[1], "ours / stock": median_ratio(*times)}
            row["lowest and highest"] = f"{low:.2f} to {high:.2f}"
            first = [runs[0]["loss"] for runs in found]
            row |= {"first loss, stock": first[0], "first loss, ours": first[1]}
            rows.append(row)
    print(table(rows))


if __name__ == "__main__":
    with exit_on_error():
        main()
