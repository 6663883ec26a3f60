"""Download, decode and audit a collection: the command `soundfold prepare`, for a checkout."""

import sys

from soundfold.cli.prepare import main
from soundfold.errors import exit_code_of

if __name__ == "__main__":
    sys.exit(exit_code_of(main))
