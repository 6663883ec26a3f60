"""The site is built without a warning, and its pages work in a browser."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.browsing import inspect
from helpers.tiny import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Build the site as `make docs` does; return its folder."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(folder / "doctrees")]
    process = subprocess.run([*command, "docs", str(folder / "html")], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return folder / "html"


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_pages_fit_the_screen_and_load_nothing_from_elsewhere(site, browser, width, scheme):
    pages = sorted(page for page in site.rglob("*.html") if not page.relative_to(site).as_posix().startswith("_"))
    assert len(pages) > 50
    if width > 390:  # one page of each kind
        pages = list({page.parent: page for page in pages}.values())
    screen = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    faults = {page.relative_to(site).as_posix(): faults_of(page, site, browser, **screen) for page in pages}
    assert not {page: found for page, found in faults.items() if found}


def faults_of(page: Path, site: Path, browser, **context) -> dict:
    report = inspect(browser, page, **context)
    report["tab"].context.close()
    found = {key: report[key] for key in ("console", "duplicate ids")}
    found["dead anchors"] = [anchor for anchor in report["dead anchors"] if anchor]  # "#" is the top of the page
    found["elsewhere"] = [url for url in report["requests"] if not url.startswith(site.as_uri())]
    found["overflow"] = max(0, report["overflow"])
    return {key: value for key, value in found.items() if value}
