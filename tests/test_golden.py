"""Five tiny runs reproduce their stored numbers.

Processors round differently, and training amplifies the differences. Each run takes four or five steps at a low
learning rate, so that the stored numbers hold within 1e-4 on any processor: AVX-512, AVX2 and SSE kernels differ by
1e-5. `scripts/check_golden.py` compares two commits bit for bit on one machine; its option --record updates the stored
numbers after a deliberate change.
"""

import importlib.util
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import tiny

from soundfold.config import compose_config
from soundfold.experiment.run import cross_validate
from soundfold.report.reporter import RunReporter

NEAR = 1e-4
VALUES = json.loads((tiny.ROOT / "tests" / "golden" / "values.json").read_text())


@pytest.fixture(scope="module")
def check():
    """Return scripts/check_golden.py as a module."""
    spec = importlib.util.spec_from_file_location("check_golden", tiny.ROOT / "scripts" / "check_golden.py")
    # dataclasses look their module up in sys.modules
    module = sys.modules["check_golden"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Return one folder for all settings, so that the clips are rendered once."""
    return tmp_path_factory.mktemp("golden")


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", VALUES)
def test_run_reproduces_the_stored_numbers(name, check, work, one_thread):
    cross_validate(compose_config(*check.read_settings(tiny.ROOT / check.SETTINGS, work)[name]), RunReporter())
    expected = VALUES[name]
    computed = check.summarize(check.read_numbers(work / "outputs", name))
    assert computed["clips"] == expected["clips"]
    assert np.abs(np.array(computed["logits"]) - expected["logits"]).max() < NEAR
    assert computed["metrics"] == pytest.approx(expected["metrics"], abs=NEAR)
    assert set(computed["weights"]) == set(expected["weights"])
    for key, (total, magnitude, *samples) in expected["weights"].items():
        summary = computed["weights"][key]
        # the sum may cancel, so its tolerance is relative to the sum of magnitudes
        assert summary[:2] == pytest.approx([total, magnitude], abs=NEAR * max(magnitude, 1)), key
        assert summary[2:] == pytest.approx(samples, rel=NEAR, abs=NEAR), key


def test_every_setting_has_stored_numbers(check, work):
    assert list(check.read_settings(tiny.ROOT / check.SETTINGS, work)) == list(VALUES)


def test_differences_include_the_last_bit_of_a_weight(check):
    weights = {"fc.weight": torch.ones(3), "mean": torch.zeros(1)}
    metrics = dict.fromkeys(check.METRICS, 0.5)
    numbers = check.Numbers(("a",), np.zeros((1, 2)), metrics, {"val/loss": np.full(2, np.nan)}, weights)
    assert check.differences(numbers, numbers) == []
    next_float = torch.tensor([1.0, 1.0, np.nextafter(np.float32(1), np.float32(2))])
    other = replace(numbers, weights={**weights, "fc.weight": next_float}, metrics={**metrics, "loss": 0.25})
    assert check.differences(numbers, other) == ["loss: 0.5 and 0.25", "1 of 2 weights, first fc.weight"]
    epochs = {"val/loss": np.array([np.nan, 1.0]), "val/top5": np.ones(2)}
    assert check.differences(numbers, replace(numbers, epochs=epochs)) == ["metrics.csv: val/loss"]
    assert check.differences(numbers, replace(numbers, logits=np.full((1, 2), 1e-9))) == ["logits by up to 1e-09"]
