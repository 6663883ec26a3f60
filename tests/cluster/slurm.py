"""A SLURM cluster of one node in a temporary folder, with accounting: munged, mariadbd, slurmdbd, slurmctld and slurmd.

It uses free ports and sockets and files of its own, so that a SLURM of this machine is neither used nor changed. To run
a command on it:

    PYTHONPATH=tests python -m cluster.slurm soundfold train -m seed=1,2 hydra/launcher=slurm_cpu
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
ACCOUNTING_PROGRAMS = ("slurmdbd", "sacct", "mariadbd", "mariadb-install-db")
# a job that is requeued starts again when its credential has expired: 120 s by default
REQUEUE_AFTER = 15  # seconds
KILL_WAIT = 20  # seconds between SIGTERM and SIGKILL; the default is 30

SLURM_CONF = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={requeue_after}
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/affinity
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
MpiDefault=none
ReturnToService=2
KillWait={kill_wait}
OverTimeLimit=0
{accounting}
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
ACCOUNTING_CONF = """AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={database_port}
AccountingStoragePass={folder}/munge.socket"""
DATABASE_CONF = """AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdPort={database_port}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
"""


@dataclass(frozen=True)
class Slurm:
    """A cluster that runs.

    Attributes:
        folder: has its configuration, logs and state.
        environment: variables of a process that uses it.
    """

    folder: Path
    environment: dict[str, str]

    def command(self, *words: str, check: bool = True) -> str:
        """Run a command of SLURM, such as ``squeue``; return its standard output."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 or not check, f"{words}: {done.stderr}{done.stdout}"
        return done.stdout.strip()

    def states(self, job: str) -> dict[str, str]:
        """Return the states of a job or a job array by job id, as accounting has them."""
        lines = self.command("sacct", "-nPX", "-j", job, "-o", "JobID,State").splitlines()
        return dict(line.split("|") for line in lines)


def missing(accounting: bool = True) -> str | None:
    """Return why a cluster cannot be started here; None if it can."""
    if os.geteuid() != 0:
        return "slurmd must be started as root"
    programs = (*PROGRAMS, *(ACCOUNTING_PROGRAMS if accounting else ()))
    absent = [name for name in programs if shutil.which(name) is None]
    return (
        f"these programs are not installed: {', '.join(absent)} (make test-cluster installs them)" if absent else None
    )


@contextmanager
def start_slurm(accounting: bool = True) -> Iterator[Slurm]:
    """Start a cluster, and stop it at the end.

    Args:
        accounting: also start the database of finished jobs, which ``sacct`` reads.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-")))
        folder.chmod(0o755)  # munged requires that all users can reach its socket
        for name in ("state", "spool"):
            (folder / name).mkdir()
        _write_configuration(folder, accounting)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        environment = inherited | {"SLURM_CONF": f"{folder}/slurm.conf", "MYSQL_UNIX_PORT": f"{folder}/mysql.socket"}
        slurm = Slurm(folder, environment)
        _start_munge(stack, slurm)
        if accounting:
            _start_database(stack, slurm)
        _start(stack, slurm, "slurmctld", "-D", ready=lambda: _succeeds(slurm, "scontrol", "ping"))
        _start(stack, slurm, "slurmd", "-D", ready=lambda: "idle" in slurm.command("sinfo", "-ho", "%T", check=False))
        stack.callback(_end_jobs, slurm)
        yield slurm


def _write_configuration(folder: Path, accounting: bool) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    controller, node, database = _free_ports(3)
    values = {"folder": folder, "host": socket.gethostname().split(".")[0], "memory": memory}
    values |= {"controller_port": controller, "node_port": node, "database_port": database}
    values |= {"requeue_after": REQUEUE_AFTER, "kill_wait": KILL_WAIT, "cpus": len(os.sched_getaffinity(0))}
    values["accounting"] = ACCOUNTING_CONF.format(**values) if accounting else ""
    (folder / "slurm.conf").write_text(SLURM_CONF.format(**values))
    path = folder / "slurmdbd.conf"
    path.touch(0o600)
    path.write_text(DATABASE_CONF.format(**values))


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _start_munge(stack: ExitStack, slurm: Slurm) -> None:
    key = slurm.folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(1024))
    files = [f"--{name}-file={slurm.folder}/munge.{name}" for name in ("key", "log", "pid", "seed")]
    place = f"--socket={slurm.folder}/munge.socket"
    _start(stack, slurm, "munged", "--foreground", place, *files, ready=lambda: _succeeds(slurm, "munge", "-n", place))


def _start_database(stack: ExitStack, slurm: Slurm) -> None:
    place = ("--no-defaults", f"--datadir={slurm.folder}/database", "--user=root")
    with (slurm.folder / "install.log").open("w") as log:
        words = ["mariadb-install-db", *place, "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(words, stdout=log, stderr=log, check=True, timeout=120)
    sockets = slurm.folder / "mysql.socket"
    options = (f"--socket={sockets}", f"--pid-file={slurm.folder}/mysql.pid", f"--tmpdir={slurm.folder}")
    _start(stack, slurm, "mariadbd", *place, *options, "--skip-networking", ready=sockets.exists)
    _start(stack, slurm, "slurmdbd", "-D", ready=lambda: _succeeds(slurm, "sacctmgr", "-n", "show", "cluster"))
    slurm.command("sacctmgr", "-i", "add", "cluster", "test")


def _succeeds(slurm: Slurm, *words: str) -> bool:
    return subprocess.run(words, env=slurm.environment, capture_output=True, timeout=60).returncode == 0


def _start(stack: ExitStack, slurm: Slurm, program: str, *options: str, ready: Callable[[], bool]) -> None:
    """Start a program in the foreground, wait until it is ready, and let ``stack`` stop it."""
    log = stack.enter_context((slurm.folder / f"{program}.log").open("w"))
    # it ends with this process, also after SIGKILL, and Ctrl-C does not reach it
    words = ["setpriv", "--pdeathsig", "KILL", program, *options]
    process = subprocess.Popen(words, env=slurm.environment, stdout=log, stderr=log, start_new_session=True)
    stack.callback(_stop, process)
    deadline = time.monotonic() + 60
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{program} did not start:\n{Path(log.name).read_text()[-3000:]}")
        time.sleep(0.1)


def _stop(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_jobs(slurm: Slurm) -> None:
    """Kill the jobs that still run, so that none of their processes is left."""
    _succeeds(slurm, "scancel", "--user=root", "--state=PENDING")
    _succeeds(slurm, "scancel", "--user=root", "--full", "--signal=KILL")
    _succeeds(slurm, "scancel", "--user=root")
    deadline = time.monotonic() + 2 * KILL_WAIT
    while slurm.command("squeue", "--noheader", check=False) and time.monotonic() < deadline:
        time.sleep(0.2)


def main() -> int:
    """Run the command of the arguments on a cluster; return its exit code."""
    if reason := missing():
        print(f"error: {reason}", file=sys.stderr)
        return 2

    def stop(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    with start_slurm() as slurm:
        return subprocess.run(sys.argv[1:], env=slurm.environment).returncode


if __name__ == "__main__":
    sys.exit(main())
