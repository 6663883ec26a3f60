"""The tables of measured results, from the files under ``docs/results``: one page of tables and a page for each run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import results
import yaml
from pages import table, write_pages
from sphinx.application import Sphinx

from soundfold.evaluation.metrics import class_metrics

INDEX = """# Measured results

Every table is made from the `result.json`, `cv.json` and `predictions.csv` of finished runs, which are stored in
`docs/results`; the figures of ESC-10 were recorded when they were measured. Commands are arguments of
`soundfold train`. Accuracies are means over folds ± their standard deviation; intervals are by bootstrap over source
recordings. Only measured settings have a row.

## Recipes

Folds of ESC-50, `split=benchmark`: each fold is scored once, with the weights of the last step or their average.

{recipes}
## ESC-10

{esc10}
## All runs

The figures and commands of each run; a leaky run scores clips whose copies or sources were in its training set.

{runs}
```{{toctree}}
:hidden:

{names}
```

## A published notebook under two protocols

The same training under the notebook's own protocol, which leaks, and under the official folds. The commands are those
of the table above.

{leakage}
## Ablations

One setting changed at a time: `soundfold train {base} OVERRIDES`, scored on validation folds only.
{collection}; {hardware}; {date}; commit {commit}.

{ablations}"""


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", lambda app: write_pages(Path(app.srcdir) / "reference" / "results", pages()))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def pages() -> dict[str, str]:
    """Return the pages by file name: all tables, and a page for each run."""
    runs = sorted(results.stored_runs(), key=lambda run: run[2].name)
    index = INDEX.format(
        recipes=results.table("recipes"),
        esc10=results.table("esc10"),
        runs=_runs(runs),
        names="\n".join(folder.name for _, _, folder in runs),
        leakage=results.table("leakage"),
        ablations=results.table("ablations"),
        **yaml.safe_load((results.RESULTS / "ablations" / "ablation.yaml").read_text()),
    )
    return {"index.md": index} | {f"{folder.name}.md": _run_page(facts, cv) for facts, cv, folder in runs}


def _runs(runs: list[results.Run]) -> str:
    header = ["run", "protocol", "seed", "clips", "accuracy %", "command", "minutes", "hardware", "date", "commit"]
    rows = [
        [
            f"[{folder.name}]({folder.name}.md)",
            _protocol(cv),
            cv["seed"],
            f"{cv['n']:,}",
            _accuracy(cv),
            f"`{facts['command']}`",
            *(facts[name] for name in ("minutes", "hardware", "date", "commit")),
        ]
        for facts, cv, folder in runs
    ]
    return table(header, [[str(cell) for cell in row] for row in rows])


def _protocol(cv: dict[str, Any]) -> str:
    return cv["protocol"] + (", **leaky**" if cv["leaky"] else "")


def _accuracy(cv: dict[str, Any]) -> str:
    return f"{100 * cv['accuracy']:.2f} ± {100 * cv['accuracy_sd']:.2f}"


def _run_page(facts: dict[str, Any], cv: dict[str, Any]) -> str:
    low, high = (100 * edge for edge in cv["interval"])
    seed = "" if cv["seed"] == 0 else f" seed={cv['seed']}"
    return (
        f"# {facts['recipe']}, seed {cv['seed']}\n\n"
        f"Accuracy {_accuracy(cv)} % on {facts['collection']}, split={_protocol(cv)}; 95 % interval {low:.1f} to "
        f"{high:.1f} %, {cv['n']:,} clips.\n\n"
        f"```bash\nsoundfold train {facts['command']}{seed}\n```\n\n"
        f"{facts['minutes']} minutes; {facts['hardware']}; {facts['date']}; commit {facts['commit']}.\n\n"
        f"## Folds\n\n{_folds(cv)}\n## Classes\n\n{_classes(cv)}"
    )


def _folds(cv: dict[str, Any]) -> str:
    header = ["fold", "clips", "accuracy %", "macro F1 %", "loss", "epochs", "steps", "seconds"]
    rows = [
        [
            *(f"{fold[name]:,}" for name in ("fold", "n")),
            *(f"{100 * fold[name]:.2f}" for name in ("accuracy", "f1")),
            f"{fold['loss']:.3f}",
            *(f"{fold[name]:,.0f}" for name in ("epochs", "steps", "seconds")),
        ]
        for fold in cv["folds"]
    ]
    return table(header, rows)


def _classes(cv: dict[str, Any]) -> str:
    """Return the classes, best F1 first, with the class that each is most often taken for."""
    confusion = np.array(cv["confusion"])
    metrics = class_metrics(confusion)
    wrong = confusion - np.diag(np.diag(confusion))
    rows = []
    for index in np.argsort(-metrics.f1, kind="stable"):
        other = wrong[index].argmax()
        taken = f"{cv['classes'][other]} ({wrong[index, other]})" if wrong[index, other] else ""
        figures = [f"{100 * values[index]:.1f}" for values in (metrics.f1, metrics.precision, metrics.recall)]
        rows.append([cv["classes"][index], str(metrics.clips[index]), *figures, taken])
    return table(["class", "clips", "F1 %", "precision %", "recall %", "most often taken for (clips)"], rows)
