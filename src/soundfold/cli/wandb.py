"""Commands for W&B: soundfold wandb sync outputs/esc50-1a2b3c4d [outputs/...], soundfold wandb workspace PROJECT"""

from argparse import ArgumentParser
from pathlib import Path

from soundfold.cli.flags import flag_parser


def _parser() -> ArgumentParser:
    parser = flag_parser("wandb", "Send runs to Weights & Biases, to which logger=wandb logs them.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    sync = commands.add_parser(
        "sync",
        help="upload the offline W&B runs of runs",
        description="Upload all offline W&B runs of runs: every fold and the cross-validation. Runs that were sent "
        "before are skipped. A run that was interrupted, however often, is sent once, with its whole history.",
    )
    sync.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, outputs/<name>-<id>")
    workspace = commands.add_parser(
        "workspace",
        help="save a view of a project that compares its cross-validations, or a report",
        description="Save a view of a project on W&B: cross-validations by accuracy with their interval, curves over "
        "folds, the settings of a sweep, scores by class, and mistakes.",
    )
    workspace.add_argument("project", metavar="PROJECT", help="logger.wandb.project of the runs")
    workspace.add_argument("--entity", help="user or team on W&B; default: the account's")
    workspace.add_argument(
        "--sweep",
        nargs="+",
        default=["optim.lr", "optim.weight_decay"],
        metavar="KEY",
        help="keys of the parallel coordinates; default: optim.lr optim.weight_decay",
    )
    workspace.add_argument("--report", nargs="+", metavar="RUN", help="save a report that compares these runs instead")
    workspace.add_argument("--json", type=Path, metavar="FILE", help="write the view to a file, and ask no server")
    return parser


def main() -> None:
    """Run the command on the arguments of this process."""
    args = _parser().parse_args()
    # imported here, so that --help answers at once
    if args.command == "sync":
        from soundfold.experiment.wandb_runs.sync import sync_runs

        sync_runs(args.runs)
        return
    from soundfold.experiment.wandb_runs.workspace import save_report, save_workspace

    if args.report:
        save_report(args.project, args.entity, args.report, args.json)
    else:
        save_workspace(args.project, args.entity, args.sweep, args.json)
