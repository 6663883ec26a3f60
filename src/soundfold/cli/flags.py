"""Flags of the commands that do not compose a configuration."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from soundfold.errors import InputError


def flag_parser(command: str, description: str) -> ArgumentParser:
    """Return a parser for ``soundfold COMMAND``; the command adds its flags."""
    note = "Options are flags, --NAME VALUE; only train, prepare and explore compose a configuration, by KEY=VALUE."
    return ArgumentParser(prog=f"soundfold {command}", description=description, epilog=note)


def add_run(parser: ArgumentParser) -> None:
    """Add the model, ``RUN``."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, outputs/<name>-<id>, or a weights.pt")


def add_fold(parser: ArgumentParser, default: str = "the mean of all folds") -> None:
    """Add ``--fold``, which selects one model of a run; ``default`` says what is used without it."""
    parser.add_argument("--fold", help=f"use only the model of this fold, or of 'none'; default: {default}")


def add_hop(parser: ArgumentParser, default: str = "half a window") -> None:
    """Add ``--hop`` between windows; ``default`` describes its value where it is omitted."""
    parser.add_argument("--hop", type=float, metavar="SECONDS", help=f"between windows; default {default}")


def add_device(parser: ArgumentParser, purpose: str = "") -> None:
    """Add ``--device``; ``purpose`` begins its help."""
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help=f"{purpose}default auto")


def check_at_least(args: Namespace, least: int, *names: str) -> None:
    """Raise InputError for the first of these flags whose value is below ``least``."""
    for name in names:
        if getattr(args, name) < least:
            raise InputError(f"--{name}={getattr(args, name)} must be at least {least}.")


def check_port(port: int | None) -> None:
    """Raise InputError if ``--port`` is given and is no port."""
    if port is not None and not 0 < port < 65536:
        raise InputError(f"--port={port} must be between 1 and 65535; ports below 1024 require privileges.")


def add_trust(parser: ArgumentParser) -> None:
    """Add ``--trust``, for `trust_modules`."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="module of your own, in this folder or installed, whose classes a model may name; repeatable",
    )


def parse_trusting(parser: ArgumentParser) -> Namespace:
    """Add ``--trust``, parse the arguments of this process, and trust the modules that they name.

    Raises:
        InputError: see `trust_modules`.
    """
    add_trust(parser)
    args = parser.parse_intermixed_args()
    trust_modules(args.trust)
    return args


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
