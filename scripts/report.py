"""Sum up a run, lay several side by side, or list all: python scripts/report.py outputs/esc10-1a2b3c4d [outputs/...]"""

import argparse
import re
import sys
from itertools import combinations
from pathlib import Path

from soundfold.errors import InputError, exit_code_of
from soundfold.validation import report_options


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Sum up the folds of a run, wherever they were trained, and write its report.html, with the most "
        "confident mistakes to see and to hear. Given several runs, lay them side by side, say of those scored on the "
        "same clips which is better and whether the data can tell, and write comparison-<id>/report.html beside them. "
        "Given a folder that holds runs, list those that are finished, with what differs between them.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, outputs/<name>-<id>")
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="report.KEY=VALUE",
        help="report.page=none|plain|full (default full), report.audio=false, report.mistakes=NUMBER",
    )
    listing = parser.add_argument_group("a list of runs, python scripts/report.py outputs")
    listing.add_argument(
        "--sort",
        metavar="BY",
        help="finished (default, newest last), accuracy, name, protocol, time, or a key such as optim.lr",
    )
    listing.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only runs that have this value; may be given several times",
    )
    listing.add_argument("--format", choices=("table", "csv", "markdown"), help="table (default), csv or markdown")
    given = parser.parse_args()
    words = given.runs
    settings = [word for word in words if re.match(r"report\.\w*=", word)]
    folders = [Path(word) for word in words if word not in settings]
    if not folders:
        raise InputError("Name a run's folder, outputs/<name>-<id>.")
    options = report_options(settings)
    # imported here, so that --help answers at once
    from soundfold.report.leaderboard import holds_runs

    if len(folders) == 1 and holds_runs(folders[0]):
        list_finished(folders[0], given.where, given.sort or "finished", given.format or "table")
    elif given.where or given.sort or given.format:
        raise InputError("--sort, --where and --format are of a list of runs: give the one folder that holds them.")
    elif len(folders) > 1:
        side_by_side(folders, options.page != "none")
    else:
        from soundfold.evaluation.results import load_folds
        from soundfold.report.reporter import RunReporter

        RunReporter().report_run(folders[0], load_folds(folders[0]), options)


def list_finished(folder: Path, where: list[str], sort: str, form: str) -> None:
    """Print the finished runs in a folder, and in a line on the error stream those that are not."""
    from soundfold.report.leaderboard import list_runs, sort_runs
    from soundfold.report.leaderboard_table import as_csv, as_markdown, print_leaderboard

    runs, unfinished = list_runs(folder, where)
    runs = sort_runs(runs, sort)
    if form == "table":
        print_leaderboard(runs)
    else:
        print({"csv": as_csv, "markdown": as_markdown}[form](runs), end="")
    if unfinished:
        print(f"Not finished: {'; '.join(unfinished)}.", file=sys.stderr)


def side_by_side(folders: list[Path], page: bool) -> None:
    """Print the runs' table, then each pair's comparison; raise where the only pair has none."""
    from soundfold.evaluation.compare import compare, load_run, seed_groups
    from soundfold.report.comparison_page import write_comparison_page
    from soundfold.report.terminal import print_published, print_runs

    places = [folder.resolve() for folder in folders]
    if twice := [folder for folder in folders if places.count(folder.resolve()) > 1]:
        raise InputError(f"{twice[0]} is named twice; a run differs from itself in nothing. Name each run once.")
    runs = [load_run(folder) for folder in folders]
    print_runs(runs, seed_groups(runs))
    print_published(runs)
    for a, b in combinations(runs, 2):
        try:
            print(compare(a, b).describe())
        except InputError as error:
            if len(runs) == 2:
                raise
            print(error)
    if page:
        print(f"Report: {write_comparison_page(folders, runs)}")


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
