"""Errors of the feature classes name the configuration's keys when they are built from a configuration."""

import pytest
from helpers.tiny import overrides

from soundfold.config import compose_config
from soundfold.errors import InputError
from soundfold.experiment import build

IMAGE = "features=seed_128x128"


@pytest.mark.parametrize(
    ("builder", "values", "message"),
    [
        ("front_end", ["features.n_fft=1"], "^features.n_fft=1 must be between 2 and 32768"),
        (
            "front_end",
            ["features.f_max=5000"],
            "^features.f_max=5000 Hz is above half of data.sample_rate=8000 Hz. Set features.f_max to 4000 or less",
        ),
        ("front_end", ["features.n_mels=1000"], "of features.n_mels=1000 bands contain no .* of features.n_fft=512"),
        ("front_end", [IMAGE, "features.image.size=5000"], "^features.image.size=5000 must be between 1 and 1024"),
        ("front_end", [IMAGE, "features.image.frames=0"], "^features.image.frames=0 must be between 1 and 16384"),
        ("augmentation", ["augment=strong", "augment.polarity=2"], "^augment.polarity=2 must be between 0 and 1"),
        (
            "augmentation",
            ["augment=strong", "augment.time_stretch.low=0"],
            "^augment.time_stretch.low=0 must be between 0.1 and 10",
        ),
        (
            "augmentation",
            ["augment=strong", "augment.time_masks.count=0"],
            "^augment.time_masks.count=0 must be between 1 and 100",
        ),
        ("augmentation", ["augment=strong", "augment.one_of=true"], "augment.gain_db.p.* because augment.one_of "),
        ("mixing", ["augment.mixing.alpha=0"], "^augment.mixing.alpha=0 must be above 0 and at most 1000"),
        (
            "mixing",
            ["augment.mixing.mixup=0.6", "augment.mixing.time_cutmix=0.6"],
            "^augment.mixing.mixup, augment.mixing.time_cutmix, .*: their sum 1.2 must not exceed 1",
        ),
        ("crops", ["crops.seconds=0.3", "crops.test=0"], "^crops.test=0 must be between 1 and 1000"),
    ],
)
def test_an_invalid_value_is_refused_by_its_key(tmp_path, builder, values, message):
    cfg = compose_config(*overrides(tmp_path, tmp_path, *values))
    with pytest.raises(InputError, match=message):
        getattr(build, builder)(cfg)
