"""One fold, and a cross-validation made of folds."""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from filelock import FileLock, Timeout
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from soundfold.config import cv_id
from soundfold.data.datamodule import Collection, SoundDataModule, open_collection
from soundfold.data.folds import Met, audit, make_split, refuse_leak
from soundfold.errors import InputError
from soundfold.experiment import build, environment
from soundfold.experiment.callbacks import (
    CalmProgressBar,
    EpochSeed,
    LastingBest,
    LastingEarlyStopping,
    MetricsCsv,
    SpacedCheckpoint,
    WholeCheckpoints,
)
from soundfold.experiment.comparison import read_run
from soundfold.experiment.kept import KeptModel, met_by_weights
from soundfold.experiment.results import FoldResult, load_folds, predictions_csv, summarise
from soundfold.files import write_whole
from soundfold.model.classifier import COMPILATIONS
from soundfold.model.resnet import weights_digest
from soundfold.report.terminal import print_folds, print_run
from soundfold.rules import check, is_trial, parse_fold

# what is printed may hold brackets, which would be taken for markup
console = Console(stderr=True, markup=False)
# its notes on devices and products, once per fold, would bury ours
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.", category=FutureWarning)
# a resumed fold's folder is not empty, and is meant not to be
warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")


@dataclass(frozen=True)
class Run:
    """A cross-validation that is about to run.

    Attributes:
        cfg, collection: its configuration and its clips.
        met: the clips behind the weights that it starts from.
        cv_id, folder: its identity and its folder.
    """

    cfg: DictConfig
    collection: Collection
    met: Met
    cv_id: str
    folder: Path

    @property
    def group(self) -> str:
        return self.folder.name


def cross_validate(
    cfg: DictConfig,
    watch: Callable[[list[FoldResult]], None] | None = None,
    opened: Callable[[Path], None] | None = None,
) -> float | None:
    """Train and score the folds that ``cfg.fold`` names; sum them up once all are finished.

    Finished folds are reused and an interrupted one continues from its last checkpoint. Writes
    ``<outputs>/<name>-<id>/fold<k>/`` and, with the last fold, ``cv.json``.

    Args:
        cfg: the composed configuration.
        watch: called after every fold with the results so far; what it raises ends the cross-validation.
        opened: is told the run's folder before anything is trained. Given by a sweep, which shows a cross-validation
            that its jobs share when all have ended: a job of one fold then prints that fold only.

    Returns:
        The mean objective of the folds that ran: what a search maximises; None where nothing was scored.

    Raises:
        InputError: the configuration or the data breaks a rule.
    """
    run = open_run(cfg)
    wanted = parse_fold(cfg.fold)
    numbers = run.collection.table.fold_numbers
    folds: list[int | None] = [None] if wanted == "none" else list(numbers) if wanted == "all" else [int(wanted)]
    if wanted != "none" and len(numbers) < 2:
        raise InputError(
            f"The table of clips has fold {numbers[0]} only, and a score needs two or more, whose spread says how far "
            "it can be trusted. Number the clips' folds in the table, or train without a score: fold=none."
        )
    for fold in folds:  # refuse the last fold's fault before the first is trained
        split = make_split(run.collection.table, build.protocol(cfg), fold, cfg.seed)
        found = audit(run.collection.table, split, run.collection.waves.hashes, met=run.met)
        refuse_leak(found, build.protocol(cfg), fold)
        _epochs(cfg, len(split.train))
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{run.folder} cannot be written: {error}. Give paths.outputs=DIRECTORY.") from error
    if opened is not None:
        opened(run.folder)
    console.print(f"{run.group}: {len(run.collection.table)} clips, {len(run.collection.table.classes)} classes")
    results: list[FoldResult] = []
    try:
        for fold in folds:
            results.append(_settled(run, fold))
            if watch is not None:
                watch(results)
    except Exception:
        if is_trial():
            from soundfold.experiment.tracking import cv_run

            # else the sweep would not hear of it
            with cv_run(cfg.logger.wandb, run.folder, run.cv_id, _plain(cfg), leaky=build.protocol(cfg).leaky):
                raise
        raise
    if wanted == "none":
        console.print(f"Trained on every clip, so there is no score. The model: {run.folder / 'foldnone'}")
        return None
    if cfg.debug:
        print_folds(results)
        console.print("debug: a run of two batches says nothing of accuracy, and is not stored as finished.")
    else:
        # of jobs that end together each finds all folds finished; each then writes the same, one after the other
        with FileLock(run.folder / "cv.lock"):
            done = load_folds(run.folder)
            whole = len(done) == len(numbers)
            tell = wanted == "all" or opened is None
            if whole:
                report(run.folder, done, cfg.report, cfg.logger, tell=tell)
        if not (whole and tell):
            print_folds(results)
    console.print(f"Outputs: {run.folder}", soft_wrap=True)
    return float(np.mean([r.objective for r in results]))


def _epochs(cfg: DictConfig, clips: int) -> int:
    """Epochs over so many training clips, whichever of trainer.max_epochs and trainer.max_steps ends them.

    Raises:
        InputError: the best epoch is asked for and none would be validated.
    """
    batches = min(-(-clips // cfg.data.batch_size), cfg.trainer.limit_train_batches or clips)
    ends = (cfg.trainer.max_epochs, -(-cfg.trainer.max_steps // batches))
    epochs = min(end for end in ends if end > 0)
    every = cfg.trainer.check_val_every_n_epoch
    if cfg.split.protocol == "nested" and cfg.callbacks.choose == "best" and epochs < every:
        raise InputError(
            f"trainer.check_val_every_n_epoch={every} leaves none of the {epochs} epochs to choose the best from. "
            "Give fewer, or callbacks.choose=last."
        )
    return epochs


def open_run(cfg: DictConfig) -> Run:
    """Check the configuration, open the collection and name the run.

    Raises:
        InputError: the configuration or the data breaks a rule.
    """
    check(cfg)
    # everything that can refuse a value does so before a clip is downloaded or decoded
    build.front_end(cfg)
    build.crops(cfg)
    build.mixing(cfg)
    build.copies(cfg)
    build.averaging(cfg)
    with torch.device("meta"):  # for its rules alone: no weight is drawn
        build.classifier(cfg, classes=2)
    protocol = build.protocol(cfg)
    _note_bfloat16(cfg, _accelerator(cfg))
    weights = weights_digest(cfg.model.weights)
    data = cfg.data
    collection = open_collection(
        Path(data.root),
        Path(cfg.paths.cache),
        seconds=data.seconds,
        sample_rate=data.sample_rate,
        fetch=data.fetch,
        layout=data.layout,
        folds=data.folds,
        source_pattern=data.source_pattern,
        subset=data.subset,
        classes=None if data.classes is None else list(data.classes),
    )
    table = collection.table
    rows = [table.files, table.folds.tolist(), table.targets.tolist(), table.sources, table.classes]
    digests = {
        "table": hashlib.sha256(repr(rows).encode()).hexdigest(),
        "audio": collection.waves.digest,
        "weights": weights,
    }
    identity = cv_id(cfg, digests)
    mark = "-leaky" if protocol.leaky else ""
    return Run(
        cfg,
        collection,
        met_by_weights(cfg.model.weights),
        identity,
        Path(cfg.paths.outputs) / f"{cfg.name}{mark}-{identity}",
    )


def _settled(run: Run, fold: int | None) -> FoldResult:
    """The fold's result: kept, or trained now. One process at a time: another that wants it waits, and reuses it."""
    lock = FileLock(run.folder / f"fold{fold or 'none'}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console.print(f"Another process is training fold {fold or 'none'} of this run; waiting for its result.")
        lock.acquire()
    try:
        return _finished(run, fold) or run_fold(run, fold)
    finally:
        lock.release()


def run_fold(run: Run, fold: int | None, watchers: Sequence[pl.Callback] = ()) -> FoldResult:
    """Train one fold, score its test clips once, and write its files.

    Args:
        run: see `open_run`.
        fold: its number; None trains on every clip and scores none.
        watchers: callbacks beside the run's own, such as a benchmark's clock.
    """
    cfg, table = run.cfg, run.collection.table
    folder = run.folder / f"fold{fold or 'none'}"
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    last = checkpoints / "last.ckpt"
    resumed = last.is_file() and not cfg.rerun and not cfg.debug
    started = time.perf_counter()

    protocol, copies = build.protocol(cfg), build.copies(cfg)
    pl.seed_everything(int(np.random.SeedSequence([cfg.seed, fold or 0]).generate_state(1)[0]), verbose=False)
    accelerator = _accelerator(cfg)
    trainer_options: dict[str, Any] = OmegaConf.to_container(cfg.trainer)  # type: ignore[assignment]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = trainer_options.pop("tf32")
    front_end = build.front_end(cfg)
    if cfg.model.compile != "none" and accelerator == "gpu":
        # on a CPU it goes clip by clip, and has nothing to gain
        front_end.compile(**COMPILATIONS[cfg.model.compile])
    data = SoundDataModule(
        run.collection,
        front_end,
        fold,
        protocol=protocol,
        crops=build.crops(cfg),
        mixing=build.mixing(cfg),
        copies=copies,
        batch_size=cfg.data.batch_size,
        seed=cfg.seed,
        resident=cfg.data.resident,
        met=run.met,
    )
    model = build.classifier(cfg, len(table.classes), cfg.model.weights)
    # random_clips only watches its validation clips, as its model: the last epoch's weights are scored
    validates = protocol.name in ("nested", "random_clips") and fold is not None
    nested = protocol.name == "nested" and fold is not None
    selects = nested and cfg.callbacks.choose == "best"
    chosen = {"monitor": cfg.callbacks.monitor, "mode": _mode(cfg)}
    # when validation ends: the network still is what was validated, which an average of weights is only then
    best = LastingBest(
        checkpoints,
        "best",
        save_weights_only=True,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
        **chosen,
    )
    averaging = build.averaging(cfg)
    callbacks: list[pl.Callback] = [
        MetricsCsv(folder / "metrics.csv", leaky=protocol.leaky),
        EpochSeed(cfg.seed, fold or 0, 3),
        *([averaging] if averaging else []),
        *watchers,
    ]
    if cfg.trainer.enable_progress_bar:
        callbacks.append(CalmProgressBar())
    if selects:
        callbacks += [LastingEarlyStopping(patience=cfg.callbacks.patience, **chosen), best]
    # last of all: it holds the state of the others at the end of the epoch
    callbacks.append(
        SpacedCheckpoint(
            checkpoints,
            "last",
            every_seconds=cfg.checkpoints.every_seconds,
            every_epochs=cfg.checkpoints.every_n_epochs,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
    )
    trainer_options["accelerator"] = accelerator
    # told even where the steps end the run: the progress bar counts epochs
    trainer_options["max_epochs"] = _epochs(cfg, len(make_split(table, protocol, fold, cfg.seed).train))
    with _loggers(run, folder, fold) as loggers:
        trainer = pl.Trainer(
            **trainer_options,
            callbacks=callbacks,
            plugins=[WholeCheckpoints()],
            logger=loggers,
            default_root_dir=folder,
            num_sanity_val_steps=0,
            limit_val_batches=None if validates else 0,
            # every epoch, as Lightning counts from where a fit starts: `copies.after` would be late in a resumed one
            reload_dataloaders_every_n_epochs=1 if copies else 0,
            use_distributed_sampler=False,
            enable_model_summary=False,
        )
        # where the end is given in steps, Lightning takes a checkpoint to lie within an epoch, and leaves out the next
        trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
        try:
            trainer.fit(model, data, ckpt_path=last if resumed else None, weights_only=True)
        except SIGTERMException:
            # by itself Lightning ends with 0, as if the run were whole
            raise SystemExit(143) from None
        if averaging:
            averaging.finish(trainer, model)
        # a checkpoint is taken before its epoch counts, and a fit with nothing left to do leaves it so
        done = trainer.fit_loop.epoch_progress.current
        done.completed = done.processed  # type: ignore[attr-defined]
        if selects:
            found = torch.load(checkpoints / "best.ckpt", map_location="cpu", weights_only=True)
            model.load_state_dict(found["state_dict"])
        epochs, steps = trainer.current_epoch, trainer.global_step
        validated = trainer.validate(model, data, verbose=False)[0] if validates else {}
        scores = trainer.test(model, data, verbose=False)[0] if fold is not None else {}
        assert data.audit is not None
        assert data.split is not None
        where = environment.describe(trainer.strategy.root_device)
        for logger in loggers:
            logger.log_hyperparams({"audit": data.audit.as_dict(), "environment": where})
        if cfg.checkpoints.keep != "none" and not cfg.debug:
            # before the loggers are closed: W&B may be given it
            KeptModel(
                model.network.state_dict(),
                data.front_end.mean,
                data.front_end.deviation,
                table.classes,
                OmegaConf.to_yaml(cfg, resolve=True),
                data.met,
            ).save(checkpoints / "weights.pt")
    result = FoldResult(
        cv_id=run.cv_id,
        fold=fold,
        folds=list(table.fold_numbers),
        protocol=protocol.name,
        leaky=protocol.leaky,
        seed=cfg.seed,
        classes=list(table.classes),
        n=len(data.split.test),
        accuracy=scores.get("test/accuracy"),
        f1=scores.get("test/f1"),
        top5=scores.get("test/top5"),
        loss=scores.get("test/loss"),
        confusion=model.confusion.compute().tolist() if scores else [],
        val_accuracy=validated.get("val/accuracy"),
        objective=_objective(validated, cfg) if nested else scores.get("test/accuracy"),
        epochs=epochs,
        steps=steps,
        seconds=time.perf_counter() - started,
        audit=data.audit.as_dict(),
        environment=where,
    )
    if scores:
        write_whole(folder / "predictions.csv", predictions_csv(table, model.clips.numpy(), model.logits.numpy()))
    if not cfg.debug:
        # last: a fold with a result is finished, and all its other files are there
        result.save(folder / "result.json")
    if cfg.checkpoints.keep != "all":
        for path in checkpoints.glob("*.ckpt"):
            path.unlink()
    return result


def report(
    folder: Path, results: list[FoldResult], options: DictConfig, logger: DictConfig | None = None, *, tell: bool = True
) -> None:
    """Sum up a run's folds: ``cv.json``, the table, ``report.html``, and W&B's run of the cross-validation where the
    run logs to W&B.

    Args:
        options: `soundfold.config.Report`.
        logger: `soundfold.config.Logger`; None takes the run's own.
        tell: print the table, too.

    Raises:
        InputError: a fold is missing, comes twice, or belongs to another cross-validation.
    """
    summarise(results)  # refuses a set that is not one whole cross-validation
    run = read_run(folder)
    total = replace(run.total, interval=run.interval)
    try:
        total.save(folder / "cv.json")
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error}. Copy the run to a place that can.") from error
    if tell:
        print_run(results, run)
    if options.page != "none":
        # imported here: drawing takes a second to import
        from soundfold.report.run_page import write_run_page

        console.print(f"Report: {write_run_page(folder, run, options)}", soft_wrap=True)
    wandb = run.config["logger"]["wandb"] if logger is None else logger.wandb
    if wandb is not None:
        from soundfold.report.wandb_run import log_cv

        missing = log_cv(folder, run, options, wandb)
        if missing:
            console.print(f"W&B has no pictures and no sound of the mistakes: {missing}")


def _accelerator(cfg: DictConfig) -> str:
    """The device to train on: ``auto`` takes a CUDA device or the CPU, as MPS is untested and used only where named.

    Raises:
        InputError: the device that is named is not there.
    """
    there = {"cpu": True, "gpu": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    wanted = cfg.trainer.accelerator
    if cfg.model.compile == "graphs" and not (there["gpu"] and wanted in ("auto", "gpu")):
        raise InputError(
            f"model.compile=graphs with trainer.accelerator={wanted}: CUDA graphs need a CUDA device. Give "
            "model.compile=none, or default."
        )
    if wanted == "auto":
        if there["mps"] and not there["gpu"]:
            console.print("note: trainer=auto passes over MPS; trainer.accelerator=mps tries it.")
        return "gpu" if there["gpu"] else "cpu"
    if not there[wanted]:
        raise InputError(f"trainer.accelerator={wanted}: PyTorch sees no such device here. Give trainer=auto or cpu.")
    return wanted


def _note_bfloat16(cfg: DictConfig, accelerator: str) -> None:
    """Say where a CPU could train faster in bfloat16, and where it was asked to and cannot."""
    if accelerator != "cpu":
        return
    # private, and in no release missing so far; without it nothing is said
    has = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: None)()
    if has and cfg.trainer.precision == "32-true":
        console.print("note: this CPU multiplies bfloat16 in hardware; trainer.precision=bf16-mixed may train faster.")
    if has is False and cfg.trainer.precision == "bf16-mixed":
        console.print("note: this CPU has no bfloat16 arithmetic; trainer.precision=32-true trains faster.")


@contextmanager
def _loggers(run: Run, folder: Path, fold: int | None) -> Iterator[list[Logger]]:
    """What a fold is logged to beside metrics.csv: nothing (``logger=csv``), W&B, TensorBoard, or both
    (``logger=[wandb,tensorboard]``, or ``logger.tensorboard=true`` with any)."""
    cfg = run.cfg
    loggers: list[Logger] = []
    with ExitStack() as stack:
        if cfg.logger.tensorboard:
            from lightning.pytorch.loggers import TensorBoardLogger

            # a resumed fold is told its earlier epochs again, see MetricsCsv
            shutil.rmtree(folder / "tensorboard", ignore_errors=True)
            board = TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)
            stack.callback(board.finalize, "success")
            loggers.append(board)
        if cfg.logger.wandb is not None:
            from soundfold.experiment.tracking import fold_logger

            protocol = build.protocol(cfg)
            config = _plain(cfg) | {"fold": fold, "cv_id": run.cv_id, "protocol": protocol.name}
            config["commit"] = environment.describe(torch.device("cpu"))["commit"]
            options = {"leaky": protocol.leaky, "fresh": cfg.rerun or cfg.debug}
            loggers.append(
                stack.enter_context(fold_logger(cfg.logger.wandb, folder, run.cv_id, config, **options)),
            )
        yield loggers


def _plain(cfg: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def _objective(validated: Mapping[str, float], cfg: DictConfig) -> float:
    score = validated[cfg.callbacks.monitor]
    return -score if _mode(cfg) == "min" else score


def _mode(cfg: DictConfig) -> str:
    return "min" if cfg.callbacks.monitor == "val/loss" else "max"


def _finished(run: Run, fold: int | None) -> FoldResult | None:
    """The fold's result where it is finished and may be reused, with a warning where other code made it."""
    path = run.folder / f"fold{fold or 'none'}" / "result.json"
    if run.cfg.debug or run.cfg.rerun or not path.is_file():
        if run.cfg.rerun:
            # what sums up the results that are given up is given up with them
            for stale in (path, run.folder / "cv.json", run.folder / "report.html"):
                stale.unlink(missing_ok=True)
            # else a rerun cut short would be continued from what it was to replace
            for checkpoint in (path.parent / "checkpoints").glob("*"):
                checkpoint.unlink()
        return None
    result = FoldResult.load(path)
    changed = environment.differences(result.environment, environment.describe(torch.device("cpu")))
    console.print(f"Fold {fold or 'none'} is finished; its result is reused (rerun=true redoes it).")
    if changed:
        console.print(f"warning: it was made by other code: {'; '.join(changed)}.", style="yellow")
    return result
