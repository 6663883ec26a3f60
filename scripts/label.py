"""Label recordings: the command `soundfold label`, for a checkout."""

import sys

from soundfold.cli.label import main
from soundfold.errors import exit_code_of

if __name__ == "__main__":
    sys.exit(exit_code_of(main))
