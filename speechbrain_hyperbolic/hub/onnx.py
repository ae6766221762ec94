"""A model as one ONNX file, from waveforms to embeddings.

What runs it needs onnxruntime and numpy only, neither PyTorch nor SpeechBrain;
the model card of an export with ONNX shows how.
"""

import contextlib
import copy
import io
import logging
import math
import pathlib
import threading
import types
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
import tqdm
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.nnet.pooling import StatisticsPooling
from speechbrain.processing.features import STFT

from speechbrain_hyperbolic.dataio.files import StrPath, atomic_path
from speechbrain_hyperbolic.errors import InputError, how_to_install
from speechbrain_hyperbolic.evaluation.extraction import SHORTEST, Encoder
from speechbrain_hyperbolic.inference.model import fingerprint, load_model

TOLERANCE = 1e-4
# (waveforms, seconds) on which each exported file is checked
_CHECKED = ((1, 0.5), (3, 3.3), (1, 20.0))


def export_onnx(folder: StrPath, trusted: Iterable[str] = ()) -> pathlib.Path:
    """Writes model.onnx, if onnxruntime reproduces PyTorch's embeddings.

    Float32 waveforms [batch, time] of 0.1 s or more become embeddings
    [batch, D] that are not normalized.
    """
    onnx, onnxruntime = check_packages()
    path = pathlib.Path(folder) / "model.onnx"
    config, modules = load_model(folder, trusted)
    encoder = modules["embedding_model"]
    for module in encoder.modules():
        if isinstance(module, StatisticsPooling):
            # The stock x-vector adds noise to its means, even in evaluation:
            # (9 - 8 g) eps, with g symmetric about 1/2. This is its mean.
            mean = 5 * module.eps
            module._get_gauss_noise = lambda *_, mean=mean, **__: mean
    # Converting replaces the STFT.
    reference = Encoder(**copy.deepcopy(modules))  # type: ignore[arg-type]
    with _elapsed("Converting to ONNX, a minute or two"):
        model = _convert(WaveformEncoder(**modules), config.sample_rate)
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


@contextlib.contextmanager
def _elapsed(what: str) -> Iterator[None]:
    """Shows the time that something takes, while it takes it."""
    done = threading.Event()
    with tqdm.tqdm(desc=what, bar_format="{desc}: {elapsed}") as bar:

        def show() -> None:
            while not done.wait(1):
                bar.refresh()

        thread = threading.Thread(target=show)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def check_packages() -> tuple[types.ModuleType, types.ModuleType]:
    """onnx and onnxruntime, or an InputError that says what to install."""
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401, needed by torch.onnx.export
    except ImportError as error:
        raise InputError(
            f"the ONNX export needs the package {error.name}: "
            f"{how_to_install('onnx')}"
        ) from error
    return onnx, onnxruntime


class ConvolutionalSTFT(torch.nn.Module):
    """A stock STFT as a convolution: ONNX has no complex numbers, and its own
    STFT is slow unless the size is a power of two.
    """

    kernel: torch.Tensor

    def __init__(self, stft: STFT) -> None:
        super().__init__()
        self.n_fft, self.hop_length = stft.n_fft, stft.hop_length
        # A window shorter than the transform is centered in it.
        before = (stft.n_fft - stft.win_length) // 2
        after = stft.n_fft - stft.win_length - before
        window = torch.nn.functional.pad(stft.window.double(), (before, after))
        frequency = torch.arange(stft.n_fft // 2 + 1).unsqueeze(1)
        # Reducing the integers first keeps the angles exact.
        turns = frequency * torch.arange(stft.n_fft) % stft.n_fft
        angles = 2 * math.pi * turns / stft.n_fft
        kernel = torch.cat([angles.cos(), -angles.sin()]) * window
        self.register_buffer("kernel", kernel.float().unsqueeze(1))

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Shapes: [batch, time] -> [batch, frames, n_fft // 2 + 1, 2]."""
        parts = torch.nn.functional.conv1d(
            waveforms.unsqueeze(1),
            self.kernel,
            stride=self.hop_length,
            padding=self.n_fft // 2,
        )
        return torch.stack(parts.chunk(2, dim=1), dim=-1).transpose(1, 2)


class WaveformEncoder(torch.nn.Module):
    """A model's modules as one; replaces the STFT of the given features."""

    def __init__(
        self,
        compute_features: torch.nn.Module,
        mean_var_norm: torch.nn.Module,
        embedding_model: torch.nn.Module,
    ) -> None:
        super().__init__()
        compute_features.compute_STFT = ConvolutionalSTFT(
            compute_features.compute_STFT
        )
        self.compute_features = compute_features
        self.mean_var_norm = mean_var_norm
        self.embedding_model = embedding_model
        # Without lengths, ECAPA builds a mask with one row per waveform, which
        # would fix the batch size in the graph.
        is_ecapa = isinstance(embedding_model, ECAPA_TDNN)
        self.lengths = torch.ones(1) if is_ecapa else None

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Shapes: [batch, time] -> [batch, D]."""
        features = self.mean_var_norm(self.compute_features(waveform))
        return self.embedding_model(features, self.lengths).flatten(1)


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
        quiet.enter_context(contextlib.redirect_stdout(io.StringIO()))
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
            verbose=False,
        )
    assert program is not None  # with dynamo
    model = program.model_proto
    # They hold stack traces with the paths of this machine.
    for part in (*model.graph.node, *model.graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model
