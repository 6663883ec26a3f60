"""A page to hear a recording and the sounds that are similar to it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from markupsafe import Markup

from soundfold.data.attribution import Attribution, attribution, read_attributions
from soundfold.data.resampling import resample_blocks
from soundfold.data.store import to_int16
from soundfold.errors import InputError
from soundfold.inference.own_clips import read_own_clips
from soundfold.inference.predictor import Predictor
from soundfold.io.atomic import explain_write_errors
from soundfold.io.audio import Recording, open_sound, to_mono
from soundfold.io.console import console, escape_bytes
from soundfold.io.pcm import pcm_to_float
from soundfold.report.clip_figure import clip_figure
from soundfold.report.drawing import inline_svg
from soundfold.report.page import audio_uri, display_name, write_page


@dataclass(frozen=True)
class SoundCard:
    """A sound on the page; without picture and audio if its file is no longer there."""

    name: str
    note: str
    picture: Markup | None = None
    audio: str | None = None
    attribution: Attribution | None = None


def write_similar_page(path: Path, query: Path, found: pd.DataFrame, predictor: Predictor) -> Path:
    """Write the page, with sounds and log-mels in it.

    Args:
        path: of the page.
        query: the recording; its first window is shown.
        found: see `soundfold.inference.similar.nearest`.
        predictor: the model, whose log-mel is drawn.

    Returns:
        The page.

    Raises:
        InputError: the recording or the page cannot be read or written.
    """
    attributions: dict[str, Attribution] = {}
    with suppress(InputError):
        attributions = read_attributions(read_own_clips(predictor.models[0].bundle).root)
    cards = []
    for row in found.itertuples():
        target = "" if pd.isna(row.target) else f"{display_name(row.target)}, "
        note = f"similarity {row.similarity:.3f}; {target}{row.start:.1f} to {row.end:.1f} s"
        author = None if pd.isna(row.filename) else attribution(row.filename, row.source, attributions)
        try:
            cards.append(_card(Path(row.file), row.start, row.end, note, predictor, author))
        except InputError as error:
            console.print(f"note: no sound of {row.file}: {error}", soft_wrap=True)
            cards.append(SoundCard(Path(row.file).name, note, None, None, author))
    header = Recording.open(query)
    seconds = min(predictor.seconds, header.header_frames / header.sample_rate)
    shown = _card(query, 0.0, seconds, f"the first {seconds:.1f} s", predictor, None)
    with explain_write_errors(path.parent, "Free some space, or name another file by --page."):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_page(
            path,
            "similar.html.j2",
            title=f"Sounds similar to {escape_bytes(query.name)}",
            query=shown,
            cards=cards,
            sections=[("recording", "Recording"), ("similar", "Similar sounds")],
            footer="Written by soundfold. Clips belong to their authors.",
        )
    return path


def _card(
    path: Path, start: float, end: float, note: str, predictor: Predictor, author: Attribution | None
) -> SoundCard:
    rate = predictor.sample_rate
    wave = _excerpt(path, start, end, rate)
    pcm = to_int16(wave, len(wave))
    log_mel = predictor.logmel(pcm_to_float(torch.from_numpy(pcm)[None].to(predictor.device)))[0, 0].cpu().numpy()
    figure = clip_figure(pcm_to_float(pcm), len(pcm) / rate, log_mel, predictor.band_centers)
    name = escape_bytes(path.name)
    return SoundCard(name, note, inline_svg(figure, f"Waveform and log-mel of {name}"), audio_uri(pcm, rate), author)


def _excerpt(path: Path, start: float, end: float, rate: int) -> np.ndarray:
    """Decode a part of a file: mono float32 (samples,) at ``rate``."""
    recording = Recording.open(path)
    first, n_frames = (round(seconds * recording.sample_rate) for seconds in (start, end - start))
    try:
        with open_sound(path) as file:
            file.seek(min(first, file.frames))
            channels = file.read(n_frames, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path} cannot be decoded ({error}). Convert it, or remove it.") from error
    if not len(channels):
        raise InputError(f"{path} ends before {start:.1f} s: it was changed after it was embedded. Embed it again.")
    mono = to_mono(channels, str(path), first, recording.sample_rate)
    return np.concatenate([*resample_blocks([mono], recording.sample_rate, rate)])
