"""Who recorded a clip, by the collection's own licence file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

LICENCE_FILES = ("LICENSES.txt", "LICENSE", "LICENSE.txt")
# ESC-50's: "- [1-100032-A.ogg]: clip derived from TITLE (ADDRESS) by AUTHOR [LICENCE]"
LINE = re.compile(r"^- \[(?P<stem>[^\]]+)\.\w+\]:\s+(?P<text>.+?)\s*$")
ADDRESS = re.compile(r"\s*\((?P<address>https?://[^)\s]+)\)")


@dataclass(frozen=True)
class Attribution:
    """What the licence file says of a clip, and the address of the recording, if it gives one."""

    text: str
    address: str | None


def read_attributions(root: Path) -> dict[str, Attribution]:
    """What ESC-50's licence file says, by recording and take, such as ``1-100032-A``; empty without such a file."""
    found: dict[str, Attribution] = {}
    for path in (root / name for name in LICENCE_FILES):
        if not path.is_file():
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if match := LINE.match(line):
                address = ADDRESS.search(match["text"])
                text = ADDRESS.sub("", match["text"], count=1)
                found[match["stem"]] = Attribution(text, address["address"] if address else None)
    return found


def attribution(filename: str, source: str, found: dict[str, Attribution]) -> Attribution:
    """Of one clip; where the licence file is silent, its source alone.

    Args:
        filename: such as ``1-100032-A-0.ogg``: the recording's name, then the class.
        source: of the table.
        found: see `read_attributions`.
    """
    stem = Path(filename).stem
    return found.get(stem.rsplit("-", 1)[0]) or found.get(stem) or Attribution(f"source {source}", None)
