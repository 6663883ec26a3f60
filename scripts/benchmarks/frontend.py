"""Compare the front end with other libraries, on the same clips and threads."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from benchmarks.frontend_peers import HOP, LIBRARIES, MELS, N_FFT, RATE, SECONDS, Peers, find_peers
from benchmarks.tables import measured_on, write_results
from benchmarks.timing import Timing, measure
from soundfold.data.store import decode
from soundfold.data.tables import read_table
from soundfold.errors import InputError
from soundfold.experiment import environment
from soundfold.experiment.device import choose_device
from soundfold.experiment.iteration import register_generators
from soundfold.features.augment import Augmentation
from soundfold.features.augment_params import MaskSpec, ParamSampler, Uniform
from soundfold.features.logmel import LogMel
from soundfold.features.pipeline import FrontEnd
from soundfold.io.pcm import float_to_pcm

OURS = "soundfold, all augmentations"


def run(device: str, clips: int, repeats: int, root: str | Path | None, outputs: Path) -> Path:
    """Measure and print, and write ``frontend-<device>.md`` and ``.json``.

    Args:
        device: ``cpu`` or ``cuda``; librosa always runs on the CPU.
        clips: clips in the batch.
        repeats: number of timed turns of each method.
        root: an ESC-50-format collection whose clips are used; None uses synthetic noise.
        outputs: folder for both files.

    Raises:
        InputError: the device is not available, or the collection has fewer clips.
    """
    target, root = choose_device(device), None if root is None else Path(root)
    wave = _clips(clips, root).to(target)
    ours = _ours(wave)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.wav" for i in range(clips)]
        for path, clip in zip(files, wave.cpu().numpy(), strict=True):
            soundfile.write(path, clip, RATE, subtype="PCM_16")
        peers = find_peers(wave, files)
        timings = measure(ours | peers.methods, repeats, target)
    header = {
        **environment.describe(target),
        "peers": {name: _version(name) for name in LIBRARIES},
        "date": time.strftime("%Y-%m-%d"),
        "clips": clips,
        "repeats": repeats,
        "source": "synthetic noise" if root is None else f"real clips of {root.name}",
    }
    rows = [_row(name, timing, timings[OURS], clips) for name, timing in timings.items()]
    content = {"header": header, "rows": rows, "not_measured": peers.not_measured, "first_call": peers.first_call}
    return write_results(outputs / f"frontend-{device}", content, _markdown(header, rows, peers), width=200)


def _clips(clips: int, root: Path | None) -> Tensor:
    """Return int16 (clips, samples): clips evenly spaced in the collection's table, or noise."""
    samples = round(RATE * SECONDS)
    if root is None:
        return (3000 * torch.randn(clips, samples, generator=torch.Generator().manual_seed(0))).short()
    table = read_table(root / "meta" / "esc50.csv")
    if len(table) < clips:
        raise InputError(f"clips={clips}: {root} has {len(table)} clips. Set fewer clips.")
    out = np.zeros((clips, samples), dtype=np.int16)
    for row, i in zip(out, np.linspace(0, len(table) - 1, clips).astype(int), strict=True):
        mono = decode(root / "audio" / table.files[i], RATE, samples)
        row[: len(mono)] = float_to_pcm(mono)
    return torch.from_numpy(out)


def _ours(wave: Tensor) -> dict[str, Callable[[], Any]]:
    augmentation = Augmentation(
        wave.shape[1],
        time_stretch=Uniform(0.8, 1.2),
        pitch_shift=Uniform(-2, 2),
        noise_snr_db=Uniform(0, 30),
        noise_colours=(0, 1, 2),
        gain_db=Uniform(-6, 6),
        polarity=0.5,
        time_shift=Uniform(0, 1),
        time_masks=MaskSpec(2, 0.1),
        frequency_masks=MaskSpec(2, 0.1),
    )
    logmel = LogMel(RATE, N_FFT, HOP, MELS, 0.0, 20000.0)
    front = FrontEnd(logmel, augmentation=augmentation).to(wave.device)
    generator = torch.Generator(wave.device).manual_seed(0)

    counter = ParamSampler(len(wave), generator)
    augmentation.draw(counter)
    # a training draws the numbers of a whole epoch at once
    numbers = torch.rand(counter.taken, generator=generator, device=wave.device)

    def augmented(numbers: Tensor | None) -> Tensor:
        return front(wave, augmentation.draw(ParamSampler(len(wave), generator, numbers=numbers)))

    eager: dict[str, Callable[[], Any]] = {
        OURS: lambda: augmented(None),
        f"{OURS}, as in training": lambda: augmented(numbers),
        "soundfold, plain": lambda: front(wave, None),
    }
    if wave.device.type == "cpu":
        return eager
    return eager | {f"{name}, CUDA graph": _captured(method, generator) for name, method in eager.items()}


def _captured(method: Callable[[], Any], generator: torch.Generator) -> Callable[[], None]:
    """Capture a method as a CUDA graph, and return its replay."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            method()
    register_generators(graph, [generator])
    with torch.cuda.graph(graph, stream=stream):
        method()
    return graph.replay


def _row(name: str, timing: Timing, ours: Timing, clips: int) -> dict[str, Any]:
    ratios = sorted(other / own for other, own in zip(timing.seconds, ours.seconds, strict=True))
    return {
        "method": name,
        "ms_per_clip": 1000 * timing.median / clips,
        "ms_min": 1000 * min(timing.seconds) / clips,
        "ms_max": 1000 * max(timing.seconds) / clips,
        "clips_per_second": clips / timing.median,
        "peak_mb": None if timing.peak_bytes is None else timing.peak_bytes / 1e6,
        "ratio": ratios[len(ratios) // 2],
    }


def _markdown(header: dict[str, Any], rows: list[dict[str, Any]], peers: Peers) -> str:
    versions = {**header["versions"], **{k: v for k, v in header["peers"].items() if v}}
    lines = [
        f"{header['clips']} clips of {SECONDS:g} s at {RATE} Hz ({header['source']}), median of "
        f"{header['repeats']} runs in turn after a warm-up.",
        f"{measured_on(header)}; " + ", ".join(f"{name} {number}" for name, number in versions.items()),
        "",
        "| method | ms a clip | min to max | clips/s | peak MB | time over ours, augmented |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        peak = "?" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
        lines.append(
            f"| {row['method']} | {row['ms_per_clip']:.2f} | {row['ms_min']:.2f} to {row['ms_max']:.2f} "
            f"| {row['clips_per_second']:.0f} | {peak} | {row['ratio']:.2f} |"
        )
    lines += [f"| {name} | {reason} | | | | |" for name, reason in peers.not_measured.items()]
    lines += [
        "",
        "As in training: the uniform numbers are drawn beforehand. Another library applies what its row names.",
    ]
    if peers.first_call:
        compiled = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in peers.first_call.items())
        lines += ["", f"First calls, which compile and are not in the table: {compiled}."]
    return "\n".join(lines) + "\n"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
