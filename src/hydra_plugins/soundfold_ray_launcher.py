"""Hydra launcher of ``hydra/launcher=ray``; Hydra finds launchers in the namespace package ``hydra_plugins``.

Ray itself, an optional dependency, is imported when jobs are launched: Hydra imports every plugin at every start.
"""

import logging
import os
import secrets
import signal
import site
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import MISSING, DictConfig, open_dict

SECONDS_TO_END = 30
# characters of the folder of temporary files; the paths of Ray's sockets add 74, and a system allows 103 or 107
MAX_PARENT = 25
# no statistics for Ray's makers; equal lines of several jobs are all printed, without color codes in a file
RAY_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "RAY_COLOR_PREFIX": "0"}


@dataclass
class RayLauncherConf:
    """Keys of ``hydra.launcher``; ``conf/hydra/launcher/ray.yaml`` has the values.

    Attributes:
        address: of a cluster; None starts Ray on this machine and stops it at the end.
        num_cpus: cores of a job.
        num_gpus: GPUs of a job, also a fraction; None is one if there are any.
        n_jobs: jobs at a time at most; None has no limit but the resources.
        max_retries: restarts of a job whose process was killed; -1 has no limit.
        object_store_memory: bytes of shared memory of a local Ray.
    """

    _target_: str = "hydra_plugins.soundfold_ray_launcher.RayLauncher"
    address: str | None = MISSING
    num_cpus: float = MISSING
    num_gpus: float | None = MISSING
    n_jobs: int | None = MISSING
    max_retries: int = MISSING
    object_store_memory: int = MISSING


ConfigStore.instance().store(group="hydra/launcher", name="ray_types", node=RayLauncherConf, provider="soundfold")


class RayLauncher(Launcher):
    """Runs the jobs of a sweep as tasks of Ray, on this machine or on a cluster.

    A job whose process is killed is started again, and resumes from its last checkpoint. On Ctrl-C and SIGTERM no other
    job is started, and each running one ends as after Ctrl-C.

    Args:
        options: see `RayLauncherConf`.
    """

    def __init__(self, **options: Any) -> None:
        self.options = RayLauncherConf(**options)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """See `Launcher`."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a job for each list of overrides; return their results in this order."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        self._check_options()
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        # otherwise Ray restarts a job that needs more memory than the machine has without end
        os.environ.setdefault("RAY_task_oom_retries", str(self.options.max_retries))
        with connect_to_ray(self.options.address, object_store_memory=self.options.object_store_memory):
            return self._run(dict(enumerate(map(list, job_overrides), initial_job_idx)))

    def _check_options(self) -> None:
        from soundfold.errors import InputError

        # Ray's own limit for its object store
        lowest = {"num_cpus": 0, "num_gpus": 0, "n_jobs": 1, "max_retries": -1, "object_store_memory": 75 * 2**20}
        for name, least in lowest.items():
            value = getattr(self.options, name)
            if value is not None and value < least:
                raise InputError(f"hydra.launcher.{name}={value:g} must be at least {least}.")

    def _run(self, jobs: dict[int, list[str]]) -> list[JobReturn]:
        import ray
        from ray import cloudpickle

        arguments = (self.hydra_context, self.config, self.task_function, Singleton.get_state())
        # within bytes, so that a worker can import the modules before it reads them
        job = cloudpickle.dumps(partial(execute_job, *arguments))
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "CUDA_"))}
        is_local = self.options.address is None
        task = ray.remote(_worker_function(list(sys.path), variables, is_local, os.getcwd(), job))
        options, n_jobs = self.options, self.options.n_jobs
        resources = {"num_cpus": options.num_cpus, "num_gpus": self._gpus(), "max_retries": options.max_retries}
        started: dict[int, Any] = {}
        running: list[Any] = []
        try:
            for number, overrides in jobs.items():
                if len(running) == n_jobs:
                    _, running = ray.wait(running)
                started[number] = task.options(name=f"job {number}", **resources).remote(number, overrides)
                running.append(started[number])
            return [_result(number, reference) for number, reference in started.items()]
        except BaseException:
            for reference in started.values():
                ray.cancel(reference)
            ray.wait(list(started.values()), num_returns=len(started), timeout=SECONDS_TO_END)
            raise

    def _gpus(self) -> float:
        """Return the GPUs of a job; refuse resources that no node of a local Ray has: its jobs would wait for ever."""
        import ray

        from soundfold.errors import InputError

        options, available = self.options, ray.cluster_resources()
        gpus = float("GPU" in available) if options.num_gpus is None else options.num_gpus
        for key, value, name in (("num_cpus", options.num_cpus, "CPU"), ("num_gpus", gpus, "GPU")):
            # a cluster may start other nodes
            if options.address is None and value > (limit := available.get(name, 0)):
                raise InputError(f"hydra.launcher.{key}={value:g}: Ray has {limit:g} on this machine. Request less.")
        return gpus


@contextmanager
def connect_to_ray(address: str | None, **local: Any) -> Iterator[None]:
    """Connect to a cluster, or start Ray on this machine; use a connection that this process already has.

    Args:
        address: of the cluster; None starts Ray on this machine, and stops it at the end.
        local: arguments of ``ray.init`` for a local one.

    Raises:
        InputError: Ray is not installed, or there is no cluster at the address.
    """
    # before the import, which reads them
    os.environ.update(RAY_SETTINGS)
    from soundfold.config import install_command
    from soundfold.errors import InputError

    try:
        import ray
    except ImportError:
        raise InputError(
            f"hydra/launcher=ray requires Ray, which is not installed: {install_command('ray')}."
        ) from None
    if ray.is_initialized():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    with ExitStack() as stack:
        if address is None:
            # Ray listens on all interfaces and runs code for whoever has the token, or writes its own into ~/.ray
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            # the paths of its sockets must be short; a worker that is just starting may make an empty folder again
            parent = "/tmp" if len(tempfile.gettempdir()) > MAX_PARENT and os.access("/tmp", os.W_OK) else None
            temporary = tempfile.TemporaryDirectory(prefix="ray-", dir=parent, ignore_cleanup_errors=True)
            folder = stack.enter_context(temporary)
            options = {"address": "local", "include_dashboard": False, "_temp_dir": folder, **local}
        else:
            options = {"address": address}
        stack.callback(ray.shutdown)
        try:
            with _home_with_cluster_file(folder) if address is None else nullcontext():
                ray.init(logging_level=logging.ERROR, **options)
        except Exception as error:
            if address is None:
                raise
            raise InputError(f"hydra.launcher.address={address}: no Ray cluster answers there: {error}") from None
        if threading.current_thread() is threading.main_thread():
            # Ray has replaced it by its own
            signal.signal(signal.SIGTERM, handler)
        yield


@contextmanager
def _home_with_cluster_file(folder: str) -> Iterator[None]:
    """Let Ray's processes start with another home folder, which has the file of a cluster.

    Without that file Ray asks the metadata servers of clouds where it runs, also if its usage statistics are off.
    """
    Path(folder, "ray_bootstrap_config.yaml").write_text("{}", encoding="utf-8")
    own = {name: os.environ.get(name) for name in ("HOME", "PYTHONUSERBASE")}
    # packages that were installed into the own home folder are still found
    os.environ.update(HOME=folder, PYTHONUSERBASE=site.getuserbase())
    try:
        yield
    finally:
        for name, value in own.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _worker_function(
    path: list[str], variables: dict[str, str], is_local: bool, folder: str, job: bytes
) -> Callable[..., JobReturn]:
    """Return the task of Ray. A nested function is pickled with its code, so that a worker need not import this module.

    Args:
        path: the import path of this process, which replaces a worker's: Ray puts the current folder first there.
        variables: of this process, for a worker that lacks them; a node's own stay.
        is_local: all variables are set, because the workers are on this machine.
        folder: the current folder, which relative paths of the configuration refer to.
        job: the pickled function that the task calls with its arguments.
    """

    def run(number: int, overrides: list[str]) -> JobReturn:
        import os
        import sys

        from ray import cloudpickle

        sys.path[:] = [*path, *(entry for entry in sys.path if entry not in (*path, folder))]
        for name, value in variables.items():
            if is_local or name not in os.environ:
                os.environ[name] = value
        os.chdir(folder)
        return cloudpickle.loads(job)(number, overrides)

    return run


def execute_job(
    hydra_context: HydraContext,
    config: DictConfig,
    task_function: TaskFunction,
    singletons: dict[type, Singleton],
    number: int,
    overrides: list[str],
) -> JobReturn:
    """Run a job in the process of a worker; an interrupted one returns a failure, so that the worker ends in order."""
    from soundfold.experiment.sweep import JobError
    from soundfold.io.signals import Stopped

    setup_globals()
    Singleton.set_state(singletons)
    job_config = hydra_context.config_loader.load_sweep_config(config, overrides)
    with open_dict(job_config):
        job_config.hydra.job.id = f"{job_config.hydra.job.name}_{number}"
        job_config.hydra.job.num = number
    HydraConfig.instance().set_config(job_config)
    try:
        return run_job(
            hydra_context=hydra_context,
            config=job_config,
            task_function=task_function,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
    except Stopped as stop:
        return _failed(JobError(f"Job {number} was stopped by {stop}."))


def _result(number: int, reference: Any) -> JobReturn:
    """Wait for a job; return a failure if its process ended, or was killed, more often than it may be started again."""
    import ray

    from soundfold.experiment.sweep import JobError

    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split()).split(". ")[0].rstrip(".")
        message = f"Job {number} failed: its process ended, or was killed: {reason}."
        print(message, file=sys.stderr)
        return _failed(JobError(message))


def _failed(error: Exception) -> JobReturn:
    failed = JobReturn()
    failed.status, failed.return_value = JobStatus.FAILED, error
    return failed
