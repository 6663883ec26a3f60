"""Names of runs from several output folders, in which two runs may have the same name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from soundfold.evaluation.cv_result import CVResult


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """Return the name of each run's folder, preceded by as many of its parents as tell it from the others.

    Args:
        folders: of the runs; no two are the same folder.
    """
    parts = [folder.resolve().parts for folder in folders]
    names: dict[int, str] = {}
    for length in range(1, max(map(len, parts), default=0) + 1):
        ends = ["/".join(part[-length:]) for part in parts]
        counts = Counter(ends)
        names |= {i: end for i, end in enumerate(ends) if i not in names and counts[end] == 1}
    return [names.get(i, str(folder)) for i, folder in enumerate(folders)]


def is_copy(run: CVResult, of: CVResult) -> bool:
    """Return whether every finished fold of a run is one of the other's: equal in all values, also in its seconds."""
    others = {fold["fold"]: fold for fold in of.folds}
    return all(others.get(fold["fold"]) == fold for fold in run.folds)
