"""Rebuild trained models from their bundles to score clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from soundfold.errors import InputError
from soundfold.experiment import build
from soundfold.experiment.model_bundle import ModelBundle
from soundfold.models.scoring import ClipScorer


def rebuild_scorer(bundles: Sequence[ModelBundle]) -> tuple[ClipScorer, DictConfig]:
    """Rebuild models that have the same classes, clips, features and crops.

    Returns:
        The scorer in evaluation mode on the CPU, and the stored sections of the first model's configuration.

    Raises:
        InputError: a bundle is inconsistent, or the models cannot be averaged.
    """
    models = [_rebuild(bundle) for bundle in bundles]
    input_formats = [
        (bundle.classes, sections.data.sample_rate, sections.data.seconds, sections.features, sections.crops)
        for bundle, (sections, *_) in zip(bundles, models, strict=True)
    ]
    if any(other != input_formats[0] for other in input_formats):
        raise InputError(
            "The models differ in classes, clip length, sample rate, features or crops, so they cannot be averaged. "
            "Select one of them with --fold."
        )
    sections, crops, _, _ = models[0]
    scorer = ClipScorer([model[2] for model in models], [model[3] for model in models], crops)
    return scorer.eval(), sections


def _rebuild(bundle: ModelBundle) -> tuple[DictConfig, Any, nn.Module, nn.Module]:
    """Return a bundle's configuration sections, crops, front end and network."""
    try:
        sections = build.stored_sections(bundle.values)
        front_end, network = bundle.rebuild()
        return sections, build.crops(sections), front_end, network
    except (OmegaConfBaseException, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else ""
        raise InputError(
            f"The model cannot be rebuilt ({type(error).__name__}: {reason}): its weights, classes and configuration "
            "do not fit together, or a later version of soundfold wrote it. Use an unmodified weights.pt of a run."
        ) from error
