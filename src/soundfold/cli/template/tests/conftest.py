"""Lets the tests import the modules of this project, as soundfold does."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
