"""An import hook: Lightning and torchmetrics load without optional packages that a training does not use.

Lightning imports torchmetrics, which imports torchvision, Matplotlib, SciPy and Transformers if they are installed, for
rarely used metrics and plots. Lightning and torchvision import PyTorch's compiler for an `isinstance` and a few
decorators. Together these take longer than everything that a training uses. Here they are imported at first use.
"""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

COMPILER = ("torch._dynamo", "triton")
METRICS = ("librosa", "matplotlib", "onnxruntime", "pesq", "scipy", "torchvision", "transformers")
# packages, and those that their import defers
IMPORTERS: dict[str, tuple[str, ...]] = {
    "torch": (),
    "torchvision": COMPILER,
    "torchmetrics": (*COMPILER, *METRICS),
    "lightning": (*COMPILER, *METRICS),
}


def install(importers: Mapping[str, Sequence[str]] = IMPORTERS) -> None:
    """Defer imports in this process.

    Args:
        importers: names of packages, each with the packages that are deferred while it is imported, and until their
            first use. It may use them in functions, annotations, decorators and `isinstance`. One that is already
            imported stays as it is.
    """
    sys.meta_path.insert(0, _Finder(importers))


def is_loaded(name: str) -> bool:
    """Return whether a module has been imported, and not deferred."""
    module = sys.modules.get(name)
    # a module has no classes yet in the middle of its import
    is_complete = not getattr(getattr(module, "__spec__", None), "_initializing", False)
    return module is not None and is_complete and not isinstance(module, _Stub)


def disable_in_graphs(function: Callable[..., Any], recursive: bool = True) -> Callable[..., Any]:
    """Like `torch.compiler.disable`, but without importing PyTorch's compiler: without it nothing is compiled.

    Args:
        function: to be run as it is, if a compiled function calls it.
        recursive: so are the functions that it calls.
    """

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if not is_loaded("torch._dynamo"):
            return function(*args, **options)
        disabled = getattr(function, "_disabled", None)
        if disabled is None:
            disabled = import_module("torch._dynamo").disable(function, recursive, wrapping=False)
            function._disabled = disabled  # type: ignore[attr-defined]
        return disabled(*args, **options)

    return call


class _Deferred:
    """An attribute of a deferred module, or what is made of one by a decorator: looked up at its first use."""

    def __init__(self, resolve: Callable[[], Any], module: str, finder: _Finder) -> None:
        self._resolve, self._module, self._finder = functools.cache(resolve), module, finder

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Deferred(lambda: getattr(self._resolve(), name), self._module, self._finder)

    def __call__(self, *args: Any, **options: Any) -> Any:
        if self._finder.deferred:
            return _Deferred(lambda: self._resolve()(*args, **options), self._module, self._finder)
        return self._resolve()(*args, **options)

    def __instancecheck__(self, instance: object) -> bool:
        # a class has no instances before its module is imported
        return is_loaded(self._module) and isinstance(instance, self._resolve())


class _Stub(ModuleType):
    """A deferred module while an importer is imported."""

    def __init__(self, name: str, finder: _Finder) -> None:
        super().__init__(name)
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if (self.__name__, name) == ("torch._dynamo", "disable"):
            return lambda function, recursive=True, **_: disable_in_graphs(function, recursive)
        return _Deferred(lambda: getattr(import_module(self.__name__), name), self.__name__, self._finder)


class _Finder(MetaPathFinder):
    """Finds importers, and stubs of deferred modules while one is imported.

    Attributes:
        deferred: names of packages; empty unless an importer is being imported.
    """

    def __init__(self, importers: Mapping[str, Sequence[str]]) -> None:
        self.importers = importers
        self.deferred: Sequence[str] = ()
        self._stubs: list[str] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if self.deferred:
            return self._stub_spec(fullname)
        spec = PathFinder.find_spec(fullname, path) if fullname in self.importers else None
        if spec is not None and spec.loader is not None:
            spec.loader = _ImporterLoader(spec.loader, self)
        return spec

    def _stub_spec(self, fullname: str) -> ModuleSpec | None:
        package = next((name for name in self.deferred if f"{fullname}.".startswith(f"{name}.")), None)
        # an importer handles the absence of a package that is not installed
        if package is None or ("." not in package and PathFinder.find_spec(package) is None):
            return None
        return ModuleSpec(fullname, _StubLoader(self), is_package=True)

    def make_stub(self, name: str) -> ModuleType:
        """Return the stub of a module."""
        self._stubs.append(name)
        return _Stub(name, self)

    @contextmanager
    def defer(self, packages: Sequence[str]) -> Iterator[None]:
        """Defer imports of packages in this block. Afterwards ``import`` finds the packages themselves."""
        self.deferred = packages
        try:
            yield
        finally:
            self.deferred = ()
            for name in self._stubs:
                sys.modules.pop(name, None)
                package, _, child = name.rpartition(".")
                if package in sys.modules:
                    vars(sys.modules[package]).pop(child, None)
            self._stubs.clear()


class _StubLoader(Loader):
    def __init__(self, finder: _Finder) -> None:
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._finder.make_stub(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


class _ImporterLoader(Loader):
    """Loads an importer by its loader, with the imports of other packages deferred."""

    def __init__(self, loader: Loader, finder: _Finder) -> None:
        self._loader, self._finder = loader, finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader  # of its resources and sources
        deferred = self._finder.importers[module.__name__]
        if "torch._dynamo" in deferred:
            import_module("torch")  # which uses all of its modules
        known = set(sys.modules)
        with _no_garbage_collection():
            try:
                with self._finder.defer(deferred):
                    self._loader.exec_module(module)
            except Exception:  # another version, which uses a deferred module at once
                for name in set(sys.modules) - known:
                    if name.startswith(f"{module.__name__}."):
                        del sys.modules[name]
                for name in [name for name in vars(module) if not name.startswith("__")]:
                    delattr(module, name)
                self._loader.exec_module(module)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Pause it: an import makes many objects and no garbage. This saves an eighth of the time of PyTorch's."""
    is_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_enabled:
            gc.enable()
