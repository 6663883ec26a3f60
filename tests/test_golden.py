"""Five tiny runs compute what they computed when their numbers were stored.

Processors round differently, and training amplifies it. The runs take four or five steps each at low learning rates, so
that the stored numbers hold within 1e-4 on any of them: kernels of AVX-512, AVX2 and SSE differ by 1e-5.
`scripts/check_golden.py` compares two commits on one machine, bit for bit, and its option --record stores the numbers
anew after a deliberate change.
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
    """scripts/check_golden.py as a module."""
    spec = importlib.util.spec_from_file_location("check_golden", tiny.ROOT / "scripts" / "check_golden.py")
    # its dataclass looks its module up
    module = sys.modules["check_golden"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """One folder for all settings, so that the clips are rendered once."""
    return tmp_path_factory.mktemp("golden")


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", VALUES)
def test_a_setting_computes_the_stored_numbers(name, check, work, one_thread):
    cross_validate(compose_config(*check.read_settings(tiny.ROOT / check.SETTINGS, work)[name]), RunReporter())
    then, numbers = VALUES[name], check.read_numbers(work / "outputs", name)
    now = check.stored(numbers)
    assert now["clips"] == then["clips"]
    assert np.abs(np.array(now["logits"]) - then["logits"]).max() < NEAR
    assert now["metrics"] == pytest.approx(then["metrics"], abs=NEAR)
    assert set(now["weights"]) == set(then["weights"])
    for key, (total, magnitude, *samples) in then["weights"].items():
        found = now["weights"][key]
        # sums relative to what is summed
        assert found[:2] == pytest.approx([total, magnitude], abs=NEAR * max(magnitude, 1)), key
        assert found[2:] == pytest.approx(samples, rel=NEAR, abs=NEAR), key


def test_settings_and_values_name_the_same_runs(check, work):
    assert list(check.read_settings(tiny.ROOT / check.SETTINGS, work)) == list(VALUES)


def test_the_last_bit_of_a_weight_is_a_difference(check):
    weights = {"fc.weight": torch.ones(3), "mean": torch.zeros(1)}
    metrics = dict.fromkeys(check.METRICS, 0.5)
    one = check.Numbers(("a",), np.zeros((1, 2)), metrics, np.full((1, 2), np.nan), weights)
    assert check.differences(one, one) == []
    nearly = torch.tensor([1.0, 1.0, np.nextafter(np.float32(1), np.float32(2))])
    other = replace(one, weights={**weights, "fc.weight": nearly}, metrics={**metrics, "loss": 0.25})
    assert check.differences(one, other) == ["loss: 0.5 and 0.25", "1 of 2 weights, first fc.weight"]
    assert check.differences(one, replace(one, logits=np.full((1, 2), 1e-9))) == ["logits by up to 1e-09"]
