"""A web page to try a model: upload or record a sound, see probabilities and a figure. Serves this machine only."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from soundfold.config import install_command
from soundfold.data.store import decode, to_int16
from soundfold.errors import InputError
from soundfold.inference.guard import Guard
from soundfold.inference.output import describe_models
from soundfold.inference.prediction import Prediction
from soundfold.inference.predictor import Predictor
from soundfold.inference.timeline_figure import timeline_figure
from soundfold.io.console import escape_markdown
from soundfold.io.pcm import pcm_to_float
from soundfold.report.clip_figure import clip_figure
from soundfold.report.drawing import pixels
from soundfold.report.page import display_name

# summary (Markdown), probabilities by class, figure uint8 (H, W, 4)
Outputs = tuple[str, dict[str, float] | None, np.ndarray | None]
HOST = "127.0.0.1"
# seconds between deletions of uploads, and the age at which one is deleted
UPLOAD_SECONDS = 600
# the total of uploads and figures that are not yet deleted, relative to the limit of an upload
MAX_UPLOADS = 20


def classify_upload(predictor: Predictor, path: str | None, max_seconds: float) -> Outputs:
    """Return the summary, probabilities and figure of an uploaded file.

    Args:
        predictor: the models.
        path: of the upload; None clears the page.
        max_seconds: longer recordings are refused.
    """
    if path is None:
        return "", None, None
    try:
        prediction = predictor.file(path, max_seconds=max_seconds, sketch=True)
    except InputError as error:
        # the visitor need not know the server's folders
        return f"**{escape_markdown(str(error).replace(path, Path(path).name))}**", None, None
    name, value = prediction.top(1)[0]
    summary = [f"**{escape_markdown(display_name(name))}, {100 * value:.0f} %**", f"{prediction.seconds:.1f} s"]
    summary += map(escape_markdown, prediction.notes)
    if len(prediction.windows) > 1:
        summary.insert(2, f"mean over {len(prediction.windows)} windows")
        figure = timeline_figure(prediction, predictor.band_centers, width=5.0)
    else:
        figure = _clip_figure(predictor, path, prediction)
    names = map(display_name, prediction.classes)
    probabilities = dict(zip(names, prediction.probabilities.tolist(), strict=True))
    return "; ".join(summary), probabilities, pixels(figure)


def _clip_figure(predictor: Predictor, path: str, prediction: Prediction) -> Figure:
    """Draw the waveform and the log-mel, with the models' mean class activation of the most probable class."""
    scorer = predictor.scorer
    pcm = to_int16(decode(Path(path), predictor.sample_rate, predictor.samples), predictor.samples)
    log_mel = scorer.logmel(pcm_to_float(torch.from_numpy(pcm)[None].to(predictor.device)))
    cam = scorer.activation(log_mel, int(prediction.probabilities.argmax()))
    activation = None if cam is None else cam.cpu().numpy()
    centers = predictor.band_centers
    return clip_figure(pcm_to_float(pcm), predictor.seconds, log_mel[0, 0].cpu().numpy(), centers, activation)


def build_page(predictor: Predictor, max_seconds: float, max_megabytes: float, uploads: str) -> Any:
    """Return the page, a ``gradio.Blocks``.

    Args:
        predictor: the models.
        max_seconds, max_megabytes: of an upload, shown on the page.
        uploads: folder of the uploads.

    Raises:
        InputError: Gradio is not installed.
    """
    _set_environment(uploads)
    try:
        import gradio
    except ImportError as error:
        raise InputError(f"The page requires Gradio, which is not installed: {install_command('demo')}.") from error

    def classify(path: str | None) -> Outputs:
        return classify_upload(predictor, path, max_seconds)

    delete_cache = (UPLOAD_SECONDS, UPLOAD_SECONDS)
    with gradio.Blocks(title="soundfold", analytics_enabled=False, delete_cache=delete_cache) as page:
        gradio.Markdown(
            f"# Classify a sound\nUpload or record a sound of at most {max_seconds:g} s and {max_megabytes:g} MB. The "
            f"page shows which of {len(predictor.classes)} kinds of sound it probably is. Every sound is assigned to "
            f"one of them, even if none fits. A sound longer than {predictor.seconds:g} s is classified part by part."
        )
        with gradio.Row():
            with gradio.Column():
                sound = gradio.Audio(
                    sources=["upload", "microphone"], type="filepath", label="Sound", elem_id="sound", buttons=[]
                )
                summary = gradio.Markdown(elem_id="summary")
            label = "Probability" if predictor.calibrated else "Probability, uncalibrated"
            probabilities = gradio.Label(num_top_classes=5, label=label, elem_id="probabilities")
        # a visible label would cover the figure
        figure = gradio.Image(
            label="Log-mel", show_label=False, elem_id="figure", interactive=False, buttons=["fullscreen"]
        )
        gradio.Markdown(
            "The picture shows the sound as the model receives it: time from left to right, pitch from low to high, "
            "bright where it is loud. White lines surround the parts that speak most for the answer. Below a long "
            "recording, curves show the probabilities over time."
        )
        sound.change(classify, sound, [summary, probabilities, figure], api_visibility="private")
    return page


def _set_environment(uploads: str) -> None:
    """Set the folder of uploads, and remove variables that open the page to other files, programs or machines."""
    for name in list(os.environ):
        # such as GRADIO_ALLOWED_PATHS; and Gradio requests its own page through a proxy
        if name.startswith("GRADIO_") or name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
            del os.environ[name]
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # read when the page is built; by default, all Gradio servers of a machine share a folder
    os.environ["GRADIO_TEMP_DIR"] = uploads


def serve(
    predictor: Predictor, port: int | None, max_seconds: float, max_megabytes: float, wait: bool = True
) -> tuple[str, Callable[[], None]]:
    """Serve the page on 127.0.0.1 and print its address.

    Args:
        predictor: the models.
        port: None selects a free port from 7860 on.
        max_seconds, max_megabytes: of an upload; longer or larger ones are refused, and uploads whose total exceeds
            `MAX_UPLOADS` times this size.
        wait: return only after the process is interrupted.

    Returns:
        The address, and a function that closes the server.

    Raises:
        InputError: Gradio is not installed, or the port is in use.
    """
    uploads = TemporaryDirectory(prefix="soundfold-demo-")
    page = build_page(predictor, max_seconds, max_megabytes, uploads.name)
    import gradio
    from starlette.middleware import Middleware

    max_bytes = round(max_megabytes * 1e6)
    guard = Middleware(Guard, folder=Path(uploads.name), max_bytes=max_bytes, max_total=MAX_UPLOADS * max_bytes)
    try:
        _, address, _ = page.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            max_file_size=max_bytes,
            app_kwargs={"middleware": [guard]},
            # workers would serve files without the guard
            num_workers=0,
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            footer_links=[],
            # read out when an answer is complete; Gradio's translations lack it, and it falls back to English
            i18n=gradio.I18n(en={"common.complete": "Complete"}),
            # system fonts: Gradio's default fonts are requested from the network
            theme=gradio.themes.Base(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")),
        )
    except OSError as error:
        uploads.cleanup()
        raise InputError(f"The page cannot be served on port {port}: {error} Choose another --port.") from error
    for line in describe_models(predictor.models):
        print(line)
    print(f"Open {address} in a browser on this machine; stop with Ctrl-C.", flush=True)

    def close() -> None:
        page.close()
        uploads.cleanup()

    if wait:
        page.block_thread()
        close()
    return address, close
