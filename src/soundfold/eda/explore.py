"""A collection explored: what is in it, what is wrong with it, what it looks and sounds like."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track

from soundfold.data.attribution import read_attributions
from soundfold.data.collection import DOWNLOADERS
from soundfold.data.layouts import LAYOUTS
from soundfold.eda.analysis import CollectionAnalysis, analyze_collection, classes_csv, clips_csv
from soundfold.eda.clip_cards import ClipCards
from soundfold.eda.collection_audit import duplicates_csv
from soundfold.eda.page import write_eda_page
from soundfold.errors import InputError
from soundfold.experiment import build
from soundfold.experiment.device import choose_device
from soundfold.features.pipeline import FrontEnd
from soundfold.io.atomic import write_text
from soundfold.validation import config_keys


@config_keys("data", "paths")
def explore(cfg: DictConfig) -> Path:
    """CollectionAnalysis the collection and write ``<paths.outputs>/explore-<name>/``: page, figures and tables.

    Returns:
        The page.

    Raises:
        InputError: the collection cannot be had, its table breaks a rule, or none of its files can be decoded.
    """
    console = Console(stderr=True)
    options: Any = OmegaConf.to_container(cfg.data, resolve=True)
    root, cache = Path(options["root"]), Path(cfg.paths.cache)
    layout = LAYOUTS[options["layout"]]
    if options["download"] is not None:
        DOWNLOADERS[options["download"]](root)
    table = layout.read(root, cache, build.table_options(cfg))

    def shown(description: str, items: Iterable, total: int) -> Iterable:
        return track(items, description=description, total=total, console=console)

    found = analyze_collection(
        options["name"],
        table,
        root / layout.audio,
        build.logmel(cfg),
        seconds=options["seconds"],
        sample_rate=options["sample_rate"],
        cache=cache,
        device=choose_device(cfg.device),
        progress=shown,
    )
    varied_row = _row(found, cfg.clip)
    folder = Path(cfg.paths.outputs) / f"explore-{options['name']}"
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        tables = {"clips": clips_csv(found), "classes": classes_csv(found), "duplicates": duplicates_csv(found.sound)}
        for name, text in tables.items():
            write_text(folder / f"{name}.csv", text)
        front_end = _front_end(cfg, found)
        studio = ClipCards(found, front_end.logmel, read_attributions(root), folder / "figures", cfg.audio)
        examples = list(shown("Drawing", studio.examples(cfg.examples), len(table.classes))) if cfg.examples else []
        page = write_eda_page(
            folder,
            found,
            examples,
            studio.copies() if cfg.examples else [],
            studio.varied(front_end, varied_row, cfg.seed),
            table.files[found.usable[varied_row]],
        )
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error}. Give paths.outputs=DIRECTORY.") from error
    console.print(f"Written to {page}", soft_wrap=True)
    return page


def _front_end(cfg: DictConfig, found: CollectionAnalysis) -> FrontEnd:
    """Without a resize, which nothing could be heard through; normalize as by all clips."""
    front_end = FrontEnd(build.logmel(cfg), None, build.augmentation(cfg))
    mean, deviation = found.band_statistics
    front_end.mean.fill_(mean)
    front_end.std.fill_(deviation)
    return front_end


def _row(found: CollectionAnalysis, clip: str | None) -> int:
    """The clip to vary, as a row of the survey: the named one, or the most typical of the first class."""
    if clip is None:
        return next(iter(found.examples(1).values()))[0]
    names = [found.table.files[i] for i in found.usable]
    if clip not in names:
        near = difflib.get_close_matches(clip, names, n=1, cutoff=0.0)
        raise InputError(f"clip={clip} is not among the clips that can be decoded. Did you mean {near[0]}?")
    return names.index(clip)
