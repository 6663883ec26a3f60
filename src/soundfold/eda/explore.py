"""Exploratory analysis of a collection: measure it, and write a page with figures and tables."""

from __future__ import annotations

import difflib
from pathlib import Path

from omegaconf import DictConfig

from soundfold.data.attribution import read_attributions
from soundfold.data.collection import DOWNLOADERS
from soundfold.data.layouts import find_layout
from soundfold.eda.analysis import CollectionAnalysis, analyze_collection
from soundfold.eda.clip_cards import ClipCards
from soundfold.eda.collection_audit import duplicates_csv
from soundfold.eda.csv_tables import classes_csv, clips_csv, cues_csv, shortcuts_csv
from soundfold.eda.page import Media, write_eda_page
from soundfold.eda.progress import show_progress
from soundfold.errors import InputError
from soundfold.experiment import build
from soundfold.experiment.device import choose_device
from soundfold.features.pipeline import FrontEnd
from soundfold.io.atomic import write_text
from soundfold.io.console import console
from soundfold.validation import config_keys


@config_keys("data", "paths")
def explore(cfg: DictConfig) -> Path:
    """Analyze the collection and write page, figures and tables to ``<paths.outputs>/explore-<name>/``.

    Returns:
        Path of the page.

    Raises:
        InputError: the collection is not available, its table is invalid, or none of its files can be decoded.
    """
    root = Path(cfg.data.root)
    analysis = _analyze(cfg, root)
    row = _clip_row(analysis, cfg.clip)
    folder = Path(cfg.paths.outputs) / f"explore-{analysis.name}"
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        write_text(folder / "clips.csv", clips_csv(analysis))
        write_text(folder / "classes.csv", classes_csv(analysis))
        write_text(folder / "duplicates.csv", duplicates_csv(analysis.sound))
        if analysis.shortcuts is not None:
            write_text(folder / "shortcuts.csv", shortcuts_csv(analysis.shortcuts))
            write_text(folder / "cues.csv", cues_csv(analysis, analysis.shortcuts))
        front_end = _front_end(cfg, analysis)
        cards = ClipCards(analysis, front_end.logmel, read_attributions(root), folder / "figures", cfg.audio)
        examples = show_progress("Drawing examples", cards.examples(cfg.examples), len(analysis.table.classes))
        media = Media(
            examples=list(examples) if cfg.examples else [],
            duplicates=cards.duplicates() if cfg.examples else [],
            augmentations=cards.augmentations(front_end, row, cfg.seed),
            augmented_clip=analysis.table.files[analysis.usable[row]],
        )
        page = write_eda_page(folder, analysis, media)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written: {error}. Set paths.outputs to a folder that can be written."
        ) from error
    console.print(f"Written to {page}", soft_wrap=True)
    return page


def _analyze(cfg: DictConfig, root: Path) -> CollectionAnalysis:
    cache, options = Path(cfg.paths.cache), build.table_options(cfg)
    layout = find_layout(cfg.data.layout, options)
    if cfg.data.download is not None:
        DOWNLOADERS[cfg.data.download](root)
    return analyze_collection(
        cfg.data.name,
        layout.read(root, cache, options),
        root / layout.audio,
        build.logmel(cfg),
        seconds=cfg.data.seconds,
        sample_rate=cfg.data.sample_rate,
        cache=cache,
        device=choose_device(cfg.device),
        progress=show_progress,
    )


def _front_end(cfg: DictConfig, analysis: CollectionAnalysis) -> FrontEnd:
    """Return a front end normalized by all usable clips, without a resize, which could not be inverted to sound."""
    front_end = FrontEnd(build.logmel(cfg), None, build.augmentation(cfg))
    mean, std = analysis.normalization
    front_end.mean.fill_(mean)
    front_end.std.fill_(std)
    return front_end


def _clip_row(analysis: CollectionAnalysis, clip: str | None) -> int:
    """Return the row of the clip to augment: the named one, or the most typical clip of the first class."""
    if clip is None:
        return next(iter(analysis.examples(1).values()))[0]
    names = [analysis.table.files[i] for i in analysis.usable]
    if clip not in names:
        near = difflib.get_close_matches(clip, names, n=1, cutoff=0.0)
        raise InputError(f"clip={clip} is not one of the clips that can be decoded. Did you mean {near[0]}?")
    return names.index(clip)
