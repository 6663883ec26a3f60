"""Report on a run, compare several, or list all: the command `soundfold report`, for a checkout."""

import sys

from soundfold.cli.report import main
from soundfold.errors import exit_code_of

if __name__ == "__main__":
    sys.exit(exit_code_of(main))
