"""Completion of a command line in a shell, for which Hydra's functions run ``soundfold -sc query=SHELL``."""

from __future__ import annotations

import os
import shlex
import sys

from soundfold.cli.main import COMMANDS, CONFIGURED


def complete_line() -> str | None:
    """Print the commands that may complete the line, or prepare its arguments for the command that it names.

    The shell passes the line in the environment variable ``COMP_LINE``. Hydra completes the words after the program's
    name, so the name of the command is removed, and ``--config-dir`` becomes an argument.

    Returns:
        The command whose ``main`` completes the line; None if it is completed.
    """
    line = os.environ.get("COMP_LINE", "")
    try:
        words = shlex.split(line)
    except ValueError:  # an open quote
        words = line.split()
    is_open = not line.endswith(" ")
    if len(words) < 2 or (len(words) == 2 and is_open):
        print("\n".join(COMMANDS))
        return None
    name, words = words[1], words[2:]
    if name not in CONFIGURED:
        return None
    folders = []
    for index, word in enumerate(words):
        option, _, folder = word.partition("=")
        if option in ("--config-dir", "-cd"):
            length = 1 if folder else 2
            folders = ["--config-dir", folder or (words[index + 1] if index + 1 < len(words) else "")]
            del words[index : index + length]
            break
    os.environ["COMP_LINE"] = " ".join(["soundfold", *words]) + ("" if is_open and words else " ")
    sys.argv[1:] = [*folders, *sys.argv[1:]]
    return name
