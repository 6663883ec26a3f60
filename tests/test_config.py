import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import tiny
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from soundfold.cli.overrides import assigned_values, class_sections
from soundfold.config import (
    CONF,
    NOT_IDENTITY,
    Config,
    FrameSizes,
    cv_id,
    flatten,
    frame_sizes,
    known_keys,
    migrate,
    refuse_unknown_keys,
    register,
)
from soundfold.config.commands import Benchmark, Explore
from soundfold.config.frozen import frozen_values
from soundfold.errors import InputError
from soundfold.experiment import build
from soundfold.experiment.setup import open_run
from soundfold.validation import check_assigned, check_values, validate

ROOT = Path(__file__).resolve().parents[1]
DIGESTS = {"table": "t", "audio": "a", "weights": "none"}


UNIFORM = ("time_stretch", "pitch_shift", "noise_std", "noise_snr_db", "gain_db", "time_shift")
# overrides that an option requires
REQUIRED = {
    "data=folder": ["data.root=clips"],
    "data=csv": ["data.table=clips.csv"],
    "augment=seed_copies": ["schedule=constant"],
    "ablate=one_test_crop": ["crops.seconds=2.5"],
}


def composed(*overrides: str) -> DictConfig:
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", list(overrides))


def options(group: str) -> list[str]:
    return [f"{group}={path.stem}" for path in sorted((ROOT / "conf" / group).glob("*.yaml"))]


@pytest.mark.parametrize(
    "override",
    [
        option
        for group in (
            *("data", "split", "features", "augment", "optim", "schedule", "average", "trainer", "logger", "callbacks"),
            *("metrics", "model", "search", "selection"),
            *("experiment", "ablate"),
        )
        for option in options(group)
    ],
)
def test_every_option_is_valid(override, monkeypatch):
    # MLflow and Comet may not be installed
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    validate(composed(override, "allow_leakage=true", *REQUIRED.get(override, ())))


@pytest.mark.parametrize(
    "recipe", ["quick", *(pytest.param(name, marks=pytest.mark.slow) for name in ("scratch", "finetune"))]
)
def test_every_ablation_changes_one_section_of_a_recipe(recipe):
    base = flatten(OmegaConf.to_container(composed(f"experiment={recipe}"), resolve=True))
    for ablation in options("ablate"):
        cfg = composed(f"experiment={recipe}", ablation)
        validate(cfg)
        changed = {
            key for key, value in flatten(OmegaConf.to_container(cfg, resolve=True)).items() if base.get(key) != value
        }
        changed |= set(base) - set(flatten(OmegaConf.to_container(cfg, resolve=True)))
        assert len({key.split(".")[0] for key in changed}) <= 1, ablation
        # the other recipes do not use everything that is ablated
        if recipe == "scratch":
            assert bool(changed) == (ablation != "ablate=recipe"), ablation


@pytest.mark.parametrize("override", ["split=random_clips", "experiment=seed_original", "experiment=seed_augmented"])
def test_leaky_protocol_requires_permission(override):
    with pytest.raises(InputError, match="allow_leakage=true"):
        validate(composed(override))


def test_identity_ignores_paths_loggers_and_devices():
    same = ["fold=3", "paths.outputs=x", "paths.cache=y", "logger=csv", "data.root=z", "trainer.accelerator=cpu"]
    same += ["name=n", "rerun=true", "checkpoints.keep=all", "trainer.enable_progress_bar=false"]
    assert cv_id(composed(*same), DIGESTS) == cv_id(composed(), DIGESTS)


@pytest.mark.parametrize(
    "override",
    ["seed=1", "optim.lr=2e-3", "optim=adam", "label=again", "split=nested", "augment=none", "features.f_max=16000"],
)
def test_identity_depends_on_settings_that_change_results(override):
    assert cv_id(composed(override), DIGESTS) != cv_id(composed(), DIGESTS)


@pytest.mark.parametrize("name", DIGESTS)
def test_identity_depends_on_the_data(name):
    assert cv_id(composed(), {**DIGESTS, name: "other"}) != cv_id(composed(), DIGESTS)


def test_identity_is_stable():
    # A new id means that finished folds are not reused. It changes with the schema version and the defaults in conf/.
    # After a deliberate change, update the id here.
    assert cv_id(composed(), DIGESTS) == "033de466"
    # with the defaults before trainer.precision=auto and channels-last weights, of which `auto` itself is hashed
    assert cv_id(composed("trainer.precision=32-true", "model.channels_last=false"), DIGESTS) == "42e7ab88"
    # as a run with trainer.micro_batches=2, the first name of the option
    assert cv_id(composed("trainer.accumulate_grad_batches=2"), DIGESTS) == "fcb37a8d"


def with_key(cfg: DictConfig, key: str, value) -> DictConfig:
    OmegaConf.set_struct(cfg, False)
    OmegaConf.update(cfg, key, value, force_add=True)
    return cfg


@pytest.mark.parametrize("key", ["model.dropout", "augment.mixing.power", "augment.time_stretch.shape"])
def test_new_option_at_its_frozen_value_keeps_the_identity(key, monkeypatch):
    before = cv_id(composed(), DIGESTS)
    assert cv_id(with_key(composed(), key, 0.5), DIGESTS) != before
    monkeypatch.setitem(frozen_values(), key, 0.5)
    assert cv_id(with_key(composed(), key, 0.5), DIGESTS) == before
    assert cv_id(with_key(composed(), key, 0.6), DIGESTS) != before
    disabled = composed("augment=none")
    assert cv_id(disabled, DIGESTS) != before


def test_options_of_another_network_count_whatever_their_value():
    """A value that is ResNet-18's default says nothing about the default of another class."""
    other = ["model._target_=mypackage.Net", "~model.width"]
    assert cv_id(composed(*other, "+model.width=64"), DIGESTS) != cv_id(composed(*other), DIGESTS)
    assert cv_id(composed("model.width=64"), DIGESTS) == cv_id(composed(), DIGESTS)
    assert "width" not in migrate({"model": {"_target_": "mypackage.Net"}})["model"]


@pytest.mark.parametrize("target", ["subprocess.Popen", "builtins.print", "torch.nn.Linear"])
def test_an_optimizer_is_not_called_unless_it_is_one(target, capsys):
    with pytest.raises(InputError, match=rf"optim\._target_={target} is not a torch\.optim"):
        build.optimizer(composed(f"optim._target_={target}"))
    assert capsys.readouterr().out == ""


RMSPROP = ("optim._target_=torch.optim.RMSprop", "~optim.betas", "optim.fused=false")


def test_an_optimizer_takes_the_arguments_of_its_class():
    cfg = composed(*RMSPROP, "optim.alpha=0.9", "optim.lr=0.5")
    (group,) = build.optimizer(cfg)([{"params": [torch.zeros(1)]}]).param_groups
    assert (group["alpha"], group["lr"], group["momentum"]) == (0.9, 0.5, 0)
    ids = {cv_id(composed(*RMSPROP, *more), DIGESTS) for more in ((), ["optim.alpha=0.9"], ["optim.eps=1e-6"])}
    assert len(ids) == 3
    # fused=False would also switch off the foreach kernels of a GPU
    assert "fused" not in build.optimizer(composed("optim.fused=false")).keywords
    # its class has no weight decay
    rprop = build.optimizer(composed("optim._target_=torch.optim.Rprop", *RMSPROP[1:], "optim.weight_decay=0"))
    assert rprop([{"params": [torch.zeros(1)], "weight_decay": 0.0}]).defaults["lr"] == 1e-3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            (*RMSPROP, "optim.alhpa=0.9"),
            r"optim\.alhpa is not an option of torch\.optim\.RMSprop\. Did you mean optim\.alpha",
        ),
        (
            RMSPROP[::2],
            r"optim\.betas is not an option of torch\.optim\.RMSprop\. Omit it, or set ~optim\.betas\. Keys of",
        ),
        (RMSPROP[:2], r"^torch\.optim\.RMSprop has no fused step\. Set optim\.fused=false\.$"),
        ((*RMSPROP, "optim.alpha=abc"), r"^optim: torch\.optim\.RMSprop cannot train with .*optim\.alpha='abc': "),
        (
            ("optim._target_=torch.optim.Rprop", *RMSPROP[1:]),
            r"^torch\.optim\.Rprop has no weight decay\. Set optim\.weight_decay=0\.$",
        ),
        (("optim._target_=torch.optim.LBFGS", *RMSPROP[1:], "optim.weight_decay=0"), "LBFGS cannot train with .*group"),
        (
            ("optim._target_=torch.optim.SparseAdam", "optim.fused=false", "optim.weight_decay=0"),
            "cannot train with .* dense",
        ),
        (["optim.momentum=0.9"], r"optim\.momentum is not an option of torch\.optim\.AdamW"),
        (["optim.eps={_target_:builtins.print,_args_:[called]}"], "cannot train with "),
        (["optim.betas=[0.9]"], r"cannot train with .*optim\.betas=\[0\.9\].*: "),
        (
            ["optim=muon", "optim.momentum=1"],
            r"Muon cannot train with .*: `momentum`=1.* must be from 0 up to below 1\. Correct the values, or",
        ),
    ],
)
def test_arguments_that_an_optimizer_rejects_are_explained(overrides, message, capsys):
    with pytest.raises(InputError, match=message):
        build.check_optimizer(composed(*overrides))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("key", ["_target_", "lr", "weight_decay", "fused"])
def test_the_keys_of_every_optimizer_are_required(key):
    with pytest.raises(
        InputError, match=rf"^optim\.{key} has no value\. Every optimizer has _target_, lr, weight_decay"
    ):
        validate(composed(f"~optim.{key}"))


@pytest.mark.parametrize(
    ("overrides", "sections"),
    [
        (["optim=sgd", "experiment=quick", "+seed=1"], set()),
        (["optim=adam", "optim._target_=timm.optim.Lamb"], {"optim"}),
        (["optim=mine", "+model=timm"], {"model", "optim"}),
        (["experiment=mine"], {"model", "optim"}),
        (["model._target_=mine.Net"], {"model"}),
        (["+optim.eps=1e-6", "++model.eps=1", "+crops.eps=1"], {"model", "optim"}),
        (["optim='sgd'", "ablate=no_mixing", "search=lr_wd", "~optim.betas"], set()),
        (["optim=sgd,adam"], {"optim"}),
        (["experiment=[quick,mine]"], {"model", "optim"}),
        (["ablate=mine"], {"model", "optim"}),
    ],
)
def test_sections_of_other_classes_are_recognized(overrides, sections):
    assert class_sections(overrides) == sections


def test_recipes_leave_the_network_open():
    own = {"pooling", "stochastic_depth", "width"}
    assert own <= set(composed("experiment=scratch").model)
    assert not own & set(composed("experiment=scratch", "model=resnet34").model)


def test_changed_default_changes_the_folder_of_a_run(tmp_path):
    """Finished folds are looked up in the run's folder, so they are not reused after a default has changed."""
    root = tiny.render(tmp_path / "tiny")
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    path = conf / "model" / "resnet18.yaml"
    before = run_folder(conf, root, tmp_path)
    path.write_text(path.read_text() + "label_smoothing: 0.1\n")
    assert run_folder(conf, root, tmp_path) != before
    assert run_folder(conf, root, tmp_path, "model.label_smoothing=0.0") == before


def run_folder(conf: Path, root: Path, outputs: Path, *overrides: str) -> Path:
    with initialize_config_dir(str(conf), version_base="1.3"):
        return open_run(compose("train", tiny.overrides(root, outputs, *overrides))).folder


# keys without a default or of one optimizer, which always count
WITHOUT_FROZEN_VALUE = {
    *("split.protocol", "features.window", "features.hop", "features.n_mels", "schedule.decay", "average.kind"),
    *("features.image.frames", "features.image.size", "augment.copies.low", "augment.copies.high"),
    *("model.name", "optim._target_", "optim.lr", "optim.betas", "optim.momentum", "optim.nesterov", "optim.dtype"),
    *(f"augment.{name}.{end}" for name in UNIFORM for end in ("low", "high")),
    *(f"augment.{name}.{key}" for name in ("time_masks", "frequency_masks") for key in ("count", "width")),
}


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("augment.gain_db={low:-6,high:6}", {"low": -6.0, "high": 6.0, "p": 1.0, "integer": False}),
        ("augment.time_masks={count:2,width:0.1,p:0.5}", {"count": 2, "width": 0.1, "p": 0.5}),
        ("features.image={frames:500,size:128}", {"frames": 500, "size": 128}),
        ("find_lr={low:1e-6,high:1,steps:100}", {"low": 1e-6, "high": 1.0, "steps": 100}),
    ],
)
def test_an_override_sets_a_section_that_is_null(override, value):
    key = override.partition("=")[0]
    assert OmegaConf.select(composed("augment=none"), key) is None
    cfg = composed("augment=none", override, f"{key}={{}}")  # of a section that is not null, other keys stay
    assert OmegaConf.select(cfg, key) == value


def test_every_key_has_a_frozen_value():
    known = known_keys()
    leaves = {key for key in known if not any(other.startswith(f"{key}.") for other in known)}
    identity_keys = {key for key in leaves if not f"{key}.".startswith(tuple(f"{name}." for name in NOT_IDENTITY))}
    assert identity_keys - set(frozen_values()) == WITHOUT_FROZEN_VALUE, "add new keys to identity.yaml"
    assert set(frozen_values()) <= known


def test_disabled_section_differs_from_one_at_its_frozen_values():
    optional = [
        key
        for key, value in frozen_values().items()
        if value is None and key not in NOT_IDENTITY and any(other.startswith(f"{key}.") for other in known_keys())
    ]
    for section in optional:
        assert any(key.startswith(f"{section}.") for key in WITHOUT_FROZEN_VALUE), section


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lr=-1", r"optim\.lr=-1"),
        ("fold=some", "fold=some must be one of all, each, none, or an integer: for several folds use -m fold=1,2"),
        ("fold=${crops.trim}", "fold=False must be one of all"),
        ("trainer.precision=16-true", "features are always computed in float32"),
        ("trainer.precision=bf16-mixd", "Did you mean bf16-mixed"),
        ("selection.monitor=test/accuracy", "never on the fold"),
        ("trainer.max_epochs=0", "max_epochs"),
        ("checkpoints.keep=some", r"checkpoints\.keep=some"),
        ("data.batch_size=0", r"data\.batch_size=0"),
        ("seed=-1", "seed=-1"),
        ("data.seconds=0", r"data\.seconds"),
        ("augment=seed_copies", r"augment\.copies\.after=10"),
        ("data=folder", r"requires data\.root"),
        ("data.layout=esc", "Did you mean esc50"),
        ("split.image_val=0.1", r"split\.image_val requires augment\.copies"),
        ("trainer.max_epochs=0 trainer.max_steps=10", r"trainer\.max_epochs=0"),
        ("trainer.max_epochs=-1", "A run needs an end"),
        ("trainer.max_steps=-5", r"trainer\.max_steps=-5"),
        ("trainer.max_steps=0", r"trainer\.max_steps=0"),
        ("trainer.limit_train_batches=0", r"trainer\.limit_train_batches=0"),
        (
            "augment=seed_copies schedule=constant crops.seconds=2",
            r"augment\.copies with crops\.seconds=2.*crops\.seconds=null",
        ),
        ("crops.trim=true", r"crops\.trim requires crops\.seconds"),
        ("crops.seconds=nan", r"crops\.seconds=nan must be"),
        ("crops.seconds=inf", r"crops\.seconds=inf must be"),
        ("crops.seconds=0.01", r"between features\.window=0\.04644 and data\.seconds=5"),
        ("checkpoints.every_seconds=nan", r"every_seconds=nan must be"),
        (
            "augment=seed_copies schedule=constant augment.copies.after=2 average=swa",
            r"average\.start=0\.85 of the steps is not known",
        ),
        ("crops.test=5", r"crops\.test requires crops\.seconds"),
        ("selection.choose=lst", r"Did you mean last"),
        ("trainer.check_val_every_n_epoch=0", r"check_val_every_n_epoch=0"),
    ],
)
def test_invalid_values_are_refused_by_key(override, message):
    with pytest.raises(InputError, match=message):
        validate(composed(*override.split()))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lr=-1", r"optim\.lr=-1 must be above 0"),
        ("+trainer.devices=0", r"trainer\.devices=0 must be at least 1"),
        ("data.sample_rate=-8000.5", "between 1000 and"),
        ("optim.momentum=2", "between 0 and 1"),
        ("seed=-5", "at least 0"),
        ("selection.choose=lst", r"selection\.choose=lst must be one of best, last\. Did you mean last\?"),
        ("trainer.precision=16-true", "features are always computed in float32"),
        ("+trainer.cuda_graph=on", "one of auto, true, false"),
        ("model.compile='all'", "one of none, default"),
        ("fold=al", "or an integer: for several folds use -m fold=1,2. Did you mean all?"),
        ("fold=1.5", "or an integer"),
    ],
)
def test_invalid_choices_and_numbers_are_refused_before_composition(override, message):
    with pytest.raises(InputError, match=message):
        check_assigned(assigned_values([override], [CONF]), Config)


@pytest.mark.parametrize(("schema", "override"), [(Benchmark, "what=fold"), (Explore, "device=cuda:0")])
def test_choices_of_other_commands_are_refused_before_composition(schema, override):
    with pytest.raises(InputError, match=f"{override} must be one of"):
        check_assigned(assigned_values([override], [CONF]), schema)


@pytest.mark.parametrize(
    "override",
    [
        "optim.lr=-1 optim.lr=1",  # the last one counts
        "optim.lr=-1,1",  # a sweep checks its jobs
        "optim.lr=interval(-1,1)",
        "optim.lr=${seed}",
        "~seed=-1",
        "trainer.max_epochs=-1",
        "trainer.precision=32",
        "selection.choose=${oc.env:CHOOSE}",
        "selection.choose=best,lst",
        "data.download=null",
        "fold=3",
        "fold=each",
        "model.mine=-1",
        "data.seconds=1e3",
        "optim.lr=nan",
        "seed=-99999999999999999999",
    ],
)
def test_what_only_the_composed_configuration_tells_is_not_refused_before_it(override):
    check_assigned(assigned_values(override.split(), [CONF]), Config)


def test_max_steps_without_max_epochs_is_valid():
    validate(composed("trainer.max_epochs=-1", "trainer.max_steps=10"))


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("optim.lrr", "optim.lr"),
        ("foldd", "fold"),
        ("trainer.max_epoch", "trainer.max_epochs"),
        ("lr", "optim.lr"),
        ("n_mels", "features.n_mels"),
        ("model.seconds", "crops.seconds or data.seconds"),
    ],
)
def test_unknown_key_is_refused_with_a_suggestion(key, suggestion):
    with pytest.raises(InputError, match=rf"{key} is not a key .* Did you mean {suggestion}\?"):
        refuse_unknown_keys([key])


def test_invalid_benchmark_values_are_refused_by_key():
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for override in ("what=nothing", "device=tpu", "clips=0"):
            with pytest.raises(InputError, match=override):
                check_values(compose("benchmark", [override]))


def test_value_in_a_disabled_section_is_refused_by_key():
    command = [sys.executable, "scripts/train.py", "optim.lr=1", "search.trials=3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "error: search.trials=3 sets a key of a section that is null (off)" in done.stderr
    assert "Traceback" not in done.stderr


def test_frame_sizes_follow_the_sample_rate():
    cfg = composed("data.sample_rate=16000")
    validate(cfg)
    assert frame_sizes(cfg) == FrameSizes(window=743, hop=160, n_fft=1024, f_max=8000.0)
    assert frame_sizes(composed()) == FrameSizes(window=2048, hop=441, n_fft=2048, f_max=20000.0)


@pytest.mark.parametrize(
    ("rate", "sizes"),
    [(44100, FrameSizes(2048, 512, 2048, 22050.0)), (16000, FrameSizes(743, 186, 1024, 8000.0))],
)
def test_published_preset_has_the_same_durations_at_every_rate(rate, sizes):
    cfg = composed("features=seed_128x128", f"data.sample_rate={rate}")
    validate(cfg)
    assert frame_sizes(cfg) == sizes


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("features.hop=0", r"features\.hop=0\.0 must be above 0"),
        ("features.hop=0.05", r"features\.hop=0\.05 must be at most features\.window=0\.04644"),
        ("features.window=6", r"features\.window=6\.0 s must be .* and data\.seconds=5\.0"),
        ("features.window=2", r"must be at most 32768 samples, 0\.743 s"),
        ("features.n_fft=1024", r"features\.n_fft=1024 must be between the 2048 samples"),
        ("features.n_fft=65536", r"features\.n_fft=65536 must be between"),
    ],
)
def test_invalid_frame_sizes_are_refused_by_key(override, message):
    with pytest.raises(InputError, match=message):
        validate(composed(override))


@pytest.mark.parametrize(
    ("overrides", "download"),
    [
        (["data=esc50"], "esc50"),
        (["data=esc10"], "esc50"),
        (["data=esc50", "data.root=/mistyped"], None),
        (["data=esc50", "data.root=/elsewhere", "data.download=esc50"], "esc50"),
        (["data=esc50", "data.download=null"], None),
    ],
)
def test_esc50_is_downloaded_to_its_default_folder_or_on_request(overrides, download):
    assert composed(*overrides).data.download == download
