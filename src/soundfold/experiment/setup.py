"""What a run is before anything is trained: its configuration checked, its clips opened, its identity and folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig

from soundfold.config import cv_id
from soundfold.data.collection import Collection, open_collection
from soundfold.data.leakage import SeenClips
from soundfold.experiment import build
from soundfold.experiment.device import check_device_count, choose_accelerator, note_bfloat16
from soundfold.experiment.model_bundle import seen_by_weights
from soundfold.models.resnet import weights_digest
from soundfold.validation import config_keys, validate


@dataclass(frozen=True)
class RunContext:
    """A cross-validation that is about to run.

    Attributes:
        cfg, collection: its configuration and its clips.
        seen: the clips behind the weights that it starts from.
        cv_id, folder: its identity and its folder.
    """

    cfg: DictConfig
    collection: Collection
    seen: SeenClips
    cv_id: str
    folder: Path

    @property
    def group(self) -> str:
        return self.folder.name


def open_run(cfg: DictConfig) -> RunContext:
    """Check the configuration, open the collection and name the run.

    Raises:
        InputError: the configuration or the data breaks a rule.
    """
    validate(cfg)
    # everything that can refuse a value does so before a clip is downloaded or decoded
    build.front_end(cfg)
    build.crops(cfg)
    build.mixing(cfg)
    build.copies(cfg)
    build.averaging(cfg)
    with torch.device("meta"):  # for its rules alone: no weight is drawn
        build.classifier(cfg, classes=2)
    protocol = build.protocol(cfg)
    kind = choose_accelerator(cfg)
    check_device_count(cfg, kind)
    note_bfloat16(cfg, kind)
    with config_keys("model"):
        weights = weights_digest(cfg.model.weights)
    with config_keys("data", "paths"):
        collection = open_collection(
            Path(cfg.data.root),
            Path(cfg.paths.cache),
            seconds=cfg.data.seconds,
            sample_rate=cfg.data.sample_rate,
            download=cfg.data.download,
            layout=cfg.data.layout,
            options=build.table_options(cfg),
        )
    table = collection.table
    rows = [table.files, table.folds.tolist(), table.targets.tolist(), table.sources, table.classes]
    digests = {
        "table": hashlib.sha256(repr(rows).encode()).hexdigest(),
        "audio": collection.waves.digest,
        "weights": weights,
    }
    identity = cv_id(cfg, digests)
    mark = "-leaky" if protocol.leaky else ""
    return RunContext(
        cfg,
        collection,
        seen_by_weights(cfg.model.weights),
        identity,
        Path(cfg.paths.outputs) / f"{cfg.name}{mark}-{identity}",
    )
