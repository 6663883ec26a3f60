"""A plain training loop: decode, augment, log-mel, ResNet-18, AdamW; see `clock`."""

from __future__ import annotations

import os
from collections.abc import Callable

import soundfile
import torch
from clock import Task
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchaudio import transforms
from torchvision.models import resnet18

RATE = 44100
SAMPLES = 5 * RATE


class Sounds(Dataset):
    """Waveforms (samples,), float32, and classes."""

    def __init__(self, task: Task, augment: Callable | None) -> None:
        (self.files, self.targets), self.augment = task.files(), augment

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        wave = soundfile.read(self.files[index], dtype="float32")[0]
        wave = wave if self.augment is None else self.augment(wave)
        clip = torch.zeros(SAMPLES)  # collections have clips that are a little shorter
        clip[: len(wave)] = torch.from_numpy(wave[:SAMPLES].copy())
        return clip, self.targets[index]


def train(task: Task, augment_clip: Callable | None = None, augment_batch: Callable | None = None) -> None:
    """Train, with an augmentation of one clip in the loader's processes or of a batch on the device."""
    task.watch()
    data = Sounds(task, augment_clip)
    workers = os.cpu_count() or 1
    loader = DataLoader(data, task.batch, shuffle=True, num_workers=workers, persistent_workers=True)
    network = resnet18(num_classes=max(data.targets) + 1)
    network.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    network.to(task.device).train()
    hop = 441 if task.frames == 501 else 512
    mel = transforms.MelSpectrogram(RATE, 2048, hop_length=hop, n_mels=task.bands).to(task.device)
    to_db = transforms.AmplitudeToDB(top_db=80)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for _ in range(task.epochs):
        for batch, target in loader:
            wave = batch.to(task.device)[:, None]
            with torch.no_grad():
                image = to_db(mel(wave if augment_batch is None else augment_batch(wave)))
                if image.shape[-1] != task.frames:
                    image = nn.functional.interpolate(image, (task.bands, task.frames), mode="bilinear")
            loss = nn.functional.cross_entropy(network(image), target.to(task.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
