"""Overrides that set a section that is null."""

from __future__ import annotations

from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf


def accept_null_sections() -> None:
    """Let overrides such as ``augment.gain_db={low: -6, high: 6}`` set a section that is null.

    Hydra gives them to ``OmegaConf.update``, which in OmegaConf 2.3 fails to merge a mapping into null. Merging it into
    the section above works, as it does for files.
    """
    OmegaConf.update = partial(_update, OmegaConf.update)  # type: ignore[method-assign]


def _update(original: Any, cfg: Any, key: str, value: Any = None, **options: Any) -> None:
    parent, _, name = key.rpartition(".")
    section = OmegaConf.select(cfg, parent) if parent else cfg
    if isinstance(value, dict) and isinstance(section, DictConfig) and name in section and section[name] is None:
        section.merge_with({name: value})
    else:
        original(cfg, key, value, **options)
