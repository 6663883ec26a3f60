"""Opening and closing of W&B runs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
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
from soundfold.experiment.wandb_runs.offline import first_unsent_step, superseding
from soundfold.io.atomic import write_text
from soundfold.validation import is_wandb_trial

URL = Path("wandb") / "url"
# set by `wandb agent`; any run opened with these takes the trial's id
AGENT_VARIABLES = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")

# in the folder of a cross-validation: copies of media and tables that W&B makes
CACHE = ".wandb-cache"
REMEDY = (
    "logger.wandb.mode=offline requires neither network nor account, and `soundfold wandb sync` uploads later; "
    "logger=csv disables W&B."
)


@contextmanager
def open_wandb_run(
    options: Wandb,
    group: Path,
    config: dict[str, Any],
    *,
    leaky: bool,
    command: str | None = None,
    **init: Any,
) -> Iterator[wandb.Run]:
    """Open a W&B run, and close it; an exception marks it as failed.

    A run that is opened again continues on W&B's server: log its rows from `first_step` on. Offline, where W&B cannot
    resume, this is 0 if nothing was sent; see `soundfold.experiment.wandb_runs.offline` for the earlier files.

    Inside the run of a trial, which stays open, another run is opened beside it; see `open_trial`.

    Args:
        group: folder of the cross-validation, whose runs form a group.
        config: plain values that W&B displays and compares; the columns of `sweep_columns` are added.
        leaky: tag the run as leaky; see `default_tags` for the others.
        command: that started the run, for its notes.
        **init: further arguments of `wandb.init`.

    Raises:
        InputError: W&B cannot open the run.
    """
    mode = wandb_mode(options)
    with wandb_environment(mode, group):
        run = wandb.init(
            **_project(options),
            **init,
            mode=mode,
            group=group.name,
            tags=list(dict.fromkeys([*options.tags, *default_tags(config), *(["leaky"] if leaky else [])])),
            notes="\n\n".join(filter(None, [options.notes, command])) or None,
            config={**config, **sweep_columns()},
            # offline it would make `wandb sync` renumber the steps of a run that the server has
            resume="allow" if mode == "online" else None,
            reinit="create_new" if wandb.run else None,
        )
        with nullcontext() if run.disabled else superseding(Path(run.dir).resolve().parent, run.id):
            exit_code = 1
            _record_url(group, run)
            try:
                yield run
                exit_code = 0
            except SystemExit as stop:
                exit_code = int(stop.code or 0)
                raise
            finally:
                # `with wandb.init(...)` would print a traceback of an exception that the caller reports
                run.finish(exit_code=exit_code)


def first_step(run: wandb.Run) -> int:
    """Return the first step of a run's history that W&B's server does not have; rows are numbered by ``step=``."""
    if not run.offline:
        return run.starting_step
    return first_unsent_step(Path(run.dir).resolve().parent, run.id)


def _project(options: Wandb) -> dict[str, Any]:
    """Return project and entity of a run; the folds of a trial belong to the project of their sweep."""
    project, entity = options.project, options.entity
    if is_wandb_trial():
        project = os.environ.get("WANDB_PROJECT") or project
        entity = os.environ.get("WANDB_ENTITY") or entity
    return {"project": project, "entity": entity}


@contextmanager
def wandb_environment(mode: str, group: Path, *, remedy: str = REMEDY) -> Iterator[None]:
    """Set W&B's environment variables, and convert its errors.

    W&B reads its environment once, when its service process starts. So the service is shut down afterwards, and the
    caller's variables are restored; not within the run of a trial, which uses it. The variables of W&B's agent are
    hidden from it: it would give the id of the trial to every run.

    Args:
        mode: W&B's mode.
        group: folder of the cross-validation, for W&B's caches.
        remedy: the last sentences of the message if W&B reports an error.

    Raises:
        InputError: W&B refuses a setting or the key, or cannot be reached.
    """
    before = _wandb_variables()
    is_outermost, exit_code = wandb.run is None, 1
    try:
        if is_outermost:
            _start_service(mode, group)
        yield
        exit_code = 0
    except SystemExit as stop:
        exit_code = int(stop.code or 0)
        raise
    except ValidationError as error:
        # not with the value, which may be a key
        fault = error.errors()[0]
        raise InputError(
            f"W&B refuses the setting {'.'.join(map(str, fault['loc']))}: {fault['msg']}. Unset or correct the "
            f"variable of the environment, one of {', '.join(sorted(before))}; logger=csv disables W&B."
        ) from None
    except wandb.Error as error:
        raise InputError(f"W&B: {error} {remedy}") from error
    finally:
        if is_outermost:
            # also of a run that `wandb.init` was opening when the process was stopped
            wandb.teardown(exit_code)
            for name in _wandb_variables():
                del os.environ[name]
            os.environ.update(before)


def _start_service(mode: str, group: Path) -> None:
    # W&B reads the mode from the environment before `wandb.init` applies its argument
    os.environ["WANDB_MODE"] = mode
    # the defaults are in the home folder
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        os.environ.setdefault(name, str(group.resolve() / CACHE))
    os.environ.setdefault("WANDB_SILENT", "true")
    # debug logs contain the user's API key; a rank of several devices must not use, and end, its parent's service
    for name in ("WANDB_DEBUG", "WANDB_CORE_DEBUG", "WANDB_SERVICE"):
        os.environ.pop(name, None)
    agent = {name: os.environ.pop(name) for name in AGENT_VARIABLES if name in os.environ}
    try:
        wandb.setup()
    finally:
        # `is_wandb_trial` reads them, also in the ranks
        os.environ.update(agent)


def _record_url(group: Path, run: wandb.Run) -> None:
    """Store the address of the runs of a cross-validation, which an offline run does not have."""
    if run.project_url:
        (group / URL).parent.mkdir(exist_ok=True)
        write_text(group / URL, f"{run.project_url}/groups/{group.name}")


def describe_upload(options: Wandb, folder: Path) -> str | None:
    """Return a line with the address of a run's folds on W&B, or the command that uploads them; None without either."""
    if wandb_mode(options) == "online":
        return f"W&B: {(folder / URL).read_text()}" if (folder / URL).is_file() else None
    if wandb_mode(options) == "disabled" or not any(folder.glob("**/wandb/offline-run-*")):
        return None
    return f"W&B: stored offline. Upload all folds: soundfold wandb sync {shlex.quote(str(folder))}"


def _wandb_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}


def wandb_mode(options: Wandb) -> Any:
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
