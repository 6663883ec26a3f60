"""The model file of a finished fold, ``weights.pt``: the weights and everything else that prediction requires."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from soundfold.config import parse_stored
from soundfold.data.leakage import SeenClips
from soundfold.errors import InputError, is_out_of_memory
from soundfold.experiment import build
from soundfold.features.pipeline import FrontEnd
from soundfold.io.checkpoints import load_checkpoint, save_checkpoint
from soundfold.models.memory_format import to_channels_last
from soundfold.models.networks import check_stored_network, is_builtin, on_meta

# in the folder of a fold
WEIGHTS = Path("checkpoints") / "weights.pt"


@dataclass(frozen=True)
class ModelBundle:
    """A trained model as plain values, which load without executing code from the file.

    Attributes:
        network: state dict of the network.
        mean, std: the front end's normalization statistics, dB.
        classes: class names, in the order of the network's outputs.
        config: the run's configuration, YAML.
        seen: clips that trained or chose the model.
    """

    network: dict[str, Tensor]
    mean: Tensor
    std: Tensor
    classes: tuple[str, ...]
    config: str
    seen: SeenClips

    def save(self, path: Path) -> None:
        """Write the file atomically, with tensors on the CPU."""
        content = {
            "network": {name: _contiguous(value) for name, value in self.network.items()},
            "mean": self.mean.cpu(),
            "std": self.std.cpu(),
            "classes": list(self.classes),
            "config": self.config,
            "seen": {"hashes": sorted(self.seen.hashes), "sources": sorted(map(list, self.seen.sources))},
        }
        save_checkpoint(path, content)

    @classmethod
    def load(cls, path: Path) -> ModelBundle:
        """Read a file that `save`, of this or of the first edition, wrote.

        Raises:
            InputError: the file is not a model, is damaged, or has a configuration of another version.
        """
        try:
            content = load_checkpoint(path)
            bundle = cls(
                content["network"],
                content["mean"],
                content["std"] if "std" in content else content["deviation"],  # first edition
                tuple(content["classes"]),
                content["config"],
                _seen_clips(content),
            )
            bundle._check()
            # checked again by `rebuild`, which does not know the path
            build.refuse_foreign_keys(bundle.values, str(path))
        except InputError:
            raise
        except Exception as error:  # torch raises many types for a file of another format
            if is_out_of_memory(error):
                raise
            raise InputError(
                f"{path} is not a trained model ({_reason(error)}). Give checkpoints/weights.pt of a finished fold. If "
                "the file is damaged, train the fold again with rerun=true."
            ) from error
        return bundle

    @property
    def values(self) -> dict[str, Any]:
        """Plain values of the configuration."""
        return parse_stored(self.config)

    def digest(self) -> str:
        """Return the SHA-256 of the weights and statistics, which does not depend on the file that they are in."""
        total = hashlib.sha256()
        for name, value in sorted({**self.network, "mean": self.mean, "std": self.std}.items()):
            total.update(name.encode())
            total.update(_contiguous(value).reshape(-1).view(torch.uint8).numpy().data)
        return total.hexdigest()

    def _check(self) -> None:
        """Raise ValueError for values that would predict NaN, or assign two outputs to one class."""
        if len(set(self.classes)) < len(self.classes) or not all(isinstance(name, str) for name in self.classes):
            raise ValueError("its class names are not texts, or one occurs twice")
        for name, values in {**self.network, "mean": self.mean, "std": self.std}.items():
            if not values.isfinite().all():
                raise ValueError(f"{name} has values that are not finite")
            if (name.endswith("running_var") and (values < 0).any()) or (name == "std" and (values <= 0).any()):
                raise ValueError(f"{name} has a value that is no variance or standard deviation")

    def rebuild(self) -> tuple[FrontEnd, nn.Module]:
        """Return the front end with its statistics and the network with its weights, in evaluation mode on the CPU.

        Raises:
            InputError: the network's class is not trusted, see `check_stored_network`; or a value is invalid.
            RuntimeError: the weights do not fit the network.
        """
        cfg = build.stored_sections(self.values)
        section: Any = OmegaConf.to_container(cfg.model)
        check_stored_network(section)
        front_end = build.front_end(cfg, augmented=False)
        front_end.mean.copy_(self.mean)
        front_end.std.copy_(self.std)
        if is_builtin(section):
            # a few bytes can describe a network that exhausts memory: compare the shapes first
            with on_meta(), suppress(NotImplementedError):
                build.network(cfg, len(self.classes)).load_state_dict(self.network, assign=True)
        network = build.network(cfg, len(self.classes))
        network.load_state_dict(self.network)
        # ours take it; one of the user's may not
        if cfg.model.channels_last or is_builtin(section):
            to_channels_last(network)
        return front_end.eval(), network.eval()


def seen_by_weights(weights: str) -> SeenClips:
    """Return the clips that trained or chose the weights that a run starts from; none if the file does not list them.

    Args:
        weights: see `soundfold.models.initial_weights.initialize`.
    """
    if weights in ("none", "imagenet"):
        return SeenClips()
    try:
        return _seen_clips(load_checkpoint(Path(weights)))
    except Exception as error:  # an unreadable file is reported by the code that loads its weights
        if is_out_of_memory(error):
            raise
        return SeenClips()


def _seen_clips(content: Any) -> SeenClips:
    # "met" in the first edition
    seen = content.get("seen", content.get("met")) if isinstance(content, dict) else None
    if not isinstance(seen, dict):
        return SeenClips()
    return SeenClips(frozenset(seen["hashes"]), frozenset((source, name) for source, name in seen["sources"]))


def _contiguous(weight: Tensor) -> Tensor:
    """Return a weight on the CPU in one memory format, whatever that of the training."""
    return weight.to("cpu", memory_format=torch.contiguous_format)


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error}"
    # not torch's messages, which advise to load the file unsafely
    return str(error) if isinstance(error, ValueError) else type(error).__name__
