"""A page for each command, with the text that its ``--help`` prints."""

from __future__ import annotations

import io
import os
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

from pages import write_pages
from sphinx.application import Sphinx

from soundfold.cli.main import CONFIGURED, FLAGGED, main

# of configured commands: the options and keys are on pages of their own, with types and ranges
KEYS = "[Groups of options](../configuration/index.md) and [configuration keys](../configuration/{name}.md)"
# argparse's list of the subcommands
SUBCOMMANDS = re.compile(r"^  COMMAND\n((?: {4}.*\n)+)", re.MULTILINE)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _write(app: Sphinx) -> None:
    pages = {"index.md": _index()}
    for name, text in {**CONFIGURED, **FLAGGED}.items():
        links = f"{KEYS.format(name=name)} are explained on pages of their own.\n\n" if name in CONFIGURED else ""
        commands = [(name,), *((name, word) for word in _subcommands(help_of(name)))]
        helps = "".join(_block(*command) for command in commands)
        pages[f"{name}.md"] = f"# soundfold {name}\n\n{text[0].upper()}{text[1:]}.\n\n{links}{helps}"
    write_pages(Path(app.srcdir) / "reference" / "commands", pages)


def _index() -> str:
    names = "\n".join([*CONFIGURED, *FLAGGED])
    return (
        f"# Commands\n\n{_block()}"
        "Exit codes: 0 for success; 1 if training, a job of a sweep or a part of the work failed; 2 for invalid input, "
        "after one paragraph that names the value, the rule and the remedy; 130 and 143 after Ctrl-C and SIGTERM.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n"
    )


def _subcommands(text: str) -> list[str]:
    found = SUBCOMMANDS.search(text)
    return re.findall(r"^ {4}(\w+)", found[1], re.MULTILINE) if found else []


def _block(*command: str) -> str:
    return f"```text\n$ {' '.join(['soundfold', *command])} --help\n{help_of(*command)}```\n\n"


def help_of(*command: str) -> str:
    """Return what ``soundfold COMMAND --help`` prints on a terminal of 100 columns."""
    stream = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["soundfold", *command, "--help"]),
        mock.patch.dict(os.environ, COLUMNS="100"),
        redirect_stdout(stream),
    ):
        try:
            code = main()
        except SystemExit as end:
            code = end.code
    if code:
        raise RuntimeError(f"soundfold {' '.join(command)} --help exits with {code}.")
    return stream.getvalue()
