"""Packaging of speechbrain-hyperbolic."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"',
    (ROOT / "speechbrain_hyperbolic" / "__init__.py").read_text(),
).group(1)

# The wheel takes the recipes and their hparams into the package, in the layout
# that "sb-hyperbolic recipes FOLDER" copies to a user.
RECIPES = {
    "speechbrain_hyperbolic.recipes.OwnCorpus": "recipes/OwnCorpus",
    "speechbrain_hyperbolic.recipes.VoxCeleb": "recipes/VoxCeleb",
    "speechbrain_hyperbolic.recipes.VoxCeleb.hparams": "hparams",
}

DEMO = ["espeakng-loader>=0.2.4"]
TENSORBOARD = ["tensorboard>=2.17"]
ONNX = ["onnx>=1.17", "onnxscript>=0.6.1", "onnxruntime>=1.20"]
APP = ["gradio>=6.17.3,<7"]
WAVLM = ["transformers>=5"]
DOCS = ["sphinx>=8", "myst-nb>=1.3", "furo>=2025.7", "ipykernel", "nbclient"]
TEST = [
    "pytest>=8",
    "pyannote.metrics>=3.2",
    "pytest-xdist>=3.6",
    "pytest-cov>=7",
    "pytest-timeout>=2.3",
    "hypothesis>=6.100",
    "ruff>=0.12",
    "mypy>=2",
    "setuptools>=77",
    "geoopt>=0.5",
    "mpmath>=1.3",
    "selenium>=4.20",
    "webdataset>=0.2.96",
    "importlib_metadata>=6",  # which SpeechBrain then imports too
]

setup(
    name="speechbrain-hyperbolic",
    version=VERSION,
    description="Hyperbolic softmax losses for speaker verification, "
    "a SpeechBrain plugin and recipe",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[*find_packages(include=["speechbrain_hyperbolic*"]), *RECIPES],
    package_dir=RECIPES,
    package_data={
        "": ["*.md", "*.yaml", "*.j2", "py.typed"],
        "speechbrain_hyperbolic.analysis": ["*.html", "*.css", "*.js"],
    },
    install_requires=[
        "speechbrain>=1.1,<1.2",
        "torch>=2.7",
        "torchaudio>=2.7",
        "hyperpyyaml>=1.2",
        "ruamel.yaml>=0.17.32",
        "pyyaml>=6",
        "sentencepiece",
        "numpy>=1.26",
        "scipy>=1.12",
        "scikit-learn>=1.4",
        "filelock>=4",
        "jinja2>=3.1",
        "soundfile>=0.13",
        "av>=14",
        "silero-vad>=6.2.2",
        "matplotlib>=3.8",
        "tqdm>=4.66",
        "safetensors>=0.4.3",
        "huggingface_hub>=1.22",
    ],
    entry_points={
        "console_scripts": ["sb-hyperbolic=speechbrain_hyperbolic.cli:main"]
    },
    extras_require={
        "demo": DEMO,
        "tensorboard": TENSORBOARD,
        "onnx": ONNX,
        "app": APP,
        "wavlm": WAVLM,
        "docs": DOCS,
        "test": DEMO + TENSORBOARD + ONNX + APP + WAVLM + TEST,
    },
)
