"""Pages that are one file: no network, no fonts, no scripts from elsewhere; and the sound that they play."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from soundfold.io.atomic import write_text

# rates that MP3 knows; ISO/IEC 11172-3 and 13818-3
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


def write_page(path: Path, template: str, **values: Any) -> None:
    """Fill a template of this package's ``templates/`` and write the page, whole or not at all.

    Every value is escaped but figures, see `soundfold.report.drawing.inline_svg`. A name that the template uses and
    ``values`` lacks is an error. Templates have `display_name` as a filter.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["display_name"] = display_name
    write_text(path, environment.get_template(template).render(values))


def display_name(name: str) -> str:
    """A class's name as text: ``crying_baby`` is a crying baby."""
    return name.replace("_", " ")


def audio_uri(samples: np.ndarray, sample_rate: int) -> str:
    """A clip as a data URI that every browser plays: int16 (N,) -> MP3, or WAV at rates that MP3 lacks."""
    data = io.BytesIO()
    if sample_rate in MP3_RATES:
        options = {"format": "MP3", "bitrate_mode": "VARIABLE", "compression_level": 0.7}
        kind = "mpeg"
    else:
        options, kind = {"format": "WAV", "subtype": "PCM_16"}, "wav"
    soundfile.write(data, samples, sample_rate, **options)
    return f"data:audio/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
