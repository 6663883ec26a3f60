"""Cards with picture and sound: examples of each class, near duplicates, and augmentations of one clip."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from markupsafe import Markup

from soundfold.data.attribution import Attribution, attribution
from soundfold.data.store import to_int16
from soundfold.eda.analysis import CollectionAnalysis
from soundfold.eda.augmentation_gallery import GalleryItem, augmentation_gallery
from soundfold.eda.inversion import invert
from soundfold.eda.plots import gallery_figure
from soundfold.features.logmel import LogMel
from soundfold.features.pipeline import FrontEnd
from soundfold.io.atomic import short_stem
from soundfold.io.pcm import pcm_to_float
from soundfold.report.clip_figure import clip_figure
from soundfold.report.drawing import inline_svg, save_figure
from soundfold.report.page import audio_uri, display_name

MAX_DUPLICATES = 3


@dataclass(frozen=True)
class Card:
    """A clip on the page.

    Attributes:
        name: heading.
        note: line below the heading.
        picture: inline SVG.
        audio: data URI, or None if sound is disabled.
        attribution: of the clip, or None if another card of the same clip has it.
    """

    name: str
    note: str
    picture: Markup
    audio: str | None
    attribution: Attribution | None


@dataclass(frozen=True)
class ClipCards:
    """Makes cards of analyzed clips and saves their pictures.

    Attributes:
        analysis: of the collection.
        logmel: computes the pictures.
        attributions: see `soundfold.data.attribution.read_attributions`.
        folder: for the pictures, see `save_figure`.
        audio: whether cards have sound.
    """

    analysis: CollectionAnalysis
    logmel: LogMel
    attributions: dict[str, Attribution]
    folder: Path
    audio: bool

    def examples(self, n_examples: int) -> Iterable[tuple[str, list[Card]]]:
        """Yield each class with up to ``n_examples`` cards, from the most to the least typical clip."""
        for target, rows in self.analysis.examples(n_examples).items():
            notes = ["most typical", *["in between"] * (len(rows) - 2), "least typical"][: len(rows)]
            cards = [self._clip_card(row, note) for row, note in zip(rows, notes, strict=True)]
            yield display_name(self.analysis.table.classes[target]), cards

    def duplicates(self) -> list[tuple[str, list[Card]]]:
        """Return the most similar pairs of clips, with a heading each."""
        row_of = {self.analysis.table.files[clip]: row for row, clip in enumerate(self.analysis.usable)}
        pairs = []
        for pair in self.analysis.sound.near[:MAX_DUPLICATES]:
            sides = zip((pair["first"], pair["second"]), pair["sources"], strict=True)
            cards = [self._clip_card(row_of[file], f"source {source}") for file, source in sides]
            pairs.append((f"Similarity {pair['similarity']:.3f}", cards))
        return pairs

    def augmentations(self, front_end: FrontEnd, row: int, seed: int) -> list[Card]:
        """Return cards of one clip and its augmentations, with sound inverted from the log-mels; save one figure."""
        waves, file = self.analysis.waves, self._file(row)
        items = augmentation_gallery(front_end, torch.from_numpy(waves.samples[row]), seed)
        if items:
            figure = gallery_figure(items, [self._seconds(item) for item in items])
            save_figure(figure, self.folder, "augmentations")
        cards: list[Card] = []
        for item in items:
            figure = clip_figure(None, self._seconds(item), item.log_mel.numpy(), self._band_centers())
            audio = None
            if self.audio:
                wave = invert(item.log_mel[None], self.logmel)[0].numpy()
                audio = audio_uri(to_int16(wave, len(wave)), waves.sample_rate)
            picture = inline_svg(figure, f"Log-mel of {file}, {item.name}")
            cards.append(Card(item.name, "", picture, audio, None if cards else self._attribution(row)))
        return cards

    def _clip_card(self, row: int, note: str) -> Card:
        analysis, file = self.analysis, self._file(row)
        clip, waves = analysis.usable[row], analysis.waves
        samples, rate = waves.samples[row], waves.sample_rate
        wave = pcm_to_float(samples)
        log_mel = self.logmel(torch.from_numpy(wave[None]))[0, 0].numpy()
        figure = clip_figure(wave, len(wave) / rate, log_mel, self._band_centers())
        stem = f"clip-{Path(file).with_suffix('').as_posix().replace('/', '-')}"
        save_figure(figure, self.folder, short_stem(stem))
        rms_db, centroid = (analysis.descriptors[name][row] for name in ("rms_db", "centroid"))
        class_name = display_name(analysis.table.classes[analysis.table.targets[clip]])
        return Card(
            name=file,
            note=f"{note}; fold {analysis.table.folds[clip]}; {rms_db:.0f} dBFS, centroid {centroid:.0f} Hz".replace(
                "; -", "; −"
            ),
            picture=inline_svg(figure, f"Waveform and log-mel of {file}, {class_name}"),
            audio=audio_uri(samples[: waves.lengths[row]], rate) if self.audio else None,
            attribution=self._attribution(row),
        )

    def _file(self, row: int) -> str:
        return self.analysis.table.files[self.analysis.usable[row]]

    def _attribution(self, row: int) -> Attribution:
        return attribution(self._file(row), self.analysis.table.sources[self.analysis.usable[row]], self.attributions)

    def _band_centers(self) -> np.ndarray:
        return self.logmel.edges[1:-1].numpy()

    def _seconds(self, item: GalleryItem) -> float:
        return (item.log_mel.shape[1] - 1) * self.logmel.hop_length / self.analysis.waves.sample_rate
