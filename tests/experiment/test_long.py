"""A long run in one process: memory, files, threads and processes do not grow from fold to fold or job to job."""

import json
import os
import subprocess
import sys

import pytest
from helpers.command import python_path


@pytest.mark.slow
@pytest.mark.parametrize("run", ["folds", "jobs"])
def test_resources_do_not_grow(tmp_path, run):
    """Memory stays within 4 MB of the second part's; the first includes imports and compilation."""
    command = [sys.executable, "-m", "helpers.long_runs", run, str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": python_path()}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    resources = json.loads((tmp_path / "resources.json").read_text())
    second, *later = resources["rows"][1:]
    print(second, *later, sep="\n")  # for pytest -s
    assert len(later) >= 3
    for row in later:
        assert row["memory"] < second["memory"] + 4
        assert {**row, "memory": 0} == {**second, "memory": 0}
    assert second["processes"] == resources["before"]["processes"]
