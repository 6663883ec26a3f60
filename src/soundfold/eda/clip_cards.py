"""Clips of a collection, to see and to hear: examples of each class, copies, and the variations of one clip."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from markupsafe import Markup
from matplotlib.figure import Figure

from soundfold.data.attribution import Attribution, attribution
from soundfold.data.store import to_int16
from soundfold.eda.analysis import CollectionAnalysis
from soundfold.eda.augmentation_gallery import GalleryItem, augmentation_gallery
from soundfold.eda.inversion import invert
from soundfold.eda.plots import gallery_figure
from soundfold.features.logmel import LogMel
from soundfold.features.pipeline import FrontEnd
from soundfold.io.pcm import pcm_to_float
from soundfold.report.clip_figure import clip_figure
from soundfold.report.drawing import inline_svg, save_figure
from soundfold.report.page import audio_uri, display_name

PAIRS = 3


@dataclass(frozen=True)
class Card:
    """A clip on the page.

    Attributes:
        name: its heading.
        note: a line below.
        picture: as inline SVG.
        audio: data URI; None where no sound was asked for.
        attribution: whose sound it is.
    """

    name: str
    note: str
    picture: Markup
    audio: str | None
    attribution: Attribution | None


@dataclass(frozen=True)
class ClipCards:
    """Makes cards of a survey's clips and keeps their pictures.

    Attributes:
        found: the survey.
        logmel: of the pictures.
        named: see `soundfold.data.attribution.read_attributions`.
        folder: of the pictures, see `save_figure`.
        audio: whether cards can be heard.
    """

    found: CollectionAnalysis
    logmel: LogMel
    named: dict[str, Attribution]
    folder: Path
    audio: bool

    def examples(self, count: int) -> Iterable[tuple[str, list[Card]]]:
        """Per class up to ``count`` cards, from the most to the least typical clip."""
        for target, rows in self.found.examples(count).items():
            places = ["most typical", *["in between"] * (len(rows) - 2), "least typical"][: len(rows)]
            yield (
                display_name(self.found.table.classes[target]),
                [self._clip(row, place) for row, place in zip(rows, places, strict=True)],
            )

    def copies(self) -> list[tuple[str, list[Card]]]:
        """The pairs most alike, side by side."""
        row_of = {self.found.table.files[clip]: row for row, clip in enumerate(self.found.usable)}
        return [
            (
                f"Alike by {pair['similarity']:.3f}",
                [
                    self._clip(row_of[pair[side]], f"source {source}")
                    for side, source in zip(("first", "second"), pair["sources"], strict=True)
                ],
            )
            for pair in self.found.sound.near[:PAIRS]
        ]

    def varied(self, front_end: FrontEnd, row: int, seed: int) -> list[Card]:
        """One clip and its variations, inverted from their log-mels; their grid is kept as one figure."""
        waves = self.found.waves
        shown: list[Card] = []
        file = self._file(row)
        made = augmentation_gallery(front_end, torch.from_numpy(waves.samples[row]), seed)
        if made:
            seconds = [self._seconds(one) for one in made]
            save_figure(gallery_figure(made, seconds), self.folder, "augmentations")
        for one in made:
            figure = clip_figure(None, self._seconds(one), one.level.numpy(), self._centres())
            sound = None
            if self.audio:
                wave = invert(one.level[None], self.logmel)[0].numpy()
                sound = audio_uri(to_int16(wave, len(wave)), waves.sample_rate)
            picture = inline_svg(figure, f"Log-mel of {file}, {one.name}")
            # once is enough: all are the same clip
            shown.append(Card(one.name, "", picture, sound, None if shown else self._whose(row)))
        return shown

    def _clip(self, row: int, note: str) -> Card:
        found, file = self.found, self._file(row)
        clip, waves = found.usable[row], found.waves
        wave, rate = waves.samples[row], waves.sample_rate
        level = self.logmel(pcm_to_float(torch.from_numpy(np.asarray(wave))[None]))[0, 0].numpy()
        figure = clip_figure(pcm_to_float(wave), len(wave) / rate, level, self._centres())
        self._keep(figure, file)
        described = f"{found.descriptors['rms_db'][row]:.0f} dBFS, centroid {found.descriptors['centroid'][row]:.0f} Hz"
        name = display_name(found.table.classes[found.table.targets[clip]])
        return Card(
            name=file,
            note=f"{note}; fold {found.table.folds[clip]}; {described}".replace("; -", "; −"),
            picture=inline_svg(figure, f"Waveform and log-mel of {file}, {name}"),
            audio=audio_uri(wave[: waves.lengths[row]], rate) if self.audio else None,
            attribution=self._whose(row),
        )

    def _keep(self, figure: Figure, file: str) -> None:
        save_figure(figure, self.folder, f"clip-{Path(file).with_suffix('').as_posix().replace('/', '-')}")

    def _file(self, row: int) -> str:
        return self.found.table.files[self.found.usable[row]]

    def _whose(self, row: int) -> Attribution:
        return attribution(self._file(row), self.found.table.sources[self.found.usable[row]], self.named)

    def _centres(self) -> np.ndarray:
        return self.logmel.edges[1:-1].numpy()

    def _seconds(self, one: GalleryItem) -> float:
        return (one.level.shape[1] - 1) * self.logmel.hop_length / self.found.waves.sample_rate
