"""Analyze a collection and write a page to browse it: the command `soundfold explore`, for a checkout."""

import sys

from soundfold.cli.explore import main
from soundfold.errors import exit_code_of

if __name__ == "__main__":
    sys.exit(exit_code_of(main))
