"""What the entry points share: an unknown key is answered before Hydra starts, bad input without a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from soundfold.config import Config, refuse_unknown_keys, register
from soundfold.errors import InputError


def run(main: Callable[[], None], groups: Path, schema: type = Config) -> None:
    """Run a function decorated by ``hydra.main``; exit with 2 and one paragraph where the input is bad.

    Args:
        main: the entry point.
        groups: the folder of configuration groups.
        schema: the type of the entry point's configuration.
    """
    register()
    # Hydra would print its own summary of every exception and exit; ours tells bad input from a fault
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        refuse_unknown_keys(_value_keys(sys.argv[1:], groups), schema)
        main()
    except (InputError, HydraException, OmegaConfBaseException) as error:
        sys.exit(_paragraph(error))


def _value_keys(arguments: list[str], groups: Path) -> list[str]:
    """Keys of the overrides that set a value, whether or not they stand with a plus sign."""
    overrides = [a for a in arguments if "=" in a and not a.startswith("-")]
    parsed = OverridesParser.create().parse_overrides(overrides)
    keys = [(o.key_or_group or "").split("@")[0] for o in parsed]
    return [k for k in keys if k.split(".")[0].split("/")[0] != "hydra" and not (groups / k).is_dir()]


def _paragraph(error: Exception) -> int:
    text = str(error)
    if not isinstance(error, InputError) and error.__cause__ is not None:
        # what was wrong stands in the cause; Hydra's own first line only says where, and advises a plus sign
        text = f"{text.splitlines()[0]} {str(error.__cause__).splitlines()[0]}."
    print(f"error: {text}", file=sys.stderr)
    return 2
