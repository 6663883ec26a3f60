"""Shows the results of a run: tables on the terminal, ``report.html``, W&B's run of the cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from soundfold.evaluation.compare import RunResult
from soundfold.evaluation.results import FoldResult, load_folds
from soundfold.io.atomic import explain_write_errors, remove_partial_files
from soundfold.io.console import console
from soundfold.io.locks import exclusive_lock
from soundfold.report.terminal import print_folds, print_run


class RunReporter:
    """The reporter that the command line hands to `cross_validate`."""

    def print_folds(self, results: Sequence[FoldResult]) -> None:
        """Print a row per fold."""
        print_folds(results)

    def report_run(
        self,
        folder: Path,
        run: RunResult,
        options: DictConfig,
        logger: DictConfig | None = None,
        *,
        show_table: bool = True,
    ) -> None:
        """Show a complete run: the table, ``report.html``, and W&B's run of the cross-validation if the run logs to
        W&B.

        Args:
            folder: the run's folder.
            run: see `soundfold.evaluation.summary.write_summary`.
            options: `soundfold.config.Report`.
            logger: `soundfold.config.Logger`; None takes the run's own.
            show_table: print the table, too.

        Raises:
            InputError: the page cannot be written, or W&B cannot open its run.
        """
        remedy = "Free some space, or copy the run to a place that can be written."
        with explain_write_errors(folder, remedy), exclusive_lock(folder / "cv.lock", "is reporting this run"):
            remove_partial_files([*folder.glob("*"), *folder.glob("figures/*")])
            if show_table:
                print_run(load_folds(folder), run)
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
