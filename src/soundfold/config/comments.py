"""The comments of ``conf/``, which explain options and keys."""

from __future__ import annotations

import re
from pathlib import Path

from soundfold.config.composition import CONF

GLOBAL = "# @package _global_"
# name and comment of a line such as "  n_mels: 128  # mel bands, 1 to 1,024"
LINE = re.compile(r"^( *)([\w.]+):(?:.*?\s#\s+(.*))?")


def key_comments(config_name: str) -> dict[str, str]:
    """Return the comment on the line of each dotted key of a command.

    Args:
        config_name: file in ``conf/`` without its suffix; its comments precede those of the included files.
    """
    files = [CONF / f"{config_name}.yaml", *sorted((CONF / "base").glob("*.yaml"))]
    groups = ("model", "optim", "metrics", "logger")
    files += [path for group in groups for path in sorted((CONF / group).glob("*.yaml"))]
    comments: dict[str, str] = {}
    for path in files:
        text = path.read_text()
        group = path.parent.name if path.parent != CONF and not text.startswith(GLOBAL) else ""
        comments |= {key: comment for key, comment in _comments(text, group).items() if key not in comments}
    return comments


def group_comment(path: Path) -> str:
    """Return the first comment of an option's file; empty if it has none."""
    lines = (line for line in path.read_text(encoding="utf-8").splitlines() if line != GLOBAL)
    first = next(lines, "")
    return first.removeprefix("# ") if first.startswith("# ") else ""


def _comments(text: str, prefix: str) -> dict[str, str]:
    comments: dict[str, str] = {}
    path: list[tuple[int, str]] = [(-1, prefix)] if prefix else []
    for line in text.splitlines():
        match = LINE.match(line)
        if match is None:
            continue
        indent = len(match[1])
        path = [step for step in path if step[0] < indent] + [(indent, match[2])]
        if match[3]:
            comments[".".join(name for _, name in path)] = match[3]
    return comments
