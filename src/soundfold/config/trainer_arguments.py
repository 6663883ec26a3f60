"""Arguments of Lightning's `Trainer`: those that a configuration may set, with their types and ranges, and all others.

A test compares both lists with the installed version of Lightning. Lightning is not imported here: a misspelled key is
answered sooner than it could be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from soundfold.config.declaration import key


@dataclass
class Trainer:
    # cuda_graph and tf32 are no arguments of Lightning's
    accelerator: str = key(choices=("auto", "cpu", "gpu", "cuda", "mps"))
    devices: int = key(low=1)
    num_nodes: int = key(low=1)
    strategy: Any = key()
    accumulate_grad_batches: int = key(low=1)
    precision: str = key(
        choices=("auto", "32-true", "16-mixed", "bf16-mixed"), reason="features are always computed in float32"
    )
    max_epochs: int = key()
    max_steps: int = key()
    gradient_clip_val: float | None = key(low=0)
    deterministic: Any = key(choices=(True, False, "warn"))
    tf32: bool = key()
    cuda_graph: Any = key(choices=("auto", True, False))
    log_every_n_steps: int = key(low=0)
    check_val_every_n_epoch: int = key(low=1)
    enable_progress_bar: bool = key()
    limit_train_batches: int | None = key(low=1)
    limit_val_batches: int | float | None = key(above=0)
    val_check_interval: int | float | None = key(above=0)
    min_epochs: int | None = key(low=1)
    min_steps: int | None = key(low=1)
    gradient_clip_algorithm: str | None = key(choices=("norm", "value"))
    benchmark: bool | None = key()
    inference_mode: bool = key()
    detect_anomaly: bool = key()
    num_sanity_val_steps: int = key(low=-1)
    enable_model_summary: bool = key()
    enable_autolog_hparams: bool = key()
    profiler: Any = key()


REFUSED_ARGUMENTS = {
    "barebones": "it disables checkpoints and metrics, so a run could not be resumed",
    "callbacks": "set an entry of callbacks, see conf/callbacks",
    "default_root_dir": "each fold has its own folder; set paths.outputs",
    "enable_checkpointing": (
        "a run is resumed from its checkpoints; set checkpoints.keep=none to delete them at the end of a fold"
    ),
    "fast_dev_run": "it scores a part of the test clips; set experiment=debug, whose result is never stored",
    "limit_predict_batches": "a training predicts nothing; set limit_train_batches or limit_val_batches",
    "limit_test_batches": "every test clip is scored once; set experiment=debug to test the code",
    "logger": "set an entry of logger, see conf/logger",
    "max_time": (
        "the end would depend on the machine's speed, but runs of one id have one result; set trainer.max_steps"
    ),
    "model_registry": "it uploads checkpoints; set logger.wandb.artifact=true to upload weights",
    "overfit_batches": "it replaces the validation clips by training clips; set trainer.limit_train_batches",
    "plugins": (
        "they write and read the checkpoints that a run is resumed from; set trainer.precision for the precision"
    ),
    "reload_dataloaders_every_n_epochs": "augment.copies sets it; otherwise every epoch has the same clips",
    "sync_batchnorm": "it is on with several GPUs, so that a result does not depend on their number",
    "use_distributed_sampler": "the loader itself gives each device its slice of a batch",
}
