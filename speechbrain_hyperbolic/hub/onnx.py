"""A model as one ONNX file, from the waveform to the embedding.

What runs it needs onnxruntime and numpy alone, no PyTorch and no SpeechBrain:

    import json
    import numpy as np
    import onnxruntime
    import soundfile

    session = onnxruntime.InferenceSession("model.onnx")
    properties = session.get_modelmeta().custom_metadata_map

    def embed(path):
        waveform, sample_rate = soundfile.read(path, dtype="float32")  # mono
        assert sample_rate == int(properties["sample_rate"])
        vector = session.run(None, {"waveform": waveform[None]})[0][0]
        return vector / np.linalg.norm(vector)

    score = embed("a.wav") @ embed("b.wav")  # a model whose score is "cosine"
    threshold = json.load(open("config.json"))["thresholds"]["eer"]
    print(f"{score:.3f}, same speaker: {score > threshold}")

The waveforms of a batch are of one length: 0.1 s or more, in -1 to 1.
"""

import contextlib
import io
import logging
import math
import pathlib
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
from speechbrain.nnet.pooling import StatisticsPooling
from speechbrain.processing.features import STFT, InputNormalization
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio.files import atomic_path
from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.inference.model_folder import (
    FORMAT,
    fingerprint,
    load_model,
)
from speechbrain_hyperbolic.scoring.extraction import SHORTEST, Encoder

logger = get_logger(__name__)

ONNX = "model.onnx"
OPSET = 18
TOLERANCE = 1e-4
# What protobuf, and so a single ONNX file, can hold; a little is for the graph.
_MAX_BYTES = 2**31 - 2**24
# Samples. PyTorch 2.7 fails on the bound that it finds itself, a fraction.
_LONGEST = 2**28
# (waveforms, seconds): what a file is checked on, with a sample more so that
# the hop doesn't divide it.
_CHECKED = ((1, 0.5), (3, 3.3), (1, 20.0))


def export_onnx(
    folder: str | pathlib.Path, path: str | pathlib.Path | None = None
) -> pathlib.Path:
    """Writes a model as an ONNX file that takes waveforms.

    Its input "waveform" is float32, shape [batch, time], at the model's sample
    rate; its output "embedding" is float32, shape [batch, D], not normalised.
    Both axes may have any size, from 0.1 s on. Its metadata holds
    "sample_rate", "format" and "fingerprint".

    The file takes its name once onnxruntime gave, for up to 20 s of audio, the
    embeddings of PyTorch to 1e-4: each number of them normalised, and their
    norm, relatively.

    An x-vector encoder adds small random numbers to the means that it pools,
    in evaluation too; the file adds their expectation, and so gives the
    expectation of its embeddings.

    Arguments
    ---------
    folder : str or pathlib.Path
        With config.json and model.safetensors.
    path : str or pathlib.Path
        Of the file; None: model.onnx in the folder.

    Returns
    -------
    path : pathlib.Path

    Raises
    ------
    InputError
        If a package for it is not installed, the folder holds no model, the
        model is larger than an ONNX file can be, path is a folder, or
        onnxruntime gives other embeddings.

    Example
    -------
    >>> import pytest
    >>> onnxruntime = pytest.importorskip("onnxruntime")
    >>> from speechbrain_hyperbolic.inference import model_folder
    >>> config = model_folder.ModelConfig(
    ...     16000, 24, "xvector", {"in_channels": 24, "lin_neurons": 8}
    ... )
    >>> encoder = model_folder.build_modules(config)["embedding_model"]
    >>> folder = getfixture("tmpdir")
    >>> model_folder.save_model(folder, config, encoder.state_dict())
    >>> session = onnxruntime.InferenceSession(export_onnx(folder))
    >>> waveform = np.zeros((2, 8000), np.float32)
    >>> session.run(None, {"waveform": waveform})[0].shape
    (2, 8)
    """
    onnx, onnxruntime = check_packages()
    folder = pathlib.Path(folder)
    path = folder / ONNX if path is None else pathlib.Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder, expected the name of a file")
    config, modules = load_model(folder)
    _check_size(folder, modules["embedding_model"])
    properties = {
        "format": FORMAT,
        "sample_rate": str(config.sample_rate),
        "fingerprint": fingerprint(
            config, modules["embedding_model"].state_dict()
        ),
    }
    _still_noise(modules["embedding_model"])
    logger.info(f"Exporting {folder} to {path}, some half a minute")
    model = _convert(WaveformEncoder(**modules), config.sample_rate)
    onnx.helper.set_model_props(model, properties)
    with atomic_path(path) as temporary:
        onnx.save(model, temporary)
        _check_embeddings(
            onnxruntime.InferenceSession(
                temporary, providers=["CPUExecutionProvider"]
            ),
            Encoder(**modules),
            config.sample_rate,
            path,
        )
    return path


class PowerSpectrum(torch.nn.Module):
    """The squared magnitudes of a stock STFT, by a convolution.

    ONNX has no complex numbers, and its own STFT is slow but for powers of
    two. The window is in the kernel: rows of windowed cosines, then of sines.

    Arguments
    ---------
    stft : speechbrain.processing.features.STFT
        Centred, padded with zeros, one-sided and not normalised, as that of
        the stock Fbank.

    Example
    -------
    >>> from speechbrain.processing.features import STFT, spectral_magnitude
    >>> stft, waveforms = STFT(16000), torch.randn(2, 16000)
    >>> power = PowerSpectrum(stft)(waveforms)
    >>> torch.allclose(power, spectral_magnitude(stft(waveforms)), atol=1e-3)
    True
    """

    kernel: torch.Tensor

    def __init__(self, stft: STFT) -> None:
        super().__init__()
        self.n_fft, self.hop_length = stft.n_fft, stft.hop_length
        # A window that is shorter than the transform is in its middle.
        before = (stft.n_fft - stft.win_length) // 2
        after = stft.n_fft - stft.win_length - before
        window = torch.nn.functional.pad(stft.window.double(), (before, after))
        frequency = torch.arange(stft.n_fft // 2 + 1).unsqueeze(1)
        # Reduced as integers, the angles are exact.
        turns = frequency * torch.arange(stft.n_fft) % stft.n_fft
        angles = 2 * math.pi * turns / stft.n_fft
        kernel = torch.cat([angles.cos(), angles.sin()]) * window
        self.register_buffer("kernel", kernel.float().unsqueeze(1))

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Shapes: [batch, time] -> [batch, frames, n_fft // 2 + 1]."""
        real, imaginary = torch.nn.functional.conv1d(
            waveforms.unsqueeze(1),
            self.kernel,
            stride=self.hop_length,
            padding=self.n_fft // 2,
        ).chunk(2, dim=1)
        return (real.square() + imaginary.square()).transpose(1, 2)


class WaveformEncoder(torch.nn.Module):
    """From waveforms to embeddings, by what can be exported.

    All but the spectrum is done by the stock modules.

    Arguments
    ---------
    compute_features : speechbrain.lobes.features.Fbank
    mean_var_norm : speechbrain.processing.features.InputNormalization
    embedding_model : torch.nn.Module
        A stock encoder.
    """

    def __init__(
        self,
        compute_features: Fbank,
        mean_var_norm: InputNormalization,
        embedding_model: torch.nn.Module,
    ) -> None:
        super().__init__()
        self.spectrum = PowerSpectrum(compute_features.compute_STFT)
        self.filterbank = compute_features.compute_fbanks
        self.mean_var_norm = mean_var_norm
        self.embedding_model = embedding_model
        # Without lengths, ECAPA makes a mask with a row for each waveform, and
        # their number would be fixed in the graph; this is a single row.
        whole = torch.ones(1)
        self.lengths = (
            whole if isinstance(embedding_model, ECAPA_TDNN) else None
        )

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Shapes: [batch, time] -> [batch, D]."""
        features = self.filterbank(self.spectrum(waveform))
        features = self.mean_var_norm(features)
        return self.embedding_model(features, self.lengths).flatten(1)


def check_packages() -> tuple[types.ModuleType, types.ModuleType]:
    """The packages that the export needs.

    Returns
    -------
    onnx, onnxruntime : module

    Raises
    ------
    InputError
        If one is not installed.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401, torch.onnx.export imports it
    except ImportError as error:
        raise InputError(
            f"the export to ONNX needs the package {error.name}: pip install "
            "'speechbrain-hyperbolic[onnx]'"
        ) from error
    return onnx, onnxruntime


def _check_size(folder: pathlib.Path, encoder: torch.nn.Module) -> None:
    size = sum(value.nbytes for value in encoder.state_dict().values())
    if size > _MAX_BYTES:
        raise InputError(
            f"the weights of {folder} are {size} bytes, and an ONNX file holds "
            f"{_MAX_BYTES} at most: use a smaller encoder"
        )


def _still_noise(encoder: torch.nn.Module) -> None:
    """Puts its expectation in the place of the noise in pooled means.

    The stock noise is (9 - 8 g) eps, and g, normal numbers scaled to [0, 1] by
    their least and largest, is symmetric about 1/2. It reaches the embedding
    by a linear layer alone.
    """
    for module in encoder.modules():
        if isinstance(module, StatisticsPooling):
            mean = 5 * module.eps
            module._get_gauss_noise = lambda *_, mean=mean, **__: mean


def _convert(encoder: torch.nn.Module, sample_rate: int) -> Any:
    """The ONNX protobuf of a WaveformEncoder.

    By torch.export, whose axes are symbols: the older tracing of TorchScript
    takes whatever Python reads of a shape, such as a length, as a constant.
    """
    axes = {
        0: torch.export.Dim("batch"),
        1: torch.export.Dim(
            "time", min=int(SHORTEST * sample_rate), max=_LONGEST
        ),
    }
    # PyTorch 2.7 prints what it rewrites.
    silent = contextlib.redirect_stdout(io.StringIO())
    with torch.no_grad(), _without_warnings("torch.onnx"), silent:
        program = torch.onnx.export(
            encoder.eval(),
            (torch.zeros(2, sample_rate),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["waveform"],
            output_names=["embedding"],
            dynamic_shapes=(axes,),
            verbose=False,
        )
    assert program is not None  # with dynamo
    model = program.model_proto
    # They hold stack traces, with the paths of this machine.
    for part in (*model.graph.node, *model.graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


@contextlib.contextmanager
def _without_warnings(name: str) -> Iterator[None]:
    """Of operators of torchvision, which are of no use here."""
    of_exporter = logging.getLogger(name)
    level = of_exporter.level
    of_exporter.setLevel(logging.ERROR)
    try:
        yield
    finally:
        of_exporter.setLevel(level)


def _check_embeddings(
    session: Any, encoder: Encoder, sample_rate: int, path: pathlib.Path
) -> None:
    """Refuses a file that gives other embeddings than PyTorch."""
    generator = torch.Generator().manual_seed(0)
    for n_waveforms, seconds in _CHECKED:
        samples = round(seconds * sample_rate) + 1
        waveforms = torch.randn(n_waveforms, samples, generator=generator) / 10
        # The quiet end is where levels are limited to 80 dB below the loudest.
        waveforms[:, samples // 2 :] *= 1e-5
        expected = encoder(waveforms).numpy()
        found = session.run(None, {"waveform": waveforms.numpy()})[0]
        error = embedding_error(found, expected)
        # Not "error > TOLERANCE", which NaN isn't.
        if not error <= TOLERANCE:
            raise InputError(
                f"{path} is not written: for {n_waveforms} x {seconds} s of "
                f"audio onnxruntime gives embeddings that differ from "
                f"PyTorch's by {error:.1e}, expected {TOLERANCE:g} at most; "
                "check the weights, and try other versions of torch and "
                "onnxruntime"
            )


def embedding_error(found: np.ndarray, expected: np.ndarray) -> float:
    """How much embeddings differ from those expected.

    Arguments
    ---------
    found : np.ndarray
        Shape [batch, D].
    expected : np.ndarray
        Shape [batch, D].

    Returns
    -------
    error : float
        The largest difference of a number of the normalised embeddings, or of
        a norm as part of that expected.

    Example
    -------
    >>> embedding_error(np.array([[3.0, 4.0]]), np.array([[6.0, 8.0]]))
    0.5
    """
    norms, of_expected = (
        np.linalg.norm(side, axis=1, keepdims=True)
        for side in (found, expected)
    )
    directions = np.abs(found / norms - expected / of_expected).max()
    radii = np.abs(norms / of_expected - 1).max()
    return float(max(directions, radii))
