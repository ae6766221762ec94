"""A web page that tells whether two clips are of the same speaker.

Environment variables: ``MODEL``, a model folder or user/model on the Hugging
Face Hub; ``VOICEPRINTS``, optional, a voiceprint store made with that model.
"""

import base64
import contextlib
import html
import io
import math
import os
import pathlib
import signal
import threading

import matplotlib
import numpy as np
import torch
from huggingface_hub import snapshot_download
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.analysis.disk import draw_disk
from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.errors import (
    InputError,
    exit_on_error,
    requires,
)
from speechbrain_hyperbolic.geometry import cap_norm, clip_to_ball
from speechbrain_hyperbolic.inference.recognition import (
    HyperbolicSpeakerRecognition,
)
from speechbrain_hyperbolic.inference.voiceprints import VoiceprintStore

with exit_on_error(), requires("app", "the page"):
    import gradio as gr

logger = get_logger(__name__)

MOST_BYTES = "20mb"
LEAST_SECONDS, MOST_SECONDS = 0.5, 120
KEPT_SECONDS = 600  # uploads; gradio looks for old ones every minute
CLIPS = ("Clip 1", "Clip 2")
EER = "eer"

INTRO = """# Same speaker?
Record or upload two clips of speech, then press **Compare**."""
PICTURE = """<p>Each point is a voice: those of one speaker lie close together,
in the same direction from the center.</p>"""
NOTES = f"""
**What this page cannot tell.** It does not detect recordings, clones or
imitations of a voice, so it is no proof of identity. It makes mistakes, and
more of them on short or noisy clips, and on other languages, microphones and
rooms than those it was tested on.

**Your clips.** {LEAST_SECONDS:g} to {MOST_SECONDS} seconds, up to 20 MB. They
are used for this comparison only. The server deletes them after
{KEPT_SECONDS // 60} minutes and keeps no voiceprint of them.
"""
# No font is downloaded: the page also works in a network without a way out.
THEME = gr.themes.Soft(
    font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
)
CSS = """
.gradio-container {max-width: 1080px !important; margin: auto !important}
.verdict {font-size: 1.7rem; font-weight: 700; margin: 0}
.verdict.same {color: #0072B2} .dark .verdict.same {color: #6cc0f0}
.verdict.different {color: #B84E00} .dark .verdict.different {color: #ff9d5c}
.message {border-left: 4px solid #B84E00; padding: .6rem 1rem;
  background: var(--block-background-fill)}
.line {margin: 2.6rem .25rem 3.4rem; position: relative; height: 1.7rem;
  display: flex; border-radius: 4px; font-size: .85rem}
.line .zone {display: flex; align-items: center; justify-content: center;
  overflow: hidden; white-space: nowrap; background: #ddd}
.line .different {background: #f7d9c4; color: #5c2700}
.line .same {background: #c8e2f3; color: #003a5c}
.line .tick {position: absolute; width: 4px; margin-left: -2px;
  background: var(--body-text-color); height: 2.2rem}
.line .tick.score {top: -.5rem} .line .tick.threshold {top: 0}
.line .label {position: absolute; white-space: nowrap}
.line .label.score {top: -1.9rem; font-weight: 700}
.line .label.threshold {top: 2.3rem}
.disk {background: white; border-radius: 8px; padding: 2px; width: 100%;
  max-width: 500px; display: block; margin: auto}
"""
# A screen reader announces what appears in the element.
ANNOUNCE = "element.setAttribute('aria-live', 'polite')"


def open_model(environment):
    """The model, the store or None, and about, as the environment names them.

    ``about`` is what the page says of the model, and its example clips.
    """
    source = environment.get("MODEL")
    if not source:
        raise InputError(
            "MODEL is not set: set this environment variable to a model folder "
            "or to user/model on the Hugging Face Hub"
        )
    model = HyperbolicSpeakerRecognition.from_pretrained(source)
    model.vad = environment.get("VAD") != "0"
    path = environment.get("VOICEPRINTS")
    store = VoiceprintStore.load(path, model.fingerprint) if path else None
    folder, name = pathlib.Path(source), source
    if folder.is_dir():
        name = folder.resolve().name
    else:
        examples = ["examples/*.wav"]
        folder = snapshot_download(source, allow_patterns=examples)
    clips = sorted(pathlib.Path(folder).glob("examples/*.wav"))
    return model, store, (describe(name, model.config.trials), clips)


def describe(name, trials):
    """The model's name, and how often it is wrong, for a visitor."""
    if not trials:
        return f"Model: **{name}**. How often it is wrong was not measured."
    count = trials["n_target"] + trials["n_nontarget"]
    return (
        f"Model: **{name}**. On {count:,} pairs of test recordings it was "
        f"wrong {100 * trials['eer']:.2g} times in 100 (equal error rate)."
    )


def make_page(model, store=None, about=("", ())):
    """The page; the clips are drawn among the speakers of the store."""

    def compare(path_1, path_2, criterion):
        try:
            clips = [
                embed_clip(model, path, label)
                for path, label in zip((path_1, path_2), CLIPS, strict=True)
            ]
            score = model.score(*clips)
            answer = decision(model, score, criterion)
            return score, answer, disk(model, clips, store)
        except InputError as error:
            return None, message(str(error)), ""
        except Exception:
            # The traceback is for the server's log, not for the visitor.
            logger.exception("a comparison failed")
            text = "Something went wrong on the server. Please try other clips."
            return None, message(text), ""

    def decide_again(score, criterion):
        return gr.skip() if score is None else decision(model, score, criterion)

    with gr.Blocks(
        title="Same speaker?",
        analytics_enabled=False,
        delete_cache=(60, KEPT_SECONDS),
    ) as page:
        gr.Markdown(f"{INTRO}\n\n{about[0]}")
        with gr.Row():
            clips = [
                gr.Audio(
                    label=label,
                    sources=["upload", "microphone"],
                    type="filepath",
                    editable=False,
                    buttons=[],
                    elem_id=f"clip-{i}",
                )
                for i, label in enumerate(CLIPS, 1)
            ]
        if len(about[1]) == len(CLIPS):
            example = [str(path) for path in about[1]]
            gr.Examples([example], clips, label="Two clips to try")
        choices = criteria(model)
        criterion = gr.Radio(
            choices,
            value=choices[0][1] if choices else None,
            label="How strict? (measured on the model's test recordings)",
            visible=len(choices) > 1,
            elem_id="criterion",
        )
        button = gr.Button("Compare", variant="primary", elem_id="compare")
        score = gr.State()
        with gr.Row():
            with gr.Column(min_width=320):
                result = gr.HTML(elem_id="result", js_on_load=ANNOUNCE)
            with gr.Column(min_width=320):
                picture = gr.HTML(elem_id="picture")
        gr.Markdown(NOTES)

        answer = [score, result, picture]
        private = {"api_visibility": "private"}
        at_once = {**private, "queue": False}
        inputs = [*clips, criterion]
        shown = {"show_progress_on": [result]}
        button.click(compare, inputs, answer, **private, **shown)
        criterion.input(decide_again, [score, criterion], result, **at_once)
        # An answer disappears with the clips that it is about.
        changes = [e for clip in clips for e in (clip.input, clip.clear)]
        gr.on(changes, lambda: (None, "", ""), None, answer, **at_once)
    return page.queue(max_size=50)


def embed_clip(model, path, label):
    """The embedding of an upload, or an InputError for the visitor."""
    if path is None or not pathlib.Path(path).is_file():
        what = "missing" if path is None else "no longer there"
        raise InputError(f"{label} is {what}: please record or upload it.")
    name = pathlib.Path(path).name
    try:
        header = audio.info(path)
        seconds = header.frames / header.sample_rate
        if not LEAST_SECONDS <= seconds <= MOST_SECONDS:
            raise InputError(
                f"{name} has {seconds:.4g} seconds, expected {LEAST_SECONDS:g} "
                f"to {MOST_SECONDS}: cut or replace it"
            )
        return model.embed(path)
    except InputError as error:
        # Visitors need not know the server's folders.
        text = str(error).replace(str(path), name)
        raise InputError(f"{label}: {text}.") from error


def criteria(model):
    """(label, value) of the thresholds to choose from."""
    if (thresholds := model.config.thresholds) is None:
        return []
    rates = sorted(thresholds.false_accepts, key=float, reverse=True)
    strict = [f"Accept at most 1 stranger in {1 / float(r):.4g}" for r in rates]
    balanced = ("Balanced: both kinds of mistakes equally often", EER)
    return [balanced, *zip(strict, rates, strict=True)]


def decision(model, score, criterion):
    """HTML: the decision in words, and the score on a line."""
    low, high = -1.0, 1.0
    if model.config.score == "hyperbolic":
        low, high = -2 * cap(model), 0.0  # minus the distance of two points
    if criterion is None:
        kind, verdict = "", "No decision"
        sentence = (
            f"The score is {score:.3f}. The threshold of this model has not "
            "been measured, so there is nothing to compare it with."
        )
        line = zone("", 100)
    else:
        rate = None if criterion == EER else float(criterion)
        threshold = model.threshold_at(rate)
        same = score > threshold
        kind = "same" if same else "different"
        verdict = "Same speaker" if same else "Different speakers"
        sentence = (
            f"The score, {score:.3f}, is {'' if same else 'not '}above the "
            f"threshold, {threshold:.3f}."
        )
        at = position(threshold, low, high)
        line = zone("different", at) + zone("same", 100 - at)
        line += mark("threshold", threshold, at)
    line += mark("score", score, position(score, low, high))
    return (
        f'<p class="verdict {kind}">{verdict}</p><p>{sentence}</p>'
        f'<div class="line" aria-hidden="true">{line}</div>'
    )


def position(value, low, high):
    """Where a value lies between two others, in percent."""
    return 100 * min(max((value - low) / (high - low), 0), 1)


def zone(name, width):
    """A part of the line, with its name where there is room."""
    text = name if width >= 3 * len(name) else ""
    return f'<div class="zone {name}" style="width: {width:.2f}%">{text}</div>'


def mark(name, value, at):
    """A tick on the line, with a label that stays within it."""
    return (
        f'<div class="tick {name}" style="left: {at:.2f}%"></div>'
        f'<div class="label {name}" style="left: {at:.2f}%; '
        f'transform: translateX(-{at:.2f}%)">{name} {value:.3f}</div>'
    )


def disk(model, clips, store):
    """HTML: both clips and the enrolled speakers on the Poincaré disk.

    In an image, which runs no code, whatever the speakers' names are.
    """
    vectors = np.stack([clip.vector for clip in clips])
    names = list(CLIPS)
    if store is not None and len(store):
        vectors = np.concatenate([vectors, store.vectors])
        names += store.names
    points = clip_to_ball(torch.from_numpy(vectors), model.config.clip_c)
    figure = draw_disk(points, names, [0, 1], cap(model))
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, format="svg")
    data = base64.b64encode(file.getvalue()).decode()
    first, second = (f"{float(radius):.2f}" for radius in points.radius[:2])
    text = (
        f"The Poincaré disk: Clip 1 and Clip 2 at distances of {first} and "
        f"{second} from its center, among {len(names) - 2} enrolled speakers."
    )
    source = f"data:image/svg+xml;base64,{data}"
    return f'<img class="disk" alt="{text}" src="{source}">{PICTURE}'


def cap(model):
    """The largest hyperbolic radius of an embedding."""
    return 2 * math.atanh(cap_norm(model.config.clip_c))


def message(text):
    """HTML: a sentence for the visitor."""
    return f'<p class="message">{html.escape(text)}</p>'


with exit_on_error():
    demo = make_page(*open_model(os.environ))

if __name__ == "__main__":
    # However the server is stopped, the clips are deleted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(demo):
        demo.launch(
            max_file_size=MOST_BYTES,
            theme=THEME,
            css=CSS,
            footer_links=[],
            ssr_mode=False,
            # Gradio's own waiting would end while pages are still open, and
            # then delete nothing.
            prevent_thread_lock=True,
        )
        threading.Event().wait()
