"""Preparation of a collection before training: download, decode, audit."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from soundfold.data.collection import Collection, open_collection
from soundfold.data.layouts import find_layout
from soundfold.data.tables import ClipTable
from soundfold.eda.collection_audit import SoundAudit, audit_sound, audit_table, duplicates_csv, print_audit
from soundfold.eda.duplicate_search import find_near_duplicates
from soundfold.eda.progress import show_progress
from soundfold.eda.shortcuts import ShortcutAudit, audit_shortcuts
from soundfold.errors import InputError
from soundfold.experiment import build
from soundfold.io.atomic import write_text
from soundfold.io.console import console
from soundfold.validation import config_keys


@config_keys("data", "paths")
def prepare(cfg: DictConfig) -> None:
    """Download the collection and build its packed store; with ``cfg.audit`` also write and print its audit.

    If the audio is not available, only the table is audited.

    Raises:
        InputError: the collection is not available, or its table or audio is invalid.
    """
    root, cache = Path(cfg.data.root), Path(cfg.paths.cache)
    options = build.table_options(cfg)
    layout = find_layout(cfg.data.layout, options)
    if cfg.audit and layout.lacks_audio(root):
        console.print(f"There is no audio under {root}, so only the table is audited.", soft_wrap=True)
        _write_audit(cfg, layout.read(root, cache, options), None, None)
        return
    collection = open_collection(
        root,
        cache,
        download=cfg.data.download,
        layout=cfg.data.layout,
        options=options,
        seconds=cfg.data.seconds,
        sample_rate=cfg.data.sample_rate,
    )
    waves = collection.waves
    hours, gigabytes = waves.lengths.sum() / waves.sample_rate / 3600, waves.samples.nbytes / 1e9
    size = f"{len(collection.table)} clips, {hours:.2f} h, {gigabytes:.2f} GB in {cache}"
    console.print(f"{cfg.data.name}: {size}", soft_wrap=True)
    if cfg.audit:
        shortcuts = audit_shortcuts(collection.table, waves, show_progress)
        _write_audit(cfg, collection.table, _audit_audio(collection), shortcuts)


def _audit_audio(collection: Collection) -> SoundAudit:
    waves, table = collection.waves, collection.table
    pairs, compared = find_near_duplicates(waves, np.arange(len(table)), table.targets, show_progress)
    silent = np.flatnonzero([not row.any() for row in waves.samples])
    return audit_sound(table, waves.hashes, pairs, silent.tolist(), compared)


def _write_audit(cfg: DictConfig, table: ClipTable, sound: SoundAudit | None, shortcuts: ShortcutAudit | None) -> None:
    table_audit = audit_table(table)
    print_audit(cfg.data.name, table_audit, sound, shortcuts)
    folder = Path(cfg.paths.outputs) / f"audit-{cfg.data.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        audits = {
            "table": asdict(table_audit),
            "sound": None if sound is None else asdict(sound),
            "shortcuts": None if shortcuts is None else shortcuts.summary(),
        }
        write_text(folder / "audit.json", json.dumps(audits, indent=1))
        if sound is not None:
            write_text(folder / "duplicates.csv", duplicates_csv(sound))
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written: {error}. Set paths.outputs to a folder that can be written."
        ) from error
    console.print(f"Written to {folder}", soft_wrap=True)
