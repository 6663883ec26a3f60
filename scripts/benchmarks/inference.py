"""Time predictions: one clip and a batch, in PyTorch and in ONNX Runtime, and a long recording."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from benchmarks.tables import measured_on, write_results
from benchmarks.timing import Timing, measure
from soundfold.config import compose_config, to_yaml
from soundfold.data.leakage import NOTHING_SEEN
from soundfold.experiment import environment
from soundfold.experiment.device import choose_device
from soundfold.experiment.model_bundle import ModelBundle
from soundfold.inference.export import export
from soundfold.inference.fold_models import FoldModel
from soundfold.inference.predictor import Predictor
from soundfold.io.pcm import pcm_to_float
from soundfold.models.resnet import ResNet18

STREAM = """
import sys, time
from soundfold.inference.predictor import Predictor

def memory(kind):
    return int(next(line for line in open("/proc/self/status") if line.startswith(kind)).split()[1])

predictor = Predictor.load(sys.argv[1], device=sys.argv[3])
before = memory("VmRSS")
started = time.perf_counter()
prediction = predictor.file(sys.argv[2], sketch=True)
print(time.perf_counter() - started, len(prediction.windows), before, memory("VmHWM"))
"""


def run(device: str, clips: int, repeats: int, outputs: Path, minutes: int = 10) -> Path:
    """Measure and print, and write ``inference-<device>.md`` and ``.json``.

    The model is untrained and has the default features of ``data=esc50``; weights do not affect speed. The long
    recording is noise, scored in windows that overlap by half; decoding and the figure's log-mel are included.

    Args:
        device: ``cpu`` or ``cuda``; ONNX Runtime is measured on the CPU.
        clips: clips in the batch.
        repeats: number of timed turns of each method.
        outputs: folder for both files.
        minutes: length of the long recording.

    Raises:
        InputError: the device is not available.
    """
    target = choose_device(device)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pt"
        bundle = _untrained_bundle()
        bundle.save(weights)
        predictor = Predictor([FoldModel("?", bundle, None, "")], target)
        wave = (3000 * torch.randn(clips, predictor.samples, generator=torch.Generator().manual_seed(0))).short()
        methods: dict[str, Callable[[], Any]] = {}
        sizes = sorted({1, clips})
        for size in sizes:
            methods[f"PyTorch, {_batch_name(size)}"] = partial(predictor.probabilities, wave[:size])
        files = {"PyTorch": weights.stat().st_size}
        if device == "cpu" and find_spec("onnxruntime") and find_spec("onnxscript"):
            path = Path(folder) / "model.onnx"
            export(predictor, path, "onnx")
            files["ONNX Runtime"] = path.stat().st_size
            for size in sizes:
                methods[f"ONNX Runtime, {_batch_name(size)}"] = _onnx(path, pcm_to_float(wave[:size].numpy()))
        timings = measure(methods, repeats, target)
        rows = [
            _row(name, timing, size, predictor.seconds, files[name.split(",")[0]])
            for (name, timing), size in zip(timings.items(), sizes * 2, strict=False)
        ]
        stream = _recording(Path(folder), weights, device, predictor.sample_rate, minutes)
    header = {
        **environment.describe(target),
        "onnxruntime": _version() if len(files) > 1 else None,
        "load": None if not hasattr(os, "getloadavg") else round(os.getloadavg()[0], 1),
        "date": time.strftime("%Y-%m-%d"),
        "clips": clips,
        "repeats": repeats,
        "seconds": predictor.seconds,
        "sample_rate": predictor.sample_rate,
    }
    content = {"header": header, "rows": rows, "recording": stream}
    return write_results(outputs / f"inference-{device}", content, _markdown(header, rows, stream), width=200)


def _untrained_bundle() -> ModelBundle:
    """Return an untrained model of the default configuration."""
    cfg = compose_config("data=esc50")
    classes = tuple(f"class {number}" for number in range(50))
    network = ResNet18(len(classes)).state_dict()
    # typical statistics of real clips
    return ModelBundle(network, torch.tensor(-30.0), torch.tensor(20.0), classes, to_yaml(cfg), NOTHING_SEEN)


def _batch_name(size: int) -> str:
    return "one clip" if size == 1 else f"batch of {size}"


def _onnx(path: Path, wave: np.ndarray) -> Callable[[], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"wave": wave})


def _row(name: str, timing: Timing, size: int, seconds: float, file: int) -> dict[str, Any]:
    per_clip = timing.median / size
    return {
        "method": name,
        "ms": 1000 * timing.median,
        "ms_min": 1000 * min(timing.seconds),
        "ms_max": 1000 * max(timing.seconds),
        "ms_per_clip": 1000 * per_clip,
        "real_time": seconds / per_clip,
        "peak_mb": None if timing.peak_bytes is None else timing.peak_bytes / 1e6,
        "file_mb": file / 1e6,
    }


def _recording(folder: Path, weights: Path, device: str, rate: int, minutes: int) -> dict[str, Any]:
    """Predict minutes of noise in a new process, to measure its memory."""
    long = folder / "long.wav"
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(long, "w", rate, 1, subtype="PCM_16") as file:
        for _ in range(minutes * 6):
            file.write((3000 * rng.standard_normal(10 * rate)).astype(np.int16))
    command = [sys.executable, "-c", STREAM, str(weights), str(long), device]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return {
        "minutes": minutes,
        "seconds": float(out[0]),
        "windows": int(out[1]),
        "real_time": 60 * minutes / float(out[0]),
        # /proc counts kilobytes
        "grown_mb": (int(out[3]) - int(out[2])) / 1e3,
        "peak_mb": int(out[3]) / 1e3,
    }


def _version() -> str:
    import onnxruntime

    return onnxruntime.__version__


def _markdown(header: dict[str, Any], rows: list[dict[str, Any]], stream: dict[str, Any]) -> str:
    versions = {**header["versions"], **({"onnxruntime": header["onnxruntime"]} if header["onnxruntime"] else {})}
    lines = [
        f"Clips of {header['seconds']:g} s at {header['sample_rate']} Hz, default features, one ResNet-18; waveform to "
        f"probabilities; median of {header['repeats']} runs in turn after a warm-up.",
        f"{measured_on(header)}; " + ", ".join(f"{name} {number}" for name, number in versions.items()),
        "",
        "| method | ms | min to max | ms a clip | times real time | peak MB | file MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        peak = "?" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
        lines.append(
            f"| {row['method']} | {row['ms']:.1f} | {row['ms_min']:.1f} to {row['ms_max']:.1f} "
            f"| {row['ms_per_clip']:.1f} | {row['real_time']:.0f} | {peak} | {row['file_mb']:.1f} |"
        )
    lines += [
        "",
        f"A recording of {stream['minutes']} min, {stream['windows']} windows: {stream['seconds']:.1f} s, "
        f"{stream['real_time']:.0f} times real time; the process grew by {stream['grown_mb']:.0f} MB to "
        f"{stream['peak_mb']:.0f} MB.",
    ]
    if not header["onnxruntime"]:
        lines.append("ONNX Runtime: not measured.")
    return "\n".join(lines) + "\n"
