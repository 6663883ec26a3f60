"""Run an entry point: refuse unknown keys before Hydra starts, and report invalid input without a traceback."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from soundfold.config import Config, refuse_unknown_keys, register
from soundfold.errors import (
    BROKEN_PIPE,
    InputError,
    TrainingError,
    discard_output,
    explain_exhaustion,
    open_standard_streams,
    printable,
)
from soundfold.experiment.sweep import JobError, Sweep, read_jobs
from soundfold.io.signals import Stopped, handle_stop_signals

# base configs of the presets in conf/hydra/launcher; an extra of this package installs them
LAUNCHERS = ("hydra/launcher/joblib", "hydra/launcher/submitit_slurm", "hydra/launcher/submitit_local")
# an argument that sets a secret, in any syntax; the group is its name
SECRET = re.compile(
    r"""([\w./@-]*(?:api[_-]?key|token|secret|passw(?:or)?d|access[_-]?key))["']?\s*[=:]""", re.IGNORECASE
)


def run(main: Callable[[], None], groups: Path, schema: type = Config) -> None:
    """Run a function decorated by ``hydra.main``, and exit.

    Exit codes: 2 for invalid input, after one paragraph; 1 if training, a job of a sweep or writing to standard output
    failed; 143 and 130 after SIGTERM and Ctrl-C. A sweep's jobs are listed at its end, also after an interruption.

    Args:
        main: the entry point.
        groups: the folder of configuration groups.
        schema: the type of the entry point's configuration.
    """
    open_standard_streams()
    register()
    # otherwise Hydra prints its own summary of every exception and exits
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    # argparse accepts no overrides after this option if there are some before it; the sort is stable
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda arg: arg not in ("-m", "--multirun"))
    failed = False
    try:
        with handle_stop_signals():
            _refuse_secrets(sys.argv[1:])
            refuse_unknown_keys(_value_keys(sys.argv[1:], groups), schema)
            if {"--help", "-h"} & set(sys.argv):
                _print_help(schema)
                return
            try:
                main()
            except _Reported as reported:
                raise reported.error from None
            finally:
                failed = _print_jobs()
            if Sweep.folder is not None and not read_jobs(Sweep.folder):
                raise InputError("This sweep has no jobs: a glob() or range() selects nothing. Correct it.")
    except Stopped as stop:
        command = "the same command without rerun=true" if "rerun=true" in sys.argv else "the same command"
        print(
            f"Stopped by {stop}: finished folds and the last checkpoint of an unfinished one are saved; "
            f"{command} goes on from there.",
            file=sys.stderr,
        )
        raise
    except JobError:
        failed = True  # listed with its job, if its process lived long enough to write a record
    except Exception as error:
        _exit_after(error)
        raise
    if failed:
        sys.exit(1)


def _exit_after(error: Exception) -> None:
    """Print the message of an error and exit; return if it has none, because it is a fault of the program."""
    if isinstance(error, BrokenPipeError):
        discard_output()
        sys.exit(BROKEN_PIPE)
    if isinstance(error, TrainingError):
        _exit(printable(error), 1)
    if message := explain_exhaustion(error):
        _exit(message, 1)
    if message := _explain(error):
        _exit(message, 2)


class _Reported(BaseException):
    """Carries an error with a message for the user past Hydra, which would print the overrides before it."""

    def __init__(self, error: InputError | TrainingError) -> None:
        self.error = error


def plain_errors(task: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Decorate the function that ``hydra.main`` decorates, so that only the message of an error is printed.

    In a sweep Hydra handles the error, so that the other jobs run.
    """

    @wraps(task)
    def wrapper(cfg: DictConfig) -> Any:
        try:
            return task(cfg)
        except (InputError, TrainingError) as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            raise _Reported(error) from error

    return wrapper


def _exit(message: str, code: int) -> NoReturn:
    # Hydra describes some errors in several lines
    print(f"error: {printable(message, chr(10))}", file=sys.stderr)
    sys.exit(code)


def _print_help(schema: type) -> None:
    """Print the entry point's docstring, its groups and its keys; Hydra's own options are under ``--hydra-help``."""
    # imported here: only help reads the comments of conf/
    from soundfold.config.help import help_text

    name = "train" if schema is Config else schema.__name__.lower()
    overrides = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    print(sys.modules["__main__"].__doc__, help_text(name, overrides), sep="\n\n")


def _print_jobs() -> bool:
    """Print the jobs of a sweep that this process started; return whether any did not finish."""
    jobs = read_jobs(Sweep.folder) if Sweep.folder else []
    if jobs:
        # a single run does not need it
        from soundfold.report.terminal import print_jobs

        print_jobs(jobs, sys.argv[1:])
    return any(job.status != "finished" for job in jobs)


def _refuse_secrets(args: list[str]) -> None:
    """Raise, without repeating the value, before Hydra or a logger stores or prints the arguments."""
    for arg in args:
        if match := SECRET.search(arg):
            raise InputError(
                f"{match[1]} is not a configuration key, and other users and logs can read a secret on the command "
                "line. Set the environment variable WANDB_API_KEY, or run `wandb login` once; revoke the secret if it "
                "was a real one."
            )


def _value_keys(args: list[str], groups: Path) -> list[str]:
    """Return the keys of the overrides that set a value, with or without a plus sign."""
    overrides = [arg for arg in args if "=" in arg and not arg.startswith("-")]
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except ValueError as error:
        # Python limits the digits of an integer
        raise InputError(f"A value cannot be read: {str(error).split(';')[0]}.") from None
    keys = [(o.key_or_group or "").split("@")[0] for o in parsed]
    return [k for k in keys if k.split(".")[0].split("/")[0] != "hydra" and not (groups / k).is_dir()]


def _explain(error: Exception) -> str | None:
    """Return the message for an exception caused by invalid input; None for any other exception."""
    text = str(error)
    if isinstance(error, InputError):
        return printable(text)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file in LAUNCHERS:
        return "This launcher requires a package that is not installed: pip install -e '.[launchers]'."
    if isinstance(error, HydraException | OmegaConfBaseException):
        # the cause names the fault; Hydra's first line only locates it, and its others suggest a plus sign
        cause = error.__cause__
        if cause is None:
            return text
        reason = str(cause).splitlines()[0].rstrip(".")
        override = re.match("Error merging override (.*)", text)
        return f"{override[1]}: {reason}." if override else f"{text.splitlines()[0]} {reason}."
    if isinstance(error, OSError) and _is_raised_by_hydra(error):
        return (
            f"Hydra cannot create its folder {error.filename}: {error.strerror}. Set hydra.run.dir or "
            "hydra.sweep.dir to another folder, or omit it."
        )
    # OmegaConf passes on `float`'s error for a huge integer, and appends the key
    if isinstance(error, OverflowError) and "full_key: " in text:
        return f"{text.split('full_key: ')[1].splitlines()[0]}: the number is too large."
    # OmegaConf's errors for a key of a section that is null
    section_errors = ("Unexpected type for root", "object_type=NoneType")
    if isinstance(error, AssertionError | AttributeError) and any(part in text for part in section_errors):
        dotted = [arg for arg in sys.argv[1:] if "." in arg.split("=")[0]]
        # most sections that can be null are within another one
        dotted = [arg for arg in dotted if arg.split("=")[0].count(".") > 1 or arg.startswith("search.")] or dotted
        which = f"{dotted[0]} sets" if len(dotted) == 1 else f"One of {', '.join(dotted)} sets"
        return (
            f"{which} a key of a section that is null (off). Choose an option that has the section, such "
            "as search=lr_wd, logger=wandb or augment=strong, or omit the key."
        )
    return None


def _is_raised_by_hydra(error: OSError) -> bool:
    """Return whether Hydra, and not a function that it called, used the path that the error names."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    callers = [name for name in modules if name.split(".")[0] not in ("pathlib", "os", "contextlib")]
    return bool(callers) and callers[-1].split(".")[0] in ("hydra", "hydra_plugins")
