"""Remarks that affect how the probabilities of a recording should be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from soundfold.io.pcm import FULL_SCALE


def model_notes(n_models: int, n_seen: int, band_centers: np.ndarray, sample_rate: int) -> Iterator[str]:
    """Yield remarks on the models and the recording.

    Args:
        n_models: number of models.
        n_seen: how many of them trained on the recording.
        band_centers: (M,), of the models' mel bands, Hz.
        sample_rate: of the recording, Hz.
    """
    if n_seen:
        subject = "the model was" if n_models == 1 else f"{n_seen} of {n_models} models were"
        yield f"{subject} trained on this clip, so the probabilities are no evidence of skill"
    if n_empty := int((band_centers > sample_rate / 2).sum()):
        yield (
            f"sampled at {sample_rate} Hz, so {n_empty} of the model's {len(band_centers)} mel bands, those above "
            f"{sample_rate // 2} Hz, are empty"
        )


def recording_notes(
    seconds: float,
    window_seconds: float,
    peak: float,
    cancels: Callable[[float], bool],
    header_seconds: float | None,
) -> Iterator[str]:
    """Yield remarks on the samples of a recording.

    Args:
        seconds: its length.
        window_seconds: length of a training clip.
        peak: largest magnitude; full scale is 1.
        cancels: whether the channels cancel in an average of this peak.
        header_seconds: length by the header; None if there is none.
    """
    if cancels(peak):
        yield "the channels cancel when they are averaged (antiphase), so the model gets almost silence"
    elif peak < 0.5 / FULL_SCALE:
        yield "digital silence"
    # decoders and resamplers exceed full scale slightly; a higher peak means samples on another scale
    elif peak > 1.5:
        yield f"far above full scale (peak {peak:.3g}), so it was clipped"
    if seconds < window_seconds:
        yield f"shorter than the training clips, so padded with silence to {window_seconds:g} s"
    if header_seconds is not None and header_seconds - seconds > 0.1:
        yield f"truncated: the header announces {header_seconds:,.1f} s"
