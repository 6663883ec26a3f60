"""Where the real clips lie, on a machine that has them."""

from pathlib import Path

SHARED = Path(__file__).resolve().parents[3] / "shared"
