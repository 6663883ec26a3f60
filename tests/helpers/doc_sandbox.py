"""A folder in which the commands of a page are tried: small sounds, small runs, and a warm process for the commands."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import re
import runpy
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import soundfile

from helpers.tiny import RATE, ROOT, render

# imported once, by the process that the commands are forked from
WARM = [
    "soundfold.api",
    "soundfold.cli.train",
    "soundfold.cli.explore",
    "soundfold.eda.explore",
    "soundfold.inference.predict",
    "soundfold.inference.export",
    "soundfold.report.reporter",
]
RUN = re.compile(r"[\w./-]*outputs/[\w-]+-1a2b3c4d")
SECONDS = 900


class Sandbox:
    """The folder of one page.

    Args:
        folder: new, with what `prepare` puts there.
        collection: a tiny collection in ESC-50's layout with five folds.
        run: a finished tiny run, which stands for any ``outputs/NAME-1a2b3c4d``.
    """

    def __init__(self, folder: Path, collection: Path, run: Path) -> None:
        self.folder, self.collection, self.run = folder, collection, run
        self.cwd = folder
        folder.mkdir(parents=True)
        write_sounds(folder)
        (folder / "data").mkdir()
        (folder / "data" / "ESC-50").symlink_to(collection)
        (folder / "scripts").symlink_to(ROOT / "scripts")

    def place_runs(self, text: str) -> None:
        """Put a copy of the finished run wherever a text names one, and into each folder ``outputs`` that it names."""
        listed = [f"{name}/earlier-1a2b3c4d" for name in re.findall(r"(?:^| )((?:\w+/)?outputs)(?= |$)", text)]
        for name in [*RUN.findall(text), *listed]:
            path = self.cwd / name
            if not path.exists():
                shutil.copytree(self.run, path, copy_function=os.link)

    def call(self, *task: object) -> tuple[int, str]:
        """Run `child` in a process forked from the warm one; return its exit code and output."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(WARM)
        log = self.folder / "output.txt"
        small = (self.collection, self.folder / "cache")
        process = context.Process(target=child, args=(str(self.cwd), str(log), small, *task))
        process.start()
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        return process.exitcode or 0, log.read_text(errors="replace")


def child(cwd: str, log: str, small: tuple[Path, Path], kind: str, text: object, variables: dict[str, str]) -> None:
    """Run the command or the Python of a page, with its output in a file. Called in a process of its own."""
    gc.freeze()  # garbage collection skips what the warm process imported
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    os.chdir(cwd)
    os.environ.update(variables, MPLBACKEND="agg", WANDB_MODE="disabled", COLUMNS="120")
    code: object = 1
    try:
        code = _python(str(text), *small) if kind == "python" else _command(list(text))  # type: ignore[call-overload]
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _command(words: list[str]) -> object:
    if words[0] == "soundfold":
        from soundfold.cli.main import main

        sys.argv = words
        return main()
    if words[:2] == ["python", "-m"]:
        sys.argv = words[2:]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(words[2], run_name="__main__", alter_sys=True)
        return 0
    if words[0] == "python":
        sys.argv = words[1:]
        sys.path.insert(0, str(Path(words[1]).resolve().parent))
        runpy.run_path(words[1], run_name="__main__")
        return 0
    return subprocess.run(words, check=False).returncode


def _python(text: str, collection: Path, cache: Path) -> object:
    # imported here: the checks are not needed by commands
    import soundfold.api
    from helpers.doc_checks import small_cross_validate

    soundfold.api.cross_validate = small_cross_validate(collection, cache)  # type: ignore[assignment]
    sys.path.insert(0, os.getcwd())
    exec(compile(text, "page", "exec"), {"__name__": "__main__"})
    return 0


def render_collection(root: Path) -> Path:
    """Render thirty clips of half a second in five folds, all marked as ESC-10's."""
    render(root, folds=5)
    table = root / "meta" / "esc50.csv"
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([f"{header},esc10", *(f"{row},True" for row in rows)]) + "\n")
    return root


def write_sounds(folder: Path) -> None:
    """Write recordings, a folder of a class each, and a table and a JSON list of clips."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(-0.3, 0.3, 3 * RATE)
    (folder / "recordings").mkdir()
    for name in ("dog.wav", "night.flac", "recordings/a.wav", "recordings/b.flac"):
        soundfile.write(folder / name, noise[: 3 * RATE if name == "night.flac" else RATE // 2], RATE)
    rows, clips = ["path,label"], []
    (folder / "wav").mkdir()
    for label, pitch in (("bell", 500), ("whistle", 1500)):
        (folder / "sounds" / label).mkdir(parents=True)
        for recording in range(6):
            for take in (1, 2):
                name = f"{label}{recording}-{take}.wav"
                time = np.arange(RATE // 2) / RATE
                wave = 0.3 * np.sin(2 * np.pi * (pitch + 20 * recording + take) * time) + rng.normal(0, 0.01, len(time))
                soundfile.write(folder / "sounds" / label / name, wave, RATE)
                shutil.copy(folder / "sounds" / label / name, folder / "wav" / name)
                rows.append(f"{name},{label}")
                clips.append({"wav": name, "label": label, "recording": f"{label}{recording}"})
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    # beside the table and in the folder of the audio, for readers of either
    for path in (folder / "clips.json", folder / "wav" / "clips.json"):
        path.write_text(json.dumps(clips))
