"""The reporter of a training run: tables in the terminal, ``report.html``, and W&B's run of the cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from soundfold.config import Wandb
from soundfold.errors import InputError
from soundfold.evaluation.compare import RunResult, load_run
from soundfold.evaluation.results import FoldResult, summarise
from soundfold.io.atomic import explain_write_errors, remove_partial_files
from soundfold.io.console import console
from soundfold.io.locks import exclusive_lock
from soundfold.report.terminal import print_folds, print_run


class RunReporter:
    """The `soundfold.experiment.run.Reporter` of the command line."""

    def print_folds(self, results: Sequence[FoldResult]) -> None:
        """Print a row per fold."""
        print_folds(results)

    def report_run(
        self,
        folder: Path,
        results: list[FoldResult],
        options: DictConfig,
        logger: DictConfig | None = None,
        *,
        show_table: bool = True,
    ) -> None:
        """Write ``cv.json`` and ``report.html`` of a complete run, print its table, and log it to W&B if it uses W&B.

        Args:
            folder: of the run.
            results: all folds of the run.
            options: `soundfold.config.Report`.
            logger: `soundfold.config.Logger`; None takes the run's stored configuration.
            show_table: print the table.

        Raises:
            InputError: a fold is missing, duplicated or from another run, or the folder cannot be written.
        """
        summarise(results)  # raises unless the folds are one complete cross-validation
        run = load_run(folder)
        remedy = "Free some space, or copy the run to a folder that is writable."
        with explain_write_errors(folder, remedy), exclusive_lock(folder / "cv.lock", "is summarizing this run"):
            remove_partial_files([*folder.glob("*"), *folder.glob("figures/*")])
            replace(run.total, interval=run.interval).save(folder / "cv.json")
            if show_table:
                print_run(results, run)
            if options.page != "none":
                # imported here: plotting takes a second to import
                from soundfold.report.run_page import write_run_page

                console.print(f"Report: {write_run_page(folder, run, options)}", soft_wrap=True)
            wandb_options = run.config["logger"]["wandb"] if logger is None else logger.wandb
            if wandb_options is not None:
                _log_to_wandb(folder, run, options, wandb_options)


def _log_to_wandb(folder: Path, run: RunResult, options: DictConfig, wandb_options: Any) -> None:
    from soundfold.experiment.wandb_runs import LoggedMistake, log_cv, needs_logging
    from soundfold.report.drawing import pixels
    from soundfold.report.mistakes import list_mistakes, render_mistakes

    # a stored configuration may lack keys that were added later
    merged: Any = OmegaConf.merge(OmegaConf.structured(Wandb), wandb_options)
    if not needs_logging(folder, merged):
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
    log_cv(folder, run, merged, mistakes)
