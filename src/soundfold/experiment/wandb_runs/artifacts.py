"""Lineage in W&B: the collection that a run used, and the model that it made."""

from __future__ import annotations

import json
from pathlib import Path

import wandb

from soundfold.experiment.setup import RunContext
from soundfold.io.atomic import write_text

COLLECTION = Path("wandb") / "collection.json"


def describe_collection(run: RunContext, folder: Path) -> None:
    """Write name, size and digests of the clips to a fold's folder, for `use_collection`."""
    table = run.collection.table
    values = {"name": run.cfg.data.name, "clips": len(table), "classes": list(table.classes), **run.digests}
    write_text(folder / COLLECTION, json.dumps(values, indent=1))


def use_collection(run: wandb.Run, folder: Path) -> None:
    """Declare the collection as an input of a run, if the fold's folder describes it.

    The artifact has no sounds. Its one file has their digest, so only other clips make a new version of it.
    """
    path = folder / COLLECTION
    if not path.is_file():
        return
    values = json.loads(path.read_text())
    artifact = wandb.Artifact(f"collection-{values['name']}", type="dataset", metadata=values)
    artifact.add_file(str(path.resolve()), policy="immutable")
    # `use_artifact` refuses to work offline, although a run's upload can declare an input, as it does itself online
    run._log_artifact(artifact, use_after_commit=True)


def log_model(run: wandb.Run, name: str, weights: Path) -> None:
    """Declare a fold's ``weights.pt`` as an output of a run, and upload it."""
    artifact = wandb.Artifact(name, type="model")
    # immutable: W&B uploads this file instead of a copy
    artifact.add_file(str(weights.resolve()), policy="immutable")
    run.log_artifact(artifact)
