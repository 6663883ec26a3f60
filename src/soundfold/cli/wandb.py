"""Commands for W&B: soundfold wandb sync outputs/esc50-1a2b3c4d [outputs/...]"""

from argparse import ArgumentParser
from pathlib import Path

from soundfold.cli.flags import flag_parser


def _parser() -> ArgumentParser:
    parser = flag_parser("wandb", "Send runs to Weights & Biases, to which logger=wandb logs them.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    sync = commands.add_parser(
        "sync",
        help="upload the offline W&B runs of runs",
        description="Upload all offline W&B runs of runs: every fold and the cross-validation. What was sent before is "
        "skipped. A run that was interrupted, however often, is sent once, with its whole history.",
    )
    sync.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, outputs/<name>-<id>")
    return parser


def main() -> None:
    """Run the command on the arguments of this process."""
    args = _parser().parse_args()
    # imported here, so that --help answers at once
    from soundfold.experiment.wandb_runs.sync import sync_runs

    sync_runs(args.runs)
