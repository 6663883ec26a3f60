"""soundfold from Python: cross-validate, and read a finished run as pandas frames and matplotlib figures."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import escape
from matplotlib.figure import Figure
from omegaconf import DictConfig

from soundfold.cli.overrides import check_overrides
from soundfold.cli.project import import_from_project
from soundfold.config import CONF, Config, compose_config, search_path
from soundfold.errors import ArgumentError, InputError
from soundfold.evaluation import compare
from soundfold.evaluation.compare import RunResult
from soundfold.evaluation.metrics import calibration, class_metrics, probabilities
from soundfold.evaluation.results import load_curves
from soundfold.experiment import run as experiment
from soundfold.report import plots
from soundfold.report.reporter import RunReporter

# values of a fold's result.json that are the same in all folds, or that are no scores
NOT_IN_FRAME = ("cv_id", "protocol", "leaky", "seed", "predictions", "command", "correct")


def cross_validate(config: Sequence[str] | DictConfig = (), *, config_dir: str | Path | None = None) -> Run | None:
    """Train and score the folds of a configuration, as ``soundfold train`` does; finished folds are reused.

    Training prints its progress and tables, and writes the same files as the command::

        run = cross_validate(["data=esc10", "experiment=quick", "fold=1"])
        run.folds

    Args:
        config: overrides such as ``optim.lr=0.01``, or a composed configuration.
        config_dir: a folder with configuration groups of your own, as for ``--config-dir``.

    Returns:
        The run with its finished folds; None if no score is stored: with ``fold=none`` or ``debug=true``.

    Raises:
        ArgumentError: the configuration has a search, which trains several runs; use the command.
        InputError: the configuration or the data is invalid.
        TrainingError: a fold could not be trained.
    """
    if isinstance(config, str):
        raise ArgumentError(f"`config`={config!r} must be a list of overrides, such as [{config!r}].")
    if not isinstance(config, DictConfig):
        config = _compose(config, config_dir)
    if config.search is not None or config.find_lr is not None or config.dry_run:
        raise ArgumentError("`config` has a search, find_lr or dry_run. Run these on the command line.")
    reporter = _FolderReporter()
    handler = signal.getsignal(signal.SIGINT)
    try:
        experiment.cross_validate(config, reporter)
    except SystemExit as stop:
        # Lightning exits on Ctrl-C, which would end a session of Python
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        # Lightning ignores every further Ctrl-C
        if handler is not None and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, handler)
    return None if reporter.folder is None else load_run(reporter.folder)


def load_run(folder: str | Path) -> Run:
    """Read the finished folds of a run.

    >>> low, high = load_run(folder).interval  # such as "outputs/esc10-1a2b3c4d"
    >>> low <= load_run(folder).accuracy <= high
    True

    Args:
        folder: ``outputs/<name>-<id>``.

    Raises:
        InputError: no fold is finished, or a file cannot be read or was changed.
    """
    return Run(Path(folder), compare.load_run(Path(folder)))


class Run:
    """The finished folds of a cross-validation.

    >>> run = load_run(folder)  # such as "outputs/esc10-1a2b3c4d"
    >>> run.folds[["n", "accuracy"]].columns.tolist()
    ['n', 'accuracy']
    >>> mistakes = run.predictions.query("not correct").sort_values("probability", ascending=False)
    >>> curve = run.curves.groupby("epoch")["train/loss"].mean()
    >>> run.plot_confusion_matrix().savefig("confusion.pdf")

    Args:
        folder: of the run.
        result: its finished folds with their predictions.

    Attributes:
        folder, result: the arguments.
    """

    def __init__(self, folder: Path, result: RunResult) -> None:
        self.folder, self.result = folder, result

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.result.name

    @property
    def config(self) -> dict[str, Any]:
        """All values of the configuration, nested."""
        return self.result.config

    @property
    def accuracy(self) -> float:
        """Mean accuracy over the finished folds, in [0, 1]."""
        return self.result.total.accuracy

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy over all scored clips, by bootstrap over sources."""
        return self.result.interval

    @property
    def folds(self) -> pd.DataFrame:
        """One row per finished fold, with scored clips ``n``, scores (fractions of 1), epochs, steps and seconds.

        >>> load_run(folder).folds.index.name
        'fold'
        """
        frame = pd.DataFrame(
            {k: v for k, v in fold.items() if k not in NOT_IN_FRAME and not isinstance(v, dict | list)}
            for fold in self.result.total.folds
        )
        return frame.set_index("fold").dropna(axis="columns", how="all")

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per scored clip, with fold, filename, source, target, prediction, correct, probability and logits.

        ``probability`` is that of the predicted class, not calibrated; logits are in the columns ``logit_<class>``.

        >>> load_run(folder).predictions.columns[:4].tolist()
        ['fold', 'filename', 'source', 'target']
        """
        run, classes = self.result, np.array(self.result.total.classes)
        frame = pd.DataFrame(run.clips, columns=["fold", "filename"])
        frame["source"] = run.sources
        frame["target"], frame["prediction"] = classes[run.targets], classes[run.predictions]
        frame["correct"], frame["probability"] = run.correct, probabilities(run.logits).max(axis=1)
        return frame.join(pd.DataFrame(run.logits, columns=[f"logit_{name}" for name in classes]))

    @property
    def curves(self) -> pd.DataFrame:
        """One row per fold and epoch, with fold, epoch, step, lr and the metrics of metrics.csv.

        >>> load_run(folder).curves.columns[:3].tolist()
        ['fold', 'epoch', 'step']
        """
        frames = []
        for fold in self.folds.index:
            columns = {name: values for name, (values,) in load_curves(self.folder, [fold]).items()}
            frames.append(pd.DataFrame({"fold": fold, **columns}))
        return pd.concat(frames, ignore_index=True).astype({"epoch": int, "step": int})

    def plot_confusion_matrix(self) -> Figure:
        """Draw the pooled confusion matrix, rows are true classes."""
        return _on_white(plots.confusion_matrix(self._confusion, self.result.total.classes))

    def plot_learning_curves(self) -> Figure:
        """Plot loss and accuracy by epoch, mean over folds with a band from minimum to maximum.

        Raises:
            InputError: the run has no metrics.csv.
        """
        curves = load_curves(self.folder, list(self.folds.index))
        if not curves:
            raise InputError(f"{self.folder} has no metrics.csv, so there are no learning curves.")
        return _on_white(plots.learning_curves(curves, self.accuracy, len(self.result.total.classes)))

    def plot_classes(self) -> Figure:
        """Plot F1 of each class, best at the top."""
        return _on_white(plots.class_bars(class_metrics(self._confusion).f1, self.result.total.classes))

    def plot_calibration(self) -> Figure:
        """Plot accuracy against confidence."""
        confidence = probabilities(self.result.logits).max(axis=1)
        return _on_white(plots.reliability_diagram(calibration(confidence, self.result.correct)))

    @property
    def _confusion(self) -> np.ndarray:
        return np.array(self.result.total.confusion)

    def __repr__(self) -> str:
        return f"<Run {self.name}: {self._summary}>"

    def _repr_html_(self) -> str:
        """Return a summary and the table of folds, for notebooks."""
        table = self.folds.to_html(float_format="{:.4g}".format)
        return f"<p><b>{escape(self.name)}</b>: {escape(self._summary)}</p>{table}"

    @property
    def _summary(self) -> str:
        total, (low, high) = self.result.total, self.interval
        part = f"{total.part}, " if total.part else ""
        mark = "LEAKY, so too high: " if total.leaky else ""
        return (
            f"{mark}accuracy {100 * self.result.correct.mean():.2f} % over {total.n} clips ({part}split="
            f"{total.protocol}, 95 % interval {100 * low:.2f} to {100 * high:.2f} %)"
        )


def _compose(overrides: Sequence[str], config_dir: str | Path | None) -> DictConfig:
    folders, added = [CONF], []
    if config_dir is not None:
        import_from_project(str(config_dir))
        folders.append(Path(config_dir))
        added.append(search_path(Path(config_dir)))
    check_overrides(overrides, Config, folders)
    return compose_config(*added, *overrides)


class _FolderReporter(RunReporter):
    """Reports as the command does, and remembers the run's folder."""

    folder: Path | None = None

    def report_run(self, folder: Path, *args: Any, **options: Any) -> None:
        super().report_run(folder, *args, **options)
        self.folder = folder


def _on_white(figure: Figure) -> Figure:
    # figures of pages are transparent
    figure.set_facecolor("white")
    return figure
