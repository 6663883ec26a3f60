"""CSV text that is read back as it was written."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV with ``\\n`` at the end of each line; `csv.reader` returns every cell as it was.

    Before Python 3.13, a writer with the line terminator ``\\n`` does not quote a cell that contains ``\\r``, and no
    reader accepts it. So rows are written with ``\\r\\n``, which quotes both, and their ends are replaced.
    """
    lines = _Lines()
    csv.writer(lines, lineterminator="\r\n").writerows(rows)
    return "".join(lines)


class _Lines(list[str]):
    def write(self, line: str) -> None:
        self.append(line.removesuffix("\r\n") + "\n")
