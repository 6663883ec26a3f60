"""Waveforms in device memory, copied once per process."""

from __future__ import annotations

import torch
from torch import Tensor

from soundfold.data.store import Waveforms


class DeviceCache:
    """The waveforms of one collection on one device, shared by all folds and jobs of a process.

    The key is the content, because every job of a sweep opens its collection again.
    """

    def __init__(self) -> None:
        self._key: tuple | None = None
        self._samples: Tensor | None = None

    def holds(self, waves: Waveforms, device: torch.device) -> bool:
        return self._key == _content_key(waves, device)

    def load(self, waves: Waveforms, device: torch.device) -> Tensor:
        """Return the samples on the device. Other waveforms are released first."""
        if self._samples is None or not self.holds(waves, device):
            self._key = self._samples = None
            self._samples = torch.from_numpy(waves.samples).to(device)
            self._key = _content_key(waves, device)
        return self._samples


DEVICE_CACHE = DeviceCache()


def place_samples(waves: Waveforms, device: torch.device, on_device: bool | None = None) -> Tensor:
    """Return int16 (clips, samples) on the device, or in host memory, from where batches are streamed.

    Args:
        on_device: None copies the samples to a CUDA device if they take less than half of its free memory.
    """
    host = torch.from_numpy(waves.samples)  # memory-mapped, not copied
    if device.type == "cpu":
        return host
    if DEVICE_CACHE.holds(waves, device) or _fits(waves.samples.nbytes, device, on_device):
        return DEVICE_CACHE.load(waves, device)
    return host


def _fits(size: int, device: torch.device, on_device: bool | None) -> bool:
    if on_device is not None or device.type != "cuda":
        return on_device is not False
    free, _ = torch.cuda.mem_get_info(device)
    return size < free / 2


def _content_key(waves: Waveforms, device: torch.device) -> tuple:
    return waves.digest, waves.sample_rate, waves.samples.shape, device
