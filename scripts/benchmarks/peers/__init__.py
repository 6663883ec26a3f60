"""Time soundfold beside other libraries: one process each, on the same clips, from the command to steady epochs."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.folds import render
from benchmarks.tables import measured_on, write_files, write_results
from soundfold.errors import InputError
from soundfold.experiment import environment
from soundfold.experiment.device import choose_device

SCRIPTS = Path(__file__).parent
SIZES = ("128x501", "128x128")
# timed, after one that warms up
EPOCHS = 2
# s for one peer at one size: torch-audiomentations shifts the pitch of 16 clips in 7 s
LIMIT = 1200
OURS = "soundfold, defaults"
# of the peers' environments, by name; autrainer needs an older Pillow than OpenSoundscape
REQUIREMENTS = {"peers": "requirements.txt", "peers-autrainer": "requirements-autrainer.txt"}


@dataclass(frozen=True)
class Peer:
    """One row.

    Attributes:
        script: file in this folder; see `benchmarks.peers.clock` for its arguments.
        package: that the script imports; None for ours, which the interpreter of the benchmark has.
        options: further arguments of the script.
        environment: that has the package, see `REQUIREMENTS`.
        stores: a first run, which is not counted, stores what later runs read.
    """

    script: str
    package: str | None = None
    options: tuple[str, ...] = ()
    environment: str = "peers"
    stores: bool = False


PEERS = {
    OURS: Peer("ours", stores=True),
    "soundfold, float32": Peer("ours", None, ("trainer.precision=32-true", "model.channels_last=false"), stores=True),
    "OpenSoundscape, defaults": Peer("opensoundscape_cnn", "opensoundscape"),
    "OpenSoundscape, bf16 and channels-last": Peer("opensoundscape_cnn", "opensoundscape", ("fast",)),
    # emulated bfloat16 takes minutes per epoch, where the processor does not multiply it
    "OpenSoundscape, float32": Peer("opensoundscape_cnn", "opensoundscape", ("float32",)),
    "plain loop, audiomentations": Peer("audiomentations_loop", "audiomentations"),
    "plain loop, torch-audiomentations": Peer("torch_audiomentations_loop", "torch_audiomentations"),
    "autrainer, SpecAugment": Peer("autrainer_train", "autrainer", (), "peers-autrainer", stores=True),
}


def run(
    device: str,
    batch: int,
    clips: int,
    root: str | None,
    peers_python: Sequence[str],
    outputs: Path,
    sizes: Sequence[str] = SIZES,
) -> Path:
    """Measure and print, and write ``peers-<device>.md`` and ``.json``, also after each row.

    Args:
        device: ``cpu`` or ``cuda``.
        batch: clips in a batch.
        clips: clips of an epoch. A collection's first fold is left out, so a quarter as many again are rendered.
        root: an ESC-50-format collection; None uses noise. Its clips must be enough.
        peers_python: interpreters of the peers' environments; each peer uses the first that has its package. Without
            any, only soundfold is measured.
        outputs: folder for both files.
        sizes: of the images, bands x frames.

    Raises:
        InputError: the device or an interpreter is not available.
    """
    target = choose_device(device)
    if missing := [name for name in peers_python if not Path(name).is_file()]:
        raise InputError(f"peers_python: {missing[0]} does not exist. Make the environment: {_install('peers')}.")
    header: dict[str, Any] = {**environment.describe(target), "date": time.strftime("%Y-%m-%d")}
    header |= {"batch": batch, "clips": clips, "source": "noise" if root is None else Path(root).name}
    rows: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    results = outputs / f"peers-{device}"
    content = {"header": header, "rows": rows, "skipped": skipped}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if root is None:
            render(folder / "sounds", clips * 5 // 4, 5.0, 5)
        sounds = folder / "sounds" if root is None else Path(root).resolve()
        for title, peer in PEERS.items():
            python, reason = _find_interpreter(peer, peers_python)
            if python is None:
                skipped[title] = reason
                continue
            for size in sizes:
                arguments = [str(sounds), size, str(batch), str(clips), str(EPOCHS + 1), device, str(folder)]
                row, reason = _measure([python, str(SCRIPTS / f"{peer.script}.py"), *arguments], peer)
                rows += [{"peer": title, "size": size, **row}] if row else []
                skipped |= {f"{title}, {size}": reason} if reason else {}
                write_files(results, content, markdown(header, rows, skipped))
                print(f"{title}, {size}:", reason or f"{min(row['epochs']):.1f} s an epoch", flush=True)
    return write_results(results, content, markdown(header, rows, skipped), width=140)


def _install(environment: str) -> str:
    """Return the command that makes an environment."""
    file = f"scripts/benchmarks/peers/{REQUIREMENTS[environment]}"
    return f"python -m venv {environment} && {environment}/bin/pip install -r {file}"


def _find_interpreter(peer: Peer, pythons: Sequence[str]) -> tuple[str | None, str]:
    """Return the first interpreter that has the peer's package, or None and why there is none."""
    if peer.package is None:
        return sys.executable, ""
    reason = "not installed"
    for python in pythons:
        done = subprocess.run([python, "-c", f"import {peer.package}"], capture_output=True, text=True)
        if done.returncode == 0:
            return python, ""
        reason = (done.stderr.splitlines() or ["?"])[-1]
    install = _install(peer.environment)
    return None, f"{reason} ({install}, then peers_python=[{peer.environment}/bin/python])"


def _measure(command: list[str], peer: Peer) -> tuple[dict[str, Any], str]:
    """Return the figures of a script, or the error that it ended with."""
    for _ in range(2 if peer.stores else 1):
        try:
            done = subprocess.run(
                [*command, str(time.time()), *peer.options], capture_output=True, text=True, timeout=LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            return {}, f"not finished after {LIMIT} s"
    try:
        return json.loads(done.stdout.splitlines()[-1]), ""
    except (IndexError, ValueError):
        return {}, (done.stderr.splitlines() or ["no output"])[-1]


def markdown(header: dict[str, Any], rows: list[dict[str, Any]], skipped: dict[str, str]) -> str:
    """Return a table with a row per peer and size; times relative to ours by default."""
    epochs = {(row["peer"], row["size"]): min(row["epochs"]) for row in rows}
    lines = [
        f"{header['clips']} clips of 5 s ({header['source']}), batch {header['batch']}, ResNet-18. First step: from "
        f"the command to the end of the first optimizer step. Epoch: the best of {EPOCHS} after one.",
        measured_on(header),
        "",
        "| training | image | first step, s | epoch, s | relative to ours | version |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        epoch, ours = epochs[row["peer"], row["size"]], epochs.get((OURS, row["size"]))
        relative = "?" if ours is None else f"{epoch / ours:.2f}"
        lines.append(
            f"| {row['peer']} | {row['size']} | {row['first_step']:.1f} | {epoch:.1f} | {relative} | {row['version']} |"
        )
    lines += ["", *(f"Not measured: {title}: {reason}." for title, reason in skipped.items())]
    return "\n".join(lines).rstrip() + "\n"
