"""Messages for exceptions of Hydra and OmegaConf that invalid input causes."""

from __future__ import annotations

import difflib
import re
import sys
import traceback
from collections.abc import Sequence

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from soundfold.config import explain_refusal, install_command
from soundfold.errors import InputError, printable

# base configs of the presets in conf/hydra/launcher; an extra of this package installs them
LAUNCHERS = ("hydra/launcher/joblib", "hydra/launcher/submitit_slurm", "hydra/launcher/submitit_local")


def explain(error: Exception) -> str | None:
    """Return the message for an exception caused by invalid input; None for any other exception."""
    text = str(error)
    if isinstance(error, InputError):
        return printable(text)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file in LAUNCHERS:
        return f"This launcher requires a package that is not installed: {install_command('launchers')}."
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        return _explain_option(text, error.missing_cfg_file, error.options)
    if isinstance(error, OverrideParseException) and "NoViableAlt" in text:
        return f"{text}\nHydra requires quotes around special characters, within those of the shell: \"KEY='VALUE'\"."
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} has no value. Set it, or choose an option of its group."
    if isinstance(error, HydraException | OmegaConfBaseException):
        # the cause names the fault; Hydra's first line only locates it, and its others suggest a plus sign
        cause = error.__cause__
        if cause is None:
            return text
        if override := re.match("Error merging override (.*)", text):
            return explain_refusal(override[1], cause)
        reason = str(cause).splitlines()[0].rstrip(".")
        return f"{text.splitlines()[0]} {reason}."
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
            f"{which} a key of a section that is null (off). Set the section, SECTION={{KEY: VALUE, ...}}, or choose "
            "an option that has it, such as search=lr_wd or augment=strong."
        )
    return None


def _explain_option(message: str, missing: str, options: Sequence[str]) -> str:
    """Return the message for ``GROUP/OPTION``, an option that the group does not have.

    Args:
        message: Hydra's, which begins with the file that names the option.
        missing: ``GROUP/OPTION``.
        options: of the group.
    """
    group, _, name = missing.rpartition("/")
    file = re.match("In '(?!hydra/)(.*/.*)': ", message)
    where = f"{file[1]}.yaml: " if file else ""
    near = difflib.get_close_matches(name, options, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return (
        f"{where}{group} has no option {name}.{hint} Options: {', '.join(options)}. For one of your own, write "
        f"{missing}.yaml in a folder and name the folder by --config-dir."
    )


def _is_raised_by_hydra(error: OSError) -> bool:
    """Return whether Hydra, and not a function that it called, used the path that the error names."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    callers = [name for name in modules if name.split(".")[0] not in ("pathlib", "os", "contextlib")]
    return bool(callers) and callers[-1].split(".")[0] in ("hydra", "hydra_plugins")
