"""Self-contained HTML pages: one file without external scripts, fonts or requests, audio included."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from soundfold.io.atomic import write_text

# ISO/IEC 11172-3 and 13818-3, and MPEG-2.5
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def write_page(path: Path, template: str, **values: Any) -> None:
    """Render a template of ``templates/`` and write the page atomically.

    All values are escaped except `markupsafe.Markup`, such as figures of `soundfold.report.drawing.inline_svg`. A
    variable that is missing in ``values`` is an error. Templates have `display_name` as a filter.
    """
    write_text(path, render_page(template, **values))


def render_page(template: str, **values: Any) -> str:
    """Render a template of ``templates/``, see `write_page`. Values of a Markdown template are not escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=not template.endswith(".md.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["display_name"] = display_name
    return environment.get_template(template).render(values)


def display_name(name: str) -> str:
    """Return a class name as text: ``crying_baby`` -> ``crying baby``."""
    return name.replace("_", " ")


def audio_uri(samples: np.ndarray, sample_rate: int) -> str:
    """Encode int16 (N,) as a data URI that every browser plays: MP3, or WAV at rates that MP3 does not support."""
    data = io.BytesIO()
    if sample_rate in MP3_RATES:
        options = {"format": "MP3", "bitrate_mode": "VARIABLE", "compression_level": 0.7}
        kind = "mpeg"
    else:
        options, kind = {"format": "WAV", "subtype": "PCM_16"}, "wav"
    soundfile.write(data, samples, sample_rate, **options)
    return f"data:audio/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
