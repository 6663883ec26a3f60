"""What a finished fold keeps of its model: the weights, and all that a prediction needs beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

from soundfold.data.leakage import SeenClips
from soundfold.errors import InputError
from soundfold.experiment import build
from soundfold.features.pipeline import FrontEnd
from soundfold.io.checkpoints import load_checkpoint, save_checkpoint
from soundfold.models.resnet import ResNet18


@dataclass(frozen=True)
class ModelBundle:
    """A trained model, as plain values that load without running anything found in the file.

    Attributes:
        network: state dict of `ResNet18`, on the CPU.
        mean, std: the front end's statistics, dB.
        classes: names, indexed by the network's outputs.
        config: the run's configuration, YAML.
        seen: the clips that trained or chose the model.
    """

    network: dict[str, Tensor]
    mean: Tensor
    std: Tensor
    classes: tuple[str, ...]
    config: str
    seen: SeenClips

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        content = {
            "network": {name: value.cpu() for name, value in self.network.items()},
            "mean": self.mean.cpu(),
            "std": self.std.cpu(),
            "classes": list(self.classes),
            "config": self.config,
            "seen": {"hashes": sorted(self.seen.hashes), "sources": sorted(map(list, self.seen.sources))},
        }
        save_checkpoint(path, content)

    @classmethod
    def load(cls, path: Path) -> ModelBundle:
        """Read what `save` wrote.

        Raises:
            InputError: the file is not a model kept by a run, is damaged, or has a configuration of another version.
        """
        try:
            found = load_checkpoint(path)
            kept = cls(
                found["network"],
                found["mean"],
                found["std"] if "std" in found else found["deviation"],
                tuple(found["classes"]),
                found["config"],
                _seen_clips(found),
            )
            given = OmegaConf.create(kept.config)
        except Exception as error:  # torch raises many kinds for a file that is not one of its own
            # torch's own words advise to load it unsafely
            reason = f"it has no {error}" if isinstance(error, KeyError) else type(error).__name__
            if isinstance(error, ValueError):
                reason = str(error)
            raise InputError(
                f"{path} is not a model that a run has kept ({reason}). Give checkpoints/weights.pt of a finished "
                "fold; one that was damaged is made anew by the fold's command with rerun=true."
            ) from error
        # here as well as where it is rebuilt: only here is the file known
        build.refuse_foreign_keys(given, str(path))
        return kept

    def rebuild(self) -> tuple[FrontEnd, ResNet18]:
        """The front end with its statistics, and the network with its weights, for evaluation on the CPU."""
        cfg = build.stored_sections(OmegaConf.create(self.config))
        front_end = build.front_end(cfg)
        front_end.mean.copy_(self.mean)
        front_end.std.copy_(self.std)
        network = build.network(cfg, len(self.classes))
        network.load_state_dict(self.network)
        return front_end.eval(), network.eval()


def seen_by_weights(weights: str) -> SeenClips:
    """The clips that trained or chose the weights that a run starts from; none where the file does not say.

    Args:
        weights: as `single_channel_resnet18` takes them.
    """
    if weights in ("none", "imagenet"):
        return SeenClips()
    try:
        return _seen_clips(load_checkpoint(Path(weights)))
    except Exception:  # what is wrong with the file is said where its weights are read
        return SeenClips()


def _seen_clips(found: Any) -> SeenClips:
    seen = found.get("seen", found.get("met")) if isinstance(found, dict) else None
    if not isinstance(seen, dict):
        return SeenClips()
    return SeenClips(frozenset(seen["hashes"]), frozenset((source, name) for source, name in seen["sources"]))
