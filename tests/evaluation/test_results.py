"""Results of folds: summarizing, saving and loading."""

import hashlib
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers.hostile import property_test
from helpers.runs import write_run
from hypothesis import assume
from hypothesis import strategies as st

from soundfold.data.tables import ClipTable
from soundfold.errors import InputError
from soundfold.evaluation import computed
from soundfold.evaluation.compare import load_run
from soundfold.evaluation.cv_result import summarise
from soundfold.evaluation.predictions import load_fold_predictions, load_predictions, predictions_csv
from soundfold.evaluation.results import FoldResult, fold_folders, load_folds
from soundfold.experiment.environment import differences
from soundfold.report.leaderboard import list_runs

BFLOAT16 = {"precision": "bf16-mixed"}


def result(fold: int, accuracy: float = 0.5, **changes) -> FoldResult:
    values = FoldResult(
        cv_id="0123abcd",
        fold=fold,
        folds=[1, 2, 3],
        protocol="benchmark",
        leaky=False,
        seed=0,
        classes=["a", "b"],
        n=4,
        accuracy=accuracy,
        metrics={"f1": accuracy, "top5": 1.0},
        loss=1.0,
        confusion=[[1, 1], [0, 2]],
        val_accuracy=None,
        objective=accuracy,
        epochs=1,
        steps=3,
        seconds=2.0,
        audit={"train": 8},
        environment={},
    )
    return replace(values, **changes)


def test_summary_over_folds():
    # 0.7, 0.8 and 0.9 of ten clips; one as float32, as in results of earlier versions
    total = summarise([result(3, 0.9, n=10), result(1, float(np.float32(0.7)), n=10), result(2, 0.8, n=10)])
    assert total.accuracy == 0.8
    assert total.accuracy_sd == pytest.approx(0.1)
    assert (total.correct, total.n) == (24, 30)
    assert [(fold["correct"], fold["n"], fold["accuracy"]) for fold in total.folds] == [
        (7, 10, 0.7),
        (8, 10, 0.8),
        (9, 10, 0.9),
    ]
    assert total.seconds == 6
    assert total.confusion == [[3, 3], [0, 6]]
    assert [fold["fold"] for fold in total.folds] == [1, 2, 3]


def test_a_summary_of_some_folds_says_so():
    one, two, all_three = (summarise([result(fold, 0.1 * fold, n=10) for fold in range(1, n + 1)]) for n in (1, 2, 3))
    assert [total.part for total in (one, two, all_three)] == ["1 of 3 folds", "2 of 3 folds", ""]
    assert (one.accuracy, one.accuracy_sd, one.metrics_sd["f1"], one.loss_sd) == (0.1, None, None, None)
    assert two.accuracy_sd == pytest.approx(np.std([0.1, 0.2], ddof=1))


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], "no finished fold"),
        ([result(1), result(2), result(2), result(3)], "Fold 2 .* twice"),
        ([result(1), result(2), result(3, cv_id="ffffffff")], "ffffffff"),
        (
            [result(1, computed=BFLOAT16), result(2, computed={"precision": "32-true"}), result(3, computed=BFLOAT16)],
            r"trainer\.precision=auto is bf16-mixed in fold 1, 3, 32-true in fold 2\. .*trainer\.precision=32-true",
        ),
    ],
)
def test_no_duplicate_and_mixed_folds_are_refused(results, message):
    with pytest.raises(InputError, match=message):
        summarise(results)


def test_folds_of_older_versions_are_summarized_with_those_that_record_a_precision():
    assert summarise([result(1), result(2, computed={"precision": "32-true"}), result(3)]).is_complete


def test_folds_without_a_version_of_the_draws_have_the_first():
    assert summarise([result(1), result(2, computed={"draws": 1})]).n == 8
    with pytest.raises(InputError, match=r"random draws of augmentation is 1 in fold 1, 2 in fold 2\. .*rerun=true\.$"):
        summarise([result(1), result(2, computed={"draws": 2})])


def test_a_property_that_older_folds_lack_has_the_value_they_were_computed_with(monkeypatch):
    entry = computed.Property("the version of the tables", "Use rerun=true.", older=1)
    monkeypatch.setitem(computed.PROPERTIES, "tables", entry)
    assert summarise([result(1), result(2, computed={"tables": 1})]).n == 8
    with pytest.raises(InputError, match="version of the tables is 1 in fold 1, 2 in fold 2"):
        summarise([result(1), result(2, computed={"tables": 2})])
    assert computed.resumed("Fold 1", {}, {"tables": 1}) == {"tables": 1}
    with pytest.raises(InputError, match=r"^Fold 1 was interrupted when .* was 1, and it is 2 now.*Use rerun=true\.$"):
        computed.resumed("Fold 1", {}, {"tables": 2})


def test_save_and_load(tmp_path):
    (tmp_path / "fold1").mkdir()
    result(1).save(tmp_path / "fold1" / "result.json")
    assert load_folds(tmp_path) == [result(1)]
    assert [p.name for p in (tmp_path / "fold1").iterdir()] == ["result.json"]


@pytest.mark.parametrize("name", ["fold1.bak", "fold01", "fold1 (copy)", "fold\u0661", "folder"])
def test_a_copied_fold_folder_is_not_read(tmp_path, name):
    folder = write_run(tmp_path / "run", np.arange(12) % 3 > 0)
    before, runs = load_run(folder), list_runs([tmp_path])
    shutil.copytree(folder / "fold1", folder / name)
    os.utime(folder / name / "result.json", (2e9, 2e9))
    assert list(fold_folders(folder)) == ["1", "2", "3"]
    assert (load_run(folder).total, load_run(folder).clips) == (before.total, before.clips)
    assert list_runs([tmp_path]) == runs


def test_a_copy_in_the_folder_of_another_fold_is_refused(tmp_path):
    folder = write_run(tmp_path / "run", np.arange(12) % 3 > 0)
    shutil.copytree(folder / "fold1", folder / "fold10")
    with pytest.raises(InputError, match=r"fold10/result\.json is the result of fold 1, so fold10 is a copy"):
        load_folds(folder)


def test_truncated_result_is_refused_by_name(tmp_path):
    (tmp_path / "fold1").mkdir()
    (tmp_path / "fold1" / "result.json").write_text('{"cv_id": ')
    with pytest.raises(InputError, match=r"fold1/result\.json is not a fold's result"):
        load_folds(tmp_path)
    with pytest.raises(InputError, match="no run at"):
        load_folds(tmp_path / "none")


@pytest.mark.parametrize(
    ("changes", "config", "reason"),
    [
        ({"accuracy": 0.99}, "seed: 0", "its values do not match its checksum"),
        ({"audit": {"train": 2, "same_clip": 0}}, "seed: 0", "its values do not match its checksum"),
        ({"config": None}, "seed: 0", "its values do not match its checksum"),
        ({"checksum": None, "accuracy": 0.99}, "seed: 0", "it has no checksum"),
        ({}, "seed: 1", r"config\.yaml in its folder was changed since"),
        ({}, None, r"No such file .*config\.yaml"),
    ],
)
def test_a_result_is_bound_to_its_values_and_its_configuration(tmp_path, changes, config, reason):
    (tmp_path / "fold1").mkdir()
    path = tmp_path / "fold1" / "result.json"
    (tmp_path / "fold1" / "config.yaml").write_text("seed: 0")
    original = result(1, audit={"train": 2, "same_clip": 2}, config=hashlib.sha256(b"seed: 0").hexdigest())
    original.save(path)
    assert load_folds(tmp_path) == [original]
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if (key, value) != ("checksum", None)}))
    (tmp_path / "fold1" / "config.yaml").unlink()
    if config is not None:
        (tmp_path / "fold1" / "config.yaml").write_text(config)
    with pytest.raises(InputError, match=rf"fold1/result\.json is not a fold's result .*{reason}"):
        load_folds(tmp_path)


def test_audit_of_the_first_edition_is_read(tmp_path):
    (tmp_path / "fold1").mkdir()
    path = tmp_path / "fold1" / "result.json"
    result(1, audit={"train": 8, "same_clip": 0, "met_before": 2}).save(path)
    assert FoldResult.load(path).audit == {"train": 8, "same_clip": 0, "seen_before": 2}
    path.write_text(json.dumps({"audit": None}))
    with pytest.raises(InputError, match="is not a fold's result"):
        FoldResult.load(path)


@pytest.mark.parametrize("clips", [[], [0], [0, 1]])
def test_predictions_that_do_not_match_their_result_are_refused(tmp_path, clips):
    table = ClipTable(("x.wav", "y.wav"), np.array([1, 1]), np.array([0, 1]), ("s", "t"), ("a", "b"))
    logits = np.eye(2, dtype=np.float32)[clips]
    (tmp_path / "fold1").mkdir()
    path = tmp_path / "fold1" / "predictions.csv"
    path.write_text(predictions_csv(table, np.array(clips, dtype=int), logits))
    assert load_predictions(path, ("a", "b")).logits.shape == (len(clips), 2)
    scored = result(1, accuracy=1.0, n=2, predictions=hashlib.sha256(path.read_bytes()).hexdigest())
    if len(clips) == 2:
        assert load_fold_predictions(tmp_path, scored).files == table.files
    with pytest.raises(InputError, match="does not match the accuracy"):
        load_fold_predictions(tmp_path, replace(scored, accuracy=0.5))
    with pytest.raises(InputError, match="not bound"):
        load_fold_predictions(tmp_path, replace(scored, predictions=None))


def test_predictions_keep_float32_exactly():
    table = ClipTable(("x.wav", "y.wav"), np.array([1, 2]), np.array([0, 1]), ("s", "t"), ("a", "b"))
    logits = np.array([[0.1, -1 / 3]], dtype=np.float32)
    header, row = predictions_csv(table, np.array([1]), logits).splitlines()
    assert header == "filename,fold,source,target,prediction,logit_a,logit_b"
    assert row.startswith("y.wav,2,t,b,a,")
    np.testing.assert_array_equal(np.array(row.split(",")[5:], dtype=np.float32), logits[0])


NAMES = st.text(st.characters(exclude_categories=["Cs"]))


@property_test(
    st.tuples(NAMES, NAMES, NAMES, NAMES),
    few=100,
    many=2000,
    examples=(("a\rb.wav", "s\r", "\r", "x\r\ny"), ("\n", '"', ",", "\ufeff"), ("\0", "", "\x85", "\u2028")),
)
def test_predictions_are_read_back_with_any_name(case, tmp_path):
    file, source, *classes = case
    assume(classes[0] != classes[1])
    table = ClipTable(("x.wav", file), np.array([1, 1]), np.array([0, 1]), ("s", source), tuple(classes))
    logits = np.eye(2, dtype=np.float32)
    (tmp_path / "predictions.csv").write_bytes(predictions_csv(table, np.array([0, 1]), logits).encode())
    read = load_predictions(tmp_path / "predictions.csv", table.classes)
    assert (read.files, read.sources, read.targets.tolist()) == (table.files, table.sources, [0, 1])
    np.testing.assert_array_equal(read.logits, logits)


def test_differences_of_code():
    old = {"commit": "aaa", "versions": {"torch": "1", "numpy": "2"}}
    new = {"commit": "bbb", "versions": {"torch": "1", "numpy": "3"}}
    assert differences(old, new) == ["commit aaa and bbb", "numpy 2 and 3"]
    assert differences(old, old) == []
