"""Where the real clips are, and tables made for a test."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def esc10() -> Path:
    """Root of the 400 real clips of ESC-10."""
    root = SHARED / "esc10"
    if not root.is_dir():
        pytest.skip("needs the ESC-10 clips at ../shared/esc10")
    return root


@pytest.fixture(scope="session")
def esc50_table() -> Path:
    """The official table of ESC-50."""
    path = SHARED / "esc50" / "meta" / "esc50.csv"
    if not path.is_file():
        pytest.skip("needs ESC-50's table at ../shared/esc50/meta/esc50.csv")
    return path
