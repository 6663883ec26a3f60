"""Find sounds that are similar to a recording; the work of ``soundfold similar``."""

from __future__ import annotations

from argparse import Namespace
from os.path import realpath
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text

from soundfold.data.embeddings import EmbeddingFile
from soundfold.errors import InputError, printable
from soundfold.evaluation.novelty import unit_vectors
from soundfold.experiment.device import choose_device
from soundfold.inference.predictor import Predictor
from soundfold.inference.waveforms import PcmStream
from soundfold.io.audio import Recording
from soundfold.io.console import Terminal, console, escape_bytes


def similar(args: Namespace) -> None:
    """Print the sounds of an index that are nearest to a recording, and write a page to hear them.

    Args:
        args: arguments of ``soundfold similar``.

    Raises:
        InputError: the index, its model or the recording cannot be used.
    """
    index = EmbeddingFile(args.index)
    about = index_facts(index)
    model = _chosen_model(about["models"], args.fold, args.index)
    predictor = load_indexed_model(about, model, args.model, choose_device(args.device, "--device"))
    recording = Recording.open(args.file)
    stream = PcmStream(recording.blocks(), recording.sample_rate, predictor.sample_rate)
    query = np.concatenate([batch.vectors[0] for batch in predictor.embed_stream(stream, None, about["layer"])])
    # one more: the recording itself may be in the index
    found = nearest(index, query, model, args.top + 1)
    found = found[[realpath(file) != realpath(args.file) for file in found["file"]]][: args.top]
    _print_table(args.file, found)
    if not args.no_page:
        # imported here: plotting takes a second to import
        from soundfold.inference.similar_page import write_similar_page

        page = write_similar_page(args.page or default_page(args.file), args.file, found, predictor)
        console.print(f"Page: {escape_bytes(str(page))}", soft_wrap=True)


def default_page(recording: Path) -> Path:
    """Return the page for a recording."""
    return Path("outputs") / "similar" / f"{escape_bytes(recording.stem)}.html"


def index_facts(index: EmbeddingFile) -> dict[str, Any]:
    """Return what an index says about its vectors: ``source``, ``models`` and ``layer``.

    Raises:
        InputError: another program wrote it.
    """
    about = index.about or {}
    types = {"source": str, "models": dict, "layer": str | None}
    if not all(name in about and isinstance(about[name], kind) for name, kind in types.items()):
        raise InputError(
            f"{index.path} does not name the model of its vectors, so no recording can be compared with them. Use a "
            "file of `soundfold embed`."
        )
    return about


def load_indexed_model(about: dict[str, Any], model: str, moved: Path | None = None, device: Any = "cpu") -> Predictor:
    """Load the model that made the vectors of an index.

    Args:
        about: see `index_facts`.
        model: name of one of its models.
        moved: where the run or the model is now; None is where it was.
        device: of the computation.

    Raises:
        InputError: it is not there, or has other weights.
    """
    source = moved or Path(about["source"])
    is_single = source.is_file() and source.suffix != ".zip"
    try:
        predictor = Predictor.load(source, None if is_single else model, device)
    except InputError as error:
        raise InputError(f"The model of the index cannot be loaded. {error} If it has moved, add --model.") from error
    if predictor.models[0].bundle.digest() != about["models"][model]:
        raise InputError(
            f"The model at {source} is not the one of the index: it has other weights, and another space. Embed the "
            "sounds again, or name the model of the index by --model."
        )
    return predictor


def nearest(index: EmbeddingFile, query: np.ndarray, model: str, top: int) -> pd.DataFrame:
    """Return the files of an index with the largest cosine similarity: the best window of each, most similar first.

    The search is exact. The similarity of a window is its largest one to a window of the query.

    Args:
        index: read block by block, so memory does not grow with it.
        query: float32 (W, D).
        model: the model that embedded the query.
        top: number of files.

    Returns:
        The columns of the index, and ``similarity``.

    Raises:
        InputError: the index has vectors of another size, or none of the model.
    """
    directions = unit_vectors(query)
    best: pd.DataFrame | None = None
    for rows, vectors in index.blocks():
        chosen = (rows["model"] == model).to_numpy()
        if vectors.shape[1] != query.shape[1]:
            raise InputError(
                f"{index.path} has vectors of {vectors.shape[1]} values, and its model gives {query.shape[1]}. Write "
                "the index again."
            )
        rows, vectors = rows[chosen], vectors[chosen]
        norms = np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
        similarity = (vectors @ directions.T / norms[:, None]).max(axis=1, initial=-1)
        both = (
            pd.concat([best, rows.assign(similarity=similarity)])
            if best is not None
            else rows.assign(similarity=similarity)
        )
        best = both.sort_values("similarity", ascending=False, kind="stable").drop_duplicates("file")[:top]
    if best is None or best.empty:
        raise InputError(f"{index.path} has no vector of the model {model}.")
    return best.reset_index(drop=True)


def _chosen_model(models: dict[str, str], fold: str | None, path: Path) -> str:
    if fold is not None and fold not in models:
        raise InputError(f"--fold={fold}: {path} has the models of folds {', '.join(models)}.")
    chosen = fold or next(iter(models))
    if fold is None and len(models) > 1:
        console.print(
            f"Compared in the space of the model of fold {chosen}; --fold chooses among {', '.join(models)}.",
            soft_wrap=True,
        )
    return chosen


def _print_table(query: Path, found: pd.DataFrame) -> None:
    table = Table(title=Text(f"Sounds similar to {printable(query.name)}"))
    table.add_column("similarity", justify="right")
    table.add_column("file", overflow="fold")
    table.add_column("seconds", justify="right")
    table.add_column("class")
    for row in found.itertuples():
        seconds = f"{row.start:.1f} to {row.end:.1f}"
        # Text: names may contain brackets
        name, target = Text(printable(row.file)), Text("" if pd.isna(row.target) else printable(row.target))
        table.add_row(f"{row.similarity:.3f}", name, seconds, target)
    Terminal().print(table)
