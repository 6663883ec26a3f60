"""The command ``soundfold``: run the command that the first argument names.

Imports nothing heavy, so that ``soundfold --help`` answers at once.
"""

from __future__ import annotations

import difflib
import sys
from importlib import import_module

from soundfold import __version__
from soundfold.errors import InputError, exit_code_of

# those that compose a configuration, and those with flags
CONFIGURED = {
    "train": "train and cross-validate, search settings, run a sweep",
    "prepare": "download, decode and audit a collection",
    "explore": "analyze a collection and write a page to browse it",
}
FLAGGED = {
    "report": "report on a run, compare several, or list all",
    "predict": "predict the classes of recordings",
    "embed": "write embeddings of recordings, or of a run's collection, for probes and search",
    "explain": "explain predictions as pictures and sound, and measure the explanations",
    "probe": "score simple classifiers on frozen embeddings, also of other models",
    "label": "serve a web page to label recordings, the most useful windows first",
    "similar": "find the sounds of an index that are similar to a recording",
    "novelty": "fit and measure the detection of unknown sounds",
    "export": "write a model as one file, raw waveform to probabilities",
    "demo": "serve a web page to try a model",
    "wandb": "upload offline W&B runs, save a workspace or a report",
    "init": "write a project with a network, an augmentation and an experiment of your own",
}
COMMANDS = {**CONFIGURED, **FLAGGED}


def main() -> int:
    """Run ``soundfold COMMAND ...`` and return the exit code."""
    return exit_code_of(_main)


def _main() -> int | None:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h"):
        print(_help_text())
        return None
    if name == "--version":
        print(f"soundfold {__version__}")
        return None
    if name in ("-sc", "--shell-completion"):
        from soundfold.cli.completion import complete_line

        if (completed := complete_line()) is None:
            return None
        name = completed
    elif name in COMMANDS:
        del sys.argv[1]
    else:
        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.0)[0]
        raise InputError(f"{name} is not a command of soundfold. Did you mean {near}? Commands: {', '.join(COMMANDS)}.")
    return import_module(f"soundfold.cli.{name}").main()


def _help_text() -> str:
    def lines(commands: dict[str, str]) -> list[str]:
        return [f"  {name:<9} {text}" for name, text in commands.items()]

    return "\n".join(
        [
            "usage: soundfold COMMAND ...",
            "",
            "Five-fold cross-validation for environmental sound classification.",
            "",
            "Commands that compose a configuration, by GROUP=OPTION and KEY=VALUE as in Hydra:",
            *lines(CONFIGURED),
            "",
            "Commands with flags, --NAME VALUE:",
            *lines(FLAGGED),
            "",
            "`soundfold COMMAND --help` lists the options of a command, and `soundfold --version` prints the version.",
        ]
    )
