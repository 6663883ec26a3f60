"""Records of offline W&B runs."""

from pathlib import Path

from soundfold.experiment.wandb_runs.offline import read_records


def wandb_records(path: Path) -> list:
    """Return the records of an offline run's file."""
    return list(read_records(path))
