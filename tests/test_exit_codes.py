"""Exit codes of scripts whose output is closed, or that Ctrl-C ends."""

import errno
import os
import shlex
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


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(("how", "entry"), [*((how, "exit_code_of") for how in PRINT), ("print", "run")])
def test_a_full_standard_output_is_named(how, entry):
    code = "import sys; from pathlib import Path; from soundfold.errors import exit_code_of\n"
    code += "from soundfold.io.atomic import explain_write_errors; from soundfold.io.console import Terminal\n"
    code += f"def main():\n    with explain_write_errors(Path('run'), ''):\n        {PRINT[how]}\n"
    end = "sys.exit(exit_code_of(main))"
    if entry == "run":
        end = "from soundfold.cli.hydra_app import run; sys.argv = ['train.py']; run(main)"
    with open("/dev/full", "w") as full:
        process = subprocess.run([sys.executable, "-c", code + end], stdout=full, stderr=subprocess.PIPE, text=True)
    message = "Standard output cannot be written: No space left on device. Free some space, or redirect it to another"
    assert (process.returncode, process.stderr) == (1, f"error: {message} file.\n")


def test_closed_standard_streams_do_not_stop_a_script(tmp_path):
    code = "import sys; from soundfold.errors import exit_code_of\n"
    code += f"def main():\n    file = open({str(tmp_path / 'file')!r}, 'w')\n    sys.stdout.isatty()\n"
    code += "    print('a line', file.fileno()); print('a line', file=sys.stderr); return 3 + (file.fileno() <= 2)\n"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code + 'sys.exit(exit_code_of(main))')} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command]).returncode == 3


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
