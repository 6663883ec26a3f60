"""Report on a run, compare several, or list all: soundfold report outputs/esc10-1a2b3c4d [outputs/...]"""

import re
import sys
from argparse import ArgumentParser
from dataclasses import replace
from glob import glob, has_magic
from itertools import combinations
from pathlib import Path

from soundfold.cli.flags import add_trust, flag_parser, trust_modules
from soundfold.errors import InputError, printable
from soundfold.validation import report_options


def _parser() -> ArgumentParser:
    parser = flag_parser(
        "report",
        "Summarize the folds of a run and write its report.html, with figures and sounds of the most "
        "confident mistakes. Given several runs, compare them: of runs scored on the same clips, test whether their "
        "accuracies differ, and write comparison-<id>/report.html in the folder of the runs. Given folders of runs, "
        "list those with a finished fold, and the settings in which they differ. A run with missing folds is marked "
        '"1 of 5 folds"; runs are compared on the folds that both finished.',
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folder of a run, outputs/<name>-<id>, or of runs; also report.page=none|plain|full (default full), "
        "report.audio=false, report.mistakes=NUMBER",
    )
    listing = parser.add_argument_group("options of a list, soundfold report outputs [OUTPUTS...]")
    listing.add_argument(
        "--sort",
        metavar="BY",
        help="finished (default, newest last), accuracy, a metric, name, protocol, time, or a key such as optim.lr",
    )
    listing.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only runs with this value; repeatable",
    )
    listing.add_argument("--format", choices=("table", "csv", "markdown"), help="default table")
    add_trust(parser)
    return parser


def main() -> None:
    """Run the command on the arguments of this process."""
    args = _parser().parse_intermixed_args()
    trust_modules(args.trust)
    settings = [arg for arg in args.runs if re.match(r"report\.\w*=", arg)]
    folders = [folder for arg in args.runs if arg not in settings for folder in _matching(arg)]
    if not folders:
        raise InputError("Name a run's folder, outputs/<name>-<id>.")
    options = report_options(settings)
    # imported here, so that --help answers at once
    from soundfold.report.leaderboard import holds_runs

    parents = [folder for folder in folders if holds_runs(folder)]
    if parents and len(parents) < len(folders):
        other = next(folder for folder in folders if folder not in parents)
        raise InputError(
            f"{parents[0]} is a folder of runs, and {other} is not. Name folders of runs to list them, or runs to "
            "compare them."
        )
    if parents:
        list_finished(parents, args.where, args.sort or "finished", args.format or "table")
    elif args.where or args.sort or args.format:
        raise InputError("--sort, --where and --format require a folder of runs. Name one, such as outputs.")
    elif len(folders) > 1:
        compare_runs(folders, options.page != "none")
    else:
        from soundfold.evaluation.summary import write_summary
        from soundfold.report.reporter import RunReporter
        from soundfold.report.terminal import print_published

        run = write_summary(folders[0])
        RunReporter().report_run(folders[0], run, options)
        print_published([run])


def _matching(argument: str) -> list[Path]:
    """Return the folders that a pattern such as ``'node*/outputs'`` matches, or the one that it names."""
    if Path(argument).exists() or not has_magic(argument):
        return [Path(argument)]
    if not (found := sorted(path for path in map(Path, glob(argument)) if path.is_dir())):
        raise InputError(f"{argument} matches no folder. Correct it.")
    return found


def list_finished(folders: list[Path], where: list[str], sort: str, format: str) -> None:
    """Print the runs of folders, and to stderr those with missing folds, and those that are in several folders."""
    from soundfold.report.leaderboard import list_runs, sort_runs
    from soundfold.report.leaderboard_table import as_csv, as_markdown, print_leaderboard

    runs, unfinished = list_runs(folders, where)
    runs = sort_runs(runs, sort)
    if format == "table":
        print_leaderboard(runs)
    else:
        text = {"csv": as_csv, "markdown": as_markdown}[format](runs)
        print(printable(text, "\n") if sys.stdout.isatty() else text, end="")
    for run in runs:
        if run.copies:
            print(f"Listed once: {printable(run.name)}; copies: {printable(', '.join(run.copies))}.", file=sys.stderr)
    if unfinished:
        print(f"Not finished: {printable('; '.join(unfinished))}.", file=sys.stderr)


def compare_runs(folders: list[Path], page: bool) -> None:
    """Print the runs' table, then the comparison of each pair; raise if the only pair cannot be compared."""
    from soundfold.evaluation.compare import compare_pairs, describe_outcome, load_run, seed_groups
    from soundfold.evaluation.run_names import distinct_names, is_copy
    from soundfold.report.comparison_page import write_comparison_page
    from soundfold.report.terminal import print_published, print_runs

    resolved = [folder.resolve() for folder in folders]
    if repeated := [folder for folder in folders if resolved.count(folder.resolve()) > 1]:
        raise InputError(f"{repeated[0]} is named twice. Name each run once.")
    names = distinct_names(folders)
    runs = [replace(load_run(folder), name=name) for folder, name in zip(folders, names, strict=True)]
    for run, other in combinations(runs, 2):
        if Path(run.name).name == Path(other.name).name and is_copy(run.total, other.total):
            raise InputError(f"{run.name} is a copy of {other.name}. Name one of them.")
    print_runs(runs, seed_groups(runs))
    print_published(runs)
    for outcome in compare_pairs(runs):
        if isinstance(outcome, InputError) and len(runs) == 2:
            raise outcome
        print(printable(describe_outcome(outcome), "\n"))
    if page:
        print(f"Report: {printable(write_comparison_page(folders, runs))}")
