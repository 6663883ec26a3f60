"""Label recordings on a web page: soundfold label outputs/esc50-1a2b3c4d recordings/"""

from pathlib import Path

from soundfold.cli.flags import add_device, add_fold, add_hop, add_run, check_port, flag_parser, parse_trusting


def main() -> None:
    """Run the command on the arguments of this process."""
    parser = flag_parser(
        "label",
        "Serve a web page, to this machine only, that plays windows of unlabeled recordings, the most useful first, "
        "and takes their classes by keyboard. Each label is stored at once, as a clip and a row of a table that "
        "`soundfold train data=csv` reads; the same command continues.",
    )
    add_run(parser)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="sound file, or folder of sound files")
    add_fold(parser)
    parser.add_argument(
        "--order",
        choices=("uncertain", "diverse"),
        default="uncertain",
        help="first the windows whose two best classes are closest, or those least like all before; default uncertain",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("labels"), metavar="DIRECTORY", help="of labels and clips; default labels"
    )
    add_hop(parser, default="a window")
    parser.add_argument("--port", type=int, help="default: any free port")
    add_device(parser)
    args = parse_trusting(parser)
    check_port(args.port)
    # imported here, so that --help answers at once
    from soundfold.inference.labeling.label import label

    label(args)
