"""Opening and closing of W&B runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue
from pydantic import ValidationError

from soundfold.config import NOT_IDENTITY, Wandb
from soundfold.errors import InputError
from soundfold.validation import is_wandb_trial

# set by `wandb agent`; any run opened with these takes the trial's id
AGENT_VARIABLES = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")


@contextmanager
def open_wandb_run(
    options: Wandb,
    group: Path,
    config: dict[str, Any],
    *,
    leaky: bool,
    is_cv: bool,
    command: str | None = None,
    **init: Any,
) -> Iterator[wandb.Run]:
    """Open a W&B run, and close it; an exception marks it as failed.

    W&B cannot resume offline runs: there, all history is logged again, and the new files replace the old ones.

    Args:
        group: folder of the cross-validation, whose runs form a group.
        config: plain values that W&B displays and compares; the columns of `sweep_columns` are added.
        leaky: tag the run as leaky; see `default_tags` for the others.
        is_cv: the run is that of the cross-validation: under W&B's agent the trial's, and logged completely each time.
        command: that started the run, for its notes.
        **init: further arguments of `wandb.init`.

    Raises:
        InputError: W&B cannot open the run.
    """
    superseded: list[Path] = []
    with _environment(options, group, is_cv) as common:
        exit_code = 1
        try:
            run = wandb.init(
                **common,
                **init,
                group=group.name,
                tags=list(dict.fromkeys([*options.tags, *default_tags(config), *(["leaky"] if leaky else [])])),
                notes="\n\n".join(filter(None, [options.notes, command])) or None,
                config={**config, **sweep_columns()},
                resume="allow",
            )
            yield run
            if run.step and (is_cv or not run.resumed):
                current = Path(run.dir).parent.resolve()
                previous = Path(init["dir"]).glob(f"wandb/offline-run-*-{run.id}")
                superseded = [path for path in previous if path.resolve() != current]
            exit_code = 0
        finally:
            # `with wandb.init(...)` would print a traceback of an exception that the caller reports
            wandb.finish(exit_code=exit_code)
    for path in superseded:
        shutil.rmtree(path)


@contextmanager
def _environment(options: Wandb, group: Path, is_cv: bool) -> Iterator[dict[str, Any]]:
    """Set W&B's environment variables for one run, and yield the arguments of `wandb.init` that depend on them.

    W&B reads its environment once, when its service process starts. So the service is shut down after every run, and
    the caller's variables are restored.
    """
    before = _wandb_variables()
    project, entity, mode = options.project, options.entity, wandb_mode(options)
    if is_wandb_trial():
        # the folds belong to the project of their sweep
        project, entity = before.get("WANDB_PROJECT") or project, before.get("WANDB_ENTITY") or entity
    # W&B reads the mode from the environment before `wandb.init` applies its argument
    os.environ["WANDB_MODE"] = mode
    # the defaults are in the home folder
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        os.environ.setdefault(name, str(group.resolve() / ".wandb-cache"))
    os.environ.setdefault("WANDB_SILENT", "true")
    # debug logs contain the user's API key
    for name in ("WANDB_DEBUG", "WANDB_CORE_DEBUG", *(() if is_cv else AGENT_VARIABLES)):
        os.environ.pop(name, None)
    try:
        yield {"project": project, "entity": entity, "mode": mode}
    except ValidationError as error:
        # not with the value, which may be a key
        fault = error.errors()[0]
        raise InputError(
            f"W&B refuses the setting {'.'.join(map(str, fault['loc']))}: {fault['msg']}. Unset or correct the "
            f"variable of the environment, one of {', '.join(sorted(before))}; logger=csv disables W&B."
        ) from None
    except wandb.Error as error:
        raise InputError(
            f"W&B: {error} logger.wandb.mode=offline requires neither network nor account, and `wandb sync` uploads "
            "later; logger=csv disables W&B."
        ) from error
    finally:
        wandb.teardown()
        for name in _wandb_variables():
            del os.environ[name]
        os.environ.update(before)


def _wandb_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}


def wandb_mode(options: Wandb) -> str:
    """Return ``WANDB_MODE`` if it is set, "online" in a trial of a W&B sweep, else ``options.mode``."""
    return os.environ.get("WANDB_MODE") or ("online" if is_wandb_trial() else options.mode)


def default_tags(config: Mapping[str, Any]) -> list[str]:
    """Return collection, protocol, features and model of a run, such as ``esc50``, ``benchmark``, ``128 mels``."""
    data, split, features, model = (config.get(name) or {} for name in ("data", "split", "features", "model"))
    mels, network = features.get("n_mels"), model.get("name") or str(model.get("_target_", "")).rpartition(".")[2]
    tags = (data.get("name"), split.get("protocol"), mels and f"{mels} mels", network)
    return [str(tag)[:64] for tag in tags if tag]


def sweep_columns() -> dict[str, Any]:
    """Return the swept overrides of a Hydra multirun job as config columns, such as ``sweep/optim.lr``.

    Overrides that all jobs share are omitted, and so are keys that do not change the numbers, such as paths. A single
    run has no columns.
    """
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return {}
    swept = _swept_keys()
    ignored = tuple(f"{key}." for key in NOT_IDENTITY)
    return {
        f"sweep/{key}": override.value()
        for key, override in _parse(HydraConfig.get().overrides.task).items()
        if not f"{key}.".startswith(ignored) and (swept is None or key in swept)
    }


def _swept_keys() -> set[str] | None:
    """Return the keys that a multirun varies, from the file that Hydra writes of it; None if there is no such file."""
    try:
        folder = Path(HydraConfig.get().runtime.output_dir).parent
        hydra: Any = OmegaConf.to_container(OmegaConf.load(folder / "multirun.yaml"), resolve=False)
    except (OSError, MissingMandatoryValue):
        return None
    parameters = hydra["hydra"]["sweeper"].get("params") or {}
    overrides = _parse(hydra["hydra"]["overrides"]["task"])
    return {*map(str, parameters), *(key for key, override in overrides.items() if override.is_sweep_override())}


def _parse(overrides: Iterable[str]) -> dict[str, Override]:
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return {(override.key_or_group or "").split("@")[0]: override for override in parsed}
