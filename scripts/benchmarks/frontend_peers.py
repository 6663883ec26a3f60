"""Log-mels of other libraries, each with the augmentations that it has, for `benchmarks.frontend`."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from soundfold.config import install_command
from soundfold.features.logmel import area_weights
from soundfold.io.pcm import pcm_to_float

RATE, SECONDS, N_FFT, HOP, MELS = 44100, 5.0, 2048, 441, 128
# s for the first call of a compiled method
COMPILE_LIMIT = 120.0

Method = Callable[[], Any]


@dataclass
class Peers:
    """Methods of other libraries.

    Attributes:
        methods: by name; each has run once.
        not_measured: reason by name: an absent library, a failure, or a compilation that takes too long.
        first_call: s of the first call of each compiled method, compilation included.
    """

    methods: dict[str, Method] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)
    first_call: dict[str, float] = field(default_factory=dict)


class _Late(BaseException):
    """The time is over. Not an Exception, so that a compiler that tries another way does not catch it."""


def find_peers(wave: Tensor, files: list[Path]) -> Peers:
    """Prepare the methods of the installed libraries by a first call of each.

    Args:
        wave: int16 (clips, samples).
        files: the same clips as files, for the notebook's procedure.
    """
    peers = Peers()
    for package, (module, make) in LIBRARIES.items():
        if find_spec(module) is None:
            peers.not_measured[package] = f"skipped: not installed: {install_command('bench')}"
            continue
        try:
            methods = make(wave, files)
        except Exception as error:
            peers.not_measured[package] = _failure(error)
            continue
        for name, method in methods.items():
            _add(peers, name, method)
            # eager first: torchaudio creates the weights of a shift in its first call
            if package == "torchaudio" and name in peers.methods:
                _add(peers, f"{name}, compiled", torch.compile(method), COMPILE_LIMIT)
    return peers


def _add(peers: Peers, name: str, method: Method, limit: float | None = None) -> None:
    """Call a method once, and add it or the reason why it is not measured."""
    # the same gradient mode in all calls, or a compiled method would be compiled again when it is timed
    method, began = torch.no_grad()(method), time.perf_counter()
    try:
        with _time_limit(limit):
            method()
        if limit is not None:
            peers.first_call[name] = time.perf_counter() - began
        peers.methods[name] = method
    except _Late:
        peers.not_measured[name] = f"skipped: its first call took more than {limit:g} s"
    except Exception as error:
        peers.not_measured[name] = _failure(error)


@contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """Raise `_Late` in the block after a number of seconds: at once, or at its end where there are no such signals."""
    began = time.perf_counter()
    can_interrupt = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if seconds is None or not can_interrupt:
        yield
        if seconds is not None and time.perf_counter() - began > seconds:
            raise _Late
        return

    def interrupt(*_: object) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, interrupt)
    # again every 5 s: an exception in a callback of the interpreter is lost
    signal.setitimer(signal.ITIMER_REAL, seconds, 5.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _failure(error: Exception) -> str:
    line = str(error).split("\n")[0][:160]
    return f"failed: {type(error).__name__}: {line}"


def _torchaudio(wave: Tensor, _: list[Path]) -> dict[str, Method]:
    from torchaudio import transforms

    to_mel = _mel_db(wave.device)
    scale = transforms.MelScale(MELS, RATE, n_stft=N_FFT // 2 + 1).to(wave.device)
    to_db = transforms.AmplitudeToDB(top_db=80)
    spectrogram = transforms.Spectrogram(N_FFT, hop_length=HOP, power=None).to(wave.device)
    stretch = transforms.TimeStretch(HOP, N_FFT // 2 + 1).to(wave.device)
    shift = transforms.PitchShift(RATE, 2).to(wave.device)

    def stretched() -> Tensor:
        return to_db(scale(stretch(spectrogram(pcm_to_float(wave)), 1.2).abs().square())[:, None])

    return {
        "torchaudio PitchShift, then mel": lambda: to_mel(shift(pcm_to_float(wave))[:, None]),
        "torchaudio TimeStretch, then mel": stretched,
        "torchaudio mel, plain": lambda: to_mel(pcm_to_float(wave)[:, None]),
    }


def _audiomentations(wave: Tensor, _: list[Path]) -> dict[str, Method]:
    """Its transforms that soundfold has, too: it has no time stretch and no masks."""
    from torch_audiomentations import AddColoredNoise, Compose, Gain, PitchShift, PolarityInversion, Shift

    options: dict[str, Any] = {"p": 1.0, "sample_rate": RATE, "output_type": "tensor"}
    to_mel = _mel_db(wave.device)
    shift = PitchShift(-2, 2, **options).to(wave.device)
    everything = Compose(
        [
            PitchShift(-2, 2, **options),
            AddColoredNoise(0, 30, 0, 2, **options),
            Gain(-6, 6, **options),
            PolarityInversion(**{**options, "p": 0.5}),
            Shift(0, 1, **options),
        ],
        output_type="tensor",
    ).to(wave.device)
    return {
        "torch-audiomentations PitchShift, then mel": lambda: to_mel(shift(pcm_to_float(wave[:, None]))),
        "torch-audiomentations shift, noise, gain, polarity, roll, then mel": lambda: to_mel(
            everything(pcm_to_float(wave[:, None]), sample_rate=RATE)
        ),
    }


def _nnaudio(wave: Tensor, _: list[Path]) -> dict[str, Method]:
    """Its mel spectrogram, a convolution; it has no augmentations."""
    from nnAudio.features import MelSpectrogram
    from torchaudio.transforms import AmplitudeToDB

    mel = MelSpectrogram(RATE, N_FFT, n_mels=MELS, hop_length=HOP, verbose=False).to(wave.device)
    to_db = AmplitudeToDB(top_db=80)
    return {"nnAudio mel, plain": lambda: to_db(mel(pcm_to_float(wave))[:, None])}


def _mel_db(device: torch.device) -> nn.Module:
    """Return torchaudio's mel spectrogram in dB of (clips, 1, samples)."""
    from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

    mel = MelSpectrogram(RATE, N_FFT, hop_length=HOP, n_mels=MELS)
    return nn.Sequential(mel, AmplitudeToDB(top_db=80)).to(device)


def _notebook(_: Tensor, files: list[Path]) -> dict[str, Method]:
    """The published notebook's procedure, per clip: load, add noise, stretch or shift, log-mel, resize to 128x128."""
    import librosa

    rng = np.random.default_rng(0)

    def image(path: Path) -> np.ndarray:
        sound, _ = librosa.load(path, sr=RATE)
        choice = rng.integers(3)
        if choice == 0:
            sound = sound + 0.005 * rng.standard_normal(len(sound))
        elif choice == 1:
            sound = librosa.effects.time_stretch(sound, rate=rng.uniform(0.8, 1.2))
        else:
            sound = librosa.effects.pitch_shift(sound, sr=RATE, n_steps=int(rng.integers(-2, 3)))
        mel = librosa.feature.melspectrogram(y=sound, sr=RATE, n_fft=N_FFT, hop_length=512, n_mels=MELS)
        log_mel_db = librosa.power_to_db(mel, ref=np.max)
        return log_mel_db @ area_weights(log_mel_db.shape[1], MELS).numpy().T

    return {"notebook: librosa, one of three": lambda: [image(path) for path in files]}


# by the name of the package: its module, and what makes its methods
LIBRARIES: dict[str, tuple[str, Callable[[Tensor, list[Path]], dict[str, Method]]]] = {
    "torchaudio": ("torchaudio", _torchaudio),
    "torch-audiomentations": ("torch_audiomentations", _audiomentations),
    "nnAudio": ("nnAudio", _nnaudio),
    "librosa": ("librosa", _notebook),
}
