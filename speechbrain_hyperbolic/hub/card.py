"""The model card: README.md, with metadata for the Hub.

It says what was measured, and of what was not, that it was not.
"""

import dataclasses
import pathlib
import re
from collections.abc import Sequence

import numpy as np
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from speechbrain_hyperbolic.errors import InputError
from speechbrain_hyperbolic.inference.model_folder import (
    CONFIG,
    FALSE_ACCEPTS,
    WEIGHTS,
    ModelConfig,
)
from speechbrain_hyperbolic.metrics import P_TARGETS
from speechbrain_hyperbolic.verification import format_results, interval_note

CARD = "README.md"
DET = "det.png"
ENCODERS = {"ecapa": "ECAPA-TDNN", "xvector": "x-vector", "resnet": "ResNet"}
# Of the Hub's tasks the one that speaker identification belongs to; for
# verification it has none.
PIPELINE = "audio-classification"
_METHOD = (
    "The loss is by Fang and He, “Hyperbolic Additive Margin Softmax with "
    "Hierarchical Information for Speaker Verification”, ICASSP 2026, "
    "[arXiv 2601.19709](https://arxiv.org/abs/2601.19709). "
)
_SPEECHBRAIN = "[SpeechBrain](https://arxiv.org/abs/2106.04624)"


@dataclasses.dataclass(frozen=True)
class Training:
    """What a training run says of itself.

    Arguments
    ---------
    parameters : int
        Of the encoder.
    dimension : int
        Of an embedding.
    loss : str
        Its usual name, e.g. "HAM-Softmax".
    hyperbolic : bool
        Whether it is of distances in hyperbolic space.
    classifier : str
        The classes that made it, with their arguments.
    cost : str
        Likewise.
    speakers : int
    utterances : int
    hours : float
    epochs : int
        Done.
    averaged : int
        How many of the last epochs the weights are the mean of.
    crop : float
        Seconds.
    batch : int
        Utterances.
    noise : str
        Where noise and music are from.
    rooms : str
        Where room responses are from.
    fine_tuned : bool
        Whether it started from another model.
    """

    parameters: int
    dimension: int
    loss: str
    hyperbolic: bool
    classifier: str
    cost: str
    speakers: int
    utterances: int
    hours: float
    epochs: int
    averaged: int
    crop: float
    batch: int
    noise: str
    rooms: str
    fine_tuned: bool


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What a verification says of the model.

    Arguments
    ---------
    trial_list : str
        Its name.
    results : dict
        As ``verification.read_results`` gives.
    target : np.ndarray
        Scores of the target trials.
    nontarget : np.ndarray
        Those of the nontarget trials.
    protocol : str
        How they were scored.
    speakers : int
        Of the trials.
    shared : int
        How many of them are training speakers, too.
    """

    trial_list: str
    results: dict
    target: np.ndarray
    nontarget: np.ndarray
    protocol: str
    speakers: int
    shared: int


def check_metadata(
    license: str,
    language: str | list[str] | None = None,
    datasets: Sequence[str] = (),
) -> None:
    """Refuses what the Hub would not take, before anything is written.

    Arguments
    ---------
    license : str
    language : str or list of str
    datasets : list of str

    Raises
    ------
    InputError
        If one has not the form that the Hub wants.

    Example
    -------
    >>> check_metadata("cc-by-4.0", ["en", "zh"], ["user/corpus"])
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise InputError(
            f"license is {license!r}, expected an identifier of the Hub such "
            "as apache-2.0 or cc-by-4.0, or 'other'"
        )
    for code in _listed(language):
        if not re.fullmatch(r"[a-z]{2,3}|multilingual", code):
            raise InputError(
                f"language is {code!r}, expected a code of ISO 639 such as en "
                "or cmn, or 'multilingual'"
            )
    for name in datasets:
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise InputError(
                f"datasets has {name!r}, expected the name of a data set on "
                "the Hub such as user/corpus: describe others in training_data"
            ) from error


def write_card(
    path: str | pathlib.Path,
    name: str,
    config: ModelConfig,
    training: Training,
    measurement: Measurement | None = None,
    clips: str | None = None,
    training_data: str = "",
    license: str = "apache-2.0",
    language: str | list[str] | None = None,
    datasets: Sequence[str] = (),
) -> None:
    """Writes the card of a model.

    Arguments
    ---------
    path : str or pathlib.Path
        The file to write, README.md in the folder of the model.
    name : str
        Of the model.
    config : ModelConfig
    training : Training
    measurement : Measurement
        None: not measured.
    clips : str
        What the two example clips are, in a sentence; None: there are none.
    training_data : str
        What the model was trained on, in Markdown.
    license : str
        As the Hub names it.
    language : str or list of str
        Codes of ISO 639, of the training data.
    datasets : list of str
        Names on the Hub, of the training data.

    Raises
    ------
    InputError
        As ``check_metadata``.
    """
    check_metadata(license, language, datasets)
    encoder = ENCODERS[config.encoder]
    results = _eval_results(measurement) if measurement else None
    data = ModelCardData(
        model_name=name,
        language=_listed(language) or None,
        license=license,
        library_name="speechbrain",
        pipeline_tag=PIPELINE,
        tags=["speaker-verification", "speaker-recognition"]
        + ["hyperbolic"] * training.hyperbolic
        + [encoder, training.loss],
        datasets=list(datasets) or None,
        metrics=["eer", "min_dcf"] if results else None,
        eval_results=results,
    )
    sections = [
        f"# {name}\n\n{_summary(config, training, encoder)}",
        f"## Usage\n\n{_usage(config, clips)}",
        f"## Threshold\n\n{_thresholds(config, measurement)}",
        f"## Results\n\n{_results(measurement)}",
        f"## Training data\n\n{_data(training, training_data, language)}",
        f"## Loss\n\n{_loss(training)}",
        f"## Protocol\n\n{_protocol(training, measurement)}",
        f"## Limits\n\n{_limits(training, measurement, language)}",
        f"## Licence and citation\n\n{_citation(training, license)}",
    ]
    body = "\n\n".join(sections)
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n").save(
        pathlib.Path(path)
    )


def _listed(value: str | Sequence[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _eval_results(measurement: Measurement) -> list[EvalResult]:
    """EER in per cent, as the Hub's other cards have it."""
    entries = []
    metrics: list[tuple] = [("eer", "eer", "EER %", 100, 2, {})]
    metrics += [
        (f"min_dcf_{p:g}", "min_dcf", f"minDCF({p:g})", 1, 3, {"p_target": p})
        for p in P_TARGETS
    ]
    slug = re.sub(r"[^a-z0-9._-]+", "-", measurement.trial_list.lower())
    for subset, result in measurement.results.items():
        intervals = result["intervals"] or {}
        for key, kind, title, factor, digits, arguments in metrics:
            bounds = intervals.get(key)
            if bounds:
                bounds = [round(factor * bound, 6) for bound in bounds]
                low, high = (f"{bound:.{digits}f}" for bound in bounds)
                title = f"{title}, 95 % interval {low} to {high}"
                arguments = {**arguments, "interval_95": bounds}
            entries.append(
                EvalResult(
                    task_type="speaker-verification",
                    task_name="Speaker Verification",
                    dataset_type=slug,
                    dataset_name=f"{measurement.trial_list}, {subset}",
                    dataset_config=subset,
                    dataset_split="test",
                    dataset_args={
                        "target_trials": result["n_target"],
                        "nontarget_trials": result["n_nontarget"],
                        "scores": measurement.protocol,
                    },
                    metric_type=kind,
                    metric_name=title,
                    metric_value=round(factor * result[key], 6),
                    metric_args=arguments or None,
                )
            )
    return entries


def _summary(config: ModelConfig, training: Training, encoder: str) -> str:
    return (
        f"A speaker encoder: {encoder} of {training.parameters:,} parameters, "
        f"trained with {training.loss} by speechbrain-hyperbolic. It makes of "
        f"speech at {config.sample_rate} Hz a vector of {training.dimension} "
        "numbers; the nearer those of two recordings are, the likelier it is "
        "that one person speaks in both."
    )


def _usage(config: ModelConfig, clips: str | None) -> str:
    if clips:
        one, other = "examples/clip1.wav", "examples/clip2.wav"
        note = clips
    else:
        one, other = "one.wav", "other.wav"
        note = "There are no example clips: `one.wav` and `other.wav` are yours"
    stock = f"""\
from speechbrain.inference.speaker import SpeakerRecognition

source = "."  # this folder, or the model's name on the Hub
model = SpeakerRecognition.from_hparams(source=source)
score, _ = model.verify_files("{one}", "{other}")
print(f"cosine {{score.item():.3f}}")"""
    if config.thresholds and config.score == "cosine":
        stock += (
            f"\nprint(score.item() > {config.thresholds.eer:.4f})"
            "  # one speaker? By the threshold below"
        )
    ours = """\
from speechbrain_hyperbolic.inference.recognition import (
    HyperbolicSpeakerRecognition,
)

source = "."  # this folder, or the model's name on the Hub
model = HyperbolicSpeakerRecognition.from_pretrained(source)
"""
    if config.thresholds:
        ours += f"""\
score, same = model.verify_files("{one}", "{other}")
print(f"{config.score} {{score.item():.3f}}, one speaker: {{bool(same)}}")"""
    else:
        ours += f"""\
one, other = model.embed("{one}"), model.embed("{other}")
print(f"{config.score} {{model.score(one, other):.3f}}")"""
    return f"""\
{note}.

With SpeechBrain alone (`pip install speechbrain`):

```python
{stock}
```

The second value of `verify_files` is a decision by a constant of the stock
class, a cosine of 0.25, whatever the model: don't use it.

With speechbrain-hyperbolic, audio of any sample rate, speakers to enrol and
identify:

```python
{ours}
```

The stock class evaluates `hyperparams.yaml`, by which a model can run code on
your machine. This package reads `{CONFIG}` and `{WEIGHTS}` alone, which
can't. Both ways give the same embeddings."""


def _thresholds(config: ModelConfig, measurement: Measurement | None) -> str:
    if not measurement:
        return (
            "Not measured: choose a threshold on trials of your own, in your "
            "conditions."
        )
    if not config.thresholds:
        return (
            f"Not measured. The trials below were scored by "
            f"{measurement.protocol}, and this is no threshold for the score "
            "of two recordings as above."
        )
    stock = ""
    if config.score != "cosine":
        stock = (
            " The stock class gives cosines, and this is no threshold to them."
        )
    rows = [("equal error rate", config.thresholds.eer)]
    known = config.thresholds.false_accepts
    rows += [
        (f"false accepts of {100 * float(rate):g} %", threshold)
        for rate, threshold in known.items()
    ]
    lines = [
        "| aim | threshold | false accepts | false rejects |",
        "|---|---|---|---|",
    ]
    for aim, threshold in rows:
        accepts = np.mean(measurement.nontarget > threshold)
        rejects = np.mean(measurement.target <= threshold)
        lines.append(
            f"| {aim} | {threshold:.4f} | {100 * accepts:.2f} % "
            f"| {100 * rejects:.2f} % |"
        )
    text = (
        f"A {config.score} score above the threshold is taken for one "
        f"speaker.{stock}\n\n" + "\n".join(lines) + "\n\n"
        f"Both rates are counted on the trials that the thresholds were "
        f"chosen on, {len(measurement.target)} target and "
        f"{len(measurement.nontarget)} nontarget ones of "
        f"`{measurement.trial_list}`: elsewhere they are others."
    )
    missing = [
        f"{100 * rate:g} %"
        for rate in FALSE_ACCEPTS
        if f"{rate:g}" not in known
    ]
    if missing:
        text += (
            f" These trials are too few to tell a threshold at "
            f"{' or '.join(missing)} false accepts."
        )
    mean, std = (
        [f(scores) for scores in (measurement.target, measurement.nontarget)]
        for f in (np.mean, np.std)
    )
    return (
        f"{text} Scores of target trials are {mean[0]:.3f} on average "
        f"(standard deviation {std[0]:.3f}), of nontarget trials "
        f"{mean[1]:.3f} ({std[1]:.3f})."
    )


def _results(measurement: Measurement | None) -> str:
    if not measurement:
        return "Not measured: no trials were scored with this model."
    if measurement.shared:
        overlap = (
            f"**{measurement.shared} of the {measurement.speakers} speakers of "
            "the trials are training speakers, too: on others the error rates "
            "are higher.**"
        )
    else:
        overlap = (
            f"None of the {measurement.speakers} speakers of the trials is a "
            "training speaker."
        )
    return f"""\
On `{measurement.trial_list}`, scored by {measurement.protocol};
{interval_note(measurement.results)}.

{overlap}

{format_results(measurement.results)}

![Misses against false alarms (DET)]({DET})"""


def _data(
    training: Training, text: str, language: str | Sequence[str] | None
) -> str:
    described = text.strip() or (
        "What the data are was not stated when this model was exported."
    )
    languages = ", ".join(_listed(language)) or "not stated"
    hours = training.hours
    amount = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
    return (
        f"{described}\n\n{training.utterances:,} utterances of "
        f"{training.speakers:,} speakers, {amount}; language: {languages}."
    )


def _loss(training: Training) -> str:
    text = (
        f"{training.loss}:\n\n- classifier: `{training.classifier}`\n"
        f"- cost: `{training.cost}`"
    )
    found = re.search(
        r"(?:ClippedDistance\((?:c=)?|HyperbolicClassifier\([^()]*\bc=)"
        r"([\d.]+)",
        training.classifier,
    )
    if found:
        c = float(found[1])
        text += (
            f"\n\nThe loss clips embeddings and speaker centres to a Euclidean "
            f"norm of 1/sqrt({c:g}) = {c**-0.5:.3f} at most (`clip_c`, which "
            "is no curvature); the classifier's outputs are hyperbolic "
            "distances, negated."
        )
    return text


def _protocol(training: Training, measurement: Measurement | None) -> str:
    start = (
        "Fine-tuned from another model"
        if training.fine_tuned
        else "Trained from scratch"
    )
    weights = (
        "the weights are those of the last"
        if training.averaged == 1
        else f"the weights are the mean of the last {training.averaged}"
    )
    scored = measurement.protocol if measurement else "no trials were scored"
    return f"""\
- {start}, {training.epochs} epochs; {weights}.
- Crops of {training.crop:g} s, {training.batch} in a batch.
- Augmentation: noise and music from {training.noise}, room responses from
  {training.rooms}.
- Verification: {scored}."""


def _limits(
    training: Training,
    measurement: Measurement | None,
    language: str | Sequence[str] | None,
) -> str:
    measured = (
        f"`{measurement.trial_list}` alone" if measurement else "no trials"
    )
    spoken = ", ".join(_listed(language))
    others = f"languages other than {spoken}" if spoken else "other languages"
    return f"""\
- It was measured on {measured}.
- Not measured: {others}; other microphones, telephone and codecs; noise,
  reverberation and far speech; children and the old, and any difference
  between groups of people; changes of a voice over time.
- Where both recordings of a target trial are of one session, as in corpora
  of one session a speaker, error rates flatter.
- Scores are not probabilities. The threshold is to be checked on trials of
  your own, in your conditions.
- It does not detect replayed, synthesized or converted speech: it is no
  protection against somebody who attacks it.
- A voice is personal data. Ask people before you enrol them."""


def _citation(training: Training, license: str) -> str:
    text = f"Licence: {license}.\n\n"
    if training.hyperbolic:
        return f"{text}{_METHOD}Please cite it, and {_SPEECHBRAIN}."
    return f"{text}Please cite {_SPEECHBRAIN}."
