"""The exceptions that end a run, each told in one paragraph, and how a script tells them."""

import sys
from collections.abc import Callable


class InputError(Exception):
    """Something the user gave cannot be used: one paragraph that says what, where, the rule and the remedy.

    The scripts print the paragraph without a traceback and exit with status 2.
    """


class ArgumentError(InputError, ValueError):
    """An argument of a library class or function breaks its rule.

    The message puts names of arguments in backticks, as in "`n_fft`=1 must be at least 2". The configuration layer
    replaces them by its keys, see `soundfold.validation.config_keys`.
    """


class TrainingError(Exception):
    """Training began and cannot go on: one paragraph that says where, the likeliest cause and the remedy.

    The scripts print the paragraph without a traceback and exit with status 1.
    """


def exit_code_of(work: Callable[[], int | None]) -> int:
    """The exit code of a script's work: its own, 0 where it gives none; 2 after telling bad input in a paragraph."""
    try:
        return work() or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
