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
        self._samples = torch.empty(0)

    def holds(self, waves: Waveforms, device: torch.device) -> bool:
        return self._key == (waves.digest, waves.sample_rate, waves.samples.shape, device)

    def load(self, waves: Waveforms, device: torch.device) -> Tensor:
        """Return the samples on the device. Other samples are released first."""
        if not self.holds(waves, device):
            self._key, self._samples = None, torch.empty(0)
            self._samples = torch.from_numpy(waves.samples).to(device)
            self._key = waves.digest, waves.sample_rate, waves.samples.shape, device
        return self._samples


DEVICE_CACHE = DeviceCache()


def place_samples(waves: Waveforms, device: torch.device, on_device: bool | None = None) -> Tensor:
    """Return int16 (clips, samples) on the device, or in host memory to stream batches from there.

    Args:
        on_device: None copies the samples to a CUDA device if they take less than half of its free memory.
    """
    host = torch.from_numpy(waves.samples)  # memory-mapped, not copied
    if device.type == "cpu":
        return host
    if DEVICE_CACHE.holds(waves, device):
        return DEVICE_CACHE.load(waves, device)
    if on_device is None and device.type == "cuda":
        on_device = waves.samples.nbytes < torch.cuda.mem_get_info(device)[0] / 2
    return host if on_device is False else DEVICE_CACHE.load(waves, device)
