"""ONNX export run by onnxruntime, against PyTorch on the CPU.

> OMP_NUM_THREADS=2 python -m benchmarks.onnx [--rounds 20]

The weights are random: their values do not change the time.
"""

import argparse
import pathlib
import statistics
import tempfile
import timeit
from functools import partial

import numpy as np
import onnxruntime
import torch

from speechbrain_hyperbolic.evaluation.extraction import Encoder
from speechbrain_hyperbolic.hub.onnx import export_onnx
from speechbrain_hyperbolic.inference.model import (
    ModelConfig,
    build_modules,
    load_model,
    save_model,
)

RATE = 16000
SECONDS = (2, 5, 10)


def write_model(folder, channels):
    """An ECAPA-TDNN with random weights."""
    config = ModelConfig(
        {"class": "speechbrain.lobes.features.Fbank", "n_mels": 80},
        {
            "class": "speechbrain.processing.features.InputNormalization",
            "norm_type": "sentence",
            "std_norm": False,
        },
        {
            "class": "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN",
            "input_size": 80,
            "channels": [*[channels] * 4, 3 * channels],
        },
    )
    encoder = build_modules(config)["embedding_model"]
    save_model(folder, config, encoder.state_dict())


def open_session(path):
    """A session with as many threads as PyTorch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that spin while they wait would slow down PyTorch, run in turn.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )


def median_ms(function, rounds):
    """The median time of some calls."""
    times = timeit.repeat(function, number=1, repeat=rounds)
    return 1e3 * statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--channels", type=int, nargs="+", default=[512, 1024])
    options = parser.parse_args()
    torch.manual_seed(0)
    print(
        f"batch 1, {torch.get_num_threads()} threads, onnxruntime "
        f"{onnxruntime.__version__}, torch {torch.__version__}\n\n"
        "| channels | audio, s | onnxruntime, ms | PyTorch, ms | difference |\n"
        "|---|---|---|---|---|"
    )
    for channels in options.channels:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            write_model(folder, channels)
            session = open_session(export_onnx(folder))
            encoder = Encoder(*load_model(folder)[1].values())
        for seconds in SECONDS:
            x = torch.randn(1, seconds * RATE) / 10
            ort = partial(session.run, None, {"waveform": x.numpy()})
            error = np.abs(ort()[0] - encoder(x).numpy()).max()
            taken = median_ms(ort, options.rounds)
            pytorch = median_ms(partial(encoder, x), options.rounds)
            print(
                f"| {channels} | {seconds} | {taken:.1f} | {pytorch:.1f} | "
                f"{error:.1e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
