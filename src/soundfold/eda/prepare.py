"""A collection made ready before any training, and audited."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track

from soundfold.data.collection import open_collection
from soundfold.data.layouts import LAYOUTS
from soundfold.eda.collection_audit import audit_sound, audit_table, duplicates_csv, print_audit
from soundfold.eda.duplicates import fingerprints, near_pairs
from soundfold.errors import InputError
from soundfold.experiment import build
from soundfold.io.atomic import write_text
from soundfold.validation import config_keys


@config_keys("data", "paths")
def prepare(cfg: DictConfig) -> None:
    """Fetch the collection and build its packed store; with ``cfg.audit`` write and print its audit.

    The audit of a table whose audio is not there is that of the table alone.

    Raises:
        InputError: the collection cannot be had, or its table or audio breaks a rule.
    """
    console = Console(stderr=True)
    options: Any = OmegaConf.to_container(cfg.data, resolve=True)
    name, root, download = options["name"], Path(options["root"]), options["download"]
    cache = Path(cfg.paths.cache)
    layout, table_options = LAYOUTS[options["layout"]], build.table_options(cfg)
    sound = None
    if cfg.audit and layout.lacks_audio(root):
        table = layout.read(root, cache, table_options)
        console.print(f"There is no audio under {root}, so the table alone is audited.", soft_wrap=True)
    else:
        shape = {"seconds": options["seconds"], "sample_rate": options["sample_rate"]}
        collection = open_collection(
            root, cache, download=download, layout=options["layout"], options=table_options, **shape
        )
        table, waves = collection.table, collection.waves
        hours = waves.lengths.sum() / waves.sample_rate / 3600
        console.print(
            f"{name}: {len(table)} clips, {hours:.2f} h, {waves.samples.nbytes / 1e9:.2f} GB in {cache}", soft_wrap=True
        )
        if cfg.audit:
            prints = fingerprints(waves.samples, waves.lengths, waves.sample_rate, partial(_shown, "Listening"))
            pairs = near_pairs(prints, progress=partial(_shown, "Comparing"))
            silent = np.flatnonzero([not row.any() for row in waves.samples])
            sound = audit_sound(table, waves.hashes, pairs, silent.tolist())
    if not cfg.audit:
        return
    found = audit_table(table)
    print_audit(name, found, sound)
    folder = Path(cfg.paths.outputs) / f"audit-{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        parts = {"table": asdict(found), "sound": None if sound is None else asdict(sound)}
        write_text(folder / "audit.json", json.dumps(parts, indent=1))
        if sound is not None:
            write_text(folder / "duplicates.csv", duplicates_csv(sound))
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error}. Give paths.outputs=DIRECTORY.") from error
    console.print(f"Written to {folder}", soft_wrap=True)


def _shown(description: str, items: Iterable, total: int) -> Iterable:
    return track(items, description=description, total=total, console=Console(stderr=True))
