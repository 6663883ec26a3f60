"""Build step that pyproject.toml cannot state: conf/ becomes soundfold/conf in a wheel.

Mapping a package ``soundfold.conf`` to conf/ would do the same, but editable installs would then use an import hook
instead of a plain path, and type checkers and editors do not follow hooks.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConf(build_py):
    """Copies the package, and conf/ into it."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for source in Path("conf").rglob("*.yaml"):
                target = Path(self.build_lib, "soundfold", source)
                self.mkpath(str(target.parent))
                self.copy_file(str(source), str(target))


setup(cmdclass={"build_py": BuildWithConf})
