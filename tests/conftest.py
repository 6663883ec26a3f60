"""Where the real clips are, and tables made for a test."""

import shutil
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


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium, that of the machine; it looks for nothing on any network."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("needs a Chromium on the PATH, such as Debian's package chromium")
    # imported here: tests that need no browser need no driver either
    from playwright.sync_api import sync_playwright

    quiet = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=[*quiet, "--disable-sync", "--no-first-run"])
        yield chromium
        chromium.close()
