"""Exit codes of scripts whose output is closed, or that Ctrl-C ends."""

import errno
import signal
import subprocess
import sys

import pytest

from soundfold.errors import exit_code_of

PRINT = {
    "print": "print('a line')",
    "table": "Terminal().print('a line')",
    "flushed": "print('a line', flush=True)",
}


@pytest.mark.parametrize("how", PRINT)
def test_a_closed_pipe_ends_quietly(how):
    imports = "import sys; from soundfold.errors import exit_code_of; from soundfold.io.console import Terminal"
    code = f"{imports}\nsys.stdin.read()\nsys.exit(exit_code_of(lambda: {PRINT[how]}))"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        process.stdout.close()  # as `| head` does
        process.stdin.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (141, b"")


def test_ctrl_c_ends_with_one_line():
    code = "import sys, time; from soundfold.errors import exit_code_of\n"
    code += "sys.exit(exit_code_of(lambda: print('ready', flush=True) or time.sleep(60)))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        err = process.stderr.read()
    assert (process.returncode, err) == (130, b"Stopped by Ctrl-C.\n")


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("could not create a primitive"), OSError(errno.ENOMEM, "Cannot allocate memory")],
)
def test_exhausted_memory_is_explained_in_one_line(error, capsys):
    def fail() -> None:
        raise error

    assert exit_code_of(fail) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: Out of memory: ")
    assert "ulimit -v" in line


def test_other_errors_pass_unchanged():
    with pytest.raises(ZeroDivisionError):
        exit_code_of(lambda: 1 // 0)
    with pytest.raises(FileNotFoundError):
        exit_code_of(lambda: open("absent/file").close())
