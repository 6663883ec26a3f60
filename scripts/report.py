"""Sum up the finished folds of a run: python scripts/report.py outputs/esc10-1a2b3c4d"""

import argparse
import sys
from pathlib import Path

from soundfold.errors import InputError


def main() -> int:
    parser = argparse.ArgumentParser(description="Sum up the finished folds of a run, wherever its folds were trained.")
    parser.add_argument("run", type=Path, help="folder of a run, outputs/<name>-<id>")
    arguments = parser.parse_args()
    # imported here, so that --help answers at once
    from soundfold.experiment.results import load_folds
    from soundfold.experiment.run import report

    try:
        report(arguments.run, load_folds(arguments.run))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
