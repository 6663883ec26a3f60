"""Predict the classes of recordings: soundfold predict outputs/esc50-1a2b3c4d recording.wav folder/"""

from pathlib import Path

from soundfold.cli.flags import add_device, add_fold, add_hop, add_run, check_at_least, flag_parser, parse_trusting


def main() -> int:
    """Run the command on the arguments of this process."""
    parser = flag_parser(
        "predict",
        "Predict the classes of sound files of any format, sample rate and number of channels. A recording "
        "longer than the model's training clips is scored in overlapping windows: the prediction is their mean, and a "
        "timeline is written as CSV, figure and Audacity labels. Unreadable files are reported and skipped (exit code "
        "1).",
    )
    add_run(parser)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="sound file, or folder of sound files")
    add_fold(parser)
    parser.add_argument("--top", type=int, default=3, help="number of classes listed per file; default 3")
    parser.add_argument("--format", choices=("table", "csv", "jsonl"), default="table", help="default table")
    parser.add_argument(
        "--novelty",
        choices=("softmax", "energy", "distance"),
        help="report files and windows below a threshold of this score as unknown: the largest probability, the "
        "energy of the logits, or the distance to training clips, which `soundfold novelty` must have stored; the "
        "threshold is fitted on the scored clips of the run's other folds",
    )
    parser.add_argument(
        "--threshold", type=float, help="of --novelty, instead of the fitted one; without --novelty, of softmax"
    )
    add_hop(parser)
    parser.add_argument(
        "--timelines",
        type=Path,
        default=Path("outputs/timelines"),
        metavar="DIRECTORY",
        help="for timelines of long recordings; default outputs/timelines",
    )
    add_device(parser)
    args = parse_trusting(parser)
    check_at_least(args, 1, "top")
    # imported here, so that --help answers at once
    from soundfold.inference.predict import predict

    return predict(args)
