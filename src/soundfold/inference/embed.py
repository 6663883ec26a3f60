"""Embed files one after the other; the work of ``soundfold embed``."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from soundfold import __version__
from soundfold.data.embeddings import COLUMNS, EmbeddingBatch, check_suffix, write_embeddings
from soundfold.errors import ArgumentError, InputError, printable
from soundfold.experiment.device import choose_device
from soundfold.inference.own_clips import OwnClips, read_own_clips
from soundfold.inference.predictor import Predictor
from soundfold.inference.waveforms import PcmStream
from soundfold.io.audio import Recording, audio_files
from soundfold.io.console import Terminal, console, escape_bytes

NAME = "embeddings"


@dataclass(frozen=True)
class Embedder:
    """Embeds files with each of a predictor's models.

    Attributes:
        predictor: the models.
        source: what the models were loaded from, so that a reader of the embeddings finds them again.
        own: clips of the collection that the models were trained on; None if it is not available.
        hop: seconds from one window to the next; None is half a window.
        layer: see `soundfold.models.layers.layer_vectors`.
        unseen_only: leave out the models that a clip, or one of its source and class, trained or selected.
    """

    predictor: Predictor
    source: Path
    own: OwnClips | None = None
    hop: float | None = None
    layer: str | None = None
    unseen_only: bool = False

    def about(self) -> dict[str, Any]:
        """Return the facts that a reader of the vectors needs, for `write_embeddings`."""
        predictor = self.predictor
        return {
            "format": 1,
            "version": __version__,
            "source": str(self.source.resolve() if self.source.exists() else self.source),
            "models": {model.fold: model.bundle.digest() for model in predictor.models},
            "layer": self.layer,
            "window": predictor.seconds,
            "hop": predictor.hop_samples(self.hop) / predictor.sample_rate,
            "sample_rate": predictor.sample_rate,
            "classes": list(predictor.classes),
        }

    def rows(self, path: Path) -> Iterator[EmbeddingBatch]:
        """Yield the rows of a file: of each window, one per model. Memory does not grow with the recording's length.

        Raises:
            InputError: the file is not audio, has no samples or samples that are not finite.
        """
        recording = Recording.open(path)
        stream = PcmStream(recording.blocks(), recording.sample_rate, self.predictor.sample_rate)
        clip = None if self.own is None else self.own.row(path)
        described, seen = self._described(path, clip), self._seen(clip)
        for windows in self.predictor.embed_stream(stream, self.hop, self.layer):
            seen |= {*windows.seen_in_training}
            used = [
                (model.fold, vectors)
                for model, vectors in zip(self.predictor.models, windows.vectors, strict=True)
                if not (self.unseen_only and model.fold in seen)
            ]
            if not used:
                continue
            n_windows, n_models = len(windows.starts), len(used)
            rows = {name: [value] * (n_windows * n_models) for name, value in described.items()}
            rows["start"], rows["end"] = (np.tile(edges, n_models).tolist() for edges in (windows.starts, windows.ends))
            rows["model"] = [fold for fold, _ in used for _ in range(n_windows)]
            rows["seen"] = [fold in seen for fold in rows["model"]]
            yield EmbeddingBatch(rows, np.concatenate([vectors for _, vectors in used]))

    def _described(self, path: Path, clip: int | None) -> dict[str, Any]:
        values: dict[str, Any] = dict.fromkeys(COLUMNS) | {"file": escape_bytes(str(path))}
        if self.own is not None and clip is not None:
            table = self.own.table
            values |= {"filename": table.files[clip], "source": table.sources[clip], "fold": int(table.folds[clip])}
            values["target"] = table.classes[table.targets[clip]]
        return values

    def _seen(self, clip: int | None) -> set[str]:
        if self.own is None or clip is None:
            return set()
        return {model.fold for model in self.predictor.models if self.own.trained(model, clip)}


def embed(args: Namespace) -> int:
    """Write embeddings of files, or of the model's own collection, to one file.

    Unreadable files are reported and skipped.

    Args:
        args: arguments of ``soundfold embed``.

    Returns:
        The exit code: 1 if a file was skipped.

    Raises:
        InputError: the model, its collection, a folder or an option cannot be used, or no file could be embedded.
    """
    predictor = Predictor.load(args.run, args.fold, choose_device(args.device, "--device"))
    predictor.hop_samples(args.hop)  # refuse an invalid hop once, not for every file
    own = _own_clips(predictor, args.data, required=not args.files)
    embedder = Embedder(predictor, args.run, own, args.hop, args.layer, args.unseen)
    files = audio_files(args.files) if args.files or own is None else own.paths
    out = args.out or default_path(args.run, args.fold, is_own=not args.files)
    return write_embedded(embedder, files, out)


def default_path(run: Path, fold: str | None, *, is_own: bool) -> Path:
    """Return the file for embeddings: beside the model for those of its collection, otherwise in ``outputs``."""
    name = f"{NAME}.parquet" if fold is None else f"{NAME}-fold{fold}.parquet"
    if not is_own or not run.exists():  # a model of the Hub has no folder here
        return Path("outputs") / name
    return (run if run.is_dir() else run.parent) / name


def write_embedded(embedder: Embedder, files: Sequence[Path], out: Path) -> int:
    """Embed files and write ``out``, with progress; return 1 if a file was reported and skipped, else 0.

    Raises:
        InputError: no file could be embedded, or ``out`` cannot be written.
    """
    check_suffix(out)
    models = embedder.predictor.models
    if len(models) > 1:
        console.print(
            f"A row per window and model, of folds {', '.join(model.fold for model in models)}. Each model has a space "
            "of its own: compare vectors of one model only (column model).",
            soft_wrap=True,
        )
    errors: list[str] = []
    with _progress(console, len(files)) as advance:
        n_rows, size = write_embeddings(out, _all_rows(embedder, files, advance, errors), embedder.about())
    for error in errors:
        console.print(f"error: {error}", soft_wrap=True)
    if not n_rows:
        raise InputError(
            "No file could be embedded, see the errors above."
            if errors
            else "No row is left by --unseen: every model was trained on every one of these clips. Omit it."
        )
    console.print(f"{n_rows} vectors of {size} values: {escape_bytes(str(out))}", soft_wrap=True)
    return 1 if errors else 0


def _all_rows(
    embedder: Embedder, files: Sequence[Path], advance: Callable[[str], None], errors: list[str]
) -> Iterator[EmbeddingBatch]:
    for path in files:
        try:
            yield from embedder.rows(path)
        except ArgumentError:
            raise
        except InputError as error:
            errors.append(escape_bytes(str(error)))
        advance(printable(path.name))


def _own_clips(predictor: Predictor, root: Path | None, *, required: bool) -> OwnClips | None:
    """Return the clips of the models' collection; None if it is not there and not required."""
    # the models of a run share their collection
    with nullcontext() if required or root else suppress(InputError):
        return read_own_clips(predictor.models[0].bundle, root)
    return None


@contextmanager
def _progress(terminal: Terminal, total: int) -> Iterator[Callable[[str], None]]:
    """Show a bar over files; yield a function to call after each, with its name."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal, transient=True) as progress:
        task = progress.add_task("Embedding", total=total)
        yield lambda name: progress.update(task, advance=1, description=f"Embedding {name}")
