"""Export a model as one file, raw waveform to probabilities: soundfold export outputs/esc50-1a2b3c4d"""

from pathlib import Path

from soundfold.cli.flags import add_fold, add_run, flag_parser, parse_trusting
from soundfold.errors import InputError


def main() -> None:
    """Run the command on the arguments of this process."""
    parser = flag_parser(
        "export",
        "Export a trained model as one file, log-mel included, and compare it with PyTorch. Input: raw "
        "waveform, float32 (B, samples) at the training rate. Output: class probabilities. scripts/onnx_example.py "
        "uses such a file. --format=hub and --format=zip pack the weights and the model card to share them.",
    )
    add_run(parser)
    parser.add_argument(
        "--format",
        choices=("onnx", "torch_export", "hub", "zip"),
        default="onnx",
        help="one file; or models and card as a folder for the Hugging Face Hub, or as a zip archive; default onnx",
    )
    add_fold(parser)
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="default: model.onnx, model.pt2, hub/ or <run>.zip in the run's folder"
    )
    parser.add_argument(
        "--int8", action="store_true", help="also write an 8-bit version of one fold's model and measure its accuracy"
    )
    parser.add_argument("--data", type=Path, metavar="DIRECTORY", help="root of the collection, for --int8")
    args = parse_trusting(parser)
    if args.int8 and args.format != "onnx":
        raise InputError(f"--int8 requires --format=onnx, not --format={args.format}.")
    # imported here, so that --help answers at once
    if args.format in ("hub", "zip"):
        from soundfold.inference.share import write_shared

        write_shared(args)
    else:
        from soundfold.inference.export import write_export

        write_export(args)
