"""Properties of a fold's computation that its configuration leaves open, and that the folds of a run must share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from soundfold.errors import InputError


@dataclass(frozen=True)
class Property:
    """A recorded property of the computation.

    Attributes:
        meaning: what the value is, for messages.
        remedy: how to train the folds alike, a sentence.
        older: value of folds that do not record it; None: they are not compared.
        resumes: an interrupted fold is resumed with its own value; otherwise it is refused where the value is another.
    """

    meaning: str
    remedy: str
    older: Any = None
    resumes: bool = False


# older folds record no precision: their configuration fixed it
PROPERTIES = {
    "precision": Property(
        "the precision of trainer.precision=auto",
        "Train every fold with trainer.precision=32-true, which is another run, or on hardware of one kind: "
        "rerun=true trains a fold again.",
        resumes=True,
    ),
    "draws": Property(
        "the version of the random draws of augmentation", "Train every fold again, with fold=all rerun=true.", older=1
    ),
}


def check_alike(run: str, folds: Mapping[int, Mapping[str, Any]]) -> None:
    """Check that folds were computed alike, so that their scores can be averaged.

    Args:
        run: name or id of the run, for the message.
        folds: recorded properties of each fold, see `PROPERTIES`.

    Raises:
        InputError: two folds differ in a property.
    """
    for name, entry in PROPERTIES.items():
        groups: dict[Any, list[int]] = {}
        for fold, computed in folds.items():
            if (value := computed.get(name, entry.older)) is not None:
                groups.setdefault(value, []).append(fold)
        if len(groups) > 1:
            found = ", ".join(f"{value} in fold {', '.join(map(str, group))}" for value, group in groups.items())
            raise InputError(
                f"The folds of {run} were computed differently, so they have no common score: {entry.meaning} is "
                f"{found}. {entry.remedy}"
            )


def resumed(fold: str, stored: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties that an interrupted fold is resumed with.

    Args:
        fold: name of the fold, for the message.
        stored: properties in its checkpoint.
        current: those of a new fold.

    Raises:
        InputError: it differs in a property that it cannot be resumed with.
    """
    values = {}
    for name, value in current.items():
        entry = PROPERTIES[name]
        before = stored.get(name, entry.older)
        if before not in (None, value) and not entry.resumes:
            raise InputError(
                f"{fold} was interrupted when {entry.meaning} was {before}, and it is {value} now, so the fold cannot "
                f"be resumed. {entry.remedy}"
            )
        values[name] = value if before is None else before
    return values
