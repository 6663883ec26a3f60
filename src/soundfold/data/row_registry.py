"""Checks of the rows of a table against each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath

from soundfold.errors import InputError
from soundfold.io.atomic import comparable_name


def plain_path(name: str) -> str:
    """Return a name without its empty and ``.`` parts: ``./a.wav`` is the same file as ``a.wav``."""
    # the comparison is fast, and most names are plain
    plain = "./" not in name and "//" not in name and not name.endswith(("/", "."))
    return name if plain else "/".join(PurePosixPath(name).parts)


@dataclass
class RowRegistry:
    """Files and classes of the rows so far: a file has one row, and targets and class names correspond one to one."""

    files: set[str] = field(default_factory=set)
    category_of: dict[int, str] = field(default_factory=dict)
    target_of: dict[str, int | None] = field(default_factory=dict)
    name_of: dict[str, str] = field(default_factory=dict)

    def add(self, filename: str, target: int | None, category: str) -> None:
        """Check a row; its target is None in a table without targets.

        Raises:
            InputError: it does not agree with the rows before.
        """
        file = plain_path(filename)
        if file in self.files:
            raise InputError(f"{filename} occurs twice; a clip must have exactly one row.")
        self.files.add(file)
        if category not in self.target_of:
            self._refuse_similar(category)
        if target is not None and (other := self.category_of.setdefault(target, category)) != category:
            raise InputError(
                f"target {target} is named {category!r} here and {other!r} before; a target must have one class name."
            )
        if (before := self.target_of.setdefault(category, target)) != target:
            raise InputError(
                f"class {category!r} has target {target} here and {before} before; a class name must have one target."
            )

    def _refuse_similar(self, name: str) -> None:
        """Refuse a new class whose name looks like that of another, as a copy from another file system may."""
        other = self.name_of.setdefault(comparable_name(name), name)
        if other != name:
            raise InputError(
                f"class {name!a} differs from {other!a} only in case or in the Unicode form of accents. Give "
                "both one name, or rename one."
            )
