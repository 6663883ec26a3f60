"""What a finished fold keeps of its model: the weights, and all that a prediction needs beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor

from soundfold.archive import read_archive, write_archive
from soundfold.data.folds import Met
from soundfold.errors import InputError
from soundfold.experiment import build
from soundfold.frontend.front_end import FrontEnd
from soundfold.model.resnet import ResNet18


@dataclass(frozen=True)
class KeptModel:
    """A trained model, as plain values that load without running anything found in the file.

    Attributes:
        network: state dict of `ResNet18`, on the CPU.
        mean, deviation: the front end's statistics, dB.
        classes: names, indexed by the network's outputs.
        config: the run's configuration, YAML.
        met: the clips that trained or chose the model.
    """

    network: dict[str, Tensor]
    mean: Tensor
    deviation: Tensor
    classes: tuple[str, ...]
    config: str
    met: Met

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        content = {
            "network": {name: value.cpu() for name, value in self.network.items()},
            "mean": self.mean.cpu(),
            "deviation": self.deviation.cpu(),
            "classes": list(self.classes),
            "config": self.config,
            "met": {"hashes": sorted(self.met.hashes), "sources": sorted(map(list, self.met.sources))},
        }
        write_archive(path, content)

    @classmethod
    def load(cls, path: Path) -> KeptModel:
        """Read what `save` wrote.

        Raises:
            InputError: the file is not a model kept by a run, is damaged, or has a configuration of another version.
        """
        try:
            found = read_archive(path)
            kept = cls(
                found["network"],
                found["mean"],
                found["deviation"],
                tuple(found["classes"]),
                found["config"],
                _met(found),
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
        cfg = build.image_sections(OmegaConf.create(self.config))
        front_end = build.front_end(cfg)
        front_end.mean.copy_(self.mean)
        front_end.deviation.copy_(self.deviation)
        network = build.network(cfg, len(self.classes))
        network.load_state_dict(self.network)
        return front_end.eval(), network.eval()


def met_by_weights(weights: str) -> Met:
    """The clips that trained or chose the weights that a run starts from; none where the file does not say.

    Args:
        weights: as `single_channel_resnet18` takes them.
    """
    if weights in ("none", "imagenet"):
        return Met()
    try:
        return _met(read_archive(Path(weights)))
    except Exception:  # what is wrong with the file is said where its weights are read
        return Met()


def _met(found: Any) -> Met:
    met = found.get("met") if isinstance(found, dict) else None
    if not isinstance(met, dict):
        return Met()
    return Met(frozenset(met["hashes"]), frozenset((source, name) for source, name in met["sources"]))
