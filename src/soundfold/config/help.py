"""The text of ``--help``: options of each group and every key with its value and meaning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from soundfold.config.comments import group_comment, key_comments
from soundfold.config.composition import CONF, search_path

COLUMN = 44


def help_text(config_name: str, overrides: Sequence[str] = (), config_dir: str | None = None) -> str:
    """Return the help of a command: the options of its groups, then all keys as the overrides set them.

    Args:
        config_name: file in ``conf/`` without its suffix, such as ``train``.
        overrides: of the command line.
        config_dir: folder with further options of the groups.
    """
    folders = [CONF]
    if config_dir is not None:
        folders.append(Path(config_dir).resolve())
        overrides = [search_path(folders[1]), *overrides]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        values: Any = OmegaConf.to_container(compose(config_name, list(overrides)), resolve=False)
    keys = _keys(values, key_comments(config_name))
    return "\n".join([*_groups(config_name, folders), "Keys, changed by KEY=VALUE:", "", *keys])


def _groups(config_name: str, folders: Sequence[Path]) -> Iterator[str]:
    text = (CONF / f"{config_name}.yaml").read_text()
    entries = [entry for entry in yaml.safe_load(text)["defaults"] if isinstance(entry, dict)]
    groups = [name for entry in entries for name in entry if (CONF / name).is_dir()]
    if groups:
        yield "Groups of keys, chosen by GROUP=OPTION:"
    for group in groups:
        yield ""
        for path in sorted(path for folder in folders for path in (folder / group).glob("*.yaml")):
            yield _line(f"{group}={path.stem}", group_comment(path))
    if groups:
        yield ""


def _keys(values: dict[str, Any], comments: dict[str, str], prefix: str = "", indent: int = 0) -> Iterator[str]:
    for name, value in values.items():
        key, margin = f"{prefix}{name}", "  " * indent
        if isinstance(value, dict) and value:
            yield _line(f"{margin}{name}:", comments.get(key, ""))
            yield from _keys(value, comments, f"{key}.", indent + 1)
        else:
            text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip()
            yield _line(f"{margin}{name}: {text}", comments.get(key, ""))


def _line(text: str, comment: str) -> str:
    return f"{text:<{COLUMN}}  # {comment}" if comment else text
