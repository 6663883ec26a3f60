"""Processes of one run that torchrun or srun started: two on the CPU, connected by gloo."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import killable, ranked
from helpers.tiny import ROOT, overrides, render
from hydra import compose, initialize_config_dir
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig, OmegaConf

from soundfold.config import cv_id, register
from soundfold.errors import InputError
from soundfold.experiment.lightning_objects import check_entries, make_ddp_strategy
from soundfold.experiment.ranks import cluster_environment
from soundfold.io.ranks import Rank, find_rank
from soundfold.validation import validate

TORCHRUN = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
SRUN = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "3"}
BOTH = ("trainer.devices=2", "trainer.num_nodes=2", "data.batch_size=16")
DDP = "lightning.pytorch.strategies.DDPStrategy"


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    """Remove the variables of a launcher that runs the tests."""
    for name in os.environ:
        if name.startswith(("SLURM_", "TORCHELASTIC_")) or name in TORCHRUN:
            monkeypatch.delenv(name)


def composed(*options: str) -> DictConfig:
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", ["trainer=cpu", *options])


def set_variables(monkeypatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "processes", "rank", "environment"),
    [
        ({}, 4, Rank(), LightningEnvironment),
        (TORCHRUN, 4, Rank(3, 4, 2, "torchrun"), TorchElasticEnvironment),
        (TORCHRUN, 1, Rank(3, 4, 2, "torchrun"), TorchElasticEnvironment),
        (SRUN, 4, Rank(3, 4, 2, "srun"), SLURMEnvironment),
        # tasks that are runs of one device each
        (SRUN, 1, Rank(), LightningEnvironment),
        # a batch script without srun has one process, whatever the number of its tasks
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, 4, Rank(), LightningEnvironment),
    ],
)
def test_the_environment_names_the_rank(variables, processes, rank, environment, monkeypatch):
    set_variables(monkeypatch, variables)
    assert find_rank(processes) == rank
    assert isinstance(cluster_environment(rank), environment)


@pytest.mark.parametrize(
    ("variables", "options", "message"),
    [
        ({}, BOTH, r"^trainer\.num_nodes=2 requires .* torchrun --nnodes 2 --nproc-per-node 2, or by srun\."),
        (TORCHRUN, (), r"^torchrun started 4 processes in all, 2 per machine, but this run has trainer\.devices=1"),
        (
            SRUN,
            ("trainer.devices=4", "data.batch_size=16"),
            r"^srun started 4 processes in all, 2 per machine, but .*=4",
        ),
        (
            {**dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "1"), "RANK": "0", "TORCHELASTIC_RUN_ID": "x"},
            ("trainer.devices=2",),
            r"^torchrun started 1 processes in all",
        ),
        ({"WORLD_SIZE": "2"}, ("trainer.devices=2",), r"^The environment variable RANK is not set"),
        ({**TORCHRUN, "RANK": "x"}, BOTH, r"^The environment variable RANK is 'x'"),
        ({**SRUN, "SLURM_NTASKS_PER_NODE": ""}, BOTH, r"SLURM_NTASKS_PER_NODE is ''.*srun --ntasks-per-node N"),
        (TORCHRUN, (*BOTH, "search=lr_wd", "split=nested"), r"excludes search\. Start one process: trainer\.devices=2"),
        ({}, ("trainer.num_nodes=3", "data.batch_size=11"), r"at least 12: trainer\.num_nodes=3 times"),
        ({}, ("trainer.strategy=fsdp",), r"^trainer\.strategy=fsdp must be one of auto, ddp, .*saves the weights"),
        ({}, ("trainer.strategy={static_graph: true}",), r"^trainer\.strategy requires _target_"),
    ],
)
def test_processes_that_do_not_fit_the_configuration_are_refused(variables, options, message, monkeypatch):
    set_variables(monkeypatch, variables)
    with pytest.raises(InputError, match=message):
        validate(composed(*options))


@pytest.mark.parametrize("variables", [TORCHRUN, SRUN])
def test_processes_that_fit_the_configuration_are_accepted(variables, monkeypatch):
    set_variables(monkeypatch, variables)
    validate(composed(*BOTH))


def test_a_strategy_is_named_or_built():
    digests = {"table": "t", "audio": "a", "weights": "none"}
    default = composed()
    assert make_ddp_strategy(default) == "ddp"
    named = OmegaConf.merge(default, {"trainer": {"strategy": "ddp_find_unused_parameters_true"}})
    assert make_ddp_strategy(named) == "ddp_find_unused_parameters_true"
    built = OmegaConf.merge(default, {"trainer": {"strategy": {"_target_": DDP, "static_graph": True}}})
    check_entries(built)
    assert isinstance(make_ddp_strategy(built), DDPStrategy)
    # a name computes the same, but a class may compress gradients
    assert cv_id(named, digests) == cv_id(default, digests) != cv_id(built, digests)
    with pytest.raises(InputError, match=r"^trainer\.strategy\._target_=torch\.nn\.Linear is not a .*DDPStrategy"):
        check_entries(composed("trainer.strategy={_target_: torch.nn.Linear}"))


@pytest.mark.slow
def test_rank_0_decides_and_explains_what_fails_elsewhere():
    context = killable.server()
    receiver, sender = context.Pipe(duplex=False)
    ranks = ranked.torchrun_variables(2)
    processes = [context.Process(target=ranked.share_and_fail, args=(variables, sender)) for variables in ranks]
    for process in processes:
        process.start()
    reports = sorted(receiver.recv() for _ in processes if receiver.poll(120))
    assert reports == [
        (0, ("of rank 0", 0), "InputError: Rank 1: It has no disk.", False),
        (1, ("of rank 0", 1), "SystemExit: 2", True),
    ]
    for process in processes:
        process.join(60)


@pytest.mark.slow
def test_a_fold_that_torchrun_and_srun_resume_equals_one_of_own_processes(tmp_path):
    """Stopped under torchrun, then killed on rank 1 under srun, then trained to its end under torchrun."""
    root = render(tmp_path / "tiny")
    options = ("fold=1", "trainer.devices=2", "trainer.accumulate_grad_batches=2", "data.batch_size=16")
    options = (*options, "trainer.max_epochs=30", "model.width=8")
    killable.start(overrides(root, tmp_path / "own", *options), tmp_path / "own.log").join(300)
    args = overrides(root, tmp_path / "outputs", *options)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    torchrun += [str(ROOT / "scripts" / "train.py"), *args]

    with subprocess.Popen(torchrun, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: epochs(tmp_path / "outputs") > 2)
        process.send_signal(signal.SIGTERM)
        err = process.communicate(timeout=300)[1]
    assert err.count("clips, 2 classes") == err.count("Stopped by SIGTERM: ") == 1
    first = epochs(tmp_path / "outputs")
    assert 2 < first < 30

    logs = [tmp_path / f"rank{rank}.log" for rank in range(2)]
    ranks = [ranked.start(variables, args, log) for variables, log in zip(ranked.srun_variables(2), logs, strict=True)]
    wait_until(lambda: epochs(tmp_path / "outputs") > first + 2)
    ranks[1].kill()
    for rank in ranks:
        rank.join(300)
    assert ranks[0].exitcode == 1
    *_, message = logs[0].read_text().splitlines()
    assert message.startswith("error: Another process of this run ended")
    assert "resumes from its last checkpoint" in logs[0].read_text()
    assert not logs[1].read_text()

    done = subprocess.run(torchrun, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("resumes from its last checkpoint") == done.stderr.count("Fold 1/3: ") == 1
    (own,), (folder,) = ((tmp_path / name).glob("*/fold1") for name in ("own", "outputs"))
    assert own.parent.name == folder.parent.name
    for name in ("metrics.csv", "predictions.csv"):
        assert (folder / name).read_bytes() == (own / name).read_bytes(), name


def epochs(outputs: Path) -> int:
    """Return the number of epochs whose metrics are written."""
    return sum(len(path.read_text().splitlines()) - 1 for path in outputs.glob("*/fold1/metrics.csv"))


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
