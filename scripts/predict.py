"""Predict the classes of recordings: the command `soundfold predict`, for a checkout."""

import sys

from soundfold.cli.predict import main
from soundfold.errors import exit_code_of

if __name__ == "__main__":
    sys.exit(exit_code_of(main))
