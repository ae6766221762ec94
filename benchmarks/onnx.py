"""ONNX export by onnxruntime, against PyTorch on the CPU.

The weights are random: what is timed does not look at their values.
"""

import pathlib
import tempfile

import onnx
import onnxruntime
import torch

from benchmarks.measure import ratio, row, times, title
from speechbrain_hyperbolic.hub.onnx import embedding_error, export_onnx
from speechbrain_hyperbolic.inference.model_folder import (
    ModelConfig,
    build_modules,
    load_model,
    save_model,
)
from speechbrain_hyperbolic.scoring.extraction import Encoder

SAMPLE_RATE = 16000
SECONDS = (2, 5, 10)


def write_model(folder, channels):
    """An ECAPA-TDNN with random weights."""
    arguments = {"input_size": 80, "channels": [*[channels] * 4, 3 * channels]}
    config = ModelConfig(SAMPLE_RATE, 80, "ecapa", arguments)
    encoder = build_modules(config)["embedding_model"]
    save_model(folder, config, encoder.state_dict())


def open_session(path):
    """With as many threads as PyTorch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait for the next call by spinning would slow down PyTorch,
    # which is run in turn.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )


def main(quick):
    torch.manual_seed(0)
    widths, rounds = ([64], 1) if quick else ([512, 1024], 20)
    title(
        f"Waveform to embedding, batch 1, {rounds} rounds, "
        f"{torch.get_num_threads()} threads each, "
        f"onnxruntime {onnxruntime.__version__}, onnx {onnx.__version__}, "
        f"torch {torch.__version__}",
        "ECAPA channels",
        "MB of model.onnx",
        "audio, s",
        "onnxruntime, ms",
        "PyTorch, ms",
        "onnxruntime / PyTorch",
        "largest difference",
    )
    for channels in widths:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            write_model(folder, channels)
            path = export_onnx(folder)
            size = path.stat().st_size / 1e6
            session = open_session(path)
            _, modules = load_model(folder)
        encoder = Encoder(**modules)
        for seconds in SECONDS:
            waveforms = torch.randn(1, seconds * SAMPLE_RATE) / 10
            feed = {"waveform": waveforms.numpy()}
            cases = {
                "ours": lambda s=session, f=feed: s.run(None, f)[0],
                "torch": lambda e=encoder, w=waveforms: e(w).numpy(),
            }
            error = embedding_error(cases["ours"](), cases["torch"]())
            taken = times(cases, rounds)
            row(
                channels,
                f"{size:.1f}",
                seconds,
                f"{1e3 * taken['ours']:.1f}",
                f"{1e3 * taken['torch']:.1f}",
                ratio(taken["ours"], taken["torch"]),
                f"{error:.1e}",
            )
