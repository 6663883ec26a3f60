"""Find similar sounds: soundfold similar outputs/embeddings.parquet dog.wav"""

from pathlib import Path

from soundfold.cli.flags import add_device, check_at_least, flag_parser, parse_trusting


def main() -> None:
    """Run the command on the arguments of this process."""
    parser = flag_parser(
        "similar",
        "List the sounds of an index that are most similar to a recording, by cosine similarity of embeddings, and "
        "write a page to hear them. The index is a file of `soundfold embed`, and its model embeds the recording. The "
        "search is exact, and reads Parquet in bounded memory. Of each file, its most similar window is listed.",
    )
    parser.add_argument("index", type=Path, metavar="INDEX", help=".parquet or .npz file of `soundfold embed`")
    parser.add_argument("file", type=Path, metavar="FILE", help="sound file of any length")
    parser.add_argument("--top", type=int, default=10, help="number of files listed; default 10")
    parser.add_argument("--fold", help="compare in the space of this fold's model; default: the first in the index")
    parser.add_argument("--model", type=Path, metavar="RUN", help="the model of the index, if it has moved")
    parser.add_argument("--page", type=Path, metavar="FILE", help="default outputs/similar/<name>.html")
    parser.add_argument("--no-page", action="store_true", help="print the table only")
    add_device(parser)
    args = parse_trusting(parser)
    check_at_least(args, 1, "top")
    # imported here, so that --help answers at once
    from soundfold.inference.similar import similar

    similar(args)
