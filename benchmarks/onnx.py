"""ONNX export run by onnxruntime, against PyTorch on the CPU.

> OMP_NUM_THREADS=2 python -m benchmarks.onnx [--channels 1024]

The weights are random: their values do not change the time.
"""

import pathlib
import statistics
import tempfile
from functools import partial

import numpy as np
import onnxruntime
import torch

from benchmarks import in_turns, read_options, table
from benchmarks.corpus import RATE
from speechbrain_hyperbolic.evaluation.extraction import Encoder
from speechbrain_hyperbolic.hub.onnx import export_onnx
from speechbrain_hyperbolic.inference.model import (
    ModelConfig,
    build_modules,
    load_model,
    save_model,
)

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


def main():
    options = read_options(__doc__, rounds=20, channels=512)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_model(folder, options.channels)
        session = open_session(export_onnx(folder))
        encoder = Encoder(*load_model(folder)[1].values())
    rows = []
    for seconds in SECONDS:
        x = torch.randn(1, seconds * RATE) / 10
        ort = partial(session.run, None, {"waveform": x.numpy()})
        error = np.abs(ort()[0] - encoder(x).numpy()).max()
        cases = {"onnxruntime": ort, "PyTorch": partial(encoder, x)}
        row = {"audio, s": seconds, "largest difference": float(error)}
        for name, times in in_turns(cases, options.rounds).items():
            row[f"{name}, ms"] = 1e3 * statistics.median(times)
        rows.append(row)
    print(table(rows))


if __name__ == "__main__":
    main()
