"""A project of the user's: a folder that holds ``conf/`` and, beside it, Python files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from soundfold.config import CONF
from soundfold.errors import InputError


def import_from(folder: Path) -> None:
    """Append a folder to the end of the import path, where none of its files hides a library."""
    if (path := str(folder.resolve())) not in sys.path:
        sys.path.append(path)


def import_from_project(config_dir: str | None) -> None:
    """Let modules be imported from the folder that contains ``--config-dir``.

    Raises:
        InputError: a file of the folder has the name of one of soundfold's, which Hydra would use instead.
    """
    if config_dir is None:
        return
    folder = Path(config_dir).resolve()
    if hidden := sorted(_hidden(folder)):
        raise InputError(
            f"{folder / hidden[0]} has the name of a file of soundfold, which would be used instead. Rename it."
        )
    import_from(folder.parent)
    # `python -c`, which starts the processes of several devices, would put the current folder first
    os.environ["PYTHONSAFEPATH"] = "1"


def import_from_job_project() -> None:
    """Do the same in the process of a launcher, which starts without the command line."""
    for source in HydraConfig.get().runtime.config_sources:
        if source.provider == "command-line":
            import_from(Path(source.path).parent)


def _hidden(folder: Path) -> Iterable[Path]:
    """Yield the files of ``folder`` that differ from the file of the same name in ``CONF``."""
    for own in CONF.rglob("*.yaml"):
        name = own.relative_to(CONF)
        if (path := folder / name).is_file() and own.read_bytes() != path.read_bytes():
            yield name
