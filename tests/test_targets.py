"""Classes and functions that a configuration names by ``_target_``."""

import json
import sys
import types
from collections import Counter
from fractions import Fraction

import pytest

from soundfold.config.targets import build_target, find_target
from soundfold.errors import InputError


def counter(items: str) -> Counter:
    return Counter(items)


def wrong() -> Counter:
    return {}  # type: ignore[return-value]


def unannotated():
    raise AssertionError("called")


@pytest.fixture
def functions(monkeypatch):
    module = types.ModuleType("functions_of_a_user")
    for function in (counter, wrong, unannotated):
        setattr(module, function.__name__, function)
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_classes_and_annotated_functions_are_built_with_their_options(functions):
    assert build_target("x", {"_target_": "fractions.Fraction", "numerator": 3}, Fraction, denominator=4) == 0.75
    assert build_target("x", {"_target_": "functions_of_a_user.counter", "items": "aab"}, dict) == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("json.JSONDecoder", "^x._target_=json.JSONDecoder is not a collections.Counter.$"),
        ("os.system", "is not a collections.Counter"),
        ("shutil.rmtree", "does not declare to return a collections.Counter: annotate it"),
        ("functions_of_a_user.unannotated", "does not declare to return a collections.Counter: annotate it"),
        ("functions_of_a_user.wrong", "returned a dict, not a collections.Counter"),
        ("no_such_module.Class", "cannot be imported: No module named 'no_such_module'"),
        ("json.no_such", "cannot be imported"),
        ("json; import os", "is not an import path"),
        (3, "is not an import path"),
    ],
)
def test_anything_else_is_refused_before_it_is_called(functions, target, message):
    with pytest.raises(InputError, match=message):
        build_target("x", {"_target_": target}, Counter)


def test_rejected_options_name_the_entry():
    with pytest.raises(InputError, match=r"^decoder: json.JSONDecoder rejects its options: .*'colour'\.$"):
        build_target("decoder", {"_target_": "json.JSONDecoder", "colour": 1}, json.JSONDecoder)


def test_finding_a_target_calls_nothing(functions):
    assert find_target("x", "functions_of_a_user.counter", dict) is counter
