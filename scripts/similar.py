"""Find similar sounds: the command `soundfold similar`, for a checkout."""

import sys

from soundfold.cli.similar import main
from soundfold.errors import exit_code_of

if __name__ == "__main__":
    sys.exit(exit_code_of(main))
