"""Waiting for processes that a test has started."""

import os
import subprocess
import time

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def wait_for(condition, process: subprocess.Popen) -> None:
    """Wait until ``condition()`` is true; fail after two minutes, or if the process ends before."""
    deadline = time.monotonic() + 120
    while not condition() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    assert condition(), process.stderr.read()
