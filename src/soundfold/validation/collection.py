"""Rules of a collection and its spectrograms."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from soundfold.config import frame_sizes
from soundfold.errors import InputError
from soundfold.io.audio_limits import MAX_N_FFT
from soundfold.validation.values import check_values

MAX_CLIP_SAMPLES = 1 << 24  # 6 minutes at 44.1 kHz
MAX_SPECTROGRAM_CELLS = 1 << 26  # half a gigabyte


def validate_data(cfg: DictConfig) -> None:
    """Check every value, and the rules of ``data``.

    Raises:
        InputError: a value is invalid.
    """
    data = cfg.data
    if data.layout == "folder" and OmegaConf.is_missing(data, "root"):
        raise InputError("data=folder requires data.root=DIRECTORY, with one folder of audio files per class.")
    check_values(cfg)
    _check_table(data)
    if data.classes is not None and len(set(data.classes)) < 2:
        raise InputError(f"data.classes={list(data.classes)} must name two or more classes; null uses all.")
    if data.subset is not None and data.layout != "esc50":
        raise InputError(
            f"data.subset={data.subset} requires data.layout=esc50: it is a column of ESC-50's table. Set data.classes "
            "instead."
        )
    if not 1 <= data.seconds * data.sample_rate <= MAX_CLIP_SAMPLES:
        raise InputError(
            f"data.seconds={data.seconds} must be between 1 sample and {MAX_CLIP_SAMPLES:,} samples, "
            f"{MAX_CLIP_SAMPLES / data.sample_rate:.0f} s at data.sample_rate={data.sample_rate}. Cut longer "
            "recordings into clips."
        )


def _check_table(data: DictConfig) -> None:
    """Check where the table of clips comes from."""
    if (data.layout in ("folder", "csv") or data.reader) and data.folds < 2:
        raise InputError(f"data.folds={data.folds} must be at least 2.")
    # a value that refers to another one, like ${name}, may be of any type
    is_entry = isinstance(data.reader, DictConfig)
    if data.reader and not (is_entry and isinstance(data.reader.get("_target_"), str)):
        raise InputError("data.reader requires _target_, a function that returns a soundfold.data.tables.ClipTable.")
    if data.layout == "csv":
        if data.table is None and not data.reader:
            raise InputError("data=csv requires data.table=FILE, a CSV file with a row per clip.")
        return
    for key in ("table", "fold_column", "source_column"):
        if data[key] is not None:
            raise InputError(f"data.{key}={data[key]} requires data=csv, not data.layout={data.layout}. Remove it.")
    if data.audio is not None and not data.reader:
        raise InputError(f"data.audio={data.audio} requires data=csv or data.reader. Remove it.")


def validate_features(cfg: DictConfig) -> None:
    """Check the sizes of ``features`` against the clips; `LogMel` checks the others.

    Raises:
        InputError: a value is invalid.
    """
    features, rate = cfg.features, cfg.data.sample_rate
    samples = round(cfg.data.seconds * rate)
    for key in ("window", "hop"):
        if not 0.5 < features[key] * rate <= samples:
            raise InputError(
                f"features.{key}={features[key]} s must be between one sample at data.sample_rate={rate} and "
                f"data.seconds={cfg.data.seconds}."
            )
    sizes = frame_sizes(cfg)
    if sizes.hop > sizes.window:
        raise InputError(
            f"features.hop={features.hop} must be at most features.window={features.window}: samples between two "
            "windows would not be used."
        )
    if features.n_fft is None and sizes.n_fft > MAX_N_FFT:
        raise InputError(
            f"features.window={features.window} s must be at most {MAX_N_FFT} samples, {MAX_N_FFT / rate:.3f} s at "
            f"data.sample_rate={rate}."
        )
    if not max(2, sizes.window) <= sizes.n_fft <= MAX_N_FFT:
        raise InputError(
            f"features.n_fft={features.n_fft} must be between the {sizes.window} samples of features.window="
            f"{features.window} and {MAX_N_FFT}. Set features.n_fft=null for the next power of two."
        )
    cells = (sizes.n_fft // 2 + 1) * (samples // sizes.hop + 1)
    if cells > MAX_SPECTROGRAM_CELLS:
        raise InputError(
            f"features.hop={features.hop} and features.window={features.window} produce a spectrogram of {cells:,} "
            f"cells per clip; at most {MAX_SPECTROGRAM_CELLS:,} are supported. Set a longer hop or "
            "shorter data.seconds."
        )
