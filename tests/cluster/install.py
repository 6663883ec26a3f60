"""Installs Debian's packages for the tests on a SLURM, where apt can; their services are not started."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.slurm import missing

PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins")
ACCOUNTING_PACKAGES = ("slurmdbd", "slurm-wlm-mysql-plugin", "mariadb-server-core", "mariadb-client-core")
POLICY = Path("/usr/sbin/policy-rc.d")


@contextmanager
def _no_services() -> Iterator[None]:
    """Refuse the start of services, by the means that Debian's packages ask; a policy that exists stays."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def _apt(*words: str) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", *words]
    return subprocess.run(command, env=environment, stdout=sys.stderr).returncode == 0


def main() -> None:
    """Install what is missing. A failure is not fatal: the tests that need it are skipped."""
    if missing() is None or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    _apt("update")
    with _no_services():
        for packages in (PACKAGES, ACCOUNTING_PACKAGES):
            _apt("install", "-y", "--no-install-recommends", *packages)


if __name__ == "__main__":
    main()
