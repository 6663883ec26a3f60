"""Embed recordings: soundfold embed outputs/esc50-1a2b3c4d recording.wav folder/"""

from pathlib import Path

from soundfold.cli.flags import add_device, add_fold, add_hop, add_run, flag_parser, parse_trusting


def main() -> int:
    """Run the command on the arguments of this process."""
    parser = flag_parser(
        "embed",
        "Write the vectors before the network's last layer, or of a named layer, to a Parquet or npz file: a row per "
        "window of each recording and per model, with file, start, end, model, and whether the model was trained on "
        "the clip or its source. Without FILE, all clips of the model's collection are embedded. Each fold's model has "
        "a space of its own: compare vectors of one model only. Unreadable files are reported and skipped (exit code "
        "1). Parquet requires pyarrow, the extra `embeddings` of soundfold.",
    )
    add_run(parser)
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE", help="sound file, or folder of sound files")
    add_fold(parser, default="each fold's model")
    parser.add_argument(
        "--layer",
        help="module whose output is averaged over positions, such as layer3; default: the input of the last layer",
    )
    parser.add_argument("--unseen", action="store_true", help="omit vectors of models that were trained on the clip")
    add_hop(parser)
    parser.add_argument("--data", type=Path, metavar="DIRECTORY", help="root of the collection, if it has moved")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=".parquet or .npz; default: embeddings.parquet in outputs, or in the run's folder for its own collection",
    )
    add_device(parser)
    args = parse_trusting(parser)
    # imported here, so that --help answers at once
    from soundfold.inference.embed import embed

    return embed(args)
