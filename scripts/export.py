"""Export a model as one file: the command `soundfold export`, for a checkout."""

import sys

from soundfold.cli.export import main
from soundfold.errors import exit_code_of

if __name__ == "__main__":
    sys.exit(exit_code_of(main))
