"""How soundfold is installed: from its checkout, which has conf/ beside src/, or as a built package."""

from __future__ import annotations

from soundfold.config.composition import CONF, PACKAGE


def is_built() -> bool:
    """Return whether this is a built package, which has no commit and no scripts/."""
    return CONF.parent == PACKAGE


def install_command(extra: str) -> str:
    """Return the command that installs an extra, for error messages."""
    return f"pip install 'soundfold[{extra}]'" if is_built() else f"pip install -e '.[{extra}]'"
