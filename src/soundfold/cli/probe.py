"""Probe frozen embeddings under the official folds: soundfold probe outputs/esc50-1a2b3c4d"""

from pathlib import Path

from soundfold.cli.flags import add_device, flag_parser, parse_trusting
from soundfold.errors import InputError


def main() -> None:
    """Run the command on the arguments of this process."""
    parser = flag_parser(
        "probe",
        "Score k nearest neighbors (5, by cosine similarity) and logistic regression (C=1, standardized values) on "
        "frozen embeddings under the folds of a table, and the same with few training clips of each class. For a run, "
        "each fold is tested with the embeddings of its own model, which did not train on that fold. Results are runs "
        "for `soundfold report`. Embeddings of other programs, with --table, are marked: training data unknown. "
        "Requires scikit-learn and pyarrow, the extra `embeddings` of soundfold.",
    )
    parser.add_argument(
        "embeddings",
        type=Path,
        metavar="EMBEDDINGS",
        help="folder of a run, whose collection is embedded if it is not yet, or a .parquet or .npz file",
    )
    table = parser.add_argument_group("table of clips, for embeddings without one")
    table.add_argument("--table", type=Path, metavar="FILE", help="CSV in ESC-50's format, or with these columns:")
    table.add_argument("--file-column", metavar="NAME", help="of the file name; default filename")
    table.add_argument("--class-column", metavar="NAME", help="of the class; default category")
    table.add_argument("--fold-column", metavar="NAME", help="of the fold; default fold, else folds are made")
    table.add_argument("--source-column", metavar="NAME", help="of the source recording; default source")
    other = parser.add_argument_group("embeddings of other programs")
    other.add_argument("--names", metavar="NAME", help="column or array of file names; default filename or file")
    other.add_argument("--vectors", metavar="NAME", help="column or array of vectors; default embedding or vector")
    parser.add_argument(
        "--shots", type=int, nargs="+", default=[1, 2, 4, 8], metavar="N", help="clips of a class; default 1 2 4 8"
    )
    parser.add_argument("--draws", type=int, default=20, help="of few clips for each fold, 0: none; default 20")
    parser.add_argument("--out", type=Path, default=Path("outputs"), metavar="DIRECTORY", help="default outputs")
    add_device(parser, purpose="to embed; ")
    args = parse_trusting(parser)
    if args.draws < 0 or min(args.shots) < 1:
        raise InputError("--draws must be at least 0, and --shots at least 1.")
    # imported here, so that --help answers at once
    from soundfold.inference.probe import probe

    probe(args)
