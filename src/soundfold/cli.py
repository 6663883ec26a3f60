"""What the entry points share: an unknown key is answered before Hydra starts, bad input without a traceback."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from soundfold.config import Config, refuse_unknown_keys, register
from soundfold.errors import InputError, TrainingError
from soundfold.experiment.sweep import JobError, Sweep, read_jobs
from soundfold.io.signals import Stopped, handle_stop_signals

# what the presets in conf/hydra/launcher build on, and an extra of this package brings
LAUNCHERS = ("hydra/launcher/joblib", "hydra/launcher/submitit_slurm", "hydra/launcher/submitit_local")
# a word that gives a secret a value, whatever its grammar; the group is its name
SECRET = re.compile(
    r"""([\w./@-]*(?:api[_-]?key|token|secret|passw(?:or)?d|access[_-]?key))["']?\s*[=:]""", re.IGNORECASE
)


def run(main: Callable[[], None], groups: Path, schema: type = Config) -> None:
    """Run a function decorated by ``hydra.main``; exit with 2 and one paragraph where the input is bad.

    After SIGTERM and Ctrl-C: a line of what is kept, and exit with 143 and 130.

    After a sweep, whether it ended or was cut short, what became of its jobs is printed; exit with 1 where one failed.

    Args:
        main: the entry point.
        groups: the folder of configuration groups.
        schema: the type of the entry point's configuration.
    """
    register()
    # Hydra would print its own summary of every exception and exit; ours tells bad input from a fault
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        with handle_stop_signals():
            _refuse_secrets(sys.argv[1:])
            refuse_unknown_keys(_value_keys(sys.argv[1:], groups), schema)
            try:
                main()
            finally:
                failed = _tell_jobs()
    except Stopped as stop:
        again = "the same command without rerun=true" if "rerun=true" in sys.argv else "the same command"
        kept = "what is finished is kept, of a fold the epochs up to its last checkpoint"
        print(f"Stopped by {stop}: {kept}; {again} goes on from there.", file=sys.stderr)
        raise
    except JobError:
        pass  # told with its job
    except (InputError, HydraException, OmegaConfBaseException) as error:
        sys.exit(_paragraph(error))
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except OverflowError as error:
        # OmegaConf passes on what float says of a whole number, and adds the key
        if "full_key: " not in str(error):
            raise
        print(f"error: {str(error).split('full_key: ')[1].splitlines()[0]}: the number is too large.", file=sys.stderr)
        sys.exit(2)
    except (AssertionError, AttributeError) as error:
        # OmegaConf's whole answers to a value for a section that is null, and to a section for one
        if "Unexpected type for root" not in str(error) and "object_type=NoneType" not in str(error):
            raise
        dotted = ", ".join(word for word in sys.argv[1:] if "." in word.split("=")[0])
        print(
            f"error: One of {dotted} sets a value in a section that is switched off (null). Choose the section too, "
            "such as search=lr_wd or logger=wandb, or leave the value out.",
            file=sys.stderr,
        )
        sys.exit(2)
    if failed:
        sys.exit(1)


def _tell_jobs() -> bool:
    """Print what became of the jobs of the sweep that this process began, if it did; true where one did not finish."""
    jobs = read_jobs(Sweep.folder) if Sweep.folder else []
    if jobs:
        # imported here: a single run has no such table
        from soundfold.report.terminal import print_jobs

        print_jobs(jobs)
    return any(job.status != "finished" for job in jobs)


def _refuse_secrets(arguments: list[str]) -> None:
    """Raise, without the value, before Hydra or a logger keeps or repeats the words."""
    for word in arguments:
        if found := SECRET.search(word):
            raise InputError(
                f"{found[1]} is not a key of the configuration, and a secret has no place on a command line, which "
                "other users and logs see. Set the environment variable WANDB_API_KEY, or run `wandb login` once; and "
                "replace the secret if it was a real one."
            )


def _value_keys(arguments: list[str], groups: Path) -> list[str]:
    """Keys of the overrides that set a value, whether or not they stand with a plus sign."""
    overrides = [a for a in arguments if "=" in a and not a.startswith("-")]
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except ValueError as error:
        # Python's own limit on the digits of a number
        raise InputError(f"A value cannot be read: {str(error).split(';')[0]}.") from None
    keys = [(o.key_or_group or "").split("@")[0] for o in parsed]
    return [k for k in keys if k.split(".")[0].split("/")[0] != "hydra" and not (groups / k).is_dir()]


def _paragraph(error: Exception) -> int:
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file in LAUNCHERS:
        text = "This launcher needs a package that is not installed: pip install -e '.[launchers]'."
    elif not isinstance(error, InputError) and error.__cause__ is not None:
        # what was wrong stands in the cause; Hydra's own first line only says where, and advises a plus sign
        text = f"{text.splitlines()[0]} {str(error.__cause__).splitlines()[0]}."
    print(f"error: {text}", file=sys.stderr)
    return 2
