"""The reporter of a training run: tables in the terminal, ``report.html``, and W&B's run of the cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from soundfold.config import Wandb
from soundfold.errors import InputError
from soundfold.evaluation.compare import RunResult
from soundfold.evaluation.results import FoldResult, load_folds
from soundfold.io.atomic import explain_write_errors, remove_partial_files
from soundfold.io.console import console
from soundfold.io.leases import lease
from soundfold.report.shortcuts import load_shortcuts
from soundfold.report.terminal import print_folds, print_run
from soundfold.validation import wandb_options


class RunReporter:
    """The `soundfold.experiment.run.Reporter` of the command line."""

    def print_folds(self, name: str, results: Sequence[FoldResult]) -> None:
        """Print a row per fold."""
        print_folds(name, results)

    def report_run(
        self,
        folder: Path,
        run: RunResult,
        options: DictConfig,
        logger: DictConfig | None = None,
        *,
        show_table: bool = True,
        once: bool = False,
    ) -> None:
        """Print the finished folds of a run and write its ``report.html``; log a complete run to W&B if it uses W&B.

        Args:
            folder: of the run.
            run: see `soundfold.evaluation.summary.write_summary`.
            options: `soundfold.config.Report`.
            logger: ``logger`` of the configuration; None takes the run's stored configuration.
            show_table: print the table.
            once: write no page if another process has, for this ``cv.json``.

        Raises:
            InputError: the folder cannot be written, or W&B cannot open its run.
        """
        remedy = "Free some space, or copy the run to a folder that is writable."
        with explain_write_errors(folder, remedy), lease(folder / "cv.lock", "is reporting this run"):
            remove_partial_files([*folder.glob("*"), *folder.glob("figures/*")])
            if show_table:
                print_run(load_folds(folder), run)
            if options.page != "none" and not (once and _has_page(folder)):
                # imported here: plotting takes a second to import
                from soundfold.report.run_page import write_run_page

                console.print(f"Report: {write_run_page(folder, run, options)}", soft_wrap=True)
            wandb = wandb_options(run.config.get("logger", {}) if logger is None else logger)
            if wandb is not None and run.total.is_complete:
                _log_to_wandb(folder, run, options, wandb)

    def write_cards(self, folder: Path) -> None:
        """Write a model card beside each ``weights.pt`` of a run.

        Raises:
            InputError: a file of the run cannot be read, or a card cannot be written.
        """
        from soundfold.report.model_card import write_fold_cards

        remedy = "Free some space, or copy the run to a folder that is writable."
        with explain_write_errors(folder, remedy), lease(folder / "cv.lock", "is reporting this run"):
            write_fold_cards(folder)


def _has_page(folder: Path) -> bool:
    page, summary = folder / "report.html", folder / "cv.json"
    return page.is_file() and page.stat().st_mtime_ns >= summary.stat().st_mtime_ns


def _log_to_wandb(folder: Path, run: RunResult, options: DictConfig, wandb: Wandb) -> None:
    from soundfold.experiment.wandb_runs import LoggedMistake, log_cv, needs_logging
    from soundfold.report.drawing import pixels
    from soundfold.report.mistakes import list_mistakes, render_mistakes

    if not needs_logging(folder, wandb):
        return
    mistakes = [
        LoggedMistake(m.filename, m.fold, m.true, m.predicted, float(m.confidence))
        for m in list_mistakes(run, options.mistakes)
    ]
    try:
        mistakes = [
            replace(
                mistake,
                attribution=media.attribution.text,
                picture=pixels(media.picture),
                samples=media.samples if options.audio else None,
                sample_rate=media.sample_rate,
            )
            for mistake, (_, media) in zip(mistakes, render_mistakes(folder, run, options.mistakes), strict=True)
        ]
    except InputError as error:
        console.print(f"Mistakes are logged to W&B without pictures and sounds: {error}")
    log_cv(folder, run, wandb, mistakes, load_shortcuts(folder, run.collection, run.total.classes))
