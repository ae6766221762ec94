"""Hyperbolic softmax losses for speaker verification with SpeechBrain."""

import importlib
import logging
from typing import Any

__version__ = "0.2.0.dev0"

# Imported at first use, so that importing the package does not import torch.
_MODULES = {
    "HyperbolicClassifier": "lobes.classifiers",
    "JointClassifier": "lobes.classifiers",
    "MaskedNormalization": "lobes.features",
    "WavLMEncoder": "lobes.wavlm",
    "MarginSoftmax": "nnet.losses",
    "JointLoss": "nnet.losses",
    "AdditiveMargin": "nnet.margins",
    "AdditiveAngularMargin": "nnet.margins",
    "RealAdditiveMargin": "nnet.margins",
    "MarginSchedule": "nnet.schedulers",
    "SpeakerAugmenter": "augment",
    "SharedEpochCounter": "dataio.crops",
    "RecentCheckpointer": "training.checkpoints",
    "AveragedPretrainer": "training.checkpoints",
    "SpeakerBrain": "training.brain",
    "fine_tuning_optimizer": "training.finetuning",
    "HyperbolicSpeakerRecognition": "inference.recognition",
    "VoiceprintStore": "inference.voiceprints",
    "diarize": "inference.diarization",
    "pretrained_module": "inference.model",
    "eer": "evaluation.metrics",
    "min_dcf": "evaluation.metrics",
}

__all__ = sorted(_MODULES)

# SpeechBrain remarks in every command that torchvision, which nothing here
# needs, is missing.
logging.getLogger("speechbrain.utils.train_logger").addFilter(
    lambda record: "torchvision" not in str(record.msg)
)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(
        importlib.import_module(f"{__name__}.{_MODULES[name]}"), name
    )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
