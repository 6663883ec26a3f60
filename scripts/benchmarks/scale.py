"""Measure the cost of a clip in collections of 2,000 to 500,000: table, audit, packed store, and reading an epoch."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from benchmarks.tables import measured_on, write_results
from soundfold.data.folds import assign_folds
from soundfold.data.leakage import audit, seen_clips
from soundfold.data.loader import ClipBatches
from soundfold.data.read_ahead import ClipReader
from soundfold.data.splits import Protocol, make_split
from soundfold.data.store import Waveforms, open_store
from soundfold.data.tables import ClipTable, read_table
from soundfold.evaluation.predictions import load_predictions, predictions_csv
from soundfold.evaluation.statistics import accuracy_interval
from soundfold.experiment import environment
from soundfold.io.memory import available_memory

RATE, SECONDS, FOLDS, CLASSES, CLIPS_PER_SOURCE = 16000, 1.0, 5, 50, 4
SIZES = (2000, 10000, 50000, 500000)
# clips of a batch, and seconds that its consumer takes without the processor, as a GPU does
BATCH, STEP = 64, 0.005
# of a shuffled epoch that are read: a mapped file on a cold disk may take minutes for so many
BATCHES = 50
CPU = torch.device("cpu")
Row = dict[str, Any]


def run(clips: int, outputs: Path) -> Path:
    """Measure and print, and write ``scale.md`` and ``.json``.

    Args:
        clips: the largest collection of real files. Larger ones have a table, and a sparse file in place of the store.
        outputs: folder for both files, and for temporary ones: 65 kB per clip.
    """
    rows = []
    for size in SIZES:
        with tempfile.TemporaryDirectory(dir=outputs) as folder:
            rows.append(_measure(Path(folder), size, size <= clips))
    header = {**environment.describe(CPU), "date": time.strftime("%Y-%m-%d"), "memory": available_memory()}
    return write_results(outputs / "scale", {"header": header, "rows": rows}, markdown(header, rows), width=200)


def _measure(folder: Path, clips: int, is_real: bool) -> Row:
    """Return the seconds per clip of each part, of processor or, for epochs, wall time, and the peak memory so far."""
    row: Row = {"clips": clips, "is_real": is_real}
    _write_table(folder / "clips.csv", clips)
    table = _timed(row, "table", clips, lambda: read_table(folder / "clips.csv"))
    _timed(row, "folds", clips, lambda: assign_folds(table.targets, table.sources, table.classes, FOLDS))
    split = make_split(table, Protocol("nested"), 1)
    hashes = table.files
    _timed(row, "audit", clips, lambda: (audit(table, split, hashes), seen_clips(table, split, hashes)))
    _timed(row, "results", clips, lambda: _score(table, folder / "predictions.csv"))
    if is_real:
        _write_audio(folder, table)
        for name in ("build", "open"):
            path = _timed(row, name, clips, lambda: _open(folder, table))
    else:
        path = _write_sparse(folder / "samples.npy", clips)
    row["store_mb"], row["peak_mb"] = path.stat().st_size / 1e6, _peak_mb()
    waves = _map(path)
    memory = available_memory()
    if is_real and (memory is None or waves.samples.nbytes < memory / 2):
        loaded = replace(waves, samples=np.array(waves.samples))
        row["memory"] = _epoch(loaded, None)
        del loaded
    del waves
    for name in ("mapped", "ahead"):
        _drop_from_cache(path)
        waves = _map(path)
        row[name] = _epoch(waves, ClipReader(waves) if name == "ahead" else None)
        # pages that are mapped cannot be dropped
        del waves
    row["epoch_peak_mb"] = _peak_mb()
    return row


def _timed(row: Row, name: str, clips: int, work: Callable[[], Any]) -> Any:
    # of all threads, so that other work on the machine does not count
    started = time.process_time()
    result = work()
    row[name] = (time.process_time() - started) / clips
    return result


def _write_table(path: Path, clips: int) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.write("filename,fold,target,category,src_file\n")
        for i in range(clips):
            source = i // CLIPS_PER_SOURCE
            target = source // FOLDS % CLASSES
            stream.write(f"{i:07d}.wav,{source % FOLDS + 1},{target},class {target},{source}\n")


def _score(table: ClipTable, path: Path) -> None:
    """Write and read the predictions of a fold, and compute the interval of the accuracy over all clips."""
    rng = np.random.default_rng(0)
    test = np.flatnonzero(table.folds == 1)
    path.write_text(
        predictions_csv(table, test, rng.standard_normal((len(test), CLASSES)).astype(np.float32)), encoding="utf-8"
    )
    load_predictions(path, table.classes)
    accuracy_interval(rng.random(len(table)) < 0.8, table.sources)


def _write_audio(folder: Path, table: ClipTable) -> None:
    rng = np.random.default_rng(0)
    (folder / "audio").mkdir()
    for name in table.files:
        soundfile.write(folder / "audio" / name, rng.integers(-3000, 3000, round(SECONDS * RATE), np.int16), RATE)


def _open(folder: Path, table: ClipTable) -> Path:
    """Open the packed store, and return the file of its samples."""
    cache = folder / "cache"
    open_store(folder / "audio", table.files, seconds=SECONDS, sample_rate=RATE, cache=cache)
    return next(cache.glob("*/samples.npy"))


def _write_sparse(path: Path, clips: int) -> Path:
    np.lib.format.open_memmap(path, "w+", np.int16, (clips, round(SECONDS * RATE)))
    return path


def _map(path: Path) -> Waveforms:
    samples = np.load(path, mmap_mode="c")
    return Waveforms(samples, np.full(len(samples), samples.shape[1]), (), RATE, "")


def _drop_from_cache(path: Path) -> None:
    """Remove a file from the page cache, so that it is read from the disk."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _epoch(waves: Waveforms, reader: ClipReader | None) -> float:
    """Return the seconds per clip of the first batches of a shuffled epoch."""
    samples, targets = torch.from_numpy(waves.samples), torch.zeros(len(waves.samples), dtype=torch.int64)
    batches = ClipBatches(samples, targets, np.arange(len(samples)), BATCH, CPU, torch.Generator(), (0,), reader=reader)
    started, clips = time.perf_counter(), 0
    for wave, *_ in islice(batches, BATCHES):
        clips += len(wave)
        time.sleep(STEP)
    return (time.perf_counter() - started) / clips


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def markdown(header: Row, rows: list[Row]) -> str:
    """Return the table with its caption."""
    columns = {
        "table": "read table",
        "folds": "make folds",
        "audit": "audit a split",
        "results": "predictions and interval",
        "build": "build store",
        "open": "open store",
        "memory": "epoch in memory",
        "mapped": "epoch mapped",
        "ahead": "epoch read ahead",
    }
    lines = [
        f"Microseconds per clip: of processor time, and for epochs of wall time. Clips of {SECONDS:g} s at {RATE} Hz, "
        f"{CLASSES} classes, {CLIPS_PER_SOURCE} clips of each source. Of an epoch, {BATCHES} batches of {BATCH} are "
        f"read, each consumed in {1000 * STEP:g} ms, which is {1e6 * STEP / BATCH:.0f} a clip; mapped and read ahead "
        "from a file that was removed from the page cache. Sizes marked * have no audio; their store is a sparse file, "
        "which reads no disk.",
        f"{measured_on(header)}; available memory {(header['memory'] or 0) / 1e9:.1f} GB.",
        "",
        f"| clips | store, MB | {' | '.join(columns.values())} | peak memory so far, MB |",
        f"|{'---|' * (len(columns) + 3)}",
    ]
    for row in rows:
        cells = [f"{1e6 * row[name]:.1f}" if name in row else "" for name in columns]
        mark = "" if row["is_real"] else "*"
        lines.append(
            f"| {row['clips']}{mark} | {row['store_mb']:.0f} | {' | '.join(cells)} "
            f"| {row['peak_mb']:.0f}, with epochs {row['epoch_peak_mb']:.0f} |"
        )
    return "\n".join(lines) + "\n"
