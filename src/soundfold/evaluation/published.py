"""Published five-fold accuracies on ESC-50 and ESC-10, ranked together with runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from soundfold.evaluation.compare import RunResult


@dataclass(frozen=True)
class Published:
    """Accuracies in %, None if the source reports none, and the sample rate in kHz, None if not looked up."""

    name: str
    esc50: float | None
    esc10: float | None
    protocol: str
    source: str
    khz: float | None = None


FIGURES = (
    Published("Human listeners", 81.3, 95.7, "crowd-sourced listening", "Piczak, ACM Multimedia 2015", 44.1),
    Published("Piczak CNN", 64.5, None, "five folds, from scratch", "Piczak, IEEE MLSP 2015", 22.05),
    Published(
        "EnvNet-v2, between-class learning, strong augmentation",
        84.9,
        91.4,
        "five folds, from scratch",
        "Tokozume et al., ICLR 2018",
        44.1,
    ),
    Published(
        "ACDNet",
        87.1,
        96.65,
        "five folds, from scratch; best epoch chosen on the test fold",
        "Mohaimenuzzaman et al., Pattern Recognition 2023",
        20,
    ),
    Published("ESResNet-Att", None, 94.25, "five folds, from scratch", "Guzhov et al., ICPR 2020"),
    Published("ResNet-18, ImageNet", 89.54, None, "five folds, 80 epochs, last epoch, five seeds", "a public run"),
    Published("AST, ImageNet and AudioSet", 95.6, None, "five folds", "Gong et al., Interspeech 2021"),
    Published("BEATs, AudioSet", 98.1, None, "five folds", "Chen et al., ICML 2023"),
)

# number of clips, classes and folds of the collections
PUBLISHED_SIZES = {"esc50": (2000, 50, 5), "esc10": (400, 10, 5)}


@dataclass(frozen=True)
class LeaderboardRow:
    """A row of the leaderboard: accuracy in %, and whether it is one of the user's runs."""

    name: str
    accuracy: float
    protocol: str
    source: str
    own: bool = False


def published_rows(collection: str, runs: Sequence[LeaderboardRow] = ()) -> list[LeaderboardRow]:
    """Rank runs among the published figures on ``esc50`` or ``esc10``, best first; empty for another collection."""
    published = [
        LeaderboardRow(figure.name, accuracy, figure.protocol, figure.source)
        for figure in FIGURES
        if (accuracy := getattr(figure, collection, None)) is not None
    ]
    return sorted([*published, *runs], key=lambda row: -row.accuracy) if published else []


def published_leaderboard(runs: Sequence[RunResult]) -> list[LeaderboardRow]:
    """Rank the runs that scored the entire collection without leaks among the published figures.

    Empty if there is no such run, or if the runs are of several collections.
    """
    if len({run.collection for run in runs}) != 1:
        return []
    ranked = [
        LeaderboardRow(run.name, 100 * run.total.accuracy, f"split={run.total.protocol}", "this run", own=True)
        for run in runs
        if not run.total.leaky
        and PUBLISHED_SIZES.get(run.collection) == (len(run.clips), len(run.total.classes), len(run.total.folds))
    ]
    return published_rows(runs[0].collection, ranked) if ranked else []
