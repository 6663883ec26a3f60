"""Fixtures: real clips and tables, a browser, and runs that several tests read."""

import gc
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from helpers.clips import Clips, real_clips, synthetic_clips
from helpers.parsed_files import parse_files_once
from helpers.shared import SHARED

# A shell starts background jobs with SIGINT ignored, and child processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Make compositions fast: garbage collection skips the imported modules, and files are parsed once."""
    parse_files_once()
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def esc10() -> Path:
    """Return the root of the 400 real clips of ESC-10."""
    root = SHARED / "esc10"
    if not root.is_dir():
        pytest.skip("needs the ESC-10 clips at ../shared/esc10")
    return root


@pytest.fixture(scope="session")
def real_or_synthetic_clips() -> Clips:
    """Return the 400 clips of ESC-10, or rendered stand-ins if not available, so that no parity test is skipped."""
    root = SHARED / "esc10"
    return real_clips(root) if root.is_dir() else synthetic_clips()


@pytest.fixture(scope="session")
def esc50_table() -> Path:
    """Return the path of the official table of ESC-50."""
    path = SHARED / "esc50" / "meta" / "esc50.csv"
    if not path.is_file():
        pytest.skip("needs ESC-50's table at ../shared/esc50/meta/esc50.csv")
    return path


@pytest.fixture(scope="session")
def browser():
    """Start the installed Chromium, headless and without background requests."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("needs a Chromium on the PATH, such as Debian's package chromium")
    # imported here so that the other tests run without Playwright
    from playwright.sync_api import sync_playwright

    offline = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=[*offline, "--disable-sync", "--no-first-run"])
        yield chromium
        chromium.close()


def shared_run(factory, name: str, train: Callable[[Path], None]) -> Path:
    """Return the folder of a run that is trained once for all processes of the suite."""
    base = factory.getbasetemp()
    # with xdist, each worker's folder is inside the suite's
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            train(folder)
            (folder / "done").touch()
    (run,) = (folder / "outputs").glob("*-*")
    return run


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """Return a finished cross-validation of three folds on tones and noises of half a second at 8 kHz.

    The clips are in ``../../tiny`` relative to the run. Tests must not change it.
    """
    from helpers import tiny

    def train(folder: Path) -> None:
        tiny.cross_validate(tiny.render(folder / "tiny"), folder / "outputs", "report.page=none")

    return shared_run(tmp_path_factory, "tiny-run", train)


@pytest.fixture(scope="session")
def real_run(tmp_path_factory, esc10) -> Path:
    """Return fold 1 of ESC-10 after one epoch on coarse images, with all options that affect scores.

    Tests must not change it.
    """
    from helpers import tiny

    def train(folder: Path) -> None:
        small = ("features.window=0.04644", "features.hop=0.04", "features.n_mels=32", "features.f_max=20000")
        clips = ("data=esc10", f"data.root={esc10}", "data.seconds=5", "data.sample_rate=44100", "data.batch_size=64")
        options = ("crops.seconds=3", "crops.trim=true", "crops.test=3", "average=ema", "trainer.precision=auto")
        options += ("model.width=16", "model.frequency_channel=true", "model.squeeze_excitation=true")
        more = (*options, "fold=1", "trainer.max_epochs=1", "augment=none", f"paths.cache={folder / 'cache'}")
        tiny.cross_validate(esc10, folder / "outputs", *small, *clips, *more)

    return shared_run(tmp_path_factory, "real-run", train)


@pytest.fixture
def wandb_server(tmp_path):
    """Start a stand-in for the server of W&B, see `helpers.wandb_server`; faults fail the test."""
    from helpers.wandb_server import serve

    with serve(tmp_path) as server:
        yield server
