"""Training beside the published notebook's loop, on the same device in the same run."""

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

from benchmarks.tables import keep, measured_on
from benchmarks.timing import measure, synchronise
from benchmarks.workload import Clock, noise, trained
from soundfold.data.collection import Collection
from soundfold.experiment import environment
from soundfold.experiment.device import choose_device
from soundfold.models.resnet import single_channel_resnet18

RATE, SECONDS, CLASSES = 44100, 5.0, 50
NOTEBOOK = "notebook's loop: cached, not varied, float32"
# the published notebook's 128x128 images, varied anew in every step
IMAGES = ("features=seed_128x128", "augment=noise_stretch_pitch", "model.channels_last=true")
FLOAT32 = "soundfold, float32"
BFLOAT16 = "soundfold, bf16"
CONTENDERS = {FLOAT32: (*IMAGES,), BFLOAT16: (*IMAGES, "trainer.precision=bf16-mixed")}
# where kernels are quick, what starts them counts
ON_CUDA = {
    f"{BFLOAT16}, compiled": (*CONTENDERS[BFLOAT16], "model.compile=default"),
    f"{BFLOAT16}, graphs": (*CONTENDERS[BFLOAT16], "model.compile=graphs"),
}
EPOCH_CLIPS = 1600


def run(device: str, batch: int, steps: int, repeats: int, outputs: Path) -> Path:
    """Measure, print, and write ``train-<device>.md`` and ``.json``.

    Args:
        device: ``cpu`` or ``cuda``.
        batch: clips in a batch.
        steps: steps of a timed epoch.
        repeats: epochs of each contender, in turn.
        outputs: folder of the two files.

    Raises:
        InputError: the device is not there.
    """
    target = choose_device(device)
    collection = noise(-(-steps * batch // 4) * 5, SECONDS, RATE, CLASSES)
    contenders = CONTENDERS | (ON_CUDA if device == "cuda" else {})
    notebook = notebook_epoch(steps * batch, batch, target)
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in (NOTEBOOK, *contenders)}
    peaks: dict[str, int | None] = dict.fromkeys(measured)
    ceilings: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for _ in range(repeats):
        for kind in ceilings:
            ceilings[kind].append(ceiling(target, getattr(torch, kind)))
        notebook()
        measured[NOTEBOOK].append({"step": notebook() / steps})
        for name, words in contenders.items():
            clock, parts = contender(collection, target, batch, words)
            measured[name].append(parts)
            peaks[name] = clock.peak_bytes
    flops = flops_of_a_step()
    best = {kind: max(values) for kind, values in ceilings.items()}
    rows = [row(name, parts, measured[NOTEBOOK], batch, flops, best, peaks[name]) for name, parts in measured.items()]
    header = {
        **environment.describe(target),
        "date": time.strftime("%Y-%m-%d"),
        "batch": batch,
        "steps": steps,
        "repeats": repeats,
        "flops_per_clip": flops,
        "ceilings": best,
    }
    return keep(outputs / f"train-{device}", {"header": header, "rows": rows}, markdown(header, rows), width=180)


def contender(
    collection: Collection, device: torch.device, batch: int, words: tuple[str, ...]
) -> tuple[Clock, dict[str, float]]:
    """An epoch through Lightning, then its parts alone: seconds a step, whole, in the front end, in the network."""
    with tempfile.TemporaryDirectory() as folder:
        clock = trained(collection, Path(folder), device, 1, f"data.batch_size={batch}", *words)
    raw = next(iter(clock.data.train_dataloader()))
    image, target, *_ = clock.data.augment(*raw)
    model = clock.ready()
    mixed = clock.precision == "bf16-mixed"

    def network() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = functional.cross_entropy(model.training_logits(image), target)
        clock.optimizer.zero_grad()
        loss.backward()
        clock.optimizer.step()

    alone = measure({"front": lambda: clock.data.augment(*raw), "network": network}, 1, device)
    if clock.peak_bytes is None:
        clock.peak_bytes = alone["network"].peak_bytes
    steps = len(clock.data.train_dataloader())
    return clock, {
        "step": clock.epochs[0] / steps,
        "front": alone["front"].median,
        "network": alone["network"].median,
    }


def notebook_epoch(clips: int, batch: int, device: torch.device) -> Callable[[], float]:
    """The published notebook's epoch, written anew: cached float32 images (clips, 1, 128, 128) through a DataLoader,
    a plain step of Adam, loss and hits read in every step; a call gives its seconds."""
    torch.manual_seed(0)
    images = TensorDataset(torch.randn(clips, 1, 128, 128), torch.randint(0, CLASSES, (clips,)))
    loader = DataLoader(images, batch_size=batch, shuffle=True)
    network = single_channel_resnet18(CLASSES).to(device)
    optimizer, criterion = torch.optim.Adam(network.parameters(), lr=1e-3), nn.CrossEntropyLoss()

    def epoch() -> float:
        network.train()
        synchronise(device)
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
    """Floating-point operations of a training step, one clip: forward and backward of the network at 128x128."""
    network = single_channel_resnet18(CLASSES)
    with FlopCounterMode(display=False) as counter:
        network(torch.randn(2, 1, 128, 128)).sum().backward()
    return counter.get_total_flops() / 2


def ceiling(device: torch.device, kind: torch.dtype) -> float:
    """Floating-point operations a second of a square matrix product on the device."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
    return 2 * size**3 / measure({"product": lambda: a @ b}, 1, device)["product"].median


def row(
    name: str,
    parts: list[dict[str, float]],
    notebook: list[dict[str, float]],
    batch: int,
    flops: float,
    ceilings: dict[str, float],
    peak: int | None,
) -> dict[str, Any]:
    """A contender's figures: medians over its turns, and the median of the notebook's time over its own, turn by turn.

    ``utilisation`` is the network's share of the measured ceiling of its number format.
    """
    step = median(part["step"] for part in parts)
    out: dict[str, Any] = {
        "contender": name,
        "epoch": step * EPOCH_CLIPS / batch,
        "clips_per_second": batch / step,
        "speed_over_notebook": median(
            theirs["step"] / ours["step"] for theirs, ours in zip(notebook, parts, strict=True)
        ),
        "peak_bytes": peak,
    }
    network = step
    if "front" in parts[0]:
        network = median(part["network"] for part in parts)
        front = median(part["front"] for part in parts)
        out |= {"front": front / step, "network": network / step, "overhead": 1 - (front + network) / step}
    out["utilisation"] = flops * batch / network / ceilings["bfloat16" if name.startswith(BFLOAT16) else "float32"]
    return out


def markdown(header: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The table, and what holds for all of its rows."""
    products = ", ".join(f"{kind} {value / 1e12:.2f}" for kind, value in header["ceilings"].items())
    lines = [
        f"ResNet-18 on 128x128 images, batch {header['batch']}; ours are made and varied in each step from 5 s at "
        f"{RATE} Hz and trained through Lightning, the notebook's are cached. Medians of {header['repeats']} turns of "
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
    return "\n".join(lines) + "\n"
