"""Explain predictions as pictures and sound: the command `soundfold explain`, for a checkout."""

import sys

from soundfold.cli.explain import main
from soundfold.errors import exit_code_of

if __name__ == "__main__":
    sys.exit(exit_code_of(main))
