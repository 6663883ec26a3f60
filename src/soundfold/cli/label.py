"""Label recordings on a web page: soundfold label outputs/esc50-1a2b3c4d recordings/"""

from pathlib import Path

from soundfold.cli.flags import add_trust, flag_parser, trust_modules
from soundfold.errors import InputError


def main() -> None:
    """Run the command on the arguments of this process."""
    parser = flag_parser(
        "label",
        "Serve a web page, to this machine only, that plays windows of unlabeled recordings, the most useful first, "
        "and takes their classes by keyboard. Each label is stored at once, as a clip and a row of a table that "
        "`soundfold train data=csv` reads; the same command continues.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, outputs/<name>-<id>, or a weights.pt")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="sound file, or folder of sound files")
    parser.add_argument("--fold", help="use only the model of this fold, or of 'none'; default: the mean of all folds")
    parser.add_argument(
        "--order",
        choices=("uncertain", "diverse"),
        default="uncertain",
        help="first the windows whose two best classes are closest, or those least like all before; default uncertain",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("labels"), metavar="DIRECTORY", help="of labels and clips; default labels"
    )
    parser.add_argument("--hop", type=float, metavar="SECONDS", help="between windows; default a window")
    parser.add_argument("--port", type=int, help="default: any free port")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default auto")
    add_trust(parser)
    args = parser.parse_args()
    trust_modules(args.trust)
    if args.port is not None and not 0 < args.port < 65536:
        raise InputError(f"--port={args.port} must be between 1 and 65535; ports below 1024 require privileges.")
    # imported here, so that --help answers at once
    from soundfold.inference.labeling.label import label

    label(args)
