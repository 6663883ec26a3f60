"""Checks of a page's commands without running them, and the small settings with which they run."""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tomllib
from collections.abc import Callable, Sequence
from contextlib import chdir
from importlib import import_module
from pathlib import Path
from unittest import mock

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from helpers.doc_blocks import Block, Command
from helpers.tiny import RATE, ROOT
from soundfold.cli.main import CONFIGURED, FLAGGED
from soundfold.cli.overrides import check_overrides, parse_arguments
from soundfold.config import CONF, Config, Explore, Prepare, register
from soundfold.validation import check_values, validate, validate_data, validate_explore

SCHEMAS = {"train": Config, "prepare": Prepare, "explore": Explore}
# the first words that a page may use besides soundfold and python
TOOLS = ("cd", "mkdir", "ls", "cat", "head", "cp", ".", "source")


class PageError(AssertionError):
    """A command of a page that is wrong."""


def as_soundfold(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``soundfold NAME ...`` for ``python scripts/NAME.py ...``, and other commands unchanged."""
    script = re.fullmatch(r"scripts/(\w+)\.py", words[1]) if words[0] == "python" and len(words) > 1 else None
    return ("soundfold", script[1], *words[2:]) if script and script[1] in {**CONFIGURED, **FLAGGED} else words


def check_command(command: Command, cwd: Path) -> DictConfig | None:
    """Compose the configuration of a command or parse its flags; return the configuration, if it has one.

    Raises:
        PageError: the command does not exist, or would be refused.
    """
    words = as_soundfold(command.words)
    try:
        with chdir(cwd):
            if words[0] == "soundfold":
                return _check_soundfold(list(words[1:]))
            if words[0] == "python":
                return _check_python(words)
        if words[0] == "make":
            _check_make(words[1:])
        elif words[0] == "pip":
            _check_pip(words)
        elif words[0] not in TOOLS and command.block.reason is None:
            raise PageError(f"is a command that this test does not know: {TOOLS}, soundfold, python, make, pip")
    except Exception as error:
        if command.block.reason is not None and "is not installed" in str(error):
            return None
        raise PageError(f"{command.where}\n{error}") from error
    return None


def _check_soundfold(words: list[str]) -> DictConfig | None:
    if words[0] in CONFIGURED:
        return compose_command(words[0], words[1:])
    if words[0] in FLAGGED:
        _parse_flags(f"soundfold.cli.{words[0]}", words[1:])
    elif words[0] == "wandb":
        import_module("soundfold.cli.wandb")
    elif not words[0].startswith("-"):
        raise PageError(f"{words[0]} is not a command of soundfold")
    return None


def compose_command(name: str, args: list[str]) -> DictConfig | None:
    """Return the validated configuration of the last job of a command; None if it has none."""
    parsed = parse_arguments(args)
    if parsed.shell_completion:
        return None
    project = [Path(parsed.config_dir).resolve()] if parsed.config_dir else []
    check_overrides(parsed.overrides, SCHEMAS[name], [CONF, *project])
    register()
    GlobalHydra.instance().clear()
    path = [*sys.path, *(str(folder.parent) for folder in project)]
    with mock.patch.object(sys, "path", path), initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        overrides = OverridesParser.create(config_loader=loader).parse_overrides(parsed.overrides)
        (jobs,) = BasicSweeper.split_arguments(overrides, None)
        search = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in project)}]"] if project else []
        # the launcher's options are Hydra's, which compose() does not resolve
        cfg = compose(name, [*(word for word in jobs[-1] if not word.startswith("hydra")), *search])
        {"train": validate, "prepare": validate_data, "explore": validate_explore}[name](cfg)
        return cfg


class _Parsed(BaseException):
    """The flags are valid."""


def _parse_flags(module: str, args: list[str]) -> None:
    def stop_after(parse: Callable[..., object]) -> Callable[..., None]:
        def stop(self: argparse.ArgumentParser, *_: object) -> None:
            parse(self, args)
            raise _Parsed

        return stop

    names = ("parse_args", "parse_intermixed_args")
    stops = {name: stop_after(getattr(argparse.ArgumentParser, name)) for name in names}
    with mock.patch.multiple(argparse.ArgumentParser, **stops):
        try:
            import_module(module).main()
        except _Parsed:
            return
        except SystemExit as end:
            if end.code:
                raise PageError(f"its flags are refused: {args}") from None


def _check_python(words: tuple[str, ...]) -> None:
    if words[1] in ("-m", "-c"):
        return
    script = ROOT / words[1]
    if not script.is_file():
        raise PageError(f"there is no {words[1]}")
    if script.stem == "benchmark":
        register()
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            check_values(compose("benchmark", list(words[2:])))


def _check_make(words: tuple[str, ...]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for word in words:
        if "=" not in word and word not in targets:
            raise PageError(f"the Makefile has no target {word}")


def _check_pip(words: tuple[str, ...]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words:
        for extra in (re.search(r"\[(.*)\]", word) or ["", ""])[1].split(","):
            if extra and extra not in extras:
                raise PageError(f"pyproject.toml has no extra {extra}")


def check_python(block: Block) -> None:
    """Compile a block, and look for every name that it imports from soundfold."""
    try:
        tree = ast.parse(block.text, block.where)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("soundfold"):
                module = import_module(node.module or "")
                for name in node.names:
                    getattr(module, name.name)
    except (SyntaxError, ImportError, AttributeError) as error:
        raise PageError(f"{block.where}\n{error}") from error


def small(words: tuple[str, ...], cfg: DictConfig, collection: Path, cache: Path) -> list[str]:
    """Return the words with settings that make the command small: short clips, few bands, one epoch, no page."""
    overrides = parse_arguments(list(words[2:])).overrides
    keys = {text.split("=")[0] for text in overrides}
    own = cfg.data.layout in ("folder", "csv") or bool(cfg.data.get("reader"))
    settings = [f"data.sample_rate={RATE}", "data.seconds=0.5"]
    settings += [] if own else [f"data.root={collection}", "data.download=null"]
    if "paths.cache" not in keys:
        settings.append(f"paths.cache={cache}")
    if words[1] != "prepare":
        if cfg.features.image is None:
            settings += ["features.window=0.064", "features.hop=0.02", "features.n_mels=16", "features.f_max=4000"]
        if words[1] == "train":
            settings += _small_training(cfg, keys, "-m" in words)
        else:
            settings.append("examples=1")
    return [*words, *settings]


def _small_training(cfg: DictConfig, keys: set[str], is_sweep: bool) -> list[str]:
    batch_size = max(8, 4 * cfg.trainer.accumulate_grad_batches)
    settings = ["trainer.accelerator=cpu", "trainer.precision=32-true", f"data.batch_size={batch_size}"]
    settings += ["report.page=none", "trainer.enable_progress_bar=false"]
    settings += ["trainer.max_epochs=1"] if cfg.trainer.max_epochs != -1 else ["trainer.max_steps=2"]
    if "logger" not in keys:
        settings.append("logger=csv")
    if cfg.crops.seconds is not None:
        settings.append("crops.seconds=0.4")
    if cfg.model._target_.endswith("ResNet18"):
        settings.append("model.width=16")
    if cfg.model.weights == "imagenet":
        # it would be downloaded
        settings.append("model.weights=none")
    if cfg.search is not None:
        settings.append("search.trials=1")
    elif is_sweep and "fold" not in keys:
        settings.append("fold=1")
    return settings


def small_python(text: str) -> str:
    """Return Python whose trainer trains for one epoch; see also `small_cross_validate`."""
    return re.sub(r"max_epochs=\d+", "max_epochs=1", text)


def small_cross_validate(collection: Path, cache: Path) -> Callable[..., object]:
    """Return `soundfold.cross_validate` on small settings."""
    from soundfold.api import cross_validate

    def run(config: Sequence[str] = (), **options: object) -> object:
        cfg = compose_command("train", list(config))
        assert cfg is not None
        return cross_validate(small(("soundfold", "train", *config), cfg, collection, cache)[2:], **options)

    return run
