"""Try a model on a web page: the command `soundfold demo`, for a checkout."""

import sys

from soundfold.cli.demo import main
from soundfold.errors import exit_code_of

if __name__ == "__main__":
    sys.exit(exit_code_of(main))
