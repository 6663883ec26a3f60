"""The plain loop with torch-audiomentations, which has no time stretch: noise and pitch shift, on the device."""

import torch_audiomentations
from clock import Task
from loop import RATE, train

if __name__ == "__main__":
    task = Task("torch-audiomentations")
    options = {"p": 1 / 3, "sample_rate": RATE, "output_type": "tensor"}
    augment = torch_audiomentations.Compose(
        [
            torch_audiomentations.AddColoredNoise(0.0, 30.0, **options),
            torch_audiomentations.PitchShift(-2, 2, **options),
        ],
        output_type="tensor",
    ).to(task.device)
    train(task, augment_batch=lambda wave: augment(wave, sample_rate=RATE))
