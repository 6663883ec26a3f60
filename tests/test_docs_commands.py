"""Every command and every Python block of README and docs: all are checked, and all that can run are run.

A page is a folder with small sounds and a finished run, see `helpers.doc_sandbox`. Its blocks are tried in their order:

- ``bash``: commands. `train`, `prepare` and `explore` get small settings on top of their own.
- ``python``: a script. Under ``<!-- file: NAME -->`` any block is a file that the reader writes.
- under ``<!-- not run: REASON -->`` a block is only checked, and counted in `NOT_RUN`.
"""

import re
import subprocess
import tomllib
import xml.etree.ElementTree as ElementTree

import pytest
from helpers.doc_blocks import COMMAND, SHELLS, Block, Command, commands, read_blocks
from helpers.doc_checks import PageError, as_soundfold, check_command, check_python, small, small_python
from helpers.doc_sandbox import Sandbox, render_collection
from helpers.tiny import ROOT

from soundfold.cli.init import write_project

# blocks that cannot run here, by page; each has its reason in a comment above it
NOT_RUN = {
    "README.md": 2,
    "CONTRIBUTING.md": 1,
    "explanation/measurements.md": 3,
    "explanation/start-up.md": 1,
    "how-to/demo-page.md": 1,
    "how-to/devices.md": 3,
    "how-to/label.md": 2,
    "how-to/loggers.md": 1,
    "how-to/ray.md": 1,
    "how-to/recipes.md": 1,
    "how-to/reproduce.md": 1,
    "how-to/searches.md": 1,
    "how-to/share-a-model.md": 1,
    "how-to/slurm.md": 2,
    "how-to/sweeps.md": 1,
    "how-to/unknown-sounds.md": 1,
    "how-to/wandb.md": 3,
    "tutorials/cluster.md": 2,
    "tutorials/first-run.md": 1,
}


def _pages() -> list[str]:
    """Return README, CONTRIBUTING and the pages of docs that are written by hand."""
    found = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "docs/*.md", "docs/**/*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return ["README.md", "CONTRIBUTING.md", *sorted(set(found))]


PAGES = _pages()


def name_of(page: str) -> str:
    return page.removeprefix("docs/")


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    return render_collection(tmp_path_factory.mktemp("collection") / "tiny")


def walk(page: str, sandbox: Sandbox, run: bool) -> None:
    """Check the blocks of a page, and run those that can run, unless ``run`` is false."""
    for block in read_blocks(ROOT / page):
        if block.file is not None:
            path = sandbox.cwd / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.language in SHELLS:
            for command in commands(block):
                _try(command, sandbox, run and block.reason is None)
        elif block.language == "python":
            check_python(block)
            if run and block.reason is None:
                sandbox.place_runs(block.text)
                _call(block.where, sandbox, "python", small_python(block.text), {})


def _try(command: Command, sandbox: Sandbox, run: bool) -> None:
    words = as_soundfold(command.words)
    if words[0] == "cd":
        sandbox.cwd = (sandbox.cwd / words[1]).resolve()
        return
    if words[0] == "mkdir":
        subprocess.run(words, cwd=sandbox.cwd, check=True)
        return
    if words[:2] == ("soundfold", "init"):
        write_project(sandbox.cwd / words[2])
        return
    cfg = check_command(command, sandbox.cwd)
    if not run:
        return
    sandbox.place_runs(" ".join(words))
    if cfg is not None and "--help" not in words:
        words = tuple(small(words, cfg, sandbox.collection, sandbox.folder / "cache"))
    _call(command.where, sandbox, "command", words, command.variables)


def _call(where: str, sandbox: Sandbox, kind: str, text: object, variables: dict[str, str]) -> None:
    code, output = sandbox.call(kind, text, variables)
    if code != 0:
        tried = " ".join(text) if isinstance(text, tuple) else text
        raise PageError(f"{where}\nended with {code}. Tried: {tried}\n{output[-3000:]}")


def test_the_commands_of_the_readme_are_valid(tmp_path, collection):
    walk("README.md", Sandbox(tmp_path / "page", collection, tmp_path), run=False)


@pytest.mark.slow
def test_the_commands_of_the_readme_run(tmp_path, collection, tiny_run):
    walk("README.md", Sandbox(tmp_path / "page", collection, tiny_run), run=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES[1:], ids=name_of)
def test_the_commands_of_a_page_run(page, tmp_path, collection, tiny_run):
    walk(page, Sandbox(tmp_path / "page", collection, tiny_run), run=True)


def test_what_does_not_run_has_a_reason_and_is_counted():
    counts = {}
    for page in PAGES:
        reasons = [block.reason for block in read_blocks(ROOT / page) if block.reason is not None]
        assert all(len(reason.split()) >= 2 for reason in reasons), f"{page}: a reason is too short: {reasons}"
        if reasons:
            counts[name_of(page)] = len(reasons)
    message = "a block is marked as not run: make it run, or count it in NOT_RUN"
    assert counts == NOT_RUN, message
    assert sum(NOT_RUN.values()) == 29, message


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_command_escapes_the_tests(page):
    for block in read_blocks(ROOT / page):
        shown = block.language not in (*SHELLS, "python", "yaml") and block.file is None
        hidden = COMMAND.search(block.text) if shown else None
        assert hidden is None, (
            f"{block.where}: `{hidden[0].strip()}` is in a block of {block.language or 'no language'}"
        )
    outside = re.sub(r"^(`{3,}).*?^\1$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    indented = re.search(r"^ {4,}(soundfold|python|pip|make) .*", outside, re.MULTILINE)
    assert indented is None, f"{page}: indented code is not tried, use ```bash: {indented[0].strip()}"


def test_nobody_is_told_to_install_from_a_registry():
    wrong = re.compile(r"pip install (-\S+ )*['\"]?soundfold\b")
    for page in [*PAGES, "CHANGELOG.md", "src/soundfold/cli/template/README.md"]:
        found = wrong.search((ROOT / page).read_text())
        assert found is None, f"{page}: soundfold is not published: {found[0]}"


def test_the_readme_is_short_and_its_pictures_are_small():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    pictures = re.findall(r'src="([^"]+)"', text)
    assert len(pictures) >= 2
    for path in [*pictures, *(str(p.relative_to(ROOT)) for p in (ROOT / "docs" / "images").iterdir())]:
        assert (ROOT / path).stat().st_size < 300_000, path
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / link).exists(), f"README.md links to {link}"


@pytest.mark.parametrize("picture", sorted((ROOT / "docs" / "images").glob("*.svg")), ids=lambda path: path.name)
def test_a_picture_loads_nothing(picture):
    # the address in a namespace is a name, which no viewer loads
    text = re.sub(r"<!--.*?-->|xmlns(:\w+)?=\"[^\"]*\"", "", picture.read_text(), flags=re.DOTALL)
    assert "http" not in text
    assert "@font-face" not in text
    assert "<script" not in text


def test_the_picture_of_the_packages_shows_the_layers_of_the_contract():
    (contract,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    picture = ElementTree.parse(ROOT / "docs" / "images" / "packages.svg").getroot()
    names = [
        text.text for text in picture.iter("{http://www.w3.org/2000/svg}text") if text.get("font-weight") == "bold"
    ]
    assert names == contract["layers"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("soundfold train data=esc50 optim.lrr=1", r"page\.md:3.*\n.*optim\.lrr"),
        ("soundfold train data=esc50 \\\n  optim.lr=-1", r"page\.md:3.*\n.*optim\.lr"),
        ("soundfold predict --folds 3", r"page\.md:3.*\n.*flags"),
        ("soundfold fly", r"page\.md:3.*\n.*fly is not a command"),
        ("make tea", r"page\.md:3.*\n.*no target tea"),
        ("pip install -e '.[nothing]'", r"page\.md:3.*\n.*no extra nothing"),
        ("python scripts/nothing.py", r"page\.md:3.*\n.*no scripts/nothing\.py"),
        ("curl x", r"page\.md:3.*\n.*does not know"),
    ],
)
def test_a_wrong_command_is_named_with_page_and_line(tmp_path, text, message):
    (tmp_path / "page.md").write_text(f"# Page\n```bash\n{text}\n```\n")
    (block,) = read_blocks(tmp_path / "page.md")
    with pytest.raises(PageError, match=message):
        [check_command(command, tmp_path) for command in commands(block)]


def test_blocks_are_read_with_their_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- not run: needs a GPU -->\n```bash\n# a comment\nA=1 soundfold train x \\\n"
        "  y && soundfold report z\n```\n"
        "text\n<!-- file: a.py -->\n\n  ```{code-block} python\n  :caption: a.py\n\n  import os\n  ```\n"
        "```console\n$ soundfold --version\nsoundfold 1\n```\n"
    )
    first, second, third = read_blocks(page)
    assert (first.reason, first.line, first.language) == ("needs a GPU", 3, "bash")
    found = commands(first)
    assert [(c.line, c.words, c.variables) for c in found] == [
        (4, ("soundfold", "train", "x", "y"), {"A": "1"}),
        (4, ("soundfold", "report", "z"), {}),
    ]
    assert second == Block(page, 13, "python", "import os\n", "a.py", None)
    assert [c.words for c in commands(third)] == [("soundfold", "--version")]
