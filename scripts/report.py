"""Sum up a run, or lay several side by side: python scripts/report.py outputs/esc10-1a2b3c4d [outputs/...]"""

import argparse
import sys
from itertools import combinations
from pathlib import Path

from soundfold.errors import InputError


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Sum up the folds of a run, wherever they were trained; given several runs, lay them side by side "
        "and say of those scored on the same clips which is better, and whether the data can tell."
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run, outputs/<name>-<id>")
    arguments = parser.parse_args()
    try:
        if len(arguments.runs) == 1:
            # imported here, so that --help answers at once
            from soundfold.experiment.results import load_folds
            from soundfold.experiment.run import report

            report(arguments.runs[0], load_folds(arguments.runs[0]))
        else:
            side_by_side(arguments.runs)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def side_by_side(folders: list[Path]) -> None:
    """Print the runs' table, then each pair's comparison; raise where the only pair has none."""
    from soundfold.experiment.comparison import compare, read_run, seed_groups
    from soundfold.report.terminal import print_ladder, print_runs

    if twice := [folder for folder in folders if folders.count(folder) > 1]:
        raise InputError(f"{twice[0]} is named twice; a run differs from itself in nothing. Name each run once.")
    runs = [read_run(folder) for folder in folders]
    print_runs(runs, seed_groups(runs))
    print_ladder(runs)
    for a, b in combinations(runs, 2):
        try:
            print(compare(a, b).words())
        except InputError as error:
            if len(runs) == 2:
                raise
            print(error)


if __name__ == "__main__":
    sys.exit(main())
