"""scripts/predict.py on odd file names, unwritable timelines, closed pipes and Ctrl-C: no prediction is lost."""

import csv
import errno
import io
import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import tiny

from soundfold.inference import timeline

PREDICT = tiny.ROOT / "scripts" / "predict.py"
# bytes 0xE9 and 0xFF are not UTF-8; Python decodes them to surrogates
LATIN, ESCAPED = os.fsdecode(b"caf\xe9.wav"), "caf\\xe9.wav"


@pytest.fixture
def predict(tiny_run, monkeypatch, tmp_path):
    """Run scripts/predict.py in this process, with strict UTF-8 streams; return its exit code, stdout and stderr."""

    def run(*args) -> tuple[int, str, str]:
        streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace")]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        options = ["--timelines", str(tmp_path / "timelines"), "--fold", "1"]
        monkeypatch.setattr(sys, "argv", ["predict.py", *options, str(tiny_run), *map(str, args)])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(PREDICT), run_name="__main__")
        for stream in streams:
            stream.flush()
        out, err = (stream.buffer.getvalue().decode() for stream in streams)
        return int(exit_.value.code or 0), out, err

    return run


def write_noise(path: Path, seconds: float = 0.5) -> Path:
    wave = np.random.default_rng(0).uniform(-0.3, 0.3, int(seconds * 8000))
    soundfile.write(path.parent / "noise.wav", wave, 8000)
    return (path.parent / "noise.wav").rename(path)


def test_a_csv_of_a_file_name_with_a_line_break_is_read_back(predict, tmp_path):
    path = write_noise(tmp_path / "a\rb\n.wav")
    code, out, _ = predict(path, "--format", "csv")
    header, row = csv.reader(io.StringIO(out, newline=""))
    assert (code, header[0], row[0]) == (0, "file", str(path))


@pytest.mark.parametrize("format", ["table", "csv", "jsonl"])
def test_a_file_name_that_is_not_utf_8_is_escaped(format, predict, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    write_noise(folder / "a.wav")
    write_noise(folder / LATIN, seconds=2)  # with a timeline
    (folder / os.fsdecode(b"bad\xff.wav")).write_text("not audio")
    code, out, err = predict(folder, "--format", format)
    assert code == 1
    assert "bad\\xff.wav is not audio" in err
    assert "Traceback" not in err
    assert "a.wav" in out
    if format == "table":
        assert ESCAPED in out
    if format == "csv":
        rows = list(csv.DictReader(io.StringIO(out)))
        assert [Path(row["file"]).name for row in rows] == ["a.wav", ESCAPED]
        assert all(row["prediction"] in ("tone", "noise") for row in rows)
    if format == "jsonl":
        lines = [json.loads(line) for line in out.splitlines()]
        assert [Path(line["file"]).name for line in lines] == ["a.wav", "bad\\xff.wav", ESCAPED]
        # a lone surrogate is not valid JSON for many readers
        assert "\\udc" not in out
        assert len(lines[2]["timeline"]) == 3


def full_disk(*_args) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("fault", "format"), [("folder", "table"), ("disk", "jsonl"), ("disk", "csv")])
def test_a_timeline_that_cannot_be_written_does_not_discard_the_prediction(
    fault, format, predict, tmp_path, monkeypatch
):
    clip = write_noise(tmp_path / "long.wav", seconds=2)
    if fault == "folder":
        (tmp_path / "timelines").touch()
    elif fault == "disk":
        monkeypatch.setattr(timeline, "write_text", full_disk)
    code, out, err = predict(clip, write_noise(tmp_path / "b.wav"), "--format", format)
    assert code == 1
    assert "The timeline cannot be written" in err
    assert "Traceback" not in err
    assert "b.wav" in out
    assert clip.name in out
    assert "notimeline" in "".join(char for char in out if char not in "│ \n")
    if format == "jsonl":
        line = json.loads(out.splitlines()[0])
        assert line["timeline"] == []
        assert line["windows"] > 1
    if format == "csv":
        assert [row["prediction"] in ("tone", "noise") for row in csv.DictReader(io.StringIO(out))] == [True, True]
    assert not list(tmp_path.glob("timelines/*"))


def test_the_timeline_of_a_long_file_name_is_written(predict, tmp_path):
    code, _, err = predict(write_noise(tmp_path / f"{'x' * 250}.wav", seconds=2))
    assert code == 0, err
    assert len(list(tmp_path.glob("timelines/xxx*"))) == 3


def start(tiny_run: Path, *args, **options) -> subprocess.Popen:
    command = [sys.executable, str(PREDICT), str(tiny_run), *map(str, args), "--fold", "1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["table", "jsonl"])
def test_a_closed_pipe_ends_quietly(format, tiny_run):
    clip = tiny_run.parents[1] / "tiny" / "audio" / "0.wav"
    process = start(tiny_run, clip, clip, "--format", format)
    process.stdout.close()  # as `| head` does
    err = process.stderr.read()
    assert process.wait() == 141
    assert "Traceback" not in err
    assert "Broken" not in err


@pytest.mark.slow
def test_ctrl_c_ends_with_one_line(tiny_run, tmp_path):
    # a pipe without a writer would be refused, so the file is long: minutes of prediction
    clip = write_noise(tmp_path / "hours.wav", seconds=3600)
    process = start(tiny_run, clip, "--hop", "0.01")
    while "odel" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    err = process.stderr.read()
    assert process.wait() == 130
    assert err.endswith("Stopped by Ctrl-C.\n")
    assert "Traceback" not in err
    assert process.stdout.read() == ""
