"""Log-mel spectrograms of batches of waveforms, on the device of the waveforms."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from soundfold.errors import ArgumentError, check_between
from soundfold.io.audio_limits import MAX_N_FFT

# far above any use; a mel bank of this size takes 70 MB
MAX_BANDS = 1024
# power below which a level is not distinguished, as in librosa
LEAST_POWER = 1e-10
# of `NormalizeAndResize`
MAX_FRAMES, MAX_SIZE = 1 << 14, 1024


def hz_to_mel(hz: Tensor) -> Tensor:
    """Convert Hz to Slaney's mel scale: linear below 1 kHz (3 mels per 200 Hz), logarithmic above (27 per 6.4x)."""
    knee = 27.0 / math.log(6.4)
    return torch.where(hz < 1000.0, hz * 3 / 200, 15 + knee * torch.log(hz.clamp(min=1000.0) / 1000.0))


def mel_to_hz(mel: Tensor) -> Tensor:
    """Convert Slaney's mel scale to Hz, the inverse of `hz_to_mel`."""
    knee = 27.0 / math.log(6.4)
    return torch.where(mel < 15, mel * 200 / 3, 1000.0 * torch.exp((mel.clamp(min=15.0) - 15) / knee))


def mel_edges(n_mels: int, f_min: float, f_max: float) -> Tensor:
    """Return the corners of the triangles, evenly spaced in mels: float64 (n_mels + 2,), Hz.

    Band m spans corners m to m + 2.
    """
    ends = hz_to_mel(torch.tensor([f_min, f_max], dtype=torch.float64))
    return mel_to_hz(torch.linspace(float(ends[0]), float(ends[1]), n_mels + 2, dtype=torch.float64))


def mel_bank(edges: Tensor, frequencies: Tensor) -> Tensor:
    """Return triangular filters of equal area: corners (n_mels + 2,), frequencies (..., F), Hz -> (..., n_mels, F).

    Source: M. Slaney, Auditory Toolbox, Interval Research technical report 1998-010; librosa's default.
    """
    height = 2 / (edges[2:] - edges[:-2])
    width = edges.diff()
    rise, fall = (height / width[:-1])[:, None], (height / width[1:])[:, None]
    frequencies = frequencies.unsqueeze(-2)
    # differences first: those of the products would cancel digits
    rising = (frequencies - edges[:-2, None]).mul_(rise)
    falling = (edges[2:, None] - frequencies).mul_(fall)
    return torch.minimum(rising, falling).clamp_(min=0)


def area_weights(size: int, out: int) -> Tensor:
    """Return weights that average ``size`` cells over ``out`` equal intervals: float32 (out, size), rows sum to 1.

    Cells at the edge of an interval are weighted by their covered fraction, as in OpenCV's INTER_AREA. Adaptive
    pooling rounds intervals to full cells instead.
    """
    scale = size / out
    start = torch.arange(out, dtype=torch.float64)[:, None] * scale
    cell = torch.arange(size, dtype=torch.float64)[None, :]
    covered = torch.minimum(start + scale, cell + 1) - torch.maximum(start, cell)
    return (covered.clamp(min=0) / scale).float()


class LogMel(nn.Module):
    """Log-mel spectrograms of waveforms, dB.

    The power spectrum of a periodic Hann window with zero padding (frames are centered), the mel bank of `mel_bank`,
    then ``10 log10(max(power, 1e-10))`` with a floor ``top_db`` below the clip's maximum. Equal to
    ``librosa.power_to_db(librosa.feature.melspectrogram(..., pad_mode="constant"))``.

    Args:
        sample_rate: Hz.
        n_fft: transform length, samples.
        hop_length: samples between frames.
        n_mels: number of mel bands.
        f_min: lower edge of the lowest band, Hz.
        f_max: upper edge of the highest band, Hz; at most half the sample rate.
        top_db: dynamic range of a clip, dB.
        relative: dB relative to the clip's maximum, as ``power_to_db(ref=np.max)``, instead of to 1.
        win_length: samples of the window, centered in n_fft by zero padding; None is n_fft.

    Raises:
        ArgumentError: a value is out of range, or a mel band contains no bin.

    Example:
        >>> logmel = LogMel(sample_rate=44100, n_fft=2048, hop_length=441, n_mels=128, f_min=0.0, f_max=20000.0)
        >>> logmel(torch.zeros(8, 220500)).shape
        torch.Size([8, 1, 128, 501])
    """

    window: Tensor
    edges: Tensor
    frequencies: Tensor
    bank: Tensor
    BANDS_PER_PRODUCT = 32

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
        check_between("n_fft", n_fft, 2, MAX_N_FFT)
        check_between("n_mels", n_mels, 1, MAX_BANDS)
        if not top_db > 0:
            raise ArgumentError(f"`top_db`={top_db:g} must be above 0: it is the dynamic range in dB.")
        if not 0 <= f_min < f_max:
            raise ArgumentError(f"`f_min`={f_min} must be at least 0 and below `f_max`={f_max}.")
        if f_max > sample_rate / 2:
            raise ArgumentError(
                f"`f_max`={f_max:g} Hz is above half of `sample_rate`={sample_rate} Hz. "
                f"Set `f_max` to {sample_rate // 2} or less, or use a higher `sample_rate`."
            )
        edges = mel_edges(n_mels, f_min, f_max)
        frequencies = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sample_rate / n_fft
        # float64 until here: neighboring low filters are a fraction of a bin apart
        bank = mel_bank(edges, frequencies).float()
        # the weights of a band whose edges coincide are inf or nan
        if empty := int((~(bank.amax(dim=1) > 0) | bank.isinf().any(dim=1)).sum()):
            raise ArgumentError(
                f"{empty} of `n_mels`={n_mels} bands contain no frequency bin of `n_fft`={n_fft}. "
                "Use a larger n_fft or fewer bands."
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
        """Compute power spectra: float32 (B, N) -> (B, n_fft // 2 + 1, T), T = N // hop_length + 1."""
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
        # one contiguous pass: real and imaginary part by themselves are not contiguous
        squares = torch.view_as_real(spectrum).square_()
        return squares[..., 0] + squares[..., 1]

    def to_db(self, mel: Tensor) -> Tensor:
        """Convert mel power (B, M, T) to dB (B, 1, M, T), with a floor `top_db` below each clip's maximum."""
        return self._to_bels(mel).mul_(10)

    def _to_bels(self, mel: Tensor) -> Tensor:
        peak = mel.amax(dim=(-2, -1), keepdim=True).clamp(min=LEAST_POWER)
        # of powers, so that one pass applies both limits: the logarithm is monotonic
        floor = (peak * 10 ** (-self.top_db / 10)).clamp(min=LEAST_POWER)
        limited = torch.maximum(mel, floor)
        return (limited.div_(peak) if self.relative else limited).log10_().unsqueeze(1)

    def forward(self, wave: Tensor, time_stretch: Tensor | None = None, pitch_shift: Tensor | None = None) -> Tensor:
        """Compute log-mels of waveforms, optionally stretched and shifted: float32 (B, N) -> (B, 1, M, T), dB.

        Args:
            wave: (B, N), nominally in [-1, 1].
            time_stretch, pitch_shift: see `from_power`.
        """
        return self.from_power(self.power(wave), time_stretch, pitch_shift)

    def from_power(
        self, power: Tensor, time_stretch: Tensor | None = None, pitch_shift: Tensor | None = None
    ) -> Tensor:
        """Compute log-mels of power spectra, optionally stretched and shifted: (B, F, T) -> (B, 1, M, T), dB.

        Both changes act on one power spectrum, because a log-mel discards phases. Both are linear in it, so each is
        applied where it is cheapest. A pitch shift scales frequencies by 2^(semitones / 12): each clip gets the mel
        bank that reads the bins at their scaled frequencies, which preserves a tone's energy; bands above a lowered
        Nyquist frequency are silent. A time stretch interpolates frames after the mel product, which has M rows
        instead of n_fft / 2 + 1; T does not change, see `stretch_time`.

        Args:
            power: (B, n_fft // 2 + 1, T).
            time_stretch: (B,), rate; above 1 is faster, as in ``librosa.effects.time_stretch``.
            pitch_shift: (B,), semitones; above 0 is higher.
        """
        return self.bels(power, time_stretch, pitch_shift).mul_(10)

    def bels(self, power: Tensor, time_stretch: Tensor | None = None, pitch_shift: Tensor | None = None) -> Tensor:
        """Compute a tenth of `from_power`, for a normalization that includes the factor."""
        bank, factor = self.bank, None
        if pitch_shift is not None:
            factor = torch.exp2(pitch_shift[:, None] / 12)
            bank = mel_bank(self.edges, self.frequencies * factor)
        mel = self._mel_product(bank, power, factor)
        return self._to_bels(mel if time_stretch is None else stretch_time(mel, time_stretch))

    def _mel_product(self, bank: Tensor, power: Tensor, factor: Tensor | None) -> Tensor:
        """Multiply bank (M, F) or (B, M, F), whose frequencies factor (B, 1) scaled, by power (B, F, T): (B, M, T)."""
        if power.device.type != "cpu":
            return bank @ power
        # on a CPU, multiply a few bands by the bins between their corners: half of the dense product's time
        lowest, highest = (1.0, 1.0) if factor is None else (float(factor.min()), float(factor.max()))
        corners = (self.edges / self.frequencies[1]).tolist()
        products = []
        for first in range(0, len(corners) - 2, self.BANDS_PER_PRODUCT):
            last = min(first + self.BANDS_PER_PRODUCT, len(corners) - 2)
            bins = slice(int(corners[first] / highest), math.ceil(corners[last + 1] / lowest) + 1)
            products.append(bank[..., first:last, bins] @ power[:, bins])
        return torch.cat(products, dim=-2)


def stretch_time(mel: Tensor, rate: Tensor) -> Tensor:
    """Read frame t of each clip at t * rate, linearly interpolated: (B, M, T), rates (B,) -> (B, M, T).

    The end of a faster clip is silence, and a slower clip is cut.
    """
    frames = mel.shape[-1]
    position = torch.arange(frames, device=mel.device) * rate[:, None]
    left = position.floor().clamp(max=frames).long()
    padded = functional.pad(mel, (0, 2))
    left_mel = padded.gather(2, left[:, None].expand(-1, mel.shape[1], -1))
    right_mel = padded.gather(2, (left + 1)[:, None].expand(-1, mel.shape[1], -1))
    return torch.lerp(left_mel, right_mel, (position - left).clamp(max=1)[:, None])


class NormalizeAndResize(nn.Module):
    """The published notebook's image: normalize each clip, pad with zeros to ``frames``, average to ``size``.

    (B, 1, M, T) -> (B, 1, size, size). A longer clip is cut to ``frames``. Averages are weighted by exact area.

    Args:
        n_mels: number of mel bands M of the input.
        frames: number of frames before the resize.
        size: height and width of the image.

    Raises:
        ArgumentError: a value is out of range.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, n_mels: int, frames: int, size: int) -> None:
        super().__init__()
        check_between("frames", frames, 1, MAX_FRAMES)
        check_between("size", size, 1, MAX_SIZE)
        self.frames = frames
        self.register_buffer("rows", area_weights(n_mels, size), persistent=False)
        self.register_buffer("columns", area_weights(frames, size).T.contiguous(), persistent=False)

    def forward(self, log_mel: Tensor) -> Tensor:
        mean = log_mel.mean(dim=(-2, -1), keepdim=True)
        # the clamp avoids division by 0 for a silent clip
        std = log_mel.std(dim=(-2, -1), keepdim=True, correction=0).clamp(min=1e-6)
        # frames of padding are 0 and need no product; the averages have fewer values to divide
        centered = (log_mel - mean)[..., : self.frames]
        return (self.rows @ centered @ self.columns[: log_mel.shape[-1]]).div_(std)
