"""Deferred imports: nothing is loaded before its first use, and everything works after it."""

import sys
from importlib import import_module, reload

import pytest

from soundfold import deferred_imports

HEAVY = """
from heavy.parts import leaf
class Thing: ...
def double(value): return 2 * value
def twice(function): return lambda value: 2 * function(value)
"""
# the uses that Lightning and torchmetrics make of theirs
IMPORTER = """
import typing
import heavy
import heavy.parts as parts
from heavy import Thing, double
try:
    import absent
except ImportError:
    absent = None
Kind = typing.Union[heavy.Thing, int]
def use(value: Kind) -> int: return double(value)
def is_thing(value): return isinstance(value, Thing)
@heavy.twice
def increase(value): return value + 1
def leaf(): return parts.leaf()
"""


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """The packages ``heavy`` and ``importer``, which defers it."""
    for name, text in {"heavy": HEAVY, "heavy/parts": "def leaf(): return 'leaf'", "importer": IMPORTER}.items():
        path = tmp_path / (f"{name}.py" if "/" in name else f"{name}/__init__.py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    deferred_imports.install({"importer": ("heavy", "absent")})
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in ("heavy", "importer")]:
        del sys.modules[name]


def test_a_package_is_imported_at_its_first_use(packages):
    importer = import_module("importer")
    assert importer.absent is None
    assert not importer.is_thing(1)
    assert "heavy" not in sys.modules
    assert importer.use(3) == 6
    heavy = sys.modules["heavy"]
    assert importer.is_thing(heavy.Thing())
    assert not importer.is_thing(1)
    assert importer.increase(1) == 4
    assert importer.leaf() == "leaf"
    assert import_module("heavy").Thing is heavy.Thing
    assert importer.__loader__.get_source("importer") == IMPORTER
    assert reload(importer).use(4) == 8


def test_an_importer_that_needs_a_package_at_once_gets_it(packages):
    path = packages / "importer" / "__init__.py"
    path.write_text(f"{IMPORTER}\nfrom importer import more\nclass Derived(Thing): ...\n")
    (packages / "importer" / "more.py").write_text("from heavy import Thing")
    importer = import_module("importer")
    assert importer.is_thing(importer.Derived())
    assert importer.more.Thing is sys.modules["heavy"].Thing


def test_an_error_of_an_importer_is_its_own(packages):
    (packages / "importer" / "__init__.py").write_text("import heavy\n1 / 0")
    with pytest.raises(ZeroDivisionError):
        import_module("importer")
    assert "heavy" in sys.modules  # imported by the second attempt, without stubs
    assert sys.modules["heavy"].double(1) == 2


def test_a_function_is_excluded_from_graphs_once_there_are_some(monkeypatch):
    double = deferred_imports.disable_in_graphs(lambda value: 2 * value)
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    assert double(1) == 2
    assert "torch._dynamo" not in sys.modules
    monkeypatch.undo()
    import torch

    seen = []
    compiled = torch.compile(lambda value: double(value) + 1, backend=lambda graph, _: seen.append(graph) or graph)
    assert compiled(torch.ones(1)) == 3
    assert [node.target.__name__ for graph in seen for node in graph.graph.nodes if node.op == "call_function"] == [
        "add"
    ]
