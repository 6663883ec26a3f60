"""Write a project with your own options and modules: soundfold init NAME"""

import shutil
from pathlib import Path

from soundfold.cli.flags import flag_parser
from soundfold.errors import InputError, printable

TEMPLATE = Path(__file__).parent / "template"


def main() -> None:
    """Run the command on the arguments of this process."""
    parser = flag_parser(
        "init",
        "Write a folder with an experiment, a network and an augmentation of your own, each with a test. They are YAML "
        "files in conf/ and classes in Python files beside it, to rename and change.",
    )
    parser.add_argument("folder", type=Path, metavar="NAME", help="folder to write; an existing one must be empty")
    folder = parser.parse_args().folder
    write_project(folder)
    print(
        f"Written to {printable(folder)}. Train the experiment in conf/experiment/first.yaml, and test the code:\n\n"
        f"    cd {printable(folder)}\n    soundfold train --config-dir conf experiment=first\n    python -m pytest"
    )


def write_project(folder: Path) -> None:
    """Copy the template into a folder.

    Raises:
        InputError: the folder has files already, or cannot be written.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty, and init replaces no files. Choose another name.")
        shutil.copytree(TEMPLATE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error}. Choose another name.") from error
