"""A process that finishes a fold of many runs, each at the same moment as another process finishes another fold.

Usage: python finish_folds.py RUNS NAME FOLD. Each folder in RUNS is a run whose fold has ``unfinished.json`` in place
of ``result.json``. A process that finds a run complete adds a line to its ``seen.txt``.
"""

import sys
import time
from pathlib import Path

from soundfold.evaluation.summary import finished_folds, write_summary
from soundfold.io.leases import lease


def main(runs: Path, name: str, fold: str) -> None:
    for number, run in enumerate(sorted(path for path in runs.iterdir() if path.is_dir())):
        (runs / f"{name}.{number}").touch()
        while len(list(runs.glob(f"*.{number}"))) < 2:
            time.sleep(0)
        (run / fold / "unfinished.json").rename(run / fold / "result.json")
        if len(finished_folds(run)) < 3:
            continue
        summary = write_summary(run)
        assert summary.total.is_complete
        with lease(run / "cv.lock", "is logging this run"), (run / "seen.txt").open("a") as stream:
            # as the loggers do, whose record is a copy of what they have logged
            logged = run / "logged.json"
            stream.write("not " if logged.exists() else "")
            stream.write("logged\n")
            logged.write_bytes((run / "cv.json").read_bytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
