"""Measure the CPU time of each augmentation for its page: python scripts/augmentation_costs.py

Writes docs/results/augmentation_costs.yaml: the CPU time by which an augmentation lengthens the transform of a clip of
5 s at 44.1 kHz, in one thread, if it is applied to every clip. CPU time and not wall time, so that other work on the
machine disturbs little.
"""

import datetime
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml

from soundfold.experiment import environment
from soundfold.features.augment_params import ParamSampler
from soundfold.features.batch_transform import BatchTransform
from soundfold.features.mixing import Mixing
from soundfold.features.pipeline import FrontEnd
from soundfold.io.atomic import write_text

ROOT = Path(__file__).resolve().parents[1]
CLIPS, CLASSES, ROUNDS = 8, 50, 15
SIZE = ("data.seconds=5", "data.sample_rate=44100")


def main() -> int:
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    # imported here: an extension of the documentation
    from augmentation_pages import PAGES, compose_options, write_recordings

    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        write_recordings(Path(folder))
        plain = _step(compose_options({}, Path(folder), *SIZE))
        costs = {}
        for name, page in PAGES.items():
            step = _step(compose_options(_always(page["options"]), Path(folder), *SIZE))
            costs[name] = round(_difference(step, plain), 2)
            print(f"{name}: {costs[name]} ms", flush=True)
    facts = (
        f"Measured by `python scripts/augmentation_costs.py`: one thread of an x86-64 server with other work on it, "
        f"median of {ROUNDS} rounds of {CLIPS} clips, every clip augmented; {datetime.date.today()}, commit "
        f"{environment.describe(torch.device('cpu'))['commit']}, torch {torch.__version__.split('+')[0]}."
    )
    text = yaml.safe_dump({"facts": facts, "ms": costs}, sort_keys=False, width=118)
    write_text(ROOT / "docs" / "results" / "augmentation_costs.yaml", text)
    return 0


def _always(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with every share of clips at 1."""
    changed: dict[str, Any] = {}
    for key, value in options.items():
        if isinstance(value, dict):
            changed[key] = _always(value) if key == "mixing" else {**value, "p": 1.0}
        else:
            changed[key] = value if key == "alpha" or not isinstance(value, float) else 1.0
    return changed


def _step(cfg: Any) -> Callable[[], object]:
    """Return a function that transforms a batch with drawn parameters."""
    from soundfold.experiment import build

    front_end = FrontEnd(build.logmel(cfg), None, build.augmentation(cfg))
    transform = BatchTransform(front_end, CLASSES, None, Mixing(**cfg.augment.mixing))
    generator = torch.Generator().manual_seed(0)
    samples = round(cfg.data.seconds * cfg.data.sample_rate)
    wave = torch.randint(-9000, 9000, (CLIPS, samples), generator=generator, dtype=torch.int16)
    target = torch.arange(CLIPS)
    return lambda: transform(wave, target, transform.draw(ParamSampler(CLIPS, generator)))


def _difference(step: Callable[[], object], plain: Callable[[], object]) -> float:
    """Return the median difference in CPU time, ms per clip; the rounds alternate."""
    differences = []
    for number in range(ROUNDS + 1):
        seconds = []
        for function in (step, plain):
            began = time.process_time()
            function()
            seconds.append(time.process_time() - began)
        if number:  # the first warms up
            differences.append(seconds[0] - seconds[1])
    return 1000 * median(differences) / CLIPS


if __name__ == "__main__":
    raise SystemExit(main())
