"""Control characters and markup in names, as they reach a terminal or a Markdown table."""

import ast
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import ROOT
from rich.progress import Progress, TextColumn, track
from rich.table import Table
from rich.text import Text

from soundfold.cli import hydra_app
from soundfold.errors import InputError, TrainingError, exit_code_of, printable
from soundfold.experiment.sweep import Job
from soundfold.inference.output import print_predictions
from soundfold.inference.prediction import Prediction
from soundfold.io.console import Terminal, escape_markdown
from soundfold.report.terminal import print_jobs

# sets the window's title, clears the screen, C1, reorders text, a byte that is not UTF-8, forges a line
HOSTILE = "a\x1b]0;x\x07\x1b[2J\x9b1A\u202eb\u2066\udcff\r\nerror: c [red] :dog:"
ESCAPED = r"a\x1b]0;x\x07\x1b[2J\x9b1A\u202eb\u2066\udcff\r\nerror: c [red] :dog:"
RAW = ("\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\udcff", "\r", "\nerror: c")


@pytest.mark.parametrize("text", ["Glühwürmchen 음 \N{DOG FACE}.wav", r"a\b", "", "ra‍b", "a\u00a0b"])
def test_printable_text_is_unchanged(text):
    assert printable(text) == text


def test_control_characters_are_escaped():
    assert printable(HOSTILE) == ESCAPED
    assert printable(Path(HOSTILE)) == ESCAPED
    assert printable("a\nb\tc\x00", "\n") == "a\nb\\tc\\x00"


def test_the_console_escapes_texts_tables_and_progress_bars():
    hostile = HOSTILE.replace("\r\n", "")
    table = Table(title=hostile)
    table.add_column(hostile)
    table.add_row(hostile)
    table.add_row(Text(hostile))
    stream = io.StringIO()
    # a terminal, so that bars are drawn; their own control codes are not escaped
    console = Terminal(file=stream, force_terminal=True, color_system=None, width=200)
    console.print(hostile, style="red")
    console.print(table)
    with Progress(TextColumn("{task.description}"), console=console) as progress:
        progress.add_task(hostile)
    list(track([1], hostile, console=console))
    output = stream.getvalue()
    assert not [raw for raw in RAW if raw in output and raw not in "\x1b\r"]
    assert "\x1b]0" not in output
    assert "\x1b[2J" not in output
    assert output.count(r"\x1b]0;x") >= 6
    assert output.count(":dog:") >= 3


def test_every_console_and_progress_bar_escapes():
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "rich.console":
                assert path.name == "console.py" or "Console" not in [name.name for name in node.names], path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("track", "Progress"):
                assert "console" in [keyword.arg for keyword in node.keywords], path


def predictions() -> None:
    probabilities = np.array([0.75, 0.25])
    prediction = Prediction(
        classes=(HOSTILE, "b"),
        probabilities=probabilities,
        windows=probabilities[None],
        starts=np.zeros(1),
        ends=np.ones(1),
        seconds=1.0,
        calibrated=True,
        seen_in_training=(),
        notes=(HOSTILE,),
    )
    print_predictions([(Path(HOSTILE), prediction), (Path(HOSTILE), "error")], top=2)


def invalid_input() -> None:
    def main() -> None:
        raise InputError(f"{HOSTILE} is not audio.")

    assert exit_code_of(main) == 2


def command(error: Exception) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit):
        hydra_app.run(main)


@pytest.mark.parametrize(
    "show",
    [
        predictions,
        invalid_input,
        lambda: command(InputError(HOSTILE)),
        lambda: command(TrainingError(HOSTILE)),
        lambda: print_jobs([Job(0, [f"name={HOSTILE}"], 1, "failed", f"/{HOSTILE}", HOSTILE, f"/{HOSTILE}")], []),
    ],
    ids=["predictions", "invalid_input", "command", "training", "jobs"],
)
def test_names_in_output_are_escaped(capsys, monkeypatch, show):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    # wide enough for a row in one line
    monkeypatch.setenv("COLUMNS", "1000")
    show()
    captured = capsys.readouterr()
    assert not [raw for raw in RAW if raw in captured.out + captured.err]
    assert ESCAPED in captured.out + captured.err


def test_names_in_markdown_are_plain_text():
    escaped = escape_markdown("<img src=x onerror=y>|a\n![b](http://c)`\\|\x1b")
    assert escaped == r"&lt;img src=x onerror=y&gt;\|a\\n!\[b\](http://c)\`\\\|\\x1b"


def test_names_are_cut_to_the_width_of_a_terminal_but_not_in_a_pipe(monkeypatch):
    def lines(**options) -> list[str]:
        stream = io.StringIO()
        table = Table("a", "b")
        table.add_row(*["x" * 60] * 2)
        Terminal(file=stream, color_system=None, **options).print(table)
        return [line for line in stream.getvalue().splitlines() if "x" in line]

    # as set for the terminal beside it
    monkeypatch.setenv("COLUMNS", "80")
    assert lines()[0].count("x") == 120
    assert lines(force_terminal=True, width=80)[0].count("x") < 120
