"""The clips that a model was trained among: its collection's table, for recordings that are listed there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from soundfold.data.layouts import find_layout
from soundfold.data.tables import ClipTable
from soundfold.errors import InputError
from soundfold.experiment import build
from soundfold.experiment.model_bundle import ModelBundle
from soundfold.inference.fold_models import FoldModel


@dataclass(frozen=True)
class OwnClips:
    """A table of clips, the folder of its collection, and that of the audio."""

    table: ClipTable
    root: Path
    audio: Path

    @property
    def paths(self) -> list[Path]:
        """The audio files, in the order of the table."""
        return [self.audio / name for name in self.table.files]

    def row(self, path: Path) -> int | None:
        """Return the row of an audio file; None if it is not in the table."""
        return self._rows.get(os.path.realpath(path))

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {os.path.realpath(path): row for row, path in enumerate(self.paths)}

    def trained(self, model: FoldModel, row: int) -> bool:
        """Return whether a clip, or another of its source and class, trained or selected a model."""
        table = self.table
        return (table.sources[row], table.classes[table.targets[row]]) in model.bundle.seen.sources


def read_own_clips(bundle: ModelBundle, root: Path | None = None) -> OwnClips:
    """Read the table of the collection that a model was trained on.

    Args:
        bundle: of the model; its configuration names the collection.
        root: folder of the collection, if it is no longer where the configuration says.

    Raises:
        InputError: the configuration names no folder, or the table is not there or cannot be read.
    """
    values = bundle.values
    cfg = build.stored_sections(values)
    if root is None:
        if OmegaConf.is_missing(cfg.data, "root"):
            raise InputError("The model's configuration lacks data.root, the folder of its collection. Name it.")
        root = Path(cfg.data.root)
    options = build.table_options(cfg)
    layout = find_layout(cfg.data.layout, options)
    paths: dict[str, Any] = values.get("paths") or {}
    table = layout.read(root, Path(paths.get("cache") or "cache"), options)
    return OwnClips(table, root, root / layout.audio)
