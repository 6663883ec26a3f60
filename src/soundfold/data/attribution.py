"""Credits of clips, from the license file of the collection."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

LICENSE_FILES = ("LICENSES.txt", "LICENSE", "LICENSE.txt")
# ESC-50's: "- [1-100032-A.ogg]: clip derived from TITLE (URL) by AUTHOR [LICENSE]"
LINE = re.compile(r"^- \[(?P<stem>[^\]]+)\.\w+\]:\s+(?P<text>.+?)\s*$")
URL = re.compile(r"\s*\((?P<url>https?://[^)\s]+)\)")


@dataclass(frozen=True)
class Attribution:
    """Title, author and license of a recording, and its URL if known."""

    text: str
    address: str | None


def read_attributions(root: Path) -> dict[str, Attribution]:
    """Read ESC-50's license file: recording and take, such as ``1-100032-A``, to attribution. Empty without a file."""
    attributions: dict[str, Attribution] = {}
    for path in (root / name for name in LICENSE_FILES):
        if not path.is_file():
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if match := LINE.match(line):
                url = URL.search(match["text"])
                text = URL.sub("", match["text"], count=1)
                attributions[match["stem"]] = Attribution(text, url["url"] if url else None)
    return attributions


def attribution(filename: str, source: str, attributions: dict[str, Attribution]) -> Attribution:
    """Return the attribution of one clip, or its source identifier if the license file does not list it.

    Args:
        filename: such as ``1-100032-A-0.ogg``: recording and take, then the target.
        source: of the table.
        attributions: see `read_attributions`.
    """
    stem = Path(filename).stem
    return attributions.get(stem.rsplit("-", 1)[0]) or attributions.get(stem) or Attribution(f"source {source}", None)
