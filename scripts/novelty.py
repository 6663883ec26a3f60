"""Fit and measure scores of novelty: the command `soundfold novelty`, for a checkout."""

import sys

from soundfold.cli.novelty import main
from soundfold.errors import exit_code_of

if __name__ == "__main__":
    sys.exit(exit_code_of(main))
