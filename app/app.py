"""A web page that tells whether two clips are of one speaker.

Environment variables: ``MODEL``, the Hub id or folder of an exported model;
``VOICEPRINTS``, optional, the path of a voiceprint store made by that model.
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

import gradio as gr
import matplotlib
import numpy as np
import torch
from speechbrain.utils.logger import get_logger

from speechbrain_hyperbolic.dataio import audio
from speechbrain_hyperbolic.disk import draw_disk
from speechbrain_hyperbolic.errors import InputError, exit_on_input_error
from speechbrain_hyperbolic.geometry import clip_to_ball, longest
from speechbrain_hyperbolic.inference.recognition import (
    HyperbolicSpeakerRecognition,
)
from speechbrain_hyperbolic.inference.voiceprints import VoiceprintStore

logger = get_logger(__name__)

MAX_SIZE = "20mb"
MIN_SECONDS = 0.5
MAX_SECONDS = 120
KEPT_SECONDS = 600  # an uploaded clip; it is looked at every minute
CLIPS = ("Clip 1", "Clip 2")
EER = "eer"

INTRO = """# Same speaker?
Give two clips of speech, by microphone or as files, and press **Compare**."""
NOTES = f"""
**What this page can't tell.** Whether a voice is live: it does not detect
recordings, clones or imitations, so it is no proof of identity. It errs, and
more so on short or noisy clips, and on other languages, microphones and rooms
than the model's trials had.

**Your clips.** {MIN_SECONDS:g} to {MAX_SECONDS} seconds, up to 20 MB. They are
used for this comparison alone: the server deletes them after
{KEPT_SECONDS // 60} minutes, and no recording or voiceprint of them is kept.
"""
# No font is fetched: a page of a hospital or a court may have no way out.
THEME = gr.themes.Soft(
    font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
)
# Same and different differ by more than the colour: by text and by side.
CSS = """
.gradio-container {max-width: 1080px !important; margin: auto !important}
.verdict {font-size: 1.7rem; font-weight: 700; margin: 0}
.verdict.same {color: #0072B2}
.verdict.different {color: #B84E00}
.dark .verdict.same {color: #6cc0f0}
.dark .verdict.different {color: #ff9d5c}
.message {border-left: 4px solid #B84E00; padding: .6rem 1rem;
  background: var(--block-background-fill)}
.line {margin: 2.6rem .25rem 3.4rem; position: relative; height: 1.7rem;
  display: flex; border-radius: 4px; font-size: .85rem}
.line .zone {display: flex; align-items: center; justify-content: center;
  overflow: hidden; white-space: nowrap}
.line .different {background: #f7d9c4; color: #5c2700}
.line .same {background: #c8e2f3; color: #003a5c}
.line .none {background: #ddd; color: #333}
.line .tick {position: absolute; width: 3px; margin-left: -1.5px;
  background: var(--body-text-color)}
.line .tick.score {top: -.5rem; height: 2.2rem; width: 5px;
  margin-left: -2.5px}
.line .tick.threshold {top: 0; height: 2.2rem}
.line .label {position: absolute; white-space: nowrap}
.line .label.score {top: -1.9rem; font-weight: 700}
.line .label.threshold {top: 2.3rem}
.disk {background: white; border-radius: 8px; padding: 2px; width: 100%;
  max-width: 500px; display: block; margin: auto}
"""
# A reader of the screen says what comes into the element.
ANNOUNCE = "element.setAttribute('aria-live', 'polite')"


def open_model(environment):
    """Loads what the environment variables name.

    Arguments
    ---------
    environment : dict

    Returns
    -------
    model : HyperbolicSpeakerRecognition
    store : VoiceprintStore or None

    Raises
    ------
    InputError
        If MODEL is not set, or what is named can't be loaded.
    """
    source = environment.get("MODEL")
    if not source:
        raise InputError(
            "MODEL is not set: set this environment variable to the Hub id or "
            "the folder of an exported model, e.g. MODEL=user/model"
        )
    model = HyperbolicSpeakerRecognition.from_pretrained(source)
    path = environment.get("VOICEPRINTS")
    if not path:
        return model, None
    return model, VoiceprintStore.load(path, model.fingerprint)


def make_page(model, store=None):
    """The page.

    Arguments
    ---------
    model : HyperbolicSpeakerRecognition
    store : VoiceprintStore
        The enrolled speakers to draw the clips among; None: no others.

    Returns
    -------
    page : gradio.Blocks
    """

    def compare(path_1, path_2, criterion):
        try:
            clips = [
                embed_clip(model, path, label)
                for path, label in zip((path_1, path_2), CLIPS, strict=True)
            ]
            score = model.score(*clips)
            return (
                score,
                decision(model, score, criterion),
                describe(clips),
                disk(model, clips, store),
            )
        except InputError as error:
            return None, message(str(error)), "", ""
        except Exception:
            # The page is for people: the traceback goes to the server's log.
            logger.exception("a comparison failed")
            text = "The comparison failed on the server: try other clips."
            return None, message(text), "", ""

    def decide_again(score, criterion):
        if score is None:
            return gr.skip()
        return decision(model, score, criterion)

    with gr.Blocks(
        title="Same speaker?",
        analytics_enabled=False,
        delete_cache=(60, KEPT_SECONDS),
    ) as page:
        gr.Markdown(INTRO)
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
        choices = criteria(model)
        criterion = gr.Radio(
            choices,
            value=choices[0][1] if choices else None,
            label="Threshold, as measured on the model's trials",
            visible=len(choices) > 1,
            elem_id="criterion",
        )
        button = gr.Button("Compare", variant="primary", elem_id="compare")
        score = gr.State()
        with gr.Row():
            with gr.Column(min_width=320):
                result = gr.HTML(elem_id="result", js_on_load=ANNOUNCE)
                details = gr.HTML(elem_id="details")
            with gr.Column(min_width=320):
                picture = gr.HTML(elem_id="picture")
        gr.Markdown(NOTES)

        answer = [score, result, details, picture]
        button.click(
            compare,
            [*clips, criterion],
            answer,
            api_visibility="private",
            show_progress_on=[result],
        )
        criterion.input(
            decide_again,
            [score, criterion],
            result,
            api_visibility="private",
            queue=False,
        )
        # An answer doesn't outlive its clips.
        gr.on(
            [event for clip in clips for event in (clip.input, clip.clear)],
            lambda: (None, "", "", ""),
            None,
            answer,
            api_visibility="private",
            queue=False,
        )
    return page.queue(max_size=50)


def embed_clip(model, path, label):
    """Embeds a clip, after what can be refused by its header.

    Arguments
    ---------
    model : HyperbolicSpeakerRecognition
    path : str or None
        None where no clip was given.
    label : str
        Of the clip, for messages.

    Returns
    -------
    embedding : Embedding

    Raises
    ------
    InputError
        If there is no clip, or no longer, or it is no audio, too short, too
        long or silent.
    """
    if path is None:
        raise InputError(f"{label} is missing: record or upload it.")
    if not pathlib.Path(path).is_file():
        raise InputError(f"{label} was deleted by now: give it again.")
    name = pathlib.Path(path).name
    try:
        header = audio.info(path)
        seconds = header.frames / header.sample_rate
        if not MIN_SECONDS <= seconds <= MAX_SECONDS:
            raise InputError(
                f"{name} has {seconds:.4g} seconds, expected {MIN_SECONDS:g} "
                f"to {MAX_SECONDS}: cut or replace it"
            )
        return model.embed(path)
    except InputError as error:
        # The server's folders are nobody's business.
        text = str(error).replace(str(path), name)
        raise InputError(f"{label}: {text}.") from error


def criteria(model):
    """The thresholds to choose from.

    Arguments
    ---------
    model : HyperbolicSpeakerRecognition

    Returns
    -------
    choices : list of (str, str)
        Label and value; empty where the model has no thresholds.
    """
    thresholds = model.config.thresholds
    if thresholds is None:
        return []
    rates = sorted(thresholds.false_accepts, key=float, reverse=True)
    return [("Equal error rates", EER)] + [
        (f"1 false accept in {1 / float(rate):.4g}", rate) for rate in rates
    ]


def decision(model, score, criterion):
    """The decision in words, and where the score lies.

    Arguments
    ---------
    model : HyperbolicSpeakerRecognition
    score : float
    criterion : str or None
        A value of ``criteria``; None: no decision.

    Returns
    -------
    text : str
        HTML.
    """
    low, high = -1.0, 1.0
    if model.config.score == "hyperbolic":
        # Minus a distance, at most that of opposite points on the cap.
        low, high = -2 * cap(model), 0.0
    if criterion is None:
        verdict = '<p class="verdict">No decision</p>'
        sentence = (
            f"The score is {score:.3f}. This model's threshold has not been "
            "measured, so nothing can be decided."
        )
        zones = zone("none", 100)
        marks = ""
    else:
        rate = None if criterion == EER else float(criterion)
        threshold = model.threshold_at(rate)
        same = score > threshold
        verdict = (
            '<p class="verdict same">Same speaker</p>'
            if same
            else '<p class="verdict different">Different speakers</p>'
        )
        sentence = (
            f"The score, {score:.3f}, is {'' if same else 'not '}above the "
            f"threshold, {threshold:.3f}."
        )
        at = position(threshold, low, high)
        zones = zone("different", at) + zone("same", 100 - at)
        marks = mark("threshold", threshold, at)
    marks += mark("score", score, position(score, low, high))
    return (
        f'{verdict}<p id="sentence">{sentence}</p>'
        f'<div class="line" aria-hidden="true">{zones}{marks}</div>'
    )


def position(value, low, high):
    """Where a value lies between two others, in per cent."""
    return 100 * min(max((value - low) / (high - low), 0), 1)


def zone(name, width):
    """A part of the line, named where there is room."""
    text = "" if name == "none" or width < 3 * len(name) else name
    return f'<div class="zone {name}" style="width: {width:.2f}%">{text}</div>'


def mark(name, value, at):
    """A tick on the line, and its label, which stays within the line."""
    return (
        f'<div class="tick {name}" style="left: {at:.2f}%"></div>'
        f'<div class="label {name}" style="left: {at:.2f}%; '
        f'transform: translateX(-{at:.2f}%)">{name} {value:.3f}</div>'
    )


def describe(clips):
    """What is known of each clip.

    Arguments
    ---------
    clips : list of Embedding

    Returns
    -------
    text : str
        HTML.
    """
    lines = "<br>".join(
        f"{label}: {clip.seconds:.1f} s, norm of the embedding "
        f"{clip.radius:.3g}"
        for label, clip in zip(CLIPS, clips, strict=True)
    )
    return f"<p>{lines}</p>"


def disk(model, clips, store):
    """Both clips on the Poincare disk, among the enrolled speakers.

    Arguments
    ---------
    model : HyperbolicSpeakerRecognition
    clips : list of Embedding
    store : VoiceprintStore or None

    Returns
    -------
    text : str
        HTML: an image that runs no code, whatever the speakers' names are.
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
        "The Poincare disk: Clip 1 and Clip 2 at distances of "
        f"{first} and {second} from its centre, among {len(names) - 2} "
        "enrolled speakers."
    )
    return (
        f'<img class="disk" alt="{text}" '
        f'src="data:image/svg+xml;base64,{data}">'
    )


def cap(model):
    """The largest hyperbolic radius of a point."""
    return 2 * math.atanh(longest(model.config.clip_c))


def message(text):
    """A sentence for the page, as HTML."""
    return f'<p class="message">{html.escape(text)}</p>'


with exit_on_input_error():
    demo = make_page(*open_model(os.environ))

if __name__ == "__main__":
    # Whoever stops it, and when: the clips are deleted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(demo):
        demo.launch(
            max_file_size=MAX_SIZE,
            theme=THEME,
            css=CSS,
            footer_links=[],
            ssr_mode=False,
            # Gradio's own waiting ends, at a stop, before those who have a
            # page open are gone, and then nothing is deleted.
            prevent_thread_lock=True,
        )
        threading.Event().wait()
