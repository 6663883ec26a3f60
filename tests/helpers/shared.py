"""Location of the real clips, on machines that have them."""

from pathlib import Path

SHARED = Path(__file__).resolve().parents[3] / "shared"
