import threading

import pytest

from soundfold.io import memory
from soundfold.io.parallel import map_ahead


def test_results_are_in_order_and_few_calls_run_ahead():
    taken = []

    def items():
        for number in range(50):
            taken.append(number)
            yield number

    results = map_ahead(lambda number: number * number, items(), ahead=3, workers=2)
    for number in range(50):
        assert next(results) == number * number
        assert len(taken) <= number + 4
    assert list(results) == []


def test_an_error_ends_the_calls():
    started, gate = [], threading.Event()

    def call(number):
        started.append(number)
        if number == 1:
            raise ValueError("one")
        gate.wait(10)

    results = map_ahead(call, range(100), ahead=20, workers=2)
    gate.set()
    assert next(results) is None
    with pytest.raises(ValueError, match="one"):
        next(results)
    assert len(started) < 30
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


def test_a_control_group_limits_the_available_memory(tmp_path, monkeypatch):
    everything = memory.available_memory()
    assert everything is None or everything > 1e8
    group = tmp_path / "job" / "step"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (tmp_path / "job" / "memory.max").write_text("5000000\n")
    (tmp_path / "cgroup").write_text("1:cpu:/other\n0::/job/step\n")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "cgroup")
    assert memory.available_memory() == 5000000
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "missing")
    assert memory.available_memory() != 5000000
