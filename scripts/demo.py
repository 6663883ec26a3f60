"""A page to try a model on: python scripts/demo.py outputs/esc50-1a2b3c4d"""

import argparse
import sys
from pathlib import Path

from soundfold.errors import InputError, exit_code_of


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Serve a page, to this machine only, on which a sound is uploaded or recorded: its probabilities, "
        "its log-mel and what the model looked at; of a long recording, the timeline. Needs pip install -e '.[demo]'.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, outputs/<name>-<id>, or a weights.pt")
    parser.add_argument("--fold", help="the model of this fold only, or of none; default: the average of all folds")
    parser.add_argument("--port", type=int, help="default: a free one from 7860 on")
    parser.add_argument("--max-seconds", type=float, default=600.0, help="longest sound; default 600")
    parser.add_argument("--max-megabytes", type=float, default=50.0, help="largest upload; default 50")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    given = parser.parse_args()
    for name in ("max_seconds", "max_megabytes"):
        if not 0 < getattr(given, name) < float("inf"):
            raise InputError(f"--{name.replace('_', '-')}={getattr(given, name):g} must be above 0, and a number.")
    if given.port is not None and not 0 < given.port < 65536:
        raise InputError(f"--port={given.port} must lie between 1 and 65535; from 1024 on it needs no privileges.")
    # imported here, so that --help answers at once
    from soundfold.experiment.device import choose_device
    from soundfold.inference.app import serve
    from soundfold.inference.predictor import Predictor

    predictor = Predictor.load(given.run, given.fold, choose_device(given.device, "--device"))
    serve(predictor, given.port, given.max_seconds, given.max_megabytes)


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
