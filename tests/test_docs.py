"""The site's reference agrees with the program: files and their keys, examples, and the pages that are generated."""

import csv
import doctest
import json
import re
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import ROOT

from soundfold.config import CONF, known_keys
from soundfold.inference.export import metadata
from soundfold.inference.predictor import Predictor

DOCS = ROOT / "docs"


def sections(page: str) -> dict[str, str]:
    """Return the text of a page's sections by their title; that before the first has the title of the page."""
    parts = re.split(r"^#+ (.+)$", (DOCS / page).read_text(), flags=re.MULTILINE)
    return {title.strip("`"): text for title, text in zip(parts[1::2], parts[2::2], strict=True)}


def undocumented(names: set[str], text: str) -> set[str]:
    return {name for name in names if f"`{name}`" not in text}


def test_every_file_of_a_run_is_on_the_page(tiny_run):
    files = {path.relative_to(tiny_run).as_posix() for path in tiny_run.rglob("*") if path.is_file()}
    assert {"fold1/result.json", "cv.json"} <= files
    assert not undocumented(
        {re.sub(r"^fold\d", "fold<k>", name) for name in files}, sections("reference/files.md")["Files"]
    )


def test_every_key_of_a_results_files_is_on_the_page(tiny_run):
    pages = sections("reference/files.md")
    result = json.loads((tiny_run / "fold1" / "result.json").read_text())
    metrics = set(result["definitions"])
    assert not undocumented({*result, *result["audit"]} - metrics, pages["result.json"])
    of_metrics = metrics | {f"{name}_sd" for name in metrics}
    assert not undocumented({*json.loads((tiny_run / "cv.json").read_text())} - of_metrics, pages["cv.json"])
    assert metrics & {"f1", "top5"}


@pytest.mark.parametrize("name", ["predictions.csv", "metrics.csv"])
def test_every_column_is_on_the_page(tiny_run, name):
    with (tiny_run / "fold1" / name).open(newline="") as stream:
        columns = {re.sub("^logit_.*", "logit_<class>", column) for column in next(csv.reader(stream))}
    assert len(columns) >= 5
    assert not undocumented(columns, sections("reference/files.md")[name])


def test_every_key_of_a_model_and_of_its_export_is_on_the_page(tiny_run):
    pages = sections("reference/files.md")
    weights = torch.load(tiny_run / "fold1" / "checkpoints" / "weights.pt", weights_only=True, mmap=True)
    assert not undocumented({*weights, *weights["seen"]}, pages["weights.pt"])
    assert not undocumented(set(metadata(Predictor.load(tiny_run, fold=1))), pages["Exported models"])


def test_every_key_of_decoded_audio_is_on_the_page(tiny_run):
    (manifest,) = (tiny_run.parents[1] / "cache").glob("*/manifest.json")
    text = sections("reference/files.md")["Decoded audio"]
    assert not undocumented(set(json.loads(manifest.read_text())), text)
    assert not undocumented({path.name for path in manifest.parent.iterdir()}, text)


OBJECTS = re.compile(r"^\.\. auto(?:class|function):: ([\w.]+)", re.MULTILINE)
API_PAGES = sorted(set((DOCS / "reference" / "api").glob("*.md")) - {DOCS / "reference" / "api" / "index.md"})


def documented(page: Path) -> dict[str, Any]:
    """Return the classes and functions of a page by their path."""
    names = OBJECTS.findall(page.read_text())
    return {name: getattr(import_module(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in names}


def test_examples_of_docstrings_run(tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner()
    for name, item in chain.from_iterable(documented(page).items() for page in API_PAGES):
        module = vars(import_module(name.rpartition(".")[0]))
        for test in doctest.DocTestFinder().find(item, name, globs={**module, "folder": tiny_run}):
            runner.run(test)
    assert runner.summarize() == doctest.TestResults(0, runner.tries)
    assert runner.tries > 50
    assert (tmp_path / "confusion.pdf").is_file()


SESSION = re.compile(r"^```pycon\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", API_PAGES, ids=lambda page: page.stem)
def test_examples_of_a_page_run_and_name_every_class(page, tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = page.read_text()
    session = "\n".join(SESSION.findall(text))
    runner = doctest.DocTestRunner()
    runner.run(doctest.DocTestParser().get_doctest(session, {"folder": tiny_run}, page.name, str(page), 0))
    assert runner.summarize() == doctest.TestResults(0, runner.tries)
    classes = {name: item for name, item in documented(page).items() if isinstance(item, type)}
    without = {name for name, item in classes.items() if ">>>" not in item.__doc__ and item.__name__ not in session}
    # a protocol, which `Crops` implements; and the results of functions that have examples
    assert without <= {f"soundfold.{name}" for name in RESULTS}


RESULTS = ("models.scoring.TTACrops", "evaluation.metrics.ClassMetrics", "evaluation.metrics.Calibration")
RESULTS += ("evaluation.statistics.SeedSummary", "data.leakage.Audit", "data.splits.Split")
RESULTS += ("data.collection.Collection",)


@pytest.fixture(scope="module")
def extensions():
    """Let Python find the extensions of the site."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS / "_ext")
        yield


def test_every_key_and_option_has_a_row(extensions):
    pages = import_module("configuration_pages").pages()
    keys = known_keys()
    for key in keys - {"logger.tensorboard"}:  # which has no keys
        section = key.rpartition(".")[0]
        is_section = any(other.startswith(f"{key}.") for other in keys)
        # a section that may be null has a row instead of its keys
        assert is_section or f"`{key}`]" in pages["train.md"] or f"`{section}`]" in pages["train.md"], key
    for path in CONF.glob("*/*.yaml"):
        if path.parent.name != "base":
            assert path.read_text().strip() in pages[f"{path.parent.name}.md"]
    assert "| `64` | integer from 1 | clips per optimizer step, of all devices" in pages["train.md"]


def test_commands_and_their_subcommands_have_their_help(extensions):
    module = import_module("command_pages")
    assert module.help_of("report").startswith("usage: soundfold report [-h] [--sort BY]")
    assert "sync" in module._subcommands(module.help_of("wandb"))
    assert not module._subcommands(module.help_of("predict"))


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_of_files_outside_the_site_lead_somewhere(name):
    # Sphinx checks those of the site
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text()):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        assert (ROOT / path).exists(), target
        headings = re.findall(r"^#+ (.+)$", (ROOT / (path or name)).read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}
