"""A page to try a model on: a sound in, probabilities and a picture out. Served to this machine only."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from soundfold.data.store import decode, to_int16
from soundfold.errors import InputError
from soundfold.inference.output import describe_models
from soundfold.inference.predictor import Prediction, Predictor
from soundfold.inference.timeline_figure import timeline_figure
from soundfold.io.pcm import pcm_to_float
from soundfold.report.clip_figure import clip_figure
from soundfold.report.drawing import pixels

Heard = tuple[str, dict[str, float] | None, np.ndarray | None]
HERE = "127.0.0.1"
# seconds: an upload is looked for and deleted so often, and when it is so old
UPLOADS = 600


def classify_upload(predictor: Predictor, path: str | None, most_seconds: float) -> Heard:
    """What the page shows of an upload: words, probabilities, picture uint8 (H, W, 4).

    Args:
        path: of the uploaded file; None where there is none any more.
    """
    if path is None:
        return "", None, None
    try:
        found = predictor.file(path, most_seconds=most_seconds, sketch=True)
    except InputError as error:
        # where the server keeps an upload is nobody's business
        return f"**{str(error).replace(path, Path(path).name)}**", None, None
    name, value = found.top(1)[0]
    words = [f"**{_words(name)}, {100 * value:.0f} %**", f"{found.seconds:.1f} s", *found.notes]
    if len(found.windows) > 1:
        words.insert(2, f"mean over {len(found.windows)} windows")
        picture = timeline_figure(found, predictor.centres, width=5.0)
    else:
        picture = _clip(predictor, path, found)
    # every class: the page chooses how many it shows
    every = dict(zip(map(_words, found.classes), found.probabilities.tolist(), strict=True))
    return "; ".join(words), every, pixels(picture)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _clip(predictor: Predictor, path: str, found: Prediction) -> Any:
    """Waveform, log-mel, and where the models, on average, found the most probable class."""
    scorer = predictor.scorer
    stored = to_int16(decode(Path(path), predictor.sample_rate, predictor.samples), predictor.samples)
    wave = torch.from_numpy(stored)[None].to(predictor.device)
    log_mel = scorer.logmel(pcm_to_float(wave))
    cam = scorer.activation(log_mel, int(found.probabilities.argmax())).cpu().numpy()
    return clip_figure(pcm_to_float(stored), predictor.seconds, log_mel[0, 0].cpu().numpy(), predictor.centres, cam)


def build_page(predictor: Predictor, most_seconds: float, most_megabytes: float) -> Any:
    """The page, as gradio.Blocks.

    Raises:
        InputError: Gradio is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise InputError("The page needs Gradio, which is not installed: pip install -e '.[demo]'.") from error

    react: Callable[[str | None], Heard] = lambda path: classify_upload(predictor, path, most_seconds)  # noqa: E731
    with gradio.Blocks(title="soundfold", analytics_enabled=False, delete_cache=(UPLOADS, UPLOADS)) as page:
        gradio.Markdown(
            f"# What does it sound like?\n{' '.join(describe_models(predictor.models))} It knows "
            f"{len(predictor.classes)} classes and no other; clips of {predictor.seconds:g} s are scored at once, "
            f"longer ones in overlapping windows. At most {most_seconds:g} s and {most_megabytes:g} MB."
        )
        with gradio.Row():
            with gradio.Column():
                sound = gradio.Audio(
                    sources=["upload", "microphone"], type="filepath", label="Sound", elem_id="sound", buttons=[]
                )
                told = gradio.Markdown(elem_id="told")
            best = gradio.Label(
                num_top_classes=5,
                label="Probability" if predictor.calibrated else "Probability, uncalibrated",
                elem_id="best",
            )
        picture = gradio.Image(
            # a label would lie over the picture
            show_label=False,
            label="Log-mel",
            elem_id="picture",
            interactive=False,
            buttons=["fullscreen"],
        )
        gradio.Markdown(
            "The log-mel of the sound. Of a clip, the lines are around what spoke for the most probable class; of a "
            "long recording, the curves are the probabilities over time."
        )
        sound.change(react, sound, [told, best, picture], api_visibility="private")
    return page


def serve(
    predictor: Predictor, port: int | None, most_seconds: float, most_megabytes: float, wait: bool = True
) -> tuple[str, Callable[[], None]]:
    """Serve the page on 127.0.0.1 and print its address; the address, and what ends it.

    Args:
        port: None takes a free one from 7860 on.
        most_seconds, most_megabytes: of an upload; a longer or larger one is refused.
        wait: return when the process is interrupted, not at once.

    Raises:
        InputError: Gradio is not installed, or the port is taken.
    """
    page = build_page(predictor, most_seconds, most_megabytes)
    import gradio

    try:
        _, address, _ = page.launch(
            server_name=HERE,
            server_port=port,
            share=False,
            max_file_size=round(most_megabytes * 1e6),
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            footer_links=[],
            # the machine's fonts: Gradio's own would be asked of a network
            theme=gradio.themes.Base(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")),
        )
    except OSError as error:
        raise InputError(f"The page cannot be served on port {port}: {error} Give another --port.") from error
    print(f"Open {address} in a browser on this machine; Ctrl-C ends it.", flush=True)
    if wait:
        page.block_thread()
    return address, page.close
