"""Write the tables of measured results from the files under docs/results: python scripts/results.py"""

import argparse
import re
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from soundfold.errors import InputError, exit_code_of
from soundfold.io.atomic import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
# pages with tables: <!-- results NAME --> up to <!-- end -->
PAGES = (ROOT / "README.md",)
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
    tables = {"recipes": recipes, "leakage": leakage, "ablations": ablations}
    if name not in tables:
        raise InputError(f"<!-- results {name} --> is unknown. The tables are {', '.join(tables)}.")
    return tables[name]()


def recipes() -> str:
    """Return the runs under the official folds, best first, among published figures from scratch."""
    from soundfold.evaluation.published import FIGURES

    header = ["recipe or publication", "seeds", "clips", "accuracy %", "95 % interval", "minutes", "hardware", "commit"]
    rows = []
    for facts, cv in _runs():
        if facts["recipe"].startswith("seed_"):  # in the table of leakage
            continue
        low, high = (100 * bound for bound in cv["interval"])
        cells = [
            f"**`{facts['command']}`**, 16 kHz",
            facts["seeds"],
            cv["n"],
            f"**{100 * cv['accuracy']:.2f} ± {100 * cv['accuracy_sd']:.2f}**",
            f"{low:.1f} to {high:.1f}",
            facts["minutes"],
            f"{facts['hardware']}, {facts['date']}",
            facts["commit"],
        ]
        rows.append((cv["accuracy"], cells))
    for figure in FIGURES:
        if figure.esc50 is not None and ("from scratch" in figure.protocol or "listen" in figure.protocol):
            cells = [
                f"{figure.name} ({figure.source}; {figure.protocol}), 44.1 kHz",
                "",
                2000,
                f"{figure.esc50}",
                *[""] * 4,
            ]
            rows.append((figure.esc50 / 100, cells))
    return _markdown(header, [cells for _, cells in sorted(rows, key=lambda row: -row[0])])


def leakage() -> str:
    """Return the published notebook's training under its own protocol and under the official folds."""
    header = ["experiment", "protocol", "training clips", "repeats or folds", "accuracy %", "leakage"]
    rows = []
    for facts, cv in _runs():
        if not facts["recipe"].startswith("seed_"):
            continue
        audits = [fold["audit"] for fold in cv["folds"]]
        images = sorted({audit["images"] for audit in audits})
        train, test = audits[0]["train"], audits[0]["test"]
        copies = "" if images == [train] else f", as {images[0]:,} to {images[-1]:,} images"
        rows.append(
            [
                f"`{facts['recipe']}`",
                f"{cv['protocol']}{', **leaky**' if cv['leaky'] else ''}",
                f"{train:,}{copies}",
                len(cv["folds"]),
                f"{100 * cv['accuracy']:.1f} ± {100 * cv['accuracy_sd']:.1f}",
                _leak(audits[0], test),
            ]
        )
    return _markdown(header, sorted(rows, key=lambda row: ("augmented" in row[0], "honest" in row[0])))


def _leak(audit: dict[str, int], test: int) -> str:
    if audit["same_clip"]:
        return f"{audit['same_clip']} of {test} are training clips"
    if audit["same_source_and_class"]:
        return f"{audit['same_source_and_class']} of {test} share source and class"
    return "none"


def ablations() -> str:
    """Return the validation accuracy of each setting and its difference to the base, in percentage points."""
    folder = RESULTS / "ablations"
    scores = {path.name: _validation(path) for path in folder.iterdir() if path.is_dir()}
    base = scores.pop("base")
    rows: list[list[Any]] = []
    for name, folds in scores.items():
        shared = sorted(base.keys() & folds.keys())
        differences = [100 * (folds[fold] - base[fold]) for fold in shared]
        rows.append(
            [
                f"`{name}`",
                len(shared),
                f"{100 * mean(folds.values()):.2f}",
                f"{mean(differences):+.2f}",
                _verdict(differences),
            ]
        )
    rows.sort(key=lambda row: -float(row[3]))
    reference = ["`base`", len(base), f"{100 * mean(base.values()):.2f}", "", "reference"]
    return _markdown(
        ["setting", "validation folds", "accuracy %", "difference", "95 % interval of the difference"],
        [reference, *rows],
    )


def _verdict(differences: list[float]) -> str:
    """Return Student's interval of a mean difference over folds, and whether it holds zero."""
    if len(differences) < 2:
        return "one fold only"
    from scipy.stats import t

    half = t.ppf(0.975, len(differences) - 1) * stdev(differences) / len(differences) ** 0.5
    low, high = mean(differences) - half, mean(differences) + half
    return f"{low:+.1f} to {high:+.1f}{', no effect shown' if low <= 0 <= high else ''}"


def _validation(folder: Path) -> dict[int, float]:
    """Return the validation accuracy of each fold."""
    results = [_read(path) for path in sorted(folder.glob("fold*/result.json"))]
    return {result["fold"]: result["val_accuracy"] for result in results}


def _runs() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [
        (yaml.safe_load(path.read_text()), _read(path.parent / "cv.json"))
        for path in sorted(RESULTS.glob("*/result.yaml"))
    ]


def _read(path: Path) -> dict[str, Any]:
    # without the check of config.yaml, which names folders of the machine and is not committed
    from soundfold.io.atomic import loads_with_checksum

    return loads_with_checksum(path.read_text(), require_checksum=True)


def _markdown(header: list[str], rows: list[list[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(exit_code_of(main))
