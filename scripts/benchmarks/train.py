"""Compare training with the published notebook's loop, on the same device in the same process."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.tables import measured_on, write_results
from benchmarks.timing import measure, synchronize
from benchmarks.workload import Clock, noise, trained
from soundfold.data.collection import Collection
from soundfold.errors import TrainingError
from soundfold.experiment import environment
from soundfold.experiment.device import choose_device
from soundfold.models.resnet import ResNet18

RATE, SECONDS, CLASSES = 44100, 5.0, 50
NOTEBOOK = "notebook's loop: cached, not augmented, float32"
# the published notebook's 128x128 images, augmented in every step
IMAGES = ("features=seed_128x128", "augment=noise_stretch_pitch", "model.channels_last=true")
FLOAT32 = "soundfold, float32"
BFLOAT16 = "soundfold, bf16"
CAPTURED = f"{BFLOAT16}, CUDA graph"
# front end and network are also timed separately, which is comparable with eager steps only
EAGER, GRAPH = "trainer.cuda_graph=false", "trainer.cuda_graph=true"
CONTENDERS = {FLOAT32: (*IMAGES, EAGER), BFLOAT16: (*IMAGES, EAGER, "trainer.precision=bf16-mixed")}
# kernels on a GPU are fast, so the time to launch them matters
ON_CUDA = {
    CAPTURED: (*CONTENDERS[BFLOAT16], GRAPH),
    f"{BFLOAT16}, compiled": (*CONTENDERS[BFLOAT16], "model.compile=default"),
}
EPOCH_CLIPS = 1600
# rows of the square matrices whose product is the ceiling
PRODUCT = {"cpu": 2048, "cuda": 8192}


def run(device: str, batch: int, steps: int, repeats: int, outputs: Path) -> Path:
    """Measure and print, and write ``train-<device>.md`` and ``.json``.

    Args:
        device: ``cpu`` or ``cuda``.
        batch: clips in a batch.
        steps: steps of a timed epoch.
        repeats: number of timed epochs of each contender.
        outputs: folder for both files.

    Raises:
        InputError: the device is not available.
        TrainingError: a contender failed; the files have the others.
    """
    target = choose_device(device)
    measured, peaks, ceilings, failures = measure_turns(target, batch, steps, repeats)
    flops = flops_of_a_step()
    best = {dtype: max(values) for dtype, values in ceilings.items()}
    done = {name: turns for name, turns in measured.items() if name not in failures}
    rows = [row(name, turns, measured[NOTEBOOK], batch, flops, best, peaks[name]) for name, turns in done.items()]
    header = {
        **environment.describe(target),
        "date": time.strftime("%Y-%m-%d"),
        "batch": batch,
        "steps": steps,
        "repeats": repeats,
        "flops_per_clip": flops,
        "ceilings": best,
        "failures": failures,
    }
    path = write_results(
        outputs / f"train-{device}", {"header": header, "rows": rows}, markdown(header, rows), width=180
    )
    if failures:
        raise TrainingError(f"Not measured: {', '.join(failures)}, see {path}.")
    return path


def measure_turns(
    device: torch.device, batch: int, steps: int, repeats: int
) -> tuple[dict[str, list[dict[str, float]]], dict[str, int | None], dict[str, list[float]], dict[str, str]]:
    """Return each contender's seconds per step and peak memory, ceilings by dtype, and why a contender failed."""
    collection = noise(-(-steps * batch // 4) * 5, SECONDS, RATE, CLASSES)
    contenders = CONTENDERS | (ON_CUDA if device.type == "cuda" else {})
    notebook = notebook_epoch(steps * batch, batch, device)
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in (NOTEBOOK, *contenders)}
    peaks: dict[str, int | None] = dict.fromkeys(measured)
    ceilings: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    failures: dict[str, str] = {}
    for _ in range(repeats):
        for dtype in ceilings:
            ceilings[dtype].append(ceiling(device, getattr(torch, dtype)))
        notebook()
        measured[NOTEBOOK].append({"step": notebook() / steps})
        for name, overrides in contenders.items():
            if name in failures:
                continue
            try:
                clock, seconds = contender(collection, device, batch, overrides)
                measured[name].append(seconds)
                peaks[name] = clock.peak_bytes
            except Exception as error:  # such as a missing C compiler; the other rows are still of use
                failures[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return measured, peaks, ceilings, failures


def contender(
    collection: Collection, device: torch.device, batch: int, overrides: tuple[str, ...]
) -> tuple[Clock, dict[str, float]]:
    """Return the seconds per step of an epoch with Lightning, and of the front end and the network separately."""
    with tempfile.TemporaryDirectory() as folder:
        clock = trained(collection, Path(folder), device, 1, f"data.batch_size={batch}", *overrides)
    loader = clock.data.train_dataloader()
    step = clock.epochs[0] / len(loader)
    if GRAPH in overrides:
        return clock, {"step": step}
    raw = next(iter(loader))
    image, target, *_ = clock.data.augment(*raw)
    model = clock.ready()
    mixed = clock.precision == "bf16-mixed"

    def network() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = functional.cross_entropy(model.training_logits(image), target)
        clock.optimizer.zero_grad()
        loss.backward()
        clock.optimizer.step()

    separate = measure({"front": lambda: clock.data.augment(*raw), "network": network}, 1, device)
    if clock.peak_bytes is None:
        clock.peak_bytes = separate["network"].peak_bytes
    return clock, {
        "step": step,
        "front": separate["front"].median,
        "network": separate["network"].median,
    }


def notebook_epoch(clips: int, batch: int, device: torch.device) -> Callable[[], float]:
    """Return a function that trains an epoch as the published notebook does, and returns its seconds.

    Cached float32 images (clips, 1, 128, 128) from a DataLoader, Adam, loss and hits read in every step.
    """
    torch.manual_seed(0)
    images = TensorDataset(torch.randn(clips, 1, 128, 128), torch.randint(0, CLASSES, (clips,)))
    loader = DataLoader(images, batch_size=batch, shuffle=True)
    network = ResNet18(CLASSES).to(device)
    optimizer, criterion = torch.optim.Adam(network.parameters(), lr=1e-3), nn.CrossEntropyLoss()

    def epoch() -> float:
        network.train()
        synchronize(device)
        started, loss_sum, hits = time.perf_counter(), 0.0, 0
        for image, target in loader:
            image, target = image.to(device), target.to(device)
            optimizer.zero_grad()
            logits = network(image)
            loss: Tensor = criterion(logits, target)
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(image)
            hits += int((logits.argmax(dim=1) == target).sum())
        return time.perf_counter() - started

    return epoch


def flops_of_a_step() -> float:
    """Return the floating-point operations per clip of a training step: forward and backward at 128x128."""
    network = ResNet18(CLASSES)
    with FlopCounterMode(display=False) as counter:
        network(torch.randn(2, 1, 128, 128)).sum().backward()
    return counter.get_total_flops() / 2


def ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Return the floating-point operations per second of a square matrix product."""
    size = PRODUCT[device.type]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / measure({"product": lambda: a @ b}, 1, device)["product"].median


def row(
    name: str,
    turns: list[dict[str, float]],
    notebook: list[dict[str, float]],
    batch: int,
    flops: float,
    ceilings: dict[str, float],
    peak: int | None,
) -> dict[str, Any]:
    """Return the figures of a contender: medians over turns, also of the ratio to the notebook's time in each turn.

    ``utilisation`` is the network's fraction of the measured ceiling of its dtype.
    """
    step = median(turn["step"] for turn in turns)
    out: dict[str, Any] = {
        "contender": name,
        "epoch": step * EPOCH_CLIPS / batch,
        "clips_per_second": batch / step,
        "speed_over_notebook": median(
            theirs["step"] / ours["step"] for theirs, ours in zip(notebook, turns, strict=True)
        ),
        "peak_bytes": peak,
    }
    network = step
    if "front" in turns[0]:
        network = median(turn["network"] for turn in turns)
        front = median(turn["front"] for turn in turns)
        out |= {"front": front / step, "network": network / step, "overhead": 1 - (front + network) / step}
    out["utilisation"] = flops * batch / network / ceilings["bfloat16" if name.startswith(BFLOAT16) else "float32"]
    return out


def markdown(header: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return the table with its caption."""
    products = ", ".join(f"{dtype} {value / 1e12:.2f}" for dtype, value in header["ceilings"].items())
    lines = [
        f"ResNet-18 on 128x128 images, batch {header['batch']}; ours are computed and augmented in each step from 5 s "
        f"at {RATE} Hz and trained by Lightning, the notebook's are cached. Medians of {header['repeats']} turns of "
        f"{header['steps']} steps; an epoch is {EPOCH_CLIPS} clips.",
        f"{measured_on(header)}, torch {header['versions']['torch']}. "
        f"A clip's step is {header['flops_per_clip'] / 1e9:.2f} GFLOP; matrix "
        f"products reach {products} TFLOP/s.",
        "",
        "| training | epoch s | clips/s | speed over the notebook's | front end % | network % | rest % "
        "| of the ceiling % | peak MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in rows:
        shares = [f"{100 * each[key]:.1f}" if key in each else "" for key in ("front", "network", "overhead")]
        peak = "?" if each["peak_bytes"] is None else f"{each['peak_bytes'] / 1e6:.0f}"
        lines.append(
            f"| {each['contender']} | {each['epoch']:.1f} | {each['clips_per_second']:.1f} "
            f"| {each['speed_over_notebook']:.2f} | {' | '.join(shares)} | {100 * each['utilisation']:.0f} | {peak} |"
        )
    lines += [f"\n{name}: not measured, {reason}" for name, reason in header["failures"].items()]
    return "\n".join(lines) + "\n"
