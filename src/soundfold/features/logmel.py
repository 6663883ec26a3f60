"""Log-mel spectrograms of batches of waveforms, on whatever device holds them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from soundfold.errors import ArgumentError, InputError

# far above any use; the bank of both takes 70 MB
MOST_BINS, MOST_BANDS = 1 << 15, 1024
# of an image, see `NormalizeAndResize`
MOST_FRAMES, MOST_SIZE = 1 << 14, 1024


def hz_to_mel(hz: Tensor) -> Tensor:
    """Slaney's mel scale: linear below 1 kHz (3 mels per 200 Hz), logarithmic above (27 mels per factor of 6.4)."""
    knee = 27.0 / math.log(6.4)
    return torch.where(hz < 1000.0, hz * 3 / 200, 15 + knee * torch.log(hz.clamp(min=1000.0) / 1000.0))


def mel_to_hz(mel: Tensor) -> Tensor:
    """Inverse of `hz_to_mel`."""
    knee = 27.0 / math.log(6.4)
    return torch.where(mel < 15, mel * 200 / 3, 1000.0 * torch.exp((mel.clamp(min=15.0) - 15) / knee))


def mel_edges(n_mels: int, f_min: float, f_max: float) -> Tensor:
    """Corners of the triangles, evenly spaced in mels: float64 (n_mels + 2,), Hz; band m spans corners m to m + 2."""
    ends = hz_to_mel(torch.tensor([f_min, f_max], dtype=torch.float64))
    return mel_to_hz(torch.linspace(float(ends[0]), float(ends[1]), n_mels + 2, dtype=torch.float64))


def mel_bank(edges: Tensor, frequencies: Tensor) -> Tensor:
    """Triangular filters of equal area: corners (n_mels + 2,) and frequencies (..., F), Hz -> (..., n_mels, F).

    Source: M. Slaney, Auditory Toolbox, Interval Research technical report 1998-010; the default of librosa.
    """
    width = edges.diff()
    rising = (frequencies.unsqueeze(-2) - edges[:-2, None]) / width[:-1, None]
    falling = (edges[2:, None] - frequencies.unsqueeze(-2)) / width[1:, None]
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return triangles * (2 / (edges[2:] - edges[:-2]))[:, None]


def area_weights(size: int, out: int) -> Tensor:
    """Average of ``size`` cells over ``out`` equal intervals, edge cells by their covered part: float32 (out, size).

    Each row sums to 1. What OpenCV calls INTER_AREA; adaptive pooling instead rounds intervals to whole cells.
    """
    scale = size / out
    start = torch.arange(out, dtype=torch.float64)[:, None] * scale
    cell = torch.arange(size, dtype=torch.float64)[None, :]
    covered = torch.minimum(start + scale, cell + 1) - torch.maximum(start, cell)
    return (covered.clamp(min=0) / scale).float()


class LogMel(nn.Module):
    """Log-mel spectrograms of waveforms, in to_db.

    The power spectrum of a periodic Hann window, frames centred by zero padding; then `mel_bank`; then
    ``10 log10(max(power, 1e-10))``, with what lies more than ``top_db`` below the clip's own loudest band raised to
    that floor. Matches ``librosa.power_to_db(librosa.feature.melspectrogram(...))``.

    Args:
        sample_rate: Hz.
        n_fft: transform length, samples.
        hop_length: samples between frames.
        n_mels: number of bands.
        f_min: lower edge of the lowest band, Hz.
        f_max: upper edge of the highest band, Hz; at most half the sample rate.
        top_db: dynamic range kept in each clip, dB.
        relative: measure dB against the clip's loudest band, as ``power_to_db(ref=np.max)`` does, instead of 1.
        win_length: samples of the window, centred in n_fft by zero padding; None is n_fft.

    Raises:
        InputError: a value breaks its rule, or a mel band would hold no bin.
    """

    window: Tensor
    edges: Tensor
    frequencies: Tensor
    bank: Tensor
    BANDS_AT_ONCE = 32

    def __init__(
        self,
        sample_rate: int,
        n_fft: int,
        hop_length: int,
        n_mels: int,
        f_min: float,
        f_max: float,
        top_db: float = 80.0,
        relative: bool = False,
        win_length: int | None = None,
    ) -> None:
        super().__init__()
        win_length = n_fft if win_length is None else win_length
        if not 2 <= n_fft <= MOST_BINS:
            raise InputError(f"features.n_fft={n_fft} must be 2 to {MOST_BINS} samples; 2048 is common at 44,100 Hz.")
        if not 1 <= n_mels <= MOST_BANDS:
            raise InputError(f"features.n_mels={n_mels} must lie within 1 and {MOST_BANDS}; 128 is common.")
        if not top_db > 0:
            raise InputError(f"features.top_db={top_db:g} must be above 0: it is the range that is kept, dB.")
        if not 0 <= f_min < f_max:
            raise InputError(f"features.f_min={f_min} must be at least 0 and below features.f_max={f_max}.")
        if f_max > sample_rate / 2:
            raise InputError(
                f"features.f_max={f_max:g} Hz is above half of data.sample_rate={sample_rate} Hz. "
                f"Give features.f_max={sample_rate // 2} or less, or a higher data.sample_rate."
            )
        edges = mel_edges(n_mels, f_min, f_max)
        frequencies = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sample_rate / n_fft
        # float64 until here: neighbouring low filters are a fraction of a bin apart
        bank = mel_bank(edges, frequencies).float()
        # a band whose edges coincide has weights that are no numbers
        empty = int((~(bank.amax(dim=1) > 0) | bank.isinf().any(dim=1)).sum())
        if empty:
            raise InputError(
                f"{empty} of features.n_mels={n_mels} bands lie between two bins of features.n_fft={n_fft}. "
                "Give a larger n_fft or fewer bands."
            )
        if not 1 <= win_length <= n_fft:
            raise ArgumentError(f"`win_length`={win_length} must be between 1 and `n_fft`={n_fft}.")
        self.n_fft, self.hop_length, self.top_db, self.relative = n_fft, hop_length, top_db, relative
        self.win_length = win_length
        self.register_buffer("window", torch.hann_window(win_length), persistent=False)
        self.register_buffer("edges", edges.float(), persistent=False)
        self.register_buffer("frequencies", frequencies.float(), persistent=False)
        self.register_buffer("bank", bank, persistent=False)

    def power(self, wave: Tensor) -> Tensor:
        """Power spectrum: float32 (B, N) -> (B, n_fft // 2 + 1, T), T = N // hop_length + 1."""
        spectrum = torch.stft(
            wave,
            self.n_fft,
            self.hop_length,
            self.win_length,
            self.window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        # cheaper than abs().square(), which takes a root first
        return spectrum.real.square() + spectrum.imag.square()

    def to_db(self, mel: Tensor) -> Tensor:
        """Mel power (B, M, T) -> dB (B, 1, M, T), floored `top_db` below each clip's maximum."""
        level = 10 * torch.log10(mel.clamp(min=1e-10))
        loudest = level.amax(dim=(-2, -1), keepdim=True)
        level = torch.maximum(level, loudest - self.top_db)
        return (level - loudest if self.relative else level).unsqueeze(1)

    def forward(self, wave: Tensor, rate: Tensor | None = None, semitones: Tensor | None = None) -> Tensor:
        """Log-mel of waveforms, stretched and shifted per clip: float32 (B, N) -> (B, 1, M, T), dB.

        Stretch and shift act on the one power spectrum, as its phases are never heard. Both are linear in it, so each
        is done where it is cheapest. A shift scales frequencies by 2^(semitones / 12): each clip gets the mel bank that
        reads its bins at their scaled frequencies, which keeps a tone's energy as a pitch-shifted tone keeps it; bands
        above a lowered Nyquist frequency stay silent. A stretch by ``rate`` reads frame t at t * rate, interpolated
        after the mel product (M rows, not n_fft / 2 + 1); frames past the end of the clip are silence, as the padding
        of a short clip is, and a longer clip is cut.

        Args:
            wave: (B, N), nominally in [-1, 1].
            rate: (B,), above 1 is faster and shorter, as in ``librosa.effects.time_stretch``; None leaves time alone.
            semitones: (B,), above 0 is higher; None leaves pitch alone.
        """
        bank, factor = self.bank, None
        if semitones is not None:
            factor = torch.exp2(semitones[:, None] / 12)
            bank = mel_bank(self.edges, self.frequencies * factor)
        mel = self._bands(bank, self.power(wave), factor)
        return self.to_db(mel if rate is None else stretch(mel, rate))

    def _bands(self, bank: Tensor, power: Tensor, factor: Tensor | None) -> Tensor:
        """Mel product, (M, F) or (B, M, F) with (B, F, T) -> (B, M, T); factor (B, 1) scaled the bank's frequencies."""
        if power.device.type != "cpu":
            return bank @ power
        # a few bands at a time meet only the bins between their corners: half of the dense product's time
        slowest, fastest = (1.0, 1.0) if factor is None else (float(factor.min()), float(factor.max()))
        corners = (self.edges / self.frequencies[1]).tolist()
        parts = []
        for first in range(0, len(corners) - 2, self.BANDS_AT_ONCE):
            last = min(first + self.BANDS_AT_ONCE, len(corners) - 2)
            bins = slice(int(corners[first] / fastest), math.ceil(corners[last + 1] / slowest) + 1)
            parts.append(bank[..., first:last, bins] @ power[:, bins])
        return torch.cat(parts, dim=-2)


def stretch(mel: Tensor, rate: Tensor) -> Tensor:
    """Read frame t of each clip at t * rate, linearly interpolated, with silence past the end.

    (B, M, T) and rates (B,) -> (B, M, T).
    """
    frames = mel.shape[-1]
    at = torch.arange(frames, device=mel.device) * rate[:, None]
    before = at.floor().clamp(max=frames).long()
    padded = functional.pad(mel, (0, 2))
    low = padded.gather(2, before[:, None].expand(-1, mel.shape[1], -1))
    high = padded.gather(2, (before + 1)[:, None].expand(-1, mel.shape[1], -1))
    return torch.lerp(low, high, (at - before).clamp(max=1)[:, None])


class NormalizeAndResize(nn.Module):
    """The published notebook's image: standardise each clip, pad with zeros to ``frames``, average to ``size``.

    (B, 1, M, T) -> (B, 1, size, size). A longer clip is cut to ``frames``. The average is by exact area.

    Raises:
        InputError: a value breaks its rule.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, n_mels: int, frames: int, size: int) -> None:
        super().__init__()
        for name, value, most in (("frames", frames, MOST_FRAMES), ("size", size, MOST_SIZE)):
            if not 1 <= value <= most:
                raise InputError(f"features.image.{name}={value} must lie within 1 and {most}.")
        self.frames = frames
        self.register_buffer("rows", area_weights(n_mels, size), persistent=False)
        self.register_buffer("columns", area_weights(frames, size).T.contiguous(), persistent=False)

    def forward(self, level: Tensor) -> Tensor:
        mean = level.mean(dim=(-2, -1), keepdim=True)
        # a silent clip has no spread
        std = level.std(dim=(-2, -1), keepdim=True, correction=0).clamp(min=1e-6)
        image = (level - mean) / std
        image = functional.pad(image, (0, self.frames - image.shape[-1]))
        return self.rows @ image @ self.columns
