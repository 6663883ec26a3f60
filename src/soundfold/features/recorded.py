"""Augmentations by recordings: background noise and impulse responses."""

from __future__ import annotations

import torch
from torch import Tensor

from soundfold.errors import ArgumentError
from soundfold.features.augment_params import Params, ParamSampler, Uniform
from soundfold.features.recordings import Recordings
from soundfold.features.transform import Transform
from soundfold.io.pcm import pcm_to_float

# peak of an impulse response without a direct sound
SILENT = 1e-8


class BackgroundNoise(Transform):
    """Adds a segment of a random recording at a drawn signal-to-noise ratio.

    A recording that is shorter than the clip is repeated. The ratio is that of the powers of clip and segment, silence
    included. Silent clips and silent segments change nothing.

    Args:
        recordings: the backgrounds.
        low, high: range of the signal-to-noise ratio, dB.

    Raises:
        ArgumentError: a value is out of range.
    """

    stage = "waveform"
    recordings: Recordings
    samples: Tensor
    lengths: Tensor

    def __init__(self, recordings: Recordings, low: float, high: float) -> None:
        super().__init__()
        self.recordings, self.snr_db = recordings, Uniform(low, high)
        self.snr_db.check("background_noise", -120.0, 120.0)
        # on the training device, as integers: floats would take twice the memory
        self.register_buffer("samples", recordings.samples, persistent=False)
        self.register_buffer("lengths", recordings.lengths, persistent=False)

    def draw(self, sampler: ParamSampler) -> tuple[Tensor, Tensor, Tensor]:
        """Draw (B,) each: SNR in dB, recording, and the position in it, from 0 to 1."""
        return sampler.value(self.snr_db), sampler.index(len(self.lengths)), sampler.uniform()

    def forward(self, wave: Tensor, params: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        snr, row, position = params
        noise = self._segments(row, position, wave.shape[1])
        signal_power, noise_power = (x.square().mean(dim=1) for x in (wave, noise))
        scale = (signal_power / noise_power.clamp(min=1e-12) * 10 ** (-snr / 10)).sqrt()
        return torch.addcmul(wave, scale[:, None], noise)

    def _segments(self, row: Tensor, position: Tensor, length: int) -> Tensor:
        """Read a segment of a recording for each clip, float32 (B, length), cyclically if it is shorter."""
        lengths = self.lengths[row]
        # a segment of a longer recording does not wrap around
        last = torch.where(lengths > length, lengths - length, lengths - 1)
        start = (position * (last + 1)).long().clamp(max=last)
        index = (start[:, None] + torch.arange(length, device=row.device)) % lengths[:, None]
        return pcm_to_float(self.samples[row[:, None], index])

    def examples(self, name: str) -> list[tuple[str, Params]]:
        row, position = torch.zeros(1, dtype=torch.int64), torch.zeros(1)
        return [
            (f"background {self.recordings.files[0]}, {snr:g} dB SNR", (torch.tensor([snr]), row, position))
            for snr in dict.fromkeys((self.snr_db.low, self.snr_db.high))
        ]


class ImpulseResponse(Transform):
    """Convolves clips with a random impulse response.

    Each response starts at its peak, the direct sound, so that clips are not delayed. A clip keeps its length and its
    energy; what the convolution adds after its end is cut.

    Args:
        samples: maximum length of the waveforms.
        recordings: the impulse responses.

    Raises:
        ArgumentError: a recording is silent.
    """

    stage = "waveform"
    recordings: Recordings
    responses: Tensor

    def __init__(self, samples: int, recordings: Recordings) -> None:
        super().__init__()
        # imported here: few runs need it
        from scipy.fft import next_fast_len

        self.recordings = recordings
        responses = pcm_to_float(recordings.samples[:, :samples])
        peak = responses.abs().argmax(dim=1, keepdim=True)
        silent = responses.gather(1, peak).abs() < SILENT
        if silent.any():
            raise ArgumentError(
                f"`impulse_response.folder` has {recordings.files[int(silent.int().argmax())]}, which is silent. "
                "Remove it."
            )
        index = peak + torch.arange(responses.shape[1])
        aligned = responses.gather(1, index.clamp(max=responses.shape[1] - 1))
        self.register_buffer("responses", aligned * (index < responses.shape[1]), persistent=False)
        # long enough that the end of the convolution does not wrap around to the clip's start
        self.n_fft = next_fast_len(samples + responses.shape[1] - 1, real=True)

    def draw(self, sampler: ParamSampler) -> Tensor:
        """Draw rows of the responses: int64 (B,)."""
        return sampler.index(len(self.responses))

    def forward(self, wave: Tensor, row: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(wave, self.n_fft) * torch.fft.rfft(self.responses[row], self.n_fft)
        wet = torch.fft.irfft(spectrum, self.n_fft)[:, : wave.shape[1]]
        energy, wet_energy = (x.square().sum(dim=1, keepdim=True) for x in (wave, wet))
        return wet * (energy / wet_energy.clamp(min=1e-20)).sqrt()

    def examples(self, name: str) -> list[tuple[str, Params]]:
        return [(f"impulse response {self.recordings.files[0]}", torch.zeros(1, dtype=torch.int64))]
