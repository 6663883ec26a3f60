"""The plain loop with audiomentations: noise, time stretch and pitch shift, each for a third of the clips."""

import audiomentations
from clock import Task
from loop import RATE, train

AUGMENT = audiomentations.Compose(
    [
        audiomentations.AddGaussianSNR(0.0, 30.0, p=1 / 3),
        audiomentations.TimeStretch(0.8, 1.2, p=1 / 3),
        audiomentations.PitchShift(-2, 2, p=1 / 3),
    ]
)


def augment(wave):
    return AUGMENT(wave, sample_rate=RATE)


if __name__ == "__main__":
    train(Task("audiomentations"), augment_clip=augment)
