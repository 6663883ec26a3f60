"""The identity of a run: a hash over everything that changes its numbers.

A value counts where it differs from the frozen table. So a new option renames no run, and a new default in ``conf/``
does rename the runs that use it: their finished folds are not reused for another configuration.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from omegaconf import DictConfig, OmegaConf

from soundfold.config.frozen import first_metrics, frozen_table
from soundfold.config.keys import drop_keys, flatten
from soundfold.config.migration import SCHEMA_VERSION

# names, paths and display: they do not change results
NOT_IDENTITY = (
    "fold",
    "name",
    "rerun",
    "dry_run",
    "allow_leakage",
    "paths",
    "logger",
    "checkpoints",
    "report",
    "metrics",  # except the one that selection.monitor names
    "search",
    "find_lr",
    "data.root",
    "data.name",
    "data.download",
    "data.table",  # the clips that it lists count
    "data.audio",
    "data.file_column",
    "data.class_column",
    "data.fold_column",
    "data.source_column",
    "data.reader",
    "data.on_device",
    "data.license",
    "data.read_ahead",
    # their files count by a digest
    "augment.impulse_response.folder",
    "augment.background_noise.folder",
    "trainer.accelerator",
    "trainer.cuda_graph",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "trainer.tf32",
    "trainer.benchmark",
    "trainer.inference_mode",
    "trainer.detect_anomaly",
    "trainer.num_sanity_val_steps",
    "trainer.enable_model_summary",
    "trainer.enable_autolog_hparams",
    "trainer.profiler",
    # kernels of the same computation
    "optim.fused",
    "optim.foreach",
    "optim.capturable",
)

# keys that count under an earlier name, so that a renamed option renames no run
FIRST_NAMES = {"trainer.accumulate_grad_batches": "trainer.micro_batches"}


def identity_values(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that change results: of the metrics, only one that selects weights by another definition.

    The names of strategies mean the same computation; a class may change it, such as by compressed gradients.
    """
    kept = drop_keys(values, NOT_IDENTITY)
    if isinstance((values.get("trainer") or {}).get("strategy"), str):
        kept = drop_keys(kept, ["trainer.strategy"])
    name = (values.get("selection") or {}).get("monitor", "").removeprefix("val/")
    metric = (values.get("metrics") or {}).get(name)
    return kept if metric == first_metrics().get(name) else {**kept, "metrics": {name: metric}}


def cv_id(cfg: DictConfig, digests: dict[str, str]) -> str:
    """Return the identity of a cross-validation: 8 hex digits over everything that changes its numbers.

    The same configuration on the same audio has the same identity wherever, whenever and on whatever device it runs;
    ``label`` forks a deliberate repeat.

    Args:
        cfg: the composed configuration.
        digests: hashes of the files that the configuration refers to: table, audio, initial weights.
    """
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    values = identity_values(plain)
    # null disables an entry
    values["callbacks"] = {name: entry for name, entry in values["callbacks"].items() if entry is not None}
    values["model"]["weights"] = digests["weights"]
    frozen, missing = frozen_table(values["model"]["_target_"]), object()
    changed = {
        FIRST_NAMES.get(key, key): value for key, value in flatten(values).items() if frozen.get(key, missing) != value
    }
    text = json.dumps([SCHEMA_VERSION, changed, digests], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
