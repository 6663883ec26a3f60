"""What the scripts of this folder share. They run in an environment without soundfold.

Arguments: folder of a collection in ESC-50's layout, image as bands x frames, batch, clips of an epoch, epochs, device,
scratch folder, time of the start (seconds since 1970), and further options.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path


@dataclass
class Task:
    """The task of this process, and the end of each optimizer step.

    Attributes:
        package: whose version is recorded.
        root, bands, frames, batch, clips, epochs, device, scratch, started, options: the arguments.
        ends: time of the end of each step.
    """

    package: str
    root: Path = field(init=False)
    ends: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        root, size, batch, clips, epochs, self.device, scratch, started, *self.options = sys.argv[1:]
        self.root, self.scratch, self.started = Path(root), Path(scratch), float(started)
        self.bands, self.frames = map(int, size.split("x"))
        self.batch, self.clips, self.epochs = int(batch), int(clips), int(epochs)

    def files(self) -> tuple[list[Path], list[int]]:
        """Return the files of folds 2 to 5 and their classes."""
        with (self.root / "meta" / "esc50.csv").open() as stream:
            rows = [row for row in csv.DictReader(stream) if row["fold"] != "1"]
        rows = rows[:: max(1, len(rows) // self.clips)][: self.clips]
        names = sorted({row["target"] for row in rows}, key=int)
        return [self.root / "audio" / row["filename"] for row in rows], [names.index(row["target"]) for row in rows]

    def watch(self) -> None:
        """Record the optimizer's steps; after the last, print the result and end the process."""
        from torch.optim.optimizer import register_optimizer_step_post_hook

        register_optimizer_step_post_hook(self.step)

    def step(self, *_: object) -> None:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()
        self.ends.append(time.time())
        steps = -(-self.clips // self.batch)
        if len(self.ends) == steps * self.epochs:
            lasts = self.ends[steps - 1 :: steps]
            epochs = [end - begin for begin, end in pairwise(lasts)]
            result = {"first_step": self.ends[0] - self.started, "epochs": epochs, "version": version(self.package)}
            print(f"\n{json.dumps(result)}", flush=True)
            os._exit(0)
