"""Hostile configuration values are refused before any work, or the images of a training step are finite."""

import copy
import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.hostile import property_test
from helpers.tiny import overrides, train
from hydra.errors import HydraException
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from soundfold.config import compose_config, known_keys
from soundfold.errors import InputError
from soundfold.experiment import build
from soundfold.experiment.setup import open_run
from soundfold.features.augment_params import ParamSampler
from soundfold.features.batch_transform import BatchTransform
from soundfold.validation import validate

BASES = {
    "plain": ["augment=noise_stretch_pitch"],
    "rich": ["augment=strong", "crops.seconds=0.3", "crops.trim=true", "crops.test=3", "average=ema", "split=nested"],
    "leaky": ["augment=seed_copies", "schedule=constant", "split=random_clips", "allow_leakage=true"],
    "image": ["features=seed_128x128", "optim=sgd", "average=swa"],
    "search": ["search=lr_wd", "logger=wandb"],
}
# data.root must stay missing, and keys of search.space are free names
LEAVES = [key for key in sorted(known_keys()) if not any(other.startswith(f"{key}.") for other in known_keys())]
KEYS = [key for key in LEAVES if key != "data.root" and not key.startswith("search.space")]
CHOICES = "none all default ema swa cosine steps nested benchmark gpu 16-mixed last full val/accuracy folder sum"
INTEGERS = [0, 1, 2, 3, -1, 16, 64, 1000, 10**6, 10**9, 2**40, 2**63, -(2**63), 10**30]
REALS = [0.0, 0.1, 0.5, 1.0, 1.5, -0.5, 100.0, 1e-300, 1e-6, 1e6, 1e38, 1e300, math.nan, math.inf, -math.inf]
TEXTS = ["", " ", "???", "${seed}", "${missing}", "${name}", "${oc.env:MISSING}", "${optim}", "${", "a\0b", "\udcff"]
NESTED = [[], [0.0], [1, 2], [math.nan], ["a", None], [0.0] * 50, {}, {"low": 0.0, "high": 1.0}, {"a": 1}]
VALUES = st.one_of(
    *map(st.sampled_from, (INTEGERS, REALS, TEXTS, NESTED)),
    st.sampled_from([None, True, False, "../x", "/", "x" * 300, "1", "1e3", "true", "null", *CHOICES.split()]),
    st.floats(),
    st.floats(0, 4),
    st.integers(-3, 5000),
    st.text(max_size=6),
)
CHANGES = st.lists(st.tuples(st.sampled_from(KEYS), VALUES), min_size=1, max_size=3)


@functools.cache
def base(name: str) -> DictConfig:
    folder = Path("missing")
    return compose_config(*overrides(folder / "clips", folder / "outputs", *BASES[name]))


def check_images(cfg: DictConfig) -> None:
    """Check the images of a training step with noise, silence and full-scale samples."""
    pipeline, crops = build.front_end(cfg), build.crops(cfg)
    generator = torch.Generator().manual_seed(0)
    samples = round(cfg.data.seconds * cfg.data.sample_rate)
    noise = torch.randint(-3000, 3000, (samples,), generator=generator)
    wave = torch.stack([noise, torch.zeros_like(noise), torch.full_like(noise, -32768)]).short()
    pipeline.fit([wave if crops is None else crops.crop_at(wave, crops.draw(ParamSampler(len(wave), generator)))])
    transform = BatchTransform(pipeline, 3, crops, build.mixing(cfg))
    images, targets = transform(wave, torch.arange(3), transform.draw(ParamSampler(3, generator)))
    assert images.shape[:2] == (3, 1)
    assert images.isfinite().all()
    assert targets.isfinite().all()


# the comment is the failure before the value was refused
INVALID_CONFIGS = (
    ("plain", [("features.n_fft", 2**40)]),  # terabytes
    ("plain", [("features.n_mels", 10**9)]),
    ("plain", [("features.f_max", 1e-300)]),  # empty mel bands: nan filters
    ("plain", [("features.hop", 1.25e-4), ("data.seconds", 300.0)]),
    ("image", [("features.image.size", 10**9)]),
    ("plain", [("data.seconds", math.nan)]),
    ("plain", [("data.seconds", 1e9)]),
    ("plain", [("data.seconds", 1e-9)]),  # an empty clip
    ("plain", [("augment.time_stretch.low", math.nan)]),
    ("plain", [("augment.time_stretch.high", math.inf)]),
    ("rich", [("augment.gain_db.high", 1e6)]),  # overflow of float32
    ("plain", [("augment.pitch_shift.high", 1e9)]),
    ("rich", [("augment.noise_colours", [100.0])]),
    ("rich", [("augment.time_masks.count", 10**9)]),
    ("rich", [("augment.mixing.alpha", math.nan)]),
    ("rich", [("augment.polarity", "${missing}")]),  # unresolved, compared as text
    ("rich", [("augment.time_shift.low", "???")]),  # a missing value, compared as text
    ("leaky", [("augment.copies.high", 10**9)]),
    ("rich", [("crops.test", 10**9)]),
    ("plain", [("model.width", 2**40)]),
    ("plain", [("optim.lr", math.inf)]),
    ("plain", [("optim.lr", math.nan)]),
    ("plain", [("optim.betas", [2.0, 0.5])]),  # PyTorch's error when training began
    ("plain", [("optim.betas", [0.0])]),
    ("image", [("optim.momentum", 0.0)]),  # Nesterov momentum requires momentum
    ("plain", [("name", "../x")]),  # outside of the folder of outputs
    ("plain", [("name", "\udcff")]),  # UnicodeEncodeError: not UTF-8
    ("plain", [("paths.cache", "a\0b")]),
    ("plain", [("seed", 2**70)]),
    ("plain", [("trainer.gradient_clip_val", math.nan)]),
    ("search", [("model.weights", "/dev/zero")]),  # endless read
    ("image", [("augment.noise_colours", "${seed}")]),  # TypeError: a reference to a value that is no list
    ("image", [("trainer.val_check_interval", "${name}")]),  # TypeError: a reference to text
    ("image", [("metrics", "${seed}")]),  # ValueError: a reference to a value that is no section
    ("image", [("augment.background_noise.folder", 300 * "x")]),  # OSError: the name is too long
    ("image", [("data.reader", "${name}")]),  # AttributeError: a reference to a value of another type
)


@property_test(st.tuples(st.sampled_from(sorted(BASES)), CHANGES), few=150, many=2000, examples=INVALID_CONFIGS)
def test_configuration_makes_finite_images_or_is_refused_before_any_work(case, tmp_path):
    is_accepted(*case)


@pytest.mark.parametrize("name", BASES)
def test_the_configurations_that_the_cases_change_are_valid(name):
    assert is_accepted(name, [])


@pytest.mark.parametrize("case", INVALID_CONFIGS, ids=lambda case: f"{case[1][0][0]}={case[1][0][1]!r:.12}")
def test_known_invalid_configuration_is_refused(case):
    assert not is_accepted(*case)


def is_accepted(name: str, changes: list[tuple[str, Any]]) -> bool:
    """Return whether a configuration passes all checks before the clips are read, and check its images if so."""
    cfg = copy.deepcopy(base(name))
    try:
        for key, value in changes:
            OmegaConf.update(cfg, key, value)
        # a valid configuration fails when its clips, which do not exist, are opened
        open_run(cfg)
    except (HydraException, OmegaConfBaseException):
        return False  # the command line explains them, as it does InputError
    except AssertionError as error:
        if "Unexpected type for root" not in str(error):
            raise  # OmegaConf's error is explained too, any other is not
        return False
    except InputError as error:
        if not str(error).startswith(("There is no table of clips", "There is no folder")):
            return False
    if cfg.data.seconds * cfg.data.sample_rate <= 50_000 and cfg.features.window / cfg.features.hop <= 100:
        check_images(cfg)
    return True


@pytest.mark.parametrize("section", ["metrics", "selection", "augment.mixing", "augment.extra", "data.reader"])
def test_a_reference_in_place_of_a_section_is_refused(section):
    cfg = copy.deepcopy(base("image"))
    OmegaConf.update(cfg, section, "${seed}")
    with pytest.raises(InputError, match=rf"^{section}=0 must be a"):
        validate(cfg)


HUGE = "1" + 400 * "0"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"optim.lr={HUGE}", "optim.lr: the number is too large"),
        (f"augment.noise_colours=[{HUGE}]", "augment.noise_colours[0]: the number is too large"),
        (f"seed={20 * HUGE}", "A value cannot be read: Exceeds the limit (4300 digits)"),
        ("optim.lr=abc", "error: optim.lr=abc must be a number."),
        ("optim={lr: abc}", "error: optim={lr: abc}: optim.lr must be a number."),
        ("data.batch_size=2.5", "error: data.batch_size=2.5 must be a whole number."),
        ("data.classes=dog", "error: data.classes=dog must be a list, such as [a,b]."),
        ("trainer.max_steps=null", "error: trainer.max_steps=null requires a value."),
        ("data.classes=[dog]", "error: data.classes=['dog'] must name two or more classes; null uses all."),
        ("model=18", "error: model=18: model is a group; choose one of its options by name."),
        ("average=null", "error: average=null: average is a group; choose one of its options by name."),
        ("features.image.size=32", "sets a key of a section that is null (off). Set the section, SECTION={KEY: VALUE"),
        ("augment.gain_db=[-6,6]", "augment.gain_db=[-6,6] must be a section of keys, {KEY: VALUE, ...}, not a list."),
        ("augment.gain_db=6", "augment.gain_db=6 must be a range, such as {low: 1, high: 2}, or null."),
        ("augment.time_masks={count: 2}", "augment.time_masks.width has no value"),
    ],
    ids=[
        "float",
        "list",
        "digits",
        "type",
        "key",
        "fraction",
        "no-list",
        "null",
        "one-class",
        "option",
        "no-option",
        "section",
        "list-for-section",
        "number-for-section",
        "part-of-section",
    ],
)
def test_command_line_explains_values_that_no_type_can_hold(override, message):
    process = train(override, "data.root=missing", "data.download=null")
    assert process.returncode == 2
    assert message in process.stderr
    assert "Traceback" not in process.stderr
