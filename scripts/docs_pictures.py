"""Make the pictures of README and docs from a finished run: python scripts/docs_pictures.py outputs/synthetic-1a2b3c4d

Writes docs/images/terminal.svg, the output of `soundfold report`, report.png, the top of the run's report.html in a
headless Chromium, and explanation.png, that of the explanation of a rendered sound. The run must be of the synthetic
collection, whose sounds are rendered by this project.
"""

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from soundfold.errors import InputError, exit_code_of

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
COLUMNS = 98
WIDTH, HEIGHT = 1100, 1020
MAX_BYTES = 300_000


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run of the synthetic collection")
    run = parser.parse_args().run
    if not (run / "report.html").is_file() or not run.name.startswith("synthetic-"):
        raise InputError(f"{run} is no finished run of data=synthetic. Train one: soundfold train experiment=demo.")
    (IMAGES / "terminal.svg").write_text(terminal_svg(run, "soundfold train experiment=demo"))
    (IMAGES / "report.png").write_bytes(page_png(run / "report.html"))
    (IMAGES / "explanation.png").write_bytes(explanation_png(run))
    for name in ("terminal.svg", "report.png", "explanation.png"):
        size = (IMAGES / name).stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{name} has {size:,} bytes; a page must load fast. Reduce HEIGHT or COLUMNS.")
        print(f"docs/images/{name}: {size:,} bytes")
    return 0


def terminal_svg(run: Path, command: str) -> str:
    """Return the colored output of a run's summary as it appears after training, as SVG without external fonts."""
    # imported here: Rich is not needed for --help
    from rich.text import Text

    from soundfold.io.console import Terminal

    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    report = [sys.executable, str(ROOT / "scripts" / "report.py"), str(run), "report.page=none"]
    output = subprocess.run(report, env=environment, capture_output=True, text=True, check=True).stdout
    console = Terminal(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {command}\n", style="bold"))
    console.print(Text.from_ansi(output.rstrip()))
    svg = console.export_svg(title="soundfold", unique_id="soundfold")
    # Rich embeds links to a font on another server
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def explanation_png(run: Path) -> bytes:
    """Return the top of the page that explains a beep sound followed by low noise, as beeps."""
    # imported here: arrays are not needed for --help
    import numpy as np
    import soundfile

    from soundfold.data.synthetic import RATE, RECIPES

    rng, half = np.random.default_rng(0), np.arange(RATE) / RATE
    events = [RECIPES[name](rng, half, 350.0, 6.0) for name in ("beeps", "low_noise")]
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "beeps_then_noise.wav"
        soundfile.write(sound, np.concatenate([0.05 * event / event.std() for event in events]), RATE)
        command = [sys.executable, str(ROOT / "scripts" / "explain.py"), str(run), str(sound), "--class", "beeps"]
        subprocess.run([*command, "--fold", "1", "--output", folder], capture_output=True, check=True)
        return page_png(Path(folder) / "explain.html", height=1290)


def page_png(page: Path, height: int = HEIGHT) -> bytes:
    """Return the top of a page as a PNG of 256 colors."""
    # imported here: only pictures need a browser
    from PIL import Image
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        raise InputError("A picture of a page needs Chromium on the PATH, such as Debian's package chromium.")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        view = browser.new_page(viewport={"width": WIDTH, "height": height}, color_scheme="light")
        view.goto(page.resolve().as_uri())
        png = view.screenshot()
        browser.close()
    stream = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
        stream, "PNG", optimize=True
    )
    return stream.getvalue()


if __name__ == "__main__":
    raise SystemExit(exit_code_of(main))
