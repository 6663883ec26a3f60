"""The most valuable measurements on a GPU, in order of value, within a time limit."""

from __future__ import annotations

import json
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.pool import Job, Pool
from benchmarks.speedrun import QUIET
from soundfold.config import compose_config
from soundfold.experiment import environment
from soundfold.experiment.device import choose_device
from soundfold.io.atomic import write_text

SCRIPTS = Path(__file__).parents[1]
ABLATIONS = Path(__file__).with_name("ablations.yaml")
STAGES = ("tests", "published", "ablations", "tables", "recipe", "speedrun")
# these are run last: the one takes the time that is left, and a result of the other needs all of its steps
LATE = ("recipe", "speedrun")
# the four rows of the published table, from scratch: no ImageNet weights are assumed to be available
PUBLISHED = ("seed_augmented", "seed_augmented_honest", "seed_original", "seed_original_honest")
FROM_SCRATCH = ("model.weights=none", "model.channels_last=true")
# fixed before any run of it was scored: half of the measured recipe of 7,700 steps
SPEEDRUN_STEPS = 3850
# s, an estimate: 5 x 3,850 steps of 7 ms (one H100, CUDA graph), and the starts
SPEEDRUN_SECONDS = 180.0
PROBE_STEPS = (100, 500)
# s of start-up and summary that the steps of a recipe cannot use
OVERHEAD = 40.0
# share of the rest that is used: fewer processes share the device in the probe than in the training
MARGIN = 0.85
ARCHIVED = ("result.json", "predictions.csv", "config.yaml", "cv.json")


@dataclass
class Plan:
    """Jobs on one device, and a record of their results.

    Attributes:
        outputs: folder of the record, plan.json, and of runs, logs and caches. A plan continues in its folder.
        device: ``cuda`` or ``cpu``.
        data: overrides that name the collection.
        minutes: time limit.
        parallel: trainings at a time.
        folds: folds of the ablations.
        recipe: overrides of the recipe.
        max_steps: most steps of the recipe.
        seeds: of the recipe.
        extra: overrides of every training, such as fewer steps in a test.
        ablations: file of the ablations.
    """

    outputs: Path
    device: str
    data: tuple[str, ...]
    minutes: float = 9.0
    parallel: int = 8
    folds: tuple[int, ...] = (1, 2, 3)
    recipe: tuple[str, ...] = ("experiment=scratch",)
    max_steps: int = 10_000
    seeds: tuple[int, ...] = (0,)
    extra: tuple[str, ...] = ()
    ablations: Path = ABLATIONS
    record: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        # paths of jobs do not depend on the working directory
        self.outputs = self.outputs.resolve()
        self.outputs.mkdir(parents=True, exist_ok=True)
        target = choose_device(self.device)
        path = self.outputs / "plan.json"
        self.record = json.loads(path.read_text()) if path.exists() else {"jobs": {}}
        self.record |= {"date": time.strftime("%Y-%m-%d"), **environment.describe(target)}
        self.pool = Pool(
            self.parallel,
            time.monotonic() + 60 * self.minutes,
            self.outputs / "logs",
            self._ended,
            {name for name, job in self.record["jobs"].items() if job["status"] == "finished"},
        )

    def run(self, stages: Sequence[str]) -> Path:
        """Run the stages in order, as long as there is time; return the archive of their results."""
        jobs = [job for stage in stages if stage not in LATE for job in getattr(self, f"{stage}_jobs")()]
        self.pool.run(jobs)
        if "recipe" in stages and self.pool.remaining > OVERHEAD:
            self.pool.run(self.recipe_jobs(self._affordable_steps()))
        if "speedrun" in stages and self.pool.remaining > SPEEDRUN_SECONDS:
            self.pool.run(self.speedrun_jobs())
        elif "speedrun" in stages:
            print(
                f"No speedrun: fewer than {SPEEDRUN_SECONDS:.0f} s are left. Run it with --stages=speedrun.", flush=True
            )
        self._write()
        return self._archive()

    def tests_jobs(self) -> list[Job]:
        """Return the tests that need a GPU."""
        tests = SCRIPTS.parent / "tests"
        paths = (
            str(tests / "test_cuda.py"),
            f"{tests / 'experiment' / 'test_speed.py'}::test_no_step_waits_for_a_cuda_device",
        )
        return [Job("tests", (sys.executable, "-m", "pytest", "-n", "0", "-q", "-rs", *paths))]

    def tables_jobs(self) -> list[Job]:
        """Return the tables of the front end and of the training step, each by itself on the device."""
        return [self._table("frontend", "clips=256", "repeats=5"), self._table("train", "steps=25", "repeats=1")]

    def speedrun_jobs(self) -> list[Job]:
        """Return the speedrun, by itself on the device; none if the collection is not ESC-50."""
        collection = next((entry.partition("=")[2] for entry in self.data if entry.startswith("data=")), None)
        if collection not in ("esc50", "esc50_16k"):
            return []
        root = compose_config(*self.data).data.root
        return [
            self._table("speedrun", f"root={root}", f"collection={collection}", f"steps={SPEEDRUN_STEPS}", "repeats=1")
        ]

    def published_jobs(self) -> list[Job]:
        """Return the four rows of the published table, each over five folds or repeats."""
        return [
            job
            for name in PUBLISHED
            for job in self._cross_validation(name, f"experiment={name}", *FROM_SCRATCH, "allow_leakage=true")
        ]

    def ablations_jobs(self) -> list[Job]:
        """Return the ablations: fold by fold, so that every setting has one fold before any has two."""
        content = yaml.safe_load(self.ablations.read_text())
        return [
            self._train(f"ablation_{name}", fold, *content["base"], "split=nested", *overrides)
            for fold in self.folds
            for name, overrides in content["settings"].items()
        ]

    def recipe_jobs(self, steps: int) -> list[Job]:
        """Return the recipe over all folds, for each seed."""
        return [
            job
            for seed in self.seeds
            for job in self._cross_validation(
                f"recipe_{steps}_seed{seed}", *self.recipe, f"trainer.max_steps={steps}", f"seed={seed}"
            )
        ]

    def _affordable_steps(self) -> int:
        """Return the steps that all folds can train in the remaining time, by a short training of each.

        A plan that goes on returns those of its start, so that its trainings are resumed.
        """
        if "probe" in self.record:
            return self.record["probe"]["steps"]
        few, many = PROBE_STEPS
        lengths = {1: few, 2: many, 3: many, 4: many, 5: many}
        self.pool.run(
            [
                self._train(f"probe_{steps}", fold, *self.recipe, f"trainer.max_steps={steps}")
                for fold, steps in lengths.items()
            ]
        )
        seconds: dict[int, list[float]] = {}
        for fold, steps in lengths.items():
            result = self.record["jobs"].get(f"probe_{steps}_fold{fold}", {}).get("result")
            if result is None:
                return self.max_steps  # the probe failed: a training that is stopped can be resumed
            seconds.setdefault(steps, []).append(result["seconds"])
        per_step = (max(seconds[many]) - seconds[few][0]) / (many - few)
        waves = -(-len(lengths) * len(self.seeds) // self.parallel)
        affordable = MARGIN * (self.pool.remaining - OVERHEAD) / (max(per_step, 1e-4) * waves)
        steps = max(few, min(self.max_steps, int(affordable) // 100 * 100))
        self.record["probe"] = {"seconds_per_step": per_step, "affordable_steps": int(affordable), "steps": steps}
        return steps

    def _table(self, what: str, *options: str) -> Job:
        command = (
            sys.executable,
            str(SCRIPTS / "benchmark.py"),
            f"what={what}",
            f"device={self.device}",
            f"outputs={self.outputs / 'tables'}",
            *options,
        )
        return Job(f"table_{what}", command, alone=True)

    def _cross_validation(self, name: str, *overrides: str) -> list[Job]:
        folds = [self._train(name, fold, *overrides) for fold in (1, 2, 3, 4, 5)]
        summary = self._train(name, "all", *overrides, after=tuple(job.name for job in folds))
        return [*folds, summary]

    def _train(self, name: str, fold: int | str, *overrides: str, after: tuple[str, ...] = ()) -> Job:
        command = (
            sys.executable,
            str(SCRIPTS / "train.py"),
            *overrides,
            *self.data,
            *QUIET,
            f"trainer.accelerator={'gpu' if self.device == 'cuda' else 'cpu'}",
            f"paths.outputs={self.outputs / 'runs'}",
            f"paths.cache={self.outputs / 'cache'}",
            f"name={name}",
            f"fold={fold}",
            *self.extra,
        )
        return Job(f"{name}_{'all' if fold == 'all' else f'fold{fold}'}", command, after)

    def _ended(self, job: Job, status: str, seconds: float) -> None:
        entry = {"status": status, "seconds": round(seconds, 1), "command": " ".join(job.command[1:])}
        result = self._result(job.name)
        if result is not None:
            entry["result"] = result
        self.record["jobs"][job.name] = entry
        self._write()
        result = result or {}
        shown = [key for key in ("val_accuracy", "accuracy") if key in result]
        figures = "".join(f", {key} {result[key]:.4f}" for key in shown)
        print(f"{job.name}: {status} in {seconds:.0f} s{figures}", flush=True)

    def _result(self, name: str) -> dict[str, Any] | None:
        """Return the main figures of a training that has finished."""
        run, _, fold = name.rpartition("_")
        file = "cv.json" if fold == "all" else f"{fold}/result.json"
        paths = [p for p in (self.outputs / "runs").glob(f"{run}-*/{file}") if _is_run(p, run)]
        if not paths:
            return None
        values = json.loads(paths[0].read_text())
        keys = ("accuracy", "accuracy_sd", "interval", "val_accuracy", "steps", "seconds", "n")
        return {key: values[key] for key in keys if values.get(key) is not None}

    def _write(self) -> None:
        write_text(self.outputs / "plan.json", json.dumps(self.record, indent=1) + "\n")

    def _archive(self) -> Path:
        """Pack the record, the tables, the logs and the small files of the runs; no weights and no audio."""
        path = self.outputs / "plan.zip"
        files = [self.outputs / "plan.json", *(self.outputs / "tables").glob("*"), *(self.outputs / "logs").glob("*")]
        files += [p for p in (self.outputs / "runs").rglob("*") if p.name in ARCHIVED]
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(files):
                archive.write(file, file.relative_to(self.outputs))
        return path


def _is_run(path: Path, run: str) -> bool:
    """Return whether a file belongs to the run of this name, not to one whose name begins with it."""
    folder = path.parts[-2] if path.name == "cv.json" else path.parts[-3]
    return folder.rsplit("-", 1)[0].removesuffix("-leaky") == run


def device_name() -> str:
    """Return ``cuda`` where there is a CUDA device, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"
