"""Fit and measure scores of novelty: soundfold novelty outputs/esc50-1a2b3c4d"""

from pathlib import Path

from soundfold.cli.flags import add_device, flag_parser, parse_trusting


def main() -> int:
    """Run the command on the arguments of this process."""
    parser = flag_parser(
        "novelty",
        "Fit the thresholds below which `soundfold predict --novelty` reports a sound as unknown, and store the "
        "training embeddings of each fold's model for its score `distance`. Of a run that was trained without some "
        "classes (data.leave_out), measure how well each score separates them from known ones: AUROC of the clips of "
        "each fold, by the model that saw none of them.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, outputs/<name>-<id>")
    add_device(parser)
    args = parse_trusting(parser)
    # imported here, so that --help answers at once
    from soundfold.inference.measure_novelty import novelty

    return novelty(args)
