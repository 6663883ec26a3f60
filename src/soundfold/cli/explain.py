"""Explain predictions as pictures and sound: soundfold explain outputs/esc50-1a2b3c4d dog.wav"""

from pathlib import Path

from soundfold.cli.flags import add_device, add_fold, add_hop, add_run, check_at_least, flag_parser, parse_trusting
from soundfold.errors import InputError


def main() -> int:
    """Run the command on the arguments of this process."""
    parser = flag_parser(
        "explain",
        "Explain predictions on a page, explain.html, and as JSON: the part of each sound file that carried the "
        "decision as a picture and as sound, and how well it agrees with what the model uses (deletion and insertion "
        "curves, beside random and loudest-first orders). Of a recording longer than the training clips, the window "
        "in which the class is most probable is explained. Without files, explanations are measured on scored clips "
        "of each fold, by the model that did not train on them. Unreadable files are reported and skipped (exit code "
        "1).",
    )
    add_run(parser)
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE", help="sound file, or folder of sound files")
    add_fold(parser)
    parser.add_argument("--class", dest="target", metavar="NAME", help="class to explain; default the predicted one")
    parser.add_argument("--clips", type=int, default=10, metavar="N", help="without files: clips per fold; default 10")
    parser.add_argument("--rows", type=int, default=8, help="blocks over frequency; default 8")
    parser.add_argument("--columns", type=int, default=16, help="blocks over time; default 16")
    parser.add_argument("--steps", type=int, default=16, help="points of a curve; default 16")
    parser.add_argument(
        "--fill", choices=("mean", "floor"), default="mean", help="level of a removed block; default the clip's mean"
    )
    add_hop(parser)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("outputs/explanations"),
        metavar="DIRECTORY",
        help="for page and JSON; default outputs/explanations",
    )
    add_device(parser)
    args = parse_trusting(parser)
    check_at_least(args, 1, "clips", "rows", "columns", "steps")
    if not args.files and (args.target or args.hop or args.fold):
        raise InputError("--class, --hop and --fold require sound files: without files, all folds are measured.")
    # imported here, so that --help answers at once
    from soundfold.inference.explain import explain_files, measure

    return explain_files(args) if args.files else measure(args)
