"""Check and time training steps captured as a CUDA graph.

From the project's root: PYTHONPATH=scripts python scripts/benchmarks/graph_check.py OUTPUTS [ESC50_ROOT]

Each part runs even if another fails; the figures are written to OUTPUTS/graph_check.json after each.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.timing import synchronize
from benchmarks.train import notebook_epoch
from benchmarks.workload import OVERRIDES, Clock, noise, trained
from soundfold.config import compose_config
from soundfold.data.collection import Collection
from soundfold.data.leakage import NOTHING_SEEN
from soundfold.experiment import environment
from soundfold.experiment.graph_strategy import GraphStrategy
from soundfold.experiment.iteration import CapturedIteration
from soundfold.experiment.processes import run_fold
from soundfold.experiment.setup import RunContext, open_run
from soundfold.io.atomic import write_text
from soundfold.models.classifier import Classifier

DEVICE = torch.device("cuda")
RECIPE = ("experiment=scratch", "schedule.decay=cosine")
SHAPES = {
    "128x128": ("features=seed_128x128", "augment=noise_stretch_pitch", "model.channels_last=true"),
    "128x401": ("experiment=scratch", "trainer.max_steps=-1"),
}
BFLOAT16 = "trainer.precision=bf16-mixed"
EAGER, GRAPH = "trainer.cuda_graph=false", "trainer.cuda_graph=true"
CONTENDERS = (
    ("eager", EAGER),
    ("graph", GRAPH),
    ("graph, cudnn.benchmark", GRAPH, "trainer.benchmark=true"),
)
COMPILED = (("graph, compiled", GRAPH, "model.compile=default"),)
# a last batch of 16 of 336 training clips; 54 steps
EQUAL = (*RECIPE, BFLOAT16, "trainer.deterministic=true", "trainer.max_steps=-1", "trainer.max_epochs=9")


def run_noise(collection: Collection, folder: Path, *overrides: str) -> Clock:
    """Train fold 1 in a folder, resuming from its checkpoint."""
    clock = Clock(DEVICE)
    options = ("checkpoints.every_seconds=10000", *(option for option in OVERRIDES if option != "rerun=true"))
    sizes = ("data.seconds=5", "data.sample_rate=16000", "trainer.accelerator=gpu")
    cfg = compose_config(*options, *sizes, *EQUAL, *overrides)
    run_fold(RunContext(cfg, collection, NOTHING_SEEN, "check", folder), 1, [clock])
    return clock


def losses(folder: Path) -> list[float]:
    """Return the mean training loss of each epoch."""
    with (folder / "fold1" / "metrics.csv").open() as stream:
        return [float(row["train/loss"]) for row in csv.DictReader(stream)]


def weights(clock: Clock) -> Tensor:
    return torch.cat([value.flatten().double().cpu() for value in clock.model.network.state_dict().values()])


def never_captured() -> Any:
    """Return a patch after which iterations run eagerly, by the code that would be captured."""
    return patch.object(CapturedIteration, "WARMUP", 10**9)


def equality(outputs: Path) -> dict[str, Any]:
    """Compare Lightning's steps, iterations that are not captured, and captured ones; stop and resume the last."""
    collection = noise(420, 5.0, 16000, 50)
    folders = {name: outputs / "equality" / name for name in ("lightning", "iteration", "graph", "graph2", "resumed")}
    clocks = {"lightning": run_noise(collection, folders["lightning"], EAGER)}
    with never_captured():
        clocks["iteration"] = run_noise(collection, folders["iteration"], GRAPH)
    for name in ("graph", "graph2"):
        clocks[name] = run_noise(collection, folders[name], GRAPH)
    clocks["resumed"] = resume(collection, folders["resumed"])
    history = {name: losses(folder) for name, folder in folders.items()}
    final = {name: weights(clock) for name, clock in clocks.items()}
    differences = {}
    for a, b in (("iteration", "graph"), ("graph", "graph2"), ("graph", "resumed"), ("lightning", "iteration")):
        differences[f"{a} and {b}"] = {
            "loss": max(abs(x - y) for x, y in zip(history[a], history[b], strict=True)),
            "weights": float((final[a] - final[b]).abs().max()),
            "relative": float((final[a] - final[b]).norm() / final[a].norm()),
        }
    return {"losses": history["graph"], "differences": differences}


def resume(collection: Collection, folder: Path) -> Clock:
    """Train until the second step of the sixth epoch, then resume from the checkpoint of the fifth."""
    step = GraphStrategy.training_step

    def stop(self, *args):
        if self.lightning_module.trainer.current_epoch == 5 and args[1] == 1:
            raise KeyError("stopped")
        return step(self, *args)

    try:
        with patch.object(GraphStrategy, "training_step", stop):
            run_noise(collection, folder, GRAPH, "checkpoints.every_seconds=0")
    except KeyError:
        return run_noise(collection, folder, GRAPH)
    raise AssertionError("not stopped")


@contextmanager
def measured_graphs() -> Iterator[dict[str, Any]]:
    """Yield a dictionary that gets the seconds of each capture and of a replay of the first graph."""
    figures: dict[str, Any] = {"captures": []}
    capture, release = CapturedIteration._capture, CapturedIteration.release

    def timed_capture(self, *args):
        synchronize(DEVICE)
        started = time.perf_counter()
        capture(self, *args)
        synchronize(DEVICE)
        figures["captures"].append(time.perf_counter() - started)

    def timed_release(self):
        for graph, *_ in list(self._graphs.values())[-1:]:
            figures["replay"] = replay_seconds(graph)
            try:
                figures["kernels"] = kernels(graph)
            except Exception as error:
                figures["kernels"] = str(error)
        release(self)

    with (
        patch.object(CapturedIteration, "_capture", timed_capture),
        patch.object(CapturedIteration, "release", timed_release),
    ):
        yield figures


def replay_seconds(graph: torch.cuda.CUDAGraph, replays: int = 50) -> float:
    """Return the seconds of a replay, one after the other: the time that the device is busy."""
    graph.replay()
    synchronize(DEVICE)
    started = time.perf_counter()
    for _ in range(replays):
        graph.replay()
    synchronize(DEVICE)
    return (time.perf_counter() - started) / replays


def kernels(graph: torch.cuda.CUDAGraph, most: int = 25) -> dict[str, Any]:
    """Return the number of kernels of a replay, and those that take longest: ms, count and name."""
    synchronize(DEVICE)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        graph.replay()
        synchronize(DEVICE)
    found = [event for event in profile.key_averages() if event.device_time_total > 0]
    found.sort(key=lambda event: -event.device_time_total)
    return {
        "count": sum(event.count for event in found),
        "ms": sum(event.device_time_total for event in found) / 1000,
        "longest": [f"{event.device_time_total / 1000:.3f} {event.count} {event.key[:90]}" for event in found[:most]],
    }


def speed(outputs: Path, contenders: Sequence[tuple[str, ...]] = CONTENDERS) -> dict[str, Any]:
    """Time steps at two sizes from clips at 44.1 kHz, of each contender, and the notebook's loop."""
    collection = noise(2000, 5.0, 44100, 50)
    notebook = notebook_epoch(1600, 64, DEVICE)
    notebook()
    out: dict[str, Any] = {"notebook": notebook() / 25}
    for shape, options in SHAPES.items():
        for name, *kind in contenders:
            with measured_graphs() as figures:
                folder = outputs / "speed" / f"{shape}-{name}"
                clock = trained(collection, folder, DEVICE, 4, *options, BFLOAT16, *kind)
            out[f"{shape} {name}"] = {"step": median(clock.epochs) / 25, "peak_bytes": clock.peak_bytes, **figures}
    return out


def fold(outputs: Path, root: str, steps: int = 600) -> dict[str, Any]:
    """Train fold 1 of ESC-50 at 16 kHz, eager and as a graph, and fold 2 as a graph in the same process."""
    out: dict[str, Any] = {}
    for name, kind, number in (("eager", EAGER, 1), ("graph", GRAPH, 1), ("graph", GRAPH, 2)):
        cfg = compose_config(
            *("data=esc50_16k", f"data.root={root}", "data.download=null", f"paths.cache={outputs}/cache"),
            *("experiment=scratch", f"trainer.max_steps={steps}", f"paths.outputs={outputs}/fold-{name}", kind),
            *("logger=csv", "report.page=none", "checkpoints.keep=none", "checkpoints.every_seconds=10000"),
            *("trainer.enable_progress_bar=false", "trainer.accelerator=gpu", f"fold={number}"),
        )
        run = open_run(cfg)
        clock = Clock(DEVICE)
        result = run_fold(run, number, [clock])
        out[f"{name} fold {number}"] = {
            "accuracy": result.accuracy,
            "loss": result.loss,
            "seconds": result.seconds,
            "step": median(clock.epochs[4:]) / 25,
            "train_losses": losses(run.folder) if number == 1 else None,
        }
    return out


def fallback(outputs: Path) -> dict[str, Any]:
    """Train where the network waits for the device, and where a capture fails: both go on eagerly, or raise."""
    collection, loss = noise(420, 5.0, 16000, 50), Classifier.loss

    def waiting(self, logits, target):
        logits.sum().item()
        return loss(self, logits, target)

    def failing(self, logits, target):
        if torch.cuda.is_current_stream_capturing():
            raise ValueError("not in a capture")
        return loss(self, logits, target)

    out: dict[str, Any] = {}
    for name, replacement in (("waiting", waiting), ("failing", failing)):
        for kind in ("auto", "true"):
            folder = outputs / "fallback" / f"{name}-{kind}"
            try:
                with (
                    patch.object(Classifier, "loss", replacement),
                    patch("soundfold.experiment.graph_strategy.AUTO", True),
                ):
                    run_noise(collection, folder, f"trainer.cuda_graph={kind}", "trainer.max_epochs=3")
                out[f"{name} {kind}"] = losses(folder)
            except Exception as error:
                out[f"{name} {kind}"] = f"{type(error).__name__}: {error}"
    return out


def main(outputs: Path, root: str | None, names: list[str]) -> None:
    """Run the parts, all or those named, in order of worth."""
    parts: dict[str, Callable[[Path], dict]] = {"equality": equality, "speed": speed}
    if root:
        parts["fold"] = partial(fold, root=root)
    parts["fallback"] = fallback
    # last: it compiles for a minute, and a failure would disturb other parts
    parts["compiled"] = partial(speed, contenders=COMPILED)
    outputs.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"environment": environment.describe(DEVICE), "date": time.strftime("%Y-%m-%d")}
    for name, part in parts.items():
        if names and name not in names:
            continue
        started = time.perf_counter()
        try:
            with tempfile.TemporaryDirectory() as folder:
                report[name] = part(Path(folder))
        except Exception:
            report[name] = {"error": traceback.format_exc()}
            traceback.print_exc()
        print(
            f"== {name}, {time.perf_counter() - started:.1f} s",
            json.dumps(report[name], indent=1),
            sep="\n",
            flush=True,
        )
        write_text(outputs / "graph_check.json", json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None, sys.argv[3:])
