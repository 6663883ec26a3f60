"""Model cards: what they say of a run, and what the Hugging Face Hub reads in their header."""

import shutil
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from soundfold.evaluation.results import FoldResult
from soundfold.io.console import escape_markdown
from soundfold.report.model_card import CardSource, model_card, write_fold_cards
from soundfold.report.shortcuts import load_shortcuts


def test_each_model_of_a_finished_run_has_a_card(tiny_run):
    for fold in (1, 2, 3):
        text = (tiny_run / f"fold{fold}" / "checkpoints" / "weights.md").read_text()
        result = FoldResult.load(tiny_run / f"fold{fold}" / "result.json")
        assert f"# {tiny_run.name}, fold {fold}\n" in text
        assert f"| fold {fold} | 10 | {100 * result.accuracy:.2f} |" in text
        assert f"Commit: {result.environment['commit']}" in text
        assert 'Predictor.load("weights.pt")' in text


def test_the_hub_reads_the_scores_of_the_header(tiny_run):
    source = CardSource.load(tiny_run)
    data = ModelCard(model_card(source, ["1", "2", "3"], "")).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("soundfold", "audio-classification", "cc-by-nc-3.0")
    scores = {result.metric_type: result.metric_value for result in data.eval_results}
    assert scores["accuracy"] == round(100 * source.scored.total.accuracy, 2)
    assert scores["f1"] == round(100 * source.scored.total.metrics["f1"], 2)
    assert {result.dataset_split for result in data.eval_results} == {"mean of 3 folds"}
    single = ModelCard(model_card(source, ["2"], "", tags=["onnx"])).data
    assert single.eval_results[0].metric_value == round(100 * source.results["2"].accuracy, 2)
    assert "onnx" in single.tags


def test_a_fold_may_lack_a_metric_of_another(tiny_run):
    source = CardSource.load(tiny_run)
    third = replace(source.results["3"], metrics={**source.results["3"].metrics, "auroc": 0.75})
    text = model_card(replace(source, results={**source.results, "3": third}, scored=None), ["1", "2", "3"], "")
    rows = [line for line in text.splitlines() if line.startswith("| fold")]
    assert [row.endswith(" 75.00 |") or row.endswith(" 0.7500 |") for row in rows] == [False, False, True]
    assert rows[0].endswith("|  |")


def test_a_card_says_what_its_scores_mean(tiny_run):
    source = CardSource.load(tiny_run)
    low, high = source.scored.interval
    text = model_card(source, ["1", "2", "3"], "")
    assert f"95 % interval {100 * low:.2f} to {100 * high:.2f} %" in text
    assert "The mean of all models has no score on this collection" in text
    assert "Shared by scored clips and training: nothing." in text
    assert "Not audited" in text

    leaky = replace(source, scored=replace(source.scored, total=replace(source.scored.total, leaky=True)))
    text = model_card(leaky, ["1", "2", "3"], "")
    assert "Scores are too high" in text
    assert ModelCard(text).data.eval_results is None

    header = ["class", "file_facts_recall_percent", "all_cues_recall_percent"]
    audited = replace(source, shortcuts=[header, ["tone", "40.0", "90.0"], ["noise", "20.0", ""]])
    assert "file facts 30.0 %, all cues 90.0 % (chance 50.0 %)" in model_card(audited, ["1"], "")

    source.config["data"]["license"] = None
    text = model_card(source, ["1"], "")
    assert "License of the clips: unknown" in text
    assert ModelCard(text).data.license == "unknown"


def test_a_model_without_scores_says_so(tiny_run):
    source = CardSource.load(tiny_run)
    scored = source.results["1"]
    result = replace(scored, fold=None, n=0, accuracy=None, metrics={}, confusion=[])
    unscored = replace(source, results={"none": result}, scored=None)
    text = model_card(unscored, ["none"], "")
    assert "trained on every clip" in text
    assert "The model has no score" in text
    assert ModelCard(text).data.eval_results is None
    # beside a cross-validation, its scores are shown and named
    text = model_card(replace(source, results={"none": result}), ["none"], "")
    assert "The scores are those of the cross-validation. This model was trained on every clip." in text


def test_the_confusions_of_a_card_are_counts_of_mistakes(tiny_run):
    source = CardSource.load(tiny_run)
    result = replace(source.results["1"], confusion=[[3, 2], [4, 1]])
    text = model_card(replace(source, results={"1": result}), ["1"], "")
    assert "| tone | noise | 4 |\n| noise | tone | 2 |\n" in text


@pytest.mark.parametrize("name", ["a|b", "<script>alert(1)</script>", "[x](http://y)", "# heading\nnext", "`code`"])
def test_class_names_are_no_markup(tiny_run, name):
    source = CardSource.load(tiny_run)
    result = replace(source.results["1"], classes=[name, "tone"], confusion=[[0, 2], [4, 1]])
    text = model_card(replace(source, results={"1": result}), ["1"], "")
    assert f"| tone | {escape_markdown(name)} | 4 |" in text
    assert name not in text.partition("## Data")[2].partition("## Use")[0]


def test_cards_are_written_only_beside_models(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / tiny_run.name)
    for path in run.glob("fold*/checkpoints/weights.md"):
        path.unlink()
    (run / "fold2" / "checkpoints" / "weights.pt").unlink()
    write_fold_cards(run)
    assert sorted(path.parents[1].name for path in run.rglob("weights.md")) == ["fold1", "fold3"]


def test_a_shortcut_audit_of_other_classes_or_a_damaged_one_is_not_used(tmp_path):
    run = tmp_path / "mine-1a2b3c4d"
    assert load_shortcuts(run, "folder", ["tone"]) is None
    table = tmp_path / "explore-folder" / "shortcuts.csv"
    table.parent.mkdir()
    table.write_text("class,recall\ntone,1\nnoise,2\n")
    assert load_shortcuts(run, "folder", ("noise", "tone")) == [["class", "recall"], ["tone", "1"], ["noise", "2"]]
    assert load_shortcuts(run, "folder", ("noise", "dog")) is None
    table.write_bytes(b"class\n\xff")
    assert load_shortcuts(run, "folder", ("noise", "tone")) is None
