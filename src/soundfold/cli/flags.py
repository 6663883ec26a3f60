"""Flags of the commands that do not compose a configuration."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from soundfold.errors import InputError


def flag_parser(command: str, description: str) -> ArgumentParser:
    """Return a parser for ``soundfold COMMAND``; the command adds its flags."""
    note = "Options are flags, --NAME VALUE; only train, prepare and explore compose a configuration, by KEY=VALUE."
    return ArgumentParser(prog=f"soundfold {command}", description=description, epilog=note)


def add_trust(parser: ArgumentParser) -> None:
    """Add ``--trust``, for `trust_modules`."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="module of your own, in this folder or installed, whose classes a model may name; repeatable",
    )


def trust_modules(modules: Sequence[str]) -> None:
    """Let models name classes of these modules, and let Python find them in the current folder.

    Raises:
        InputError: a name is not an import path, or there is no such module.
    """
    if not modules:
        return
    # imported here, so that --help answers at once
    from soundfold.cli.project import import_from
    from soundfold.config import trust

    trust(*modules)
    import_from(Path.cwd())
    for module in modules:
        if find_spec(module.partition(".")[0]) is None:
            raise InputError(
                f"--trust {module}: there is no such module, neither in this folder nor installed. Run the command in "
                "the folder that holds it."
            )
