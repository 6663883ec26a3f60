"""Privacy: no command connects to another machine or writes outside its folders."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from helpers.tiny import ROOT, overrides

TELEMETRY = "ORT_DISABLE_TELEMETRY"
# the only writes in the home directory, which docs/explanation/faults.md declares
FONTS = ".cache/matplotlib"


@pytest.mark.parametrize(
    ("variable", "setting", "expected"),
    [
        (TELEMETRY, None, "1"),
        (TELEMETRY, "", "1"),
        (TELEMETRY, "0", "0"),
        ("GOMP_SPINCOUNT", None, "10000"),
        ("GOMP_SPINCOUNT", "7", "7"),
        ("OPENBLAS_NUM_THREADS", None, "1"),
    ],
)
def test_libraries_are_configured_before_they_are_imported_unless_the_user_did(variable, setting, expected):
    environment = {name: value for name, value in os.environ.items() if name not in (variable, "OMP_WAIT_POLICY")}
    loaded = "{'onnxruntime', 'torch'} & sys.modules.keys()"
    code = f"import soundfold, os, sys; print(os.environ['{variable}'], *({loaded}))"
    environment |= {} if setting is None else {variable: setting}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == [expected], done.stderr


def foreign_addresses(trace: str) -> set[str]:
    """Return the addresses of sockets in the output of strace that are not of the loopback interface."""
    # not those in a list of this machine's own interfaces, which W&B reads
    addresses = set(re.findall(r'sin_addr=inet_addr\("([^"]+)"|inet_pton\(AF_INET6, "([^"]+)", &sin6_addr', trace))
    addresses = {v4 or v6 for v4, v6 in addresses}
    return {address for address in addresses if not address.startswith("127.") and address != "::1"}


def created_files(trace: str, folder: Path) -> set[str]:
    """Return the paths outside of a folder, and of the kernel's file systems, at which strace saw a file created."""
    # without its result, if another process is traced before it ends
    created = re.findall(r'openat\(AT_FDCWD, "([^"]+)", [^\n]*O_CREAT(?![^\n]* = -1 )', trace)
    paths = {os.path.normpath(folder / path) for path in created}
    return {path for path in paths if not path.startswith((f"{folder}/", "/dev/", "/proc/"))}


def test_foreign_addresses_and_files_are_found_in_a_trace():
    lines = (
        'connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("10.0.0.2")}, 16) = 0',
        'connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}, 16) = 0',
        'connect(3, {sa_family=AF_INET6, sin6_port=htons(1), inet_pton(AF_INET6, "::1", &sin6_addr)}, 28) = 0',
        'connect(3, {sa_family=AF_INET6, sin6_port=htons(1), inet_pton(AF_INET6, "2001:db8::1", &sin6_addr)}, 28) = -1',
        'recvmsg(5, [[{nla_len=8, nla_type=IFA_ADDRESS}, inet_addr("192.0.2.2")], {sa_family=AF_NETLINK}], 0) = 9',
        'openat(AT_FDCWD, "/root/.cache/id", O_RDWR|O_CREAT|O_CLOEXEC, 0644) = 5',
        'openat(AT_FDCWD, "/root/.cache/db", O_RDWR|O_CREAT|O_CLOEXEC, 0644 <unfinished ...>',
        'openat(AT_FDCWD, "/root/.cache/none", O_RDWR|O_CREAT|O_CLOEXEC, 0644) = -1 ENOENT (No such file)',
        'openat(AT_FDCWD, "outputs/file", O_RDWR|O_CREAT|O_CLOEXEC, 0644) = 5',
        'openat(AT_FDCWD, "/etc/hosts", O_RDONLY|O_CLOEXEC) = 5',
    )
    assert foreign_addresses("\n".join(lines)) == {"10.0.0.2", "2001:db8::1"}
    assert created_files("\n".join(lines), Path("/home/user")) == {"/root/.cache/id", "/root/.cache/db"}


@pytest.fixture(scope="module")
def strace(tmp_path_factory) -> list[str]:
    """Return the command that traces connections and created files; skip where that is not permitted, except in CI."""
    command = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=network,openat"]
    probe = [*command, "-o", str(tmp_path_factory.mktemp("strace") / "trace"), "true"]
    if shutil.which("strace") and subprocess.run(probe, capture_output=True).returncode == 0:
        return command
    reason = "needs strace, and permission to trace processes"
    return pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


def commands(run: Path, clips: Path) -> dict[str, list[str]]:
    """Return a command line per entry point and optional library."""
    train = overrides(clips, Path("outputs"), "trainer.max_epochs=1", "report.page=full", "paths.cache=cache")
    explore = [override for override in train if override.startswith(("data.", "paths.", "features."))]
    search = ["search=lr_wd", "search.trials=1", "split=nested"]
    return {
        "train": [*train, "logger=[wandb,tensorboard]"],
        "search": [*train, *search],
        "predict": [str(run), str(clips / "audio" / "0.wav")],
        "explain": [str(run), str(clips / "audio" / "0.wav"), "--fold", "1"],
        "report": [str(run)],
        "export": [str(run), "--fold", "1", "--out", "model.onnx"],
        "explore": explore,
        "prepare": [*(override for override in explore if not override.startswith("features.")), "audit=true"],
        "demo": [str(run)],
    }


def visit_and_stop(process: subprocess.Popen) -> None:
    """Open the page of scripts/demo.py and interrupt the server."""
    assert process.stdout
    address = next(match[0] for line in process.stdout if (match := re.search(r"http://[\w.:]+", line)))
    with urllib.request.urlopen(address, timeout=60) as page:
        assert page.status == 200
    os.killpg(process.pid, signal.SIGINT)


def trace(strace: list[str], script: str, args: list[str], folder: Path) -> str:
    """Run a script in a folder, which has its home and temporary directory; return the output of strace."""
    # a variable of this process must not replace the defaults that are tested
    names = ("XDG_", "WANDB_", "GRADIO_", "HF_", TELEMETRY)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    environment |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [*strace, "-o", str(folder / "trace"), sys.executable, str(ROOT / "scripts" / script), *args]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes)
    if script == "demo.py":
        visit_and_stop(process)
    output, _ = process.communicate(timeout=300)
    assert script == "demo.py" or process.returncode == 0, output
    return (folder / "trace").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["train", "search", "predict", "explain", "report", "export", "explore", "prepare", "demo"]
)
def test_command_connects_nowhere_and_writes_only_its_own_files(tiny_run, strace, tmp_path, name):
    home, clips = tmp_path / "home", tiny_run.parents[1] / "tiny"
    for folder in (home, tmp_path / "tmp"):
        folder.mkdir()
    # `report` writes to the run's folder
    run = shutil.copytree(tiny_run, tmp_path / "run")
    traced = trace(strace, "train.py" if name == "search" else f"{name}.py", commands(run, clips)[name], tmp_path)
    if name == "export":
        traced += trace(strace, "onnx_example.py", ["model.onnx", str(clips / "audio" / "0.wav")], tmp_path)
    # both kinds of system call were traced
    assert "socket(" in traced
    assert "openat(" in traced
    assert foreign_addresses(traced) == set()
    assert created_files(traced, tmp_path) == set()
    files = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    assert [path for path in files if not path.startswith(FONTS)] == []


RAY_APP = """import os
import hydra

@hydra.main(version_base="1.3", config_path=None)
def main(cfg):
    print(os.environ["HOME"])

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_ray_connects_to_no_other_machine(strace, tmp_path):
    """Ray asks for no cloud's metadata, and sends no report. A UDP socket to 8.8.8.8 shows it the machine's address."""
    (tmp_path / "app.py").write_text(RAY_APP)
    options = {"address": "null", "num_cpus": 1, "num_gpus": 0, "n_jobs": 1, "max_retries": 0}
    options["object_store_memory"] = 80_000_000
    launcher = [f"hydra.launcher.{key}={value}" for key, value in options.items()]
    command = [sys.executable, "app.py", "-m", "+x=1,2", "hydra/launcher=ray_types", *launcher]
    done = subprocess.run([*strace, "-o", "trace", *command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # the jobs have the user's home folder, and not that of Ray's processes
    assert os.environ["HOME"] in done.stdout + done.stderr
    lines = (tmp_path / "trace").read_text().splitlines()
    own = {entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), None)}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("8.8.8.8", 53))
        own |= {probe.getsockname()[0], f"::ffff:{probe.getsockname()[0]}"}
    connects = "\n".join(line for line in lines if "connect(" in line)
    assert foreign_addresses(connects) - own <= {"8.8.8.8"}
    assert "8.8.8.8" not in "".join(line for line in lines if "sendto(" in line)
