"""The tables of measured results are made from the committed files, and these agree with each other."""

import csv

import pytest
import results

from soundfold.errors import InputError
from soundfold.io.atomic import loads_with_checksum

RUNS = sorted(path.parent for path in results.RESULTS.glob("*/result.yaml"))


def test_pages_show_the_measured_results(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["results.py", "--check"])
    assert results.main() == 0, capsys.readouterr().err


def test_a_changed_figure_is_noticed(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text("Before.\n<!-- results leakage -->\n| 99.33 |\n<!-- end -->\nAfter.\n")
    monkeypatch.setattr(results, "PAGES", (page,))
    monkeypatch.setattr("sys.argv", ["results.py", "--check"])
    assert results.main() == 1
    assert "page.md" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["results.py"])
    assert results.main() == 0
    text = page.read_text()
    assert text.startswith("Before.\n<!-- results leakage -->\n\n| experiment")
    assert text.endswith("<!-- end -->\nAfter.\n")
    assert "99.33" not in text


def test_an_unknown_table_is_refused():
    with pytest.raises(InputError, match="recipes, leakage, ablations, summary, esc10"):
        results.table("speed")


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_accuracies_follow_from_the_predictions(run):
    cv = loads_with_checksum((run / "cv.json").read_text())
    accuracies = []
    for path in sorted(run.glob("fold*")):
        result = loads_with_checksum((path / "result.json").read_text())
        with (path / "predictions.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert len(rows) == result["n"]
        assert all(row["fold"] == str(result["fold"]) for row in rows if not result["leaky"])
        accuracies.append(sum(row["target"] == row["prediction"] for row in rows) / len(rows))
        assert result["accuracy"] == pytest.approx(accuracies[-1], abs=1e-6)
    assert cv["accuracy"] == pytest.approx(sum(accuracies) / len(accuracies), abs=1e-6)
    assert len(accuracies) == 5


def test_an_interval_that_holds_zero_shows_no_effect():
    # half width 1.96 * sqrt(2 * 0.25 / 400) = 6.93 points on one fold, 4.90 on two
    assert results._verdict([(0.5, 400)], [(0.5, 400)]) == "-6.9 to +6.9, no effect shown"
    assert results._verdict([(0.5, 400)] * 2, [(0.5, 400)] * 2) == "-4.9 to +4.9, no effect shown"
    assert results._verdict([(0.5, 400), (0.6, 400)], [(0.4, 400), (0.5, 400)]) == "+5.1 to +14.9"


def test_seeds_of_a_recipe_share_a_row_and_their_ensemble_has_its_own():
    rows = [line for line in results.table("recipes").splitlines() if "experiment=scratch" in line]
    ensemble, seeds = rows
    assert ensemble.startswith("| ensemble of 2 seeds, ")
    accuracies = [
        loads_with_checksum((results.RESULTS / name / "cv.json").read_text())["accuracy"]
        for name in ("scratch_7700", "scratch_7700_seed1")
    ]
    assert f"| 0, 1 | 2000 | **{50 * sum(accuracies):.2f} ± " in seeds
