"""Setup of a run before training: check the configuration, open the collection, compute the run's id and folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from soundfold.config import cv_id, trust
from soundfold.data.collection import Collection, open_collection
from soundfold.data.leakage import SeenClips
from soundfold.data.recordings import check_recordings
from soundfold.data.splits import Protocol, make_split
from soundfold.errors import ArgumentError
from soundfold.experiment import build
from soundfold.experiment.device import check_accelerator, print_note
from soundfold.experiment.lightning_objects import check_entries
from soundfold.experiment.metrics import check_metrics, check_targets, monitor_mode
from soundfold.experiment.model_bundle import seen_by_weights
from soundfold.experiment.user_modules import module_digests, package_versions
from soundfold.features.recordings import Recordings
from soundfold.models.initial_weights import weights_digest
from soundfold.models.networks import RESNET, check_network, is_builtin
from soundfold.validation import config_keys, validate, wandb_sweep


@dataclass(frozen=True)
class RunContext:
    """A cross-validation that is ready to run.

    Attributes:
        cfg: the run's configuration.
        collection: the clips.
        seen: clips that trained the initial weights.
        cv_id: the run's id, a hash of everything that determines its results.
        folder: the run's folder, ``<outputs>/<name>-<id>``.
        modules: SHA-256 of the user's modules that define it, see `user_modules`.
        packages: versions of the packages that define it, beside those that every run records.
        digests: SHA-256 of the files that determine it: ``table``, ``audio``, initial ``weights``, and others.
        is_trial: the run is a trial of a search, also of W&B's: its folds are validated, but not scored, and their
            weights are not stored.
    """

    cfg: DictConfig
    collection: Collection
    seen: SeenClips
    cv_id: str
    folder: Path
    is_trial: bool = False
    modules: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def group(self) -> str:
        return self.folder.name

    def fold_folder(self, fold: int | None) -> Path:
        """Return the folder of a fold; None is the model trained on every clip."""
        return self.folder / f"fold{fold or 'none'}"


def open_run(cfg: DictConfig, *, existing: Path | None = None) -> RunContext:
    """Check the configuration, open the collection and compute the run's id.

    Args:
        cfg: the composed configuration.
        existing: folder of packed stores; the collection is neither downloaded nor decoded if it has none there, and
            only recordings that augment clips are decoded, to ``paths.cache``. None builds what is missing.

    Raises:
        InputError: the configuration or the data is invalid.
    """
    cfg = _check(cfg)
    protocol = build.protocol(cfg)
    with config_keys("model"):
        weights = weights_digest(cfg.model.weights)
    collection = _open_collection(cfg, existing)
    table = collection.table
    check_metrics(cfg, len(table.classes))
    build.class_weights(cfg, table)
    rows = [table.files, table.folds.tolist(), table.targets.tolist(), table.sources, table.classes]
    digests = {
        "table": hashlib.sha256(repr(rows).encode()).hexdigest(),
        "audio": collection.waves.digest,
        "weights": weights,
    }
    for name, recordings in _audited_recordings(cfg, protocol, collection).items():
        digests[f"augment.{name}"] = recordings.digest
    identity = cv_id(cfg, digests)
    mark = "-leaky" if protocol.leaky else ""
    outputs, sweep = Path(cfg.paths.outputs), wandb_sweep()
    if sweep:
        # apart from runs of the same settings that are scored
        outputs /= f"{cfg.name}-sweep-{sweep}"
    folder = outputs / f"{cfg.name}{mark}-{identity}"
    is_trial = cfg.search is not None or sweep is not None
    seen = seen_by_weights(cfg.model.weights)
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    return RunContext(
        cfg, collection, seen, identity, folder, is_trial, module_digests(values), package_versions(values), digests
    )


def _check(cfg: DictConfig) -> DictConfig:
    """Refuse invalid values before a clip is downloaded or decoded; see `_check_network` for what is returned."""
    validate(cfg)
    for make in (build.front_end, build.crops, build.mixing, build.copies, build.averaging, build.protocol):
        make(cfg)
    check_entries(cfg)
    check_targets(cfg)
    build.check_optimizer(cfg)
    if cfg.split.protocol == "nested":
        monitor_mode(cfg)
    cfg = _check_network(cfg, build.example_images(cfg))
    if not is_builtin(cfg.model):
        # this command named the class, so model files of its run may name it
        trust(cfg.model._target_.rpartition(".")[0])
    check_accelerator(cfg)
    return cfg


@config_keys("model")
def _check_network(cfg: DictConfig, images: Mapping[bool, Tensor]) -> DictConfig:
    """Check that the network takes the images; if it does so in one format only, set ``model.channels_last=false``."""
    if cfg.model._target_ == RESNET:
        # ours takes images of every size, and a forward pass on the device ``meta`` imports PyTorch's compiler
        images = {}
    # the meta device has no channels-last feature maps
    on_cpu = cfg.model.channels_last and not is_builtin(cfg.model)
    try:
        check_network(lambda: build.classifier(cfg, classes=2), images, classes=2, on_cpu=on_cpu)
    except ArgumentError as error:
        if not cfg.model.channels_last:
            raise
        contiguous = OmegaConf.merge(cfg, {"model": {"channels_last": False}})
        assert isinstance(contiguous, DictConfig)
        try:
            check_network(lambda: build.classifier(contiguous, classes=2), images, classes=2)
        except ArgumentError:
            raise error from None
        print_note("the network fails with channels-last weights (see Tensor.view). model.channels_last=false is set.")
        return contiguous
    return cfg


def _audited_recordings(cfg: DictConfig, protocol: Protocol, collection: Collection) -> dict[str, Recordings]:
    """Return the recordings that augment clips, by augmentation; refuse them before a fold that they leak into."""
    recordings, table = build.augmentation(cfg).recordings, collection.table
    folds = {"all": table.fold_numbers, "none": ()}.get(cfg.fold, (cfg.fold,))
    for fold in folds if recordings and not protocol.leaky else ():
        split = make_split(table, protocol, fold, cfg.seed)
        check_recordings(recordings.values(), table, split, collection.waves.hashes, fold)
    return recordings


def _open_collection(cfg: DictConfig, existing: Path | None) -> Collection:
    data = cfg.data
    with config_keys("data", "paths"):
        return open_collection(
            Path(data.root),
            Path(cfg.paths.cache) if existing is None else existing,
            seconds=data.seconds,
            sample_rate=data.sample_rate,
            download=data.download,
            layout=data.layout,
            options=build.table_options(cfg),
            build=existing is None,
        )
