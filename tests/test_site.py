"""The site is built without a warning, and its pages work in a browser."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.browsing import inspect
from helpers.tiny import ROOT

pytestmark = pytest.mark.slow


def build_site(folder: Path) -> Path:
    """Build the site as `make docs` does, inside a folder; return the folder of its pages."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(folder / "doctrees")]
    process = subprocess.run([*command, "docs", str(folder / "html")], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return folder / "html"


def test_pages_fit_the_screen_and_load_nothing_from_elsewhere(tmp_path, browser):
    site = build_site(tmp_path)
    pages = sorted(page for page in site.rglob("*.html") if not page.relative_to(site).as_posix().startswith("_"))
    assert len(pages) > 50
    one_of_each_kind = list({page.parent: page for page in pages}.values())
    faults = {}
    for width, scheme, shown in ((390, "light", pages), (1280, "dark", one_of_each_kind)):
        screen = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
        for page in shown:
            faults[page.relative_to(site).as_posix(), width] = faults_of(page, site, browser, **screen)
    assert not {page: found for page, found in faults.items() if found}


def faults_of(page: Path, site: Path, browser, **context) -> dict:
    report = inspect(browser, page, **context)
    report["tab"].context.close()
    found = {key: report[key] for key in ("console", "duplicate ids")}
    found["dead anchors"] = [anchor for anchor in report["dead anchors"] if anchor]  # "#" is the top of the page
    found["elsewhere"] = [url for url in report["requests"] if not url.startswith(site.as_uri())]
    found["overflow"] = max(0, report["overflow"])
    return {key: value for key, value in found.items() if value}
