"""Write the tables of measured results from the files under docs/results: python scripts/results.py"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pandas as pd
import yaml

from soundfold.errors import InputError, exit_code_of
from soundfold.io.atomic import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
SETTINGS = ROOT / "scripts" / "benchmarks" / "ablations.yaml"
# pages with tables: <!-- results NAME --> up to <!-- end -->
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "explanation" / "protocols.md",
    ROOT / "docs" / "how-to" / "reproduce.md",
)
BLOCK = re.compile(r"(<!-- results (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Write the tables of measured results into the pages that show them. A table is made from the "
        "result.json of each fold and the cv.json of each run under docs/results; nothing is typed by hand.",
    )
    parser.add_argument(
        "--check", action="store_true", help="only report pages whose tables differ; exit code 1 if any"
    )
    args = parser.parse_args()
    differing = []
    for page in PAGES:
        text = page.read_text()
        updated = BLOCK.sub(lambda match: match[1] + "\n" + table(match[2]) + "\n" + match[3], text)
        if updated != text:
            differing.append(page.name)
            if not args.check:
                write_text(page, updated)
    if args.check and differing:
        print(
            f"Tables of {', '.join(differing)} differ from docs/results. Run python scripts/results.py.",
            file=sys.stderr,
        )
        return 1
    return 0


def table(name: str) -> str:
    """Return a table as Markdown.

    Raises:
        InputError: there is no table of this name.
    """
    # imported here: it uses this module
    from results_summary import esc10, summary

    tables = {"recipes": recipes, "leakage": leakage, "ablations": ablations, "summary": summary, "esc10": esc10}
    if name not in tables:
        raise InputError(f"<!-- results {name} --> is unknown. The tables are {', '.join(tables)}.")
    return tables[name]()


def recipes() -> str:
    """Return the runs under the official folds, best first, among published figures from scratch."""
    from soundfold.evaluation.published import FIGURES

    header = ["recipe or publication", "seeds", "clips", "accuracy %", "95 % interval", "minutes", "hardware", "commit"]
    rows = []
    for group in recipe_groups():
        rows.append(recipe_row(group, *over_seeds(group)))
        if len(group) > 1:
            rows.append(recipe_row(group, *_ensemble(group), of=f"ensemble of {len(group)} seeds, "))
    for figure in FIGURES:
        if figure.esc50 is not None and ("from scratch" in figure.protocol or "listen" in figure.protocol):
            cells = [
                f"{figure.name} ({figure.source}; {figure.protocol})" + (f", {figure.khz:g} kHz" if figure.khz else ""),
                "",
                2000,
                f"{figure.esc50}",
                *[""] * 4,
            ]
            rows.append((figure.esc50 / 100, cells))
    return markdown(header, [cells for _, cells in sorted(rows, key=lambda row: -row[0])])


Run = tuple[dict[str, Any], dict[str, Any], Path]


def recipe_groups() -> list[list[Run]]:
    """Return the runs under the official folds, grouped by recipe, by seed within a group."""
    groups: dict[str, list[Run]] = {}
    for facts, cv, folder in stored_runs():
        if not facts["recipe"].startswith("seed_"):  # in the table of leakage
            groups.setdefault(facts["recipe"], []).append((facts, cv, folder))
    return [sorted(group, key=lambda run: run[1]["seed"]) for group in groups.values()]


def recipe_row(group: list[Run], accuracy: float, sd: float, interval: tuple[float, float], of: str = "") -> tuple:
    facts, cv, _ = group[0]
    commits = list(dict.fromkeys(run[0]["commit"] for run in group))
    minutes = [run[0]["minutes"] for run in group]
    cells = [
        f"{of}**`{facts['command']}`**, 16 kHz",
        ", ".join(str(run[1]["seed"]) for run in group),
        cv["n"],
        f"**{100 * accuracy:.2f} ± {100 * sd:.2f}**",
        f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}",
        f"{sum(minutes):.1f}" if of else " and ".join(f"{value:.1f}" for value in minutes),
        "; ".join(dict.fromkeys(f"{run[0]['hardware']}, {run[0]['date']}" for run in group)),
        ", ".join(commits),
    ]
    return accuracy, cells


def over_seeds(group: list[Run]) -> tuple[float, float, tuple[float, float]]:
    """Return the mean accuracy over seeds, its standard deviation over folds, and its interval over sources."""
    from soundfold.evaluation.statistics import source_interval

    clips = [_predictions(run) for run in group]
    correct = np.mean([clip.logits.argmax(axis=1) == clip.targets for clip in clips], axis=0)
    sds = [run[1]["accuracy_sd"] for run in group]
    return mean(run[1]["accuracy"] for run in group), mean(sds), source_interval(correct, clips[0].sources)


def _ensemble(group: list[Run]) -> tuple[float, float, tuple[float, float]]:
    """Return the same of the mean of the seeds' probabilities."""
    from soundfold.evaluation.metrics import probabilities
    from soundfold.evaluation.statistics import source_interval

    clips = [_predictions(run) for run in group]
    mixed = np.mean([probabilities(clip.logits) for clip in clips], axis=0)
    correct = mixed.argmax(axis=1) == clips[0].targets
    folds = [float(correct[clips[0].folds == fold].mean()) for fold in np.unique(clips[0].folds)]
    return mean(folds), stdev(folds), source_interval(correct.astype(float), clips[0].sources)


@dataclass(frozen=True)
class _Clips:
    """Scored clips in the order of fold and file: targets and folds (n,), logits (n, C), sources (n,)."""

    targets: np.ndarray
    logits: np.ndarray
    folds: np.ndarray
    sources: list[str]


def _predictions(run: Run) -> _Clips:
    frame = pd.concat([pd.read_csv(path) for path in sorted(run[2].glob("fold*/predictions.csv"))])
    frame = frame.sort_values(["fold", "filename"])
    classes = [name.removeprefix("logit_") for name in frame if name.startswith("logit_")]
    targets = frame["target"].map(classes.index).to_numpy()
    logits = frame[[f"logit_{name}" for name in classes]].to_numpy()
    return _Clips(targets, logits, frame["fold"].to_numpy(), [str(source) for source in frame["source"]])


def leakage() -> str:
    """Return the published notebook's training under its own protocol and under the official folds."""
    header = ["experiment", "protocol", "training clips", "repeats or folds", "accuracy %", "leaking test clips"]
    rows = []
    for facts, cv, _ in stored_runs():
        if not facts["recipe"].startswith("seed_"):
            continue
        audits = [fold["audit"] for fold in cv["folds"]]
        images = sorted({audit["images"] for audit in audits})
        train = audits[0]["train"]
        copies = "" if images == [train] else f", as {images[0]:,} to {images[-1]:,} images"
        rows.append(
            [
                f"`{facts['recipe']}`",
                f"{cv['protocol']}{', **leaky**' if cv['leaky'] else ''}",
                f"{train:,}{copies}",
                len(cv["folds"]),
                f"{100 * cv['accuracy']:.1f} ± {100 * cv['accuracy_sd']:.1f}",
                _leak(audits),
            ]
        )
    return markdown(header, sorted(rows, key=lambda row: ("augmented" in row[0], "honest" in row[0])))


def _leak(audits: Sequence[dict[str, int]]) -> str:
    """Return how many test clips leak, of all repeats or folds."""
    of = f"of {sum(audit['test'] for audit in audits):,}"
    if same := sum(audit["same_clip"] for audit in audits):
        return f"{same:,} {of} are training clips"
    if shared := sum(audit["same_source_and_class"] for audit in audits):
        return f"{shared:,} {of} share source and class"
    return "none"


def ablations() -> str:
    """Return the validation accuracy of each setting and its difference to the base, in percentage points."""
    folder = RESULTS / "ablations"
    scores = {path.name: _validation(path) for path in folder.iterdir() if path.is_dir()}
    base = scores.pop("base")
    rows: list[list[Any]] = []
    for name, folds in scores.items():
        shared = sorted(base.keys() & folds.keys())
        differences = [100 * (folds[fold][0] - base[fold][0]) for fold in shared]
        rows.append(
            [
                f"`{name}`",
                len(shared),
                f"{100 * _mean(folds):.2f}",
                f"{mean(differences):+.2f}",
                ", ".join(f"{difference:+.2f}" for difference in differences),
                _verdict([folds[fold] for fold in shared], [base[fold] for fold in shared]),
            ]
        )
    rows.sort(key=lambda row: -float(row[3]))
    rows.insert(0, ["`base`", len(base), f"{100 * _mean(base):.2f}", "", "", "reference"])
    settings = yaml.safe_load(SETTINGS.read_text())["settings"]
    for row in rows:
        overrides = settings[row[0].strip("`")]
        row.append(f"`{' '.join(overrides)}`" if overrides else "")
    header = ["setting", "validation folds", "accuracy %", "difference", "by fold", "95 % interval of the difference"]
    return markdown([*header, "overrides"], rows)


Score = tuple[float, int]  # accuracy, clips


def _mean(folds: dict[int, Score]) -> float:
    return mean(accuracy for accuracy, _ in folds.values())


def _verdict(setting: Sequence[Score], base: Sequence[Score]) -> str:
    """Return the interval of the mean difference of accuracies on the same folds, and whether it holds zero.

    The normal interval of a difference of two proportions. It is conservative: both models classify the same clips,
    but predictions of validation clips are not stored, so the interval treats them as independent.
    """
    from scipy.stats import norm

    difference = mean(s[0] - b[0] for s, b in zip(setting, base, strict=True))
    variance = sum(p * (1 - p) / n for p, n in (*setting, *base)) / len(setting) ** 2
    half = norm.ppf(0.975) * variance**0.5
    low, high = 100 * (difference - half), 100 * (difference + half)
    return f"{low:+.1f} to {high:+.1f}{', no effect shown' if low <= 0 <= high else ''}"


def _validation(folder: Path) -> dict[int, Score]:
    """Return the validation score of each fold."""
    results = [_read(path) for path in sorted(folder.glob("fold*/result.json"))]
    return {result["fold"]: (result["val_accuracy"], result["audit"]["val"]) for result in results}


def stored_runs() -> list[Run]:
    return [
        (yaml.safe_load(path.read_text()), _read(path.parent / "cv.json"), path.parent)
        for path in sorted(RESULTS.glob("*/result.yaml"))
    ]


def _read(path: Path) -> dict[str, Any]:
    # without the check of config.yaml, which names folders of the machine and is not committed
    from soundfold.io.atomic import loads_with_checksum

    return loads_with_checksum(path.read_text(encoding="utf-8"))


def markdown(header: list[str], rows: list[list[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(exit_code_of(main))
