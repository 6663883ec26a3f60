"""Probe frozen embeddings under the official folds: the command `soundfold probe`, for a checkout."""

import sys

from soundfold.cli.probe import main
from soundfold.errors import exit_code_of

if __name__ == "__main__":
    sys.exit(exit_code_of(main))
