"""Measure how the cost of a training step grows with the collection, clip length, mel bands and batch size."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.tables import measured_on, write_results
from benchmarks.timing import Timing, measure
from benchmarks.workload import FOLDS, noise, step_of, trained
from soundfold.data.loader import ClipBatches
from soundfold.experiment import environment
from soundfold.experiment.device import choose_device

RATE, SECONDS, CLASSES = 44100, 5.0, 50
MELS, BATCH = 128, 16
LENGTHS, BANDS, BATCHES, COLLECTIONS = (1.0, 2.0, 5.0, 10.0), (32, 64, 128), (4, 16, 64), (500, 2000, 10000, 50000)


def run(device: str, repeats: int, outputs: Path) -> Path:
    """Measure and print, and write ``scaling-<device>.md`` and ``.json``.

    Args:
        device: ``cpu`` or ``cuda``.
        repeats: number of turns of each size.
        outputs: folder for both files.

    Raises:
        InputError: the device is not available.
    """
    target = choose_device(device)
    # value, clip length in s, mel bands, batch size
    axes: dict[str, list[tuple[float, float, int, int]]] = {
        "clip, s": [(value, value, MELS, BATCH) for value in LENGTHS],
        "mels": [(value, SECONDS, value, BATCH) for value in BANDS],
        "batch": [(value, SECONDS, MELS, value) for value in BATCHES],
    }
    rows = []
    for axis, sizes in axes.items():
        methods: dict[str, Callable[[], Any]] = {
            f"{value:g}": _step(target, seconds, mels, batch) for value, seconds, mels, batch in sizes
        }
        timings = measure(methods, repeats, target)
        for value, _, _, batch in sizes:
            rows.append(row(axis, value, timings[f"{value:g}"], batch))
    rows += _collections(target, repeats)
    header = {
        **environment.describe(target),
        "date": time.strftime("%Y-%m-%d"),
        "repeats": repeats,
        "resident_clips": resident_clips(torch.cuda.mem_get_info(target)[0]) if device == "cuda" else None,
    }
    return write_results(
        outputs / f"scaling-{device}", {"header": header, "rows": rows}, markdown(header, rows), width=160
    )


def _step(device: torch.device, seconds: float, mels: int, batch: int) -> Callable[[], Any]:
    """Return a function that runs a training step, front end included, on one batch."""
    overrides = (
        f"features.n_mels={mels}",
        f"data.batch_size={batch}",
        "trainer.max_epochs=1",
        "model.channels_last=true",
    )
    collection = noise(-(-batch // 4) * FOLDS, seconds, RATE, CLASSES)
    with tempfile.TemporaryDirectory() as folder:
        clock = trained(collection, Path(folder), device, 0, *overrides)
    step, raw = step_of(clock), next(iter(clock.data.train_dataloader()))
    return lambda: step(raw)


def _collections(device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """Time fetching a batch, the only cost that grows with the collection: streamed, and from the device if it fits."""
    rows = []
    for clips in COLLECTIONS:
        with tempfile.TemporaryDirectory() as folder:
            # memory-mapped like the packed store, but sparse, so that it takes no disk space
            shape = (clips, round(RATE * SECONDS))
            store = np.memmap(Path(folder) / "samples", dtype=np.int16, mode="w+", shape=shape)
            streamed = torch.from_numpy(store)
            methods = {"streamed": _fetch(streamed, device)}
            if device.type == "cuda" and streamed.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
                methods["on_device"] = _fetch(streamed.to(device), device)
            timings = measure(methods, repeats, device)
            for source, timing in timings.items():
                axis = "clips, mapped" if device.type == "cpu" else f"clips, {source}"
                rows.append(row(axis, clips, timing, BATCH) | {"bytes": streamed.nbytes})
            del methods, streamed, store
    return rows


def _fetch(samples: torch.Tensor, device: torch.device) -> Callable[[], Any]:
    batches = ClipBatches(
        samples,
        torch.zeros(len(samples), dtype=torch.int64),
        np.arange(len(samples)),
        BATCH,
        device,
        torch.Generator(device),
        (0,),
    )
    walk = iter(batches)

    def fetch() -> Any:
        nonlocal walk
        batch = next(walk, None)
        if batch is None:
            batches.set_epoch(batches.epoch + 1)
            walk = iter(batches)
            batch = next(walk)
        return batch

    return fetch


def row(axis: str, value: float, timing: Timing, batch: int) -> dict[str, Any]:
    """Return the figures of one size."""
    return {"axis": axis, "value": value, "ms_per_clip": 1000 * timing.median / batch, "peak_bytes": timing.peak_bytes}


def resident_clips(free: int) -> int:
    """Return the number of 5 s clips that fit in less than half of the free bytes; `SoundDataModule` streams others."""
    return (free - 1) // (2 * 2 * round(RATE * SECONDS))


def markdown(header: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return the table with its caption."""
    lines = [
        f"A training step with its front end (5 s at {RATE} Hz, {MELS} mels, 501 frames and batch {BATCH} "
        "unless the row differs); for collections, only the fetching of a batch. Medians of "
        f"{header['repeats']} turns; float32, channels-last.",
        f"{measured_on(header)}, torch {header['versions']['torch']}.",
        "",
        "| axis | value | ms a clip | over the least | added MB |",
        "|---|---|---|---|---|",
    ]
    least: dict[str, float] = {}
    for each in rows:
        least[each["axis"]] = min(least.get(each["axis"], float("inf")), each["ms_per_clip"])
    for each in rows:
        peak = "?" if each["peak_bytes"] is None else f"{each['peak_bytes'] / 1e6:.0f}"
        size = f" ({each['bytes'] / 1e9:.2f} GB)" if "bytes" in each else ""
        lines.append(
            f"| {each['axis']} | {each['value']:g}{size} | {each['ms_per_clip']:.2f} "
            f"| {each['ms_per_clip'] / least[each['axis']]:.2f} | {peak} |"
        )
    clips = header["resident_clips"]
    lines += [
        "",
        "On a CPU, every collection is memory-mapped, and nothing is streamed."
        if clips is None
        else f"This device holds up to {clips} clips of 5 s; larger collections are streamed.",
    ]
    return "\n".join(lines) + "\n"
