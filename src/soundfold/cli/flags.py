"""The parser of a command with flags."""

from __future__ import annotations

from argparse import ArgumentParser


def flag_parser(command: str, description: str) -> ArgumentParser:
    """Return a parser for ``soundfold COMMAND``; the command adds its flags."""
    note = "Options are flags, --NAME VALUE; only train, prepare and explore compose a configuration, by KEY=VALUE."
    return ArgumentParser(prog=f"soundfold {command}", description=description, epilog=note)
