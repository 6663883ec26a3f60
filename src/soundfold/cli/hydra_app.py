"""Run a command that composes a configuration: refuse unknown keys before Hydra starts, and explain invalid input."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from soundfold.cli.hydra_errors import explain
from soundfold.cli.overrides import check_overrides, parse_arguments
from soundfold.cli.project import import_from_job_project, import_from_project
from soundfold.config import CONF, Config, register
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
from soundfold.io.ranks import find_rank
from soundfold.io.signals import Stopped, handle_stop_signals


def run(main: Callable[[], None], schema: type = Config, description: str | None = None) -> None:
    """Run a function decorated by ``hydra.main`` on the command line, and exit unless it succeeds.

    Exit codes: 2 for invalid input, after one paragraph; 1 if training, a job of a sweep or writing to standard output
    failed; 143 and 130 after SIGTERM and Ctrl-C. A sweep's jobs are listed at its end, also after an interruption.

    Args:
        main: the entry point.
        schema: the type of the command's configuration.
        description: of the command, for ``--help``.
    """
    open_standard_streams()
    register()
    # otherwise Hydra prints its own summary of every exception and exits
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    failed = False
    try:
        with handle_stop_signals():
            args = _check_arguments(schema)
            if args.help:
                _print_help(schema, description, args)
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
        # imported here, and of several ranks only the first prints
        from soundfold.io.console import console

        command = "the same command without rerun=true" if "rerun=true" in sys.argv else "the same command"
        console.print(
            f"Stopped by {stop}: finished folds and the last checkpoint of an unfinished one are saved; "
            f"{command} goes on from there.",
            soft_wrap=True,
        )
        raise
    except JobError:
        failed = True  # listed with its job, if its process lived long enough to write a record
    except Exception as error:
        _exit_after(error)
        raise
    if failed:
        sys.exit(1)


def _check_arguments(schema: type) -> Namespace:
    """Return Hydra's flags and the overrides; let modules of the user's project be found.

    Unknown keys, values that are not one of the choices and numbers outside their range are refused here, before Hydra
    composes the configuration.
    """
    args = parse_arguments(sys.argv[1:])
    # folds as jobs are a sweep, as in `-m fold=1,2,3`
    if any(o.lstrip("+") == "fold=each" for o in args.overrides) and not _has_mode(args):
        sys.argv.append("--multirun")
    # Hydra accepts no overrides after a flag if there are some before it; the sort is stable
    sys.argv[1:] = sorted(sys.argv[1:], key=args.overrides.__contains__)
    import_from_project(args.config_dir)
    if not args.shell_completion:
        folders = [CONF, *([Path(args.config_dir)] if args.config_dir else [])]
        check_overrides(args.overrides, schema, folders)
    return args


def _has_mode(args: Namespace) -> bool:
    return bool(args.run or args.multirun or args.cfg or args.info or args.help or args.shell_completion)


def _exit_after(error: Exception) -> None:
    """Print the message of an error and exit; return if it has none, because it is a fault of the program."""
    if isinstance(error, BrokenPipeError):
        discard_output()
        sys.exit(BROKEN_PIPE)
    if isinstance(error, TrainingError):
        _exit(printable(error), 1)
    if message := explain_exhaustion(error):
        _exit(message, 1)
    if message := explain(error):
        _exit(message, 2)


class _Reported(BaseException):
    """Carries an error with a message for the user past Hydra, which would print the overrides before it."""

    def __init__(self, error: InputError | TrainingError) -> None:
        self.error = error


def hydra_task(task: Callable[[DictConfig], Any]) -> Callable[[DictConfig], Any]:
    """Decorate the function that Hydra calls for each job, so that only the message of an error is printed.

    In a sweep Hydra handles the error, so that the other jobs run. A launcher's process, which pickles the function by
    its name, finds the modules of the user's project.
    """

    @wraps(task)
    def wrapper(cfg: DictConfig) -> Any:
        import_from_job_project()
        try:
            return task(cfg)
        except (InputError, TrainingError) as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            raise _Reported(error) from error

    return wrapper


def _exit(message: str, code: int) -> NoReturn:
    # Hydra describes some errors in several lines, with tabs before the options of a group
    message = printable(message, "\n\t")
    if find_rank().is_first:
        print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def _print_help(schema: type, description: str | None, args: Namespace) -> None:
    """Print the description, its groups and its keys; Hydra's own options are under ``--hydra-help``."""
    # imported here: only help reads the comments of conf/
    from soundfold.config.help import help_text

    name = "train" if schema is Config else schema.__name__.lower()
    print((description or "").strip(), help_text(name, args.overrides, args.config_dir), sep="\n\n")


def _print_jobs() -> bool:
    """Print the jobs of a sweep that this process started; return whether any did not finish."""
    jobs = read_jobs(Sweep.folder) if Sweep.folder else []
    if jobs:
        # a single run does not need it
        from soundfold.report.terminal import print_jobs

        print_jobs(jobs, sys.argv[1:], Sweep.settings)
    return any(job.status != "finished" for job in jobs)
