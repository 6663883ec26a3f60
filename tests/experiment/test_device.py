"""The choice of a device, with PyTorch's answers about the hardware replaced."""

import pathlib
import platform
import re

import pytest
import torch
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from soundfold.errors import InputError
from soundfold.experiment import device, environment
from soundfold.experiment.device import check_accelerator, choose_accelerator, choose_device, choose_precision


def config(
    accelerator: str = "auto",
    devices: int = 1,
    precision: str = "32-true",
    cuda_graph: str | bool = "auto",
    **optim: bool,
) -> DictConfig:
    trainer = {"accelerator": accelerator, "devices": devices, "precision": precision, "cuda_graph": cuda_graph}
    return OmegaConf.create({"trainer": trainer, "optim": optim})


@pytest.fixture
def hardware(monkeypatch):
    """A function that sets the number of CUDA devices, whether there is MPS, and the CPU's capabilities."""

    def replace(gpus: int = 0, mps: bool = False, **capabilities: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
        device.print_note.cache_clear()
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
        monkeypatch.setattr(device, "running_elsewhere", lambda: 0)

    return replace


@pytest.mark.parametrize(
    ("gpus", "mps", "wanted", "accelerator"),
    [
        (1, False, "auto", "gpu"),
        (1, False, "cuda", "gpu"),
        (0, False, "auto", "cpu"),
        (0, True, "auto", "cpu"),
        (0, True, "mps", "mps"),
    ],
)
def test_auto_chooses_cuda_or_the_cpu(hardware, gpus, mps, wanted, accelerator):
    hardware(gpus, mps)
    assert choose_accelerator(config(wanted)) == accelerator
    if wanted == "auto":
        assert choose_device("auto").type == ("cuda" if accelerator == "gpu" else "cpu")


@pytest.mark.parametrize(
    ("gpus", "cfg", "message"),
    [
        (0, config("gpu"), "trainer.accelerator=gpu is not available here"),
        (0, config("mps"), "trainer.accelerator=mps is not available here"),
        (0, config("cuda"), "trainer.accelerator=cuda is not available here"),
        (2, config("gpu", devices=3), "trainer.devices=3 must be at most 2"),
        (2, config("cpu", capturable=True), r"optim\.capturable=true requires a GPU, and training is on cpu\. Omit it"),
        (2, config("cpu", cuda_graph=True), r"trainer\.cuda_graph=true .*CUDA graphs require a CUDA device"),
    ],
)
def test_an_unavailable_device_is_refused(hardware, gpus, cfg, message):
    hardware(gpus)
    with pytest.raises(InputError, match=message):
        check_accelerator(cfg)


def test_an_unavailable_device_is_refused_under_the_option_of_the_user(hardware):
    hardware()
    with pytest.raises(InputError, match="^--device=cuda: PyTorch finds no CUDA device. Set --device=cpu.$"):
        choose_device("cuda", "--device")


@pytest.mark.parametrize(
    ("cfg", "capabilities", "note"),
    [
        (config("cpu", precision="bf16-mixed"), {"avx512_bf16": False}, "trainer.precision=auto trains faster"),
        (config("cpu", precision="bf16-mixed"), {"avx512_bf16": True}, None),
        (config("cpu", precision="bf16-mixed"), {}, None),
        (config("cpu", precision="auto"), {"avx512_bf16": False}, None),
        (config("cpu", devices=8), {}, None),
    ],
)
def test_notes_on_bfloat16(hardware, capsys, cfg, capabilities, note):
    hardware(**capabilities)
    check_accelerator(cfg)
    output = " ".join(capsys.readouterr().err.split())
    assert note in output if note else not output


@pytest.mark.parametrize(
    ("accelerator", "capability", "capabilities", "precision"),
    [
        ("cpu", None, {"avx512_bf16": True}, "bf16-mixed"),
        ("cpu", None, {"avx512_bf16": False, "amx_bf16": True}, "bf16-mixed"),
        ("cpu", None, {"bf16": True}, "bf16-mixed"),
        ("cpu", None, {"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "32-true"),
        ("cpu", None, {}, "32-true"),
        ("gpu", (9, 0), {}, "bf16-mixed"),
        ("gpu", (8, 0), {}, "bf16-mixed"),
        ("gpu", (7, 5), {"avx512_bf16": True}, "32-true"),
        ("mps", None, {"bf16": True}, "32-true"),
    ],
)
def test_auto_precision_is_bfloat16_where_the_hardware_multiplies_it(
    hardware, monkeypatch, accelerator, capability, capabilities, precision
):
    hardware(gpus=int(accelerator == "gpu"), mps=accelerator == "mps", **capabilities)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert choose_precision(config(accelerator, precision="auto")) == precision
    assert choose_precision(config(accelerator, precision="16-mixed")) == "16-mixed"


def test_bfloat16_instructions_of_arm_count_only_with_a_library_that_uses_them(hardware, monkeypatch):
    hardware(bf16=True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert choose_precision(config(precision="auto")) == "32-true"


def test_a_note_on_mps(hardware, capsys):
    hardware(mps=True)
    check_accelerator(config())
    assert "trainer.accelerator=auto ignores MPS" in " ".join(capsys.readouterr().err.split())


def test_a_note_is_printed_once_per_command(hardware, capsys, monkeypatch):
    cfg = config("cpu", precision="bf16-mixed")
    hardware(bf16=False)
    for _ in range(3):  # trials of a search, or jobs in this process
        check_accelerator(cfg)
    assert capsys.readouterr().err.count("bfloat16 instructions") == 1
    # another process of a sweep has another job
    hardware(bf16=False)
    sweep = OmegaConf.create({"mode": RunMode.MULTIRUN, "job": {"num": 1}})
    monkeypatch.setattr(device.HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(device.HydraConfig, "get", lambda: sweep)
    check_accelerator(cfg)
    assert not capsys.readouterr().err


def test_the_environment_describes_the_machine_without_its_name(monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: pytest.fail("the name of the machine"))
    machine = environment.describe(torch.device("cpu"))
    assert re.fullmatch(r".+, \d+ cores", machine["processor"])
    assert re.fullmatch(r"\d+\.\d GiB", machine["memory"])
    assert platform.release() in machine["operating system"]


@pytest.mark.parametrize(
    ("threads", "cores", "busy", "remedy"),
    [(2, 2, 7, "OMP_NUM_THREADS=1"), (8, 8, 2, "OMP_NUM_THREADS=6"), (2, 2, 0, None), (1, 2, 2, None), (4, 8, 4, None)],
)
def test_more_threads_than_idle_cores_give_a_note(hardware, capsys, threads, cores, busy, remedy):
    hardware()
    device._print_threads_note(threads, cores, busy)
    printed = " ".join(capsys.readouterr().err.split())
    assert (remedy in printed and f"{min(busy, 2)} of {cores} cores" in printed) if remedy else printed == ""


def test_a_process_counts_as_busy_if_it_runs_in_every_sample(monkeypatch):
    samples = iter(("0.5 0.4 0.3 3/700 1", "0.5 0.4 0.3 2/700 1", "0.5 0.4 0.3 9/700 1"))
    monkeypatch.setattr(device.Path, "read_text", lambda path: next(samples))
    assert device.running_elsewhere(samples=3, interval=0) == 1


def test_no_process_counts_as_busy_where_the_system_does_not_say(monkeypatch):
    monkeypatch.setattr(device, "Path", lambda path: pathlib.Path("/no/such/file"))
    assert device.running_elsewhere() == 0
