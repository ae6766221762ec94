"""A model as one ONNX file, from waveforms to embeddings."""

import contextlib
import logging
import pathlib
import sys
import types
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.nnet.pooling import StatisticsPooling

from speechbrain_hyperbolic.dataio.files import StrPath, atomic_path
from speechbrain_hyperbolic.errors import InputError, requires
from speechbrain_hyperbolic.evaluation.extraction import SHORTEST, Encoder
from speechbrain_hyperbolic.inference.model import fingerprint, load_model

TOLERANCE = 1e-4
# (waveforms, seconds) on which each exported file is checked
_CHECKED = ((1, 0.5), (3, 3.3), (1, 20.0))


def export_onnx(folder: StrPath, trusted: Iterable[str] = ()) -> pathlib.Path:
    """Writes model.onnx, if onnxruntime reproduces PyTorch's embeddings."""
    onnx, onnxruntime = check_packages()
    path = pathlib.Path(folder) / "model.onnx"
    config, modules = load_model(folder, trusted)
    encoder = modules["embedding_model"]
    if type(encoder).__name__ == "WavLMEncoder":
        raise InputError("a WavLM model has no ONNX export: leave out --onnx")
    for module in encoder.modules():
        if isinstance(module, StatisticsPooling):
            # The stock x-vector adds noise to its means, even in evaluation:
            # (9 - 8 g) eps, with g symmetric about 1/2. This is its mean.
            mean = 5 * module.eps
            module._get_gauss_noise = lambda *_, mean=mean, **__: mean
    reference = Encoder(**modules)  # type: ignore[arg-type]
    model = _convert(WaveformEncoder(modules), config.sample_rate)
    mark = fingerprint(config, encoder.state_dict())
    properties = {"sample_rate": str(config.sample_rate), "fingerprint": mark}
    onnx.helper.set_model_props(model, properties)
    with atomic_path(path) as temporary:
        onnx.save(model, temporary)
        session = onnxruntime.InferenceSession(
            temporary, providers=["CPUExecutionProvider"]
        )
        error = _largest_error(session, reference, config.sample_rate)
        if not error <= TOLERANCE:  # unlike ">", catches NaN
            raise InputError(
                f"{path} is not written: onnxruntime's embeddings differ from "
                f"PyTorch's by {error:.1e}, expected at most {TOLERANCE:g}; "
                "check the weights, or try other versions of torch and "
                "onnxruntime"
            )
    return path


def check_packages() -> tuple[types.ModuleType, types.ModuleType]:
    """onnx and onnxruntime, or an InputError that says what to install."""
    with requires("onnx", "the ONNX export"):
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401, needed by torch.onnx.export
    return onnx, onnxruntime


class WaveformEncoder(torch.nn.Module):
    """A model's modules as one."""

    def __init__(self, modules: dict[str, torch.nn.Module]) -> None:
        super().__init__()
        self.steps = torch.nn.ModuleDict(modules)
        # Without lengths, ECAPA builds a mask with one row per waveform, which
        # would fix the batch size in the graph.
        is_ecapa = isinstance(modules["embedding_model"], ECAPA_TDNN)
        self.lengths = torch.ones(1) if is_ecapa else None

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Shapes: [batch, time] -> [batch, D]."""
        features = self.steps["compute_features"](waveform)
        features = self.steps["mean_var_norm"](features)
        return self.steps["embedding_model"](features, self.lengths).flatten(1)


def _largest_error(session: Any, encoder: Encoder, sample_rate: int) -> float:
    """The largest distance from PyTorch's embeddings, over their norms."""
    generator = torch.Generator().manual_seed(0)
    errors = []
    for count, seconds in _CHECKED:
        # One more sample, so that the hop does not divide the length
        samples = round(seconds * sample_rate) + 1
        waveforms = torch.randn(count, samples, generator=generator) / 10
        # The second half tests the floor 80 dB below the loudest level.
        waveforms[:, samples // 2 :] *= 1e-5
        expected = encoder(waveforms).numpy()
        found = session.run(None, {"waveform": waveforms.numpy()})[0]
        norms = np.linalg.norm(expected, axis=1)
        errors.append(np.linalg.norm(found - expected, axis=1) / norms)
    return float(np.concatenate(errors).max())


def _convert(encoder: torch.nn.Module, sample_rate: int) -> Any:
    """The ONNX protobuf of a WaveformEncoder."""
    shortest = int(SHORTEST * sample_rate)
    axes = {
        0: torch.export.Dim("batch"),
        # PyTorch 2.7 fails on the fractional bound that it derives itself.
        1: torch.export.Dim("time", min=shortest, max=2**28),
    }
    with contextlib.ExitStack() as quiet:
        # No remarks about torchvision, which is not needed, and about rewrites
        quiet.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)
        quiet.enter_context(torch.no_grad())
        # PyTorch prints its progress, of a minute or two.
        quiet.enter_context(contextlib.redirect_stdout(sys.stderr))
        quiet.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        # The older exporter traces, and so fixes lengths; with dynamo, the
        # axes remain symbols.
        program = torch.onnx.export(
            encoder.eval(),
            (torch.zeros(2, sample_rate),),
            dynamo=True,
            opset_version=18,
            input_names=["waveform"],
            output_names=["embedding"],
            dynamic_shapes=(axes,),
            verbose=True,
        )
    assert program is not None  # with dynamo
    model = program.model_proto
    # They hold stack traces with the paths of this machine.
    for part in (*model.graph.node, *model.graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model
