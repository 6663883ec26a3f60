"""Model cards: Markdown beside each ``weights.pt`` and export, with the metadata header of the Hugging Face Hub.

The header's keys are those of https://huggingface.co/docs/hub/model-cards. M. Mitchell et al., Model Cards for Model
Reporting, 2019, doi 10.1145/3287560.3287596, names what a card should answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from soundfold.evaluation.compare import RunResult, load_run
from soundfold.evaluation.results import FoldResult, fold_folders, load_config
from soundfold.experiment.model_bundle import WEIGHTS
from soundfold.io.atomic import write_text
from soundfold.io.console import escape_markdown
from soundfold.report.page import display_name, render_page
from soundfold.report.scores import mean_and_sd, metric_names, score_label, score_text
from soundfold.report.shortcuts import load_shortcuts

MAX_CONFUSIONS = 8


@dataclass(frozen=True)
class CardSource:
    """What the cards of a run's models are written from.

    Attributes:
        run: the run's folder.
        results: of each finished fold by its name, ``1``, ``2``, ... or ``none``.
        config: all values, of the first fold.
        scored: the scored folds with their predictions; None if there is none.
        shortcuts: see `load_shortcuts`.
    """

    run: Path
    results: dict[str, FoldResult]
    config: dict[str, Any]
    scored: RunResult | None
    shortcuts: list[list[str]] | None

    @classmethod
    def load(cls, run: Path) -> CardSource:
        """Read the results of a run's finished folds.

        Raises:
            InputError: a file cannot be read.
        """
        folders = {name: folder for name, folder in fold_folders(run).items() if (folder / "result.json").is_file()}
        results = {name: FoldResult.load(folder / "result.json") for name, folder in folders.items()}
        config = load_config(next(iter(folders.values())) / "config.yaml") if folders else {}
        scored = load_run(run) if any(result.n for result in results.values()) else None
        classes = next(iter(results.values())).classes if results else ()
        shortcuts = load_shortcuts(run, str(config["data"]["name"]), classes) if config else None
        return cls(run, results, config, scored, shortcuts)


def write_fold_cards(run: Path) -> None:
    """Write ``fold<k>/checkpoints/weights.md`` beside the ``weights.pt`` of each finished fold.

    Raises:
        InputError: a file of the run cannot be read.
        OSError: a card cannot be written.
    """
    source = CardSource.load(run)
    for name in source.results:
        if (weights := run / f"fold{name}" / WEIGHTS).is_file():
            # not beside its place: a process that opens the fold removes partial files there
            part = run / "card.part"
            write_text(part, model_card(source, [name], loading_text(weights.name)))
            part.replace(weights.with_suffix(".md"))


def model_card(source: CardSource, folds: Sequence[str], loading: str, tags: Sequence[str] = ()) -> str:
    """Return the card of a model, or of the mean of several models.

    Args:
        source: of the run.
        folds: names of the folds whose models are described.
        loading: Markdown that shows how to load the model.
        tags: of the header, beside those of every model.
    """
    results = [source.results[name] for name in folds]
    single = results[0] if len(results) == 1 else None
    confusion = single.confusion if single is not None and single.n else source.scored and source.scored.total.confusion
    card = render_page(
        "model_card.md.j2",
        header=yaml.safe_dump(_header(source, results, tags), sort_keys=False, allow_unicode=True).strip(),
        title=escape_markdown(source.run.name) + _title_end(single),
        summary=_summary(source, results),
        scores=_scores(source, results),
        judgment=_judgment(source, results),
        data=_data(source, results),
        shortcuts=_shortcuts(source),
        confusions=_confusions(confusion, results[0].classes) if confusion else [],
        limits=_limits(source),
        loading=loading.strip(),
        training=_training(source, results),
    )
    return re.sub(r"\n{3,}", "\n\n", card)


def _header(source: CardSource, results: Sequence[FoldResult], tags: Sequence[str]) -> dict[str, Any]:
    data = source.config["data"]
    header: dict[str, Any] = {
        "license": data.get("license") or "unknown",
        "library_name": "soundfold",
        "pipeline_tag": "audio-classification",
        "tags": ["environmental-sound", "log-mel", str(data["name"]), *tags],
    }
    scored = _scored_by(source, results)
    if scored is None or source.scored is None or source.scored.total.leaky:
        return header
    names = ["accuracy", *metric_names(results)]
    header["metrics"] = [name for name in names if scored.get(name) is not None]
    header["model-index"] = [
        {
            "name": source.run.name,
            "results": [
                {
                    "task": {"type": "audio-classification"},
                    "dataset": {"type": str(data["name"]), "name": str(data["name"]), "split": scored["split"]},
                    "metrics": [
                        {"type": name, "name": score_label(name, ", %"), "value": float(score_text(name, scored[name]))}
                        for name in header["metrics"]
                    ],
                }
            ],
        }
    ]
    return header


def _scored_by(source: CardSource, results: Sequence[FoldResult]) -> dict[str, Any] | None:
    """Return the scores that stand for the model: of a single fold its own, of several the mean over the folds."""
    if len(results) == 1:
        (result,) = results
        return {**result.as_dict(), "split": f"fold {result.fold}"} if result.n else None
    total = source.scored.total if source.scored is not None else None
    if total is None:
        return None
    split = f"mean of {len(total.folds)} folds"
    return {**total.metrics, "accuracy": total.accuracy, "split": split}


def _summary(source: CardSource, results: Sequence[FoldResult]) -> str:
    classes, data, model = results[0].classes, source.config["data"], source.config["model"]
    network = str(model["_target_"]).rpartition(".")[2]
    subject = "A model" if len(results) == 1 else f"The mean of {len(results)} models, one per fold,"
    return (
        f"{subject} that assigns a recording to one of {len(classes)} classes of environmental sound. The network "
        f"{escape_markdown(network)} reads log-mel spectrograms of {data['seconds']:g} s at {data['sample_rate']} Hz. "
        f"Trained on {escape_markdown(str(data['name']))} with soundfold."
    )


def _scores(source: CardSource, results: Sequence[FoldResult]) -> dict[str, Any] | None:
    names = ["accuracy", *metric_names(results)]
    rows = []
    for result in results:
        if result.n:
            values = result.as_dict()
            rows.append((f"fold {result.fold}", [result.n, *(score_text(name, values.get(name)) for name in names)]))
    total = source.scored.total if source.scored is not None else None
    if total is not None and (len(total.folds) > 1 or not rows):
        rows.append((f"mean ± sd, {len(total.folds)} folds", [total.n, *(mean_and_sd(total, name) for name in names)]))
    return {"columns": ["clips", *(score_label(name, ", %") for name in names)], "rows": rows} if rows else None


def _judgment(source: CardSource, results: Sequence[FoldResult]) -> list[str]:
    """Return sentences on what the scores mean."""
    run, lines = source.scored, []
    if run is None:
        return ["The model has no score: no fold of its run has been scored."]
    if run.total.leaky:
        lines.append("**The protocol leaks: clips related to the scored ones trained the model. Scores are too high.**")
    low, high = run.interval
    lines.append(
        f"Pooled accuracy over {run.total.n} clips {100 * run.total.correct / run.total.n:.2f} %, 95 % interval "
        f"{100 * low:.2f} to {100 * high:.2f} % (bootstrap over sources). Protocol: `{run.total.protocol}`. Shared by "
        f"scored clips and training: {run.leaks()}."
    )
    if not run.total.is_complete:
        lines.append(f"The cross-validation is incomplete: {run.total.part}.")
    if len(results) > 1:
        lines.append(
            "Each clip was scored by the model that was not trained on it. The mean of all models has no score on this "
            "collection, since each clip trained some of them."
        )
    if results[0].fold is None:
        lines.append("The scores are those of the cross-validation. This model was trained on every clip.")
    return lines


def _data(source: CardSource, results: Sequence[FoldResult]) -> list[str]:
    data = source.config["data"]
    train = sorted({result.audit["train"] for result in results})
    counts = f"{train[0]}" if len(train) == 1 else f"{train[0]} to {train[-1]}"
    license_name = data.get("license")
    return [
        f"Collection: {escape_markdown(str(data['name']))}; training clips: {counts}; folds: {len(results[0].folds)}.",
        f"License of the clips: {escape_markdown(license_name)}. The header states it for the weights, too; "
        "change it if you may."
        if license_name
        else "License of the clips: unknown (`data.license`). State one before you publish the model.",
        f"Classes: {', '.join(escape_markdown(display_name(name)) for name in results[0].classes)}.",
    ]


def _shortcuts(source: CardSource) -> str:
    rows = source.shortcuts
    if rows is None or len(rows) < 2:
        return "Not audited. `soundfold explore` measures how much a linear model knows from the files alone."
    header, *classes = rows
    sentences = []
    for name in ("file_facts", "band_limit", "all_cues"):
        if (column := f"{name}_recall_percent") in header:
            recalls = [float(row[header.index(column)]) for row in classes if row[header.index(column)]]
            sentences.append(f"{name.replace('_', ' ')} {np.mean(recalls):.1f} %")
    return (
        "Mean recall over classes of a linear model that sees only the files' technical properties, under the same "
        f"folds: {', '.join(sentences)} (chance {100 / len(classes):.1f} %). A network can learn from them, too."
    )


def _confusions(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> list[tuple[str, str, int]]:
    counts = np.array(confusion)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:MAX_CONFUSIONS]
    cells = [divmod(int(cell), len(classes)) for cell in order]
    names = [escape_markdown(display_name(name)) for name in classes]
    return [(names[t], names[p], int(counts[t, p])) for t, p in cells if counts[t, p]]


def _limits(source: CardSource) -> list[str]:
    data = source.config["data"]
    return [
        f"Input: mono, {data['sample_rate']} Hz, {data['seconds']:g} s. Other rates are resampled, longer recordings "
        "are scored in overlapping windows, shorter ones padded with zeros.",
        "Each recording gets one of the classes, also if it holds none of them or several.",
        "Scores hold for recordings like those of the collection; microphones, places and background noise differ.",
    ]


def _training(source: CardSource, results: Sequence[FoldResult]) -> list[str]:
    facts: dict[str, list[Any]] = {
        "Command": [f"`{result.command}`" if result.command else None for result in results],
        "Commit": [result.environment.get("commit") for result in results],
        "Hardware": [
            "; ".join(str(result.environment[key]) for key in ("device", "processor") if result.environment.get(key))
            for result in results
        ],
        "Precision": [result.computed.get("precision") for result in results],
        "soundfold": [result.environment.get("versions", {}).get("soundfold") for result in results],
    }
    lines = []
    for label, values in facts.items():
        if known := list(dict.fromkeys(str(value) for value in values if value)):
            lines.append(f"{label}: {', '.join(known)}")
    minutes = sum(result.seconds for result in results) / 60
    steps = sorted({result.steps for result in results})
    lines.append(f"Steps: {', '.join(map(str, steps))}; minutes in all: {minutes:.1f}; seed: {results[0].seed}")
    return lines


def _title_end(result: FoldResult | None) -> str:
    if result is None:
        return ""
    return ", trained on every clip" if result.fold is None else f", fold {result.fold}"


def loading_text(model: str) -> str:
    """Return Markdown that loads a model, a path or a name on the Hugging Face Hub, in Python and in a shell."""
    return f"""```python
import soundfile
from soundfold import Predictor

predictor = Predictor.load("{model}")
prediction = predictor(*soundfile.read("recording.wav"))
print(prediction.top(3))
```

```bash
soundfold predict {model} recording.wav
```
"""
