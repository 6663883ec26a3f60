"""Say what recordings sound like: python scripts/predict.py outputs/esc50-1a2b3c4d recording.wav folder/"""

import argparse
import sys
from pathlib import Path

from soundfold.errors import InputError, exit_code_of


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Predict the classes of sound files of any format, rate and number of channels. A recording longer "
        "than the model's training clips is scored in overlapping windows; its row is their mean, and its timeline is "
        "written as CSV, picture and Audacity labels. Exit code 1: a file could not be predicted; the others were.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, outputs/<name>-<id>, or a weights.pt")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="sound file, or folder of such")
    parser.add_argument("--fold", help="use the model of this fold only, or of none; default: the average of all folds")
    parser.add_argument("--top", type=int, default=3, help="classes to name for each file; default 3")
    parser.add_argument("--format", choices=("table", "csv", "jsonl"), default="table")
    parser.add_argument("--hop", type=float, metavar="SECONDS", help="between windows; default half a window")
    parser.add_argument(
        "--timelines",
        type=Path,
        default=Path("outputs/timelines"),
        metavar="DIRECTORY",
        help="where timelines of long recordings go; default outputs/timelines",
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    given = parser.parse_args()
    if given.top < 1:
        raise InputError(f"--top={given.top} must be at least 1.")
    # imported here, so that --help answers at once
    from soundfold.inference.predict import predict

    return predict(given)


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
