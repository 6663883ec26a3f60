"""The audio of a run's scored clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from soundfold.data import store
from soundfold.data.layouts import find_layout
from soundfold.errors import InputError
from soundfold.evaluation.compare import RunResult
from soundfold.evaluation.results import REDO
from soundfold.experiment import build
from soundfold.io.atomic import escapes_folder


class RunAudio:
    """Reads the clips that a run scored, from the collection that it was trained on.

    Args:
        folder: of the run.
        run: see `soundfold.evaluation.compare.load_run`.

    Attributes:
        cfg: sections of the stored configuration, see `soundfold.experiment.build.stored_sections`.
        root: folder of the collection.
        cache: folder of the tables that are written for collections without one.
        sample_rate: Hz.
        seconds: length of a clip.

    Raises:
        InputError: the stored configuration is invalid.
    """

    def __init__(self, folder: Path, run: RunResult) -> None:
        self.folder = folder
        source = folder / f"fold{run.total.folds[0]['fold']}" / "config.yaml"
        self.cfg = build.stored_sections(run.config, str(source))
        if OmegaConf.is_missing(self.cfg.data, "root"):
            raise InputError(f"{source} lacks data.root, the folder of the audio. {REDO}")
        self.root = Path(self.cfg.data.root)
        self.cache = Path((run.config.get("paths") or {}).get("cache") or "cache")
        self.sample_rate, self.seconds = self.cfg.data.sample_rate, self.cfg.data.seconds
        self._audio = self.root / find_layout(self.cfg.data.layout, build.table_options(self.cfg)).audio

    def read(self, filename: str) -> tuple[np.ndarray, int]:
        """Return a clip, int16 (samples,), as it was scored, and its number of samples without zero padding.

        Raises:
            InputError: the file is no longer there or cannot be read, or its name leads out of the collection.
        """
        if escapes_folder(filename):
            raise InputError(
                f"{self.folder} has the clip {filename!r}, which is outside of the collection. Only report on runs "
                "that you trust."
            )
        samples = round(self.seconds * self.sample_rate)
        decoded = store.decode(self._audio / filename, self.sample_rate, samples)
        return store.to_int16(decoded, samples), len(decoded)
