"""Write a model as one file, raw waveform to probabilities: python scripts/export.py outputs/esc50-1a2b3c4d"""

import argparse
import sys
from pathlib import Path

from soundfold.errors import InputError, exit_code_of


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write a trained model as one file from the raw waveform, float32 (B, samples) at the training "
        "rate, to class probabilities, the log-mel inside, and check it against PyTorch. scripts/onnx_example.py shows "
        "its use.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, outputs/<name>-<id>, or a weights.pt")
    parser.add_argument("--format", choices=("onnx", "torch_export"), default="onnx")
    parser.add_argument("--fold", help="the model of this fold only, or of none; default: the average of all folds")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: model.onnx (or .pt2) beside the weights")
    parser.add_argument("--int8", action="store_true", help="of one fold: 8 bits as a second file, and what they cost")
    parser.add_argument("--data", type=Path, metavar="DIRECTORY", help="root of the collection, for --int8")
    given = parser.parse_args()
    if given.int8 and given.format != "onnx":
        raise InputError(f"--int8 is of --format=onnx; --format={given.format} has no such thing.")
    # imported here, so that --help answers at once
    from soundfold.inference.export import write_export

    write_export(given)


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
