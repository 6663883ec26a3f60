"""Train and cross-validate: the command `soundfold train`, for a checkout."""

import sys

from soundfold.cli.train import main
from soundfold.errors import exit_code_of

if __name__ == "__main__":
    sys.exit(exit_code_of(main))
