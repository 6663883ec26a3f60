"""Metrics of the configuration: their values, their checks, and those that a finished fold lacks."""

import json

import numpy as np
import pytest
import torch
from helpers import tiny
from helpers.runs import write_run
from omegaconf import OmegaConf
from sklearn import metrics as sklearn_metrics
from torchmetrics import Metric

from soundfold.config import CONF, cv_id
from soundfold.config.frozen import first_metrics
from soundfold.errors import InputError
from soundfold.evaluation.compare import load_run
from soundfold.evaluation.predictions import load_fold_predictions
from soundfold.evaluation.results import FoldResult, load_folds
from soundfold.evaluation.summary import write_summary
from soundfold.experiment.metrics import add_metrics, build_metrics, check_metrics, flip_objective
from soundfold.models.metrics import score_clips
from soundfold.report.leaderboard import list_runs, sort_runs
from soundfold.report.leaderboard_table import as_csv
from soundfold.report.run_page import write_run_page
from soundfold.report.terminal import print_run
from soundfold.validation.metrics import check_metrics as check_entries
from soundfold.validation.metrics import check_monitor

DEFAULT = OmegaConf.to_container(OmegaConf.load(CONF / "metrics" / "default.yaml"))
FULL = {**DEFAULT, **OmegaConf.to_container(OmegaConf.load(CONF / "metrics" / "full.yaml"))}
del FULL["defaults"]


class Surprise(Metric):
    """A metric of a user: mean negative log probability of the true class; less is better."""

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def update(self, probabilities: torch.Tensor, targets: torch.Tensor) -> None:
        self.values.append(-probabilities.gather(1, targets[:, None]).log())

    def compute(self) -> torch.Tensor:
        return torch.cat(self.values).mean()


class Mute(Surprise):
    """A metric that does not tell whether more is better."""

    higher_is_better = None


SURPRISE = {"_target_": f"{__name__}.Surprise"}


def with_metrics(entries: dict, monitor: str = "val/loss"):
    return OmegaConf.create({"metrics": entries, "selection": {"monitor": monitor}, "seed": 0, "model": {}})


def test_values_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(0, 20, (200, 7)).astype(np.float32), rng.integers(0, 7, 200)
    logits[np.arange(200), targets] += 15
    scores = score_clips(build_metrics(with_metrics(FULL), 7), torch.from_numpy(logits), torch.from_numpy(targets))
    shares = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    predictions, one_hot = logits.argmax(axis=1), np.eye(7)[targets]
    assert scores == pytest.approx(
        {
            "accuracy": sklearn_metrics.accuracy_score(targets, predictions),
            "f1": sklearn_metrics.f1_score(targets, predictions, average="macro"),
            "top5": sklearn_metrics.top_k_accuracy_score(targets, logits, k=5),
            "top3": sklearn_metrics.top_k_accuracy_score(targets, logits, k=3),
            "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(targets, predictions),
            "map": sklearn_metrics.average_precision_score(one_hot, shares, average="macro"),
            "auroc": sklearn_metrics.roc_auc_score(targets, shares, multi_class="ovr", average="macro"),
        },
        abs=1e-6,
    )


def test_logits_between_0_and_1_are_not_taken_for_probabilities():
    # torchmetrics applies a softmax to values outside of this range only
    logits, targets = torch.tensor([[0.2, 0.9], [0.8, 0.85], [0.1, 0.15]]), torch.tensor([1, 0, 0])
    scores = score_clips(build_metrics(with_metrics({"auroc": FULL["auroc"]}), 2), logits, targets)
    assert scores["auroc"] == 1.0


def test_the_default_is_that_of_earlier_runs():
    assert first_metrics() == DEFAULT


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"_target_": "torch.nn.Linear"},
            r"_target_=torch\.nn\.Linear is not a torchmetrics\.\S*Metric",
        ),
        ({"_target_": "nowhere.Metric"}, r"metrics\.mine\._target_=nowhere\.Metric cannot be imported"),
        (
            {**FULL["auroc"], "average": "none"},
            r"metrics\.mine: \S+AUROC cannot score .*shape \(4,\), not that",
        ),
        ({**FULL["auroc"], "averge": "macro"}, r"metrics\.mine: \S+AUROC rejects its options"),
        ({"_target_": "torchmetrics.MeanSquaredError"}, r"metrics\.mine: \S+ cannot score probabilities of 4 classes"),
    ],
)
def test_entries_that_do_not_score_are_refused_before_training(entry, message):
    with pytest.raises(InputError, match=message):
        check_metrics(with_metrics({"mine": entry}), 4)


@pytest.mark.parametrize(
    ("entries", "monitor", "message"),
    [
        ({"f1": {**DEFAULT["f1"], "average": "micro"}}, "val/loss", r"metrics\.f1 has a fixed definition"),
        ({"a-b": SURPRISE}, "val/loss", r"metrics\.a-b: a name has letters"),
        ({"mine": {"average": "macro"}}, "val/loss", r"metrics\.mine requires _target_"),
        (DEFAULT, "val/map", r"val/map must be one of val/loss, val/accuracy, val/f1, val/top5"),
        ({"top5": DEFAULT["top5"], "f1": None}, "val/f1", r"val/f1 must be one of val/loss, val/accuracy, val/top5"),
    ],
)
def test_invalid_names_and_monitors_are_refused(entries, monitor, message):
    def check() -> None:
        check_entries(with_metrics(entries, monitor))
        check_monitor(with_metrics(entries, monitor))

    with pytest.raises(InputError, match=message):
        check()


def test_the_name_of_a_field_of_a_result_is_refused():
    with pytest.raises(InputError, match=r"metrics\.loss: results have a field of this name"):
        build_metrics(with_metrics({"loss": SURPRISE}), 2)


def test_the_class_tells_which_values_are_best():
    directions = [("val/loss", -1), ("val/accuracy", 1), ("val/f1", 1), ("val/surprise", -1)]
    for monitor, sign in directions:
        assert flip_objective(with_metrics({**DEFAULT, "surprise": SURPRISE}, monitor), 0.5) == 0.5 * sign
    with pytest.raises(InputError, match="does not tell whether larger or smaller values are better"):
        flip_objective(with_metrics({"mute": {"_target_": f"{__name__}.Mute"}}, "val/mute"), 0.5)


def test_metrics_change_the_identity_only_where_one_selects():
    def identity(entries: dict, monitor: str) -> str:
        values = {"model": {"weights": "none", "_target_": "a.B"}, "callbacks": {}}
        values |= {"metrics": entries, "selection": {"monitor": monitor}}
        return cv_id(OmegaConf.create(values), {"weights": "none"})

    kappa = {"_target_": "torchmetrics.classification.MulticlassCohenKappa"}
    for monitor in ("val/loss", "val/f1"):
        assert identity(DEFAULT, monitor) == identity(FULL, monitor) == identity({**FULL, "kappa": kappa}, monitor)
    by_kappa = [identity({**DEFAULT, "kappa": {**kappa, **more}}, "val/kappa") for more in ({}, {"weights": "linear"})]
    assert len({*by_kappa, identity(DEFAULT, "val/loss")}) == 3


def test_a_finished_fold_gets_the_metrics_that_it_lacks(tmp_path, capsys):
    folder = write_run(tmp_path / "run", np.arange(12) % 3 > 0)
    cfg = with_metrics({**DEFAULT, "surprise": SURPRISE, "balanced_accuracy": FULL["balanced_accuracy"]})
    before = load_folds(folder)
    for result in before:
        add_metrics(cfg, folder, result)
    assert "Computed from its predictions: surprise, balanced_accuracy." in capsys.readouterr().err
    for old, new in zip(before, load_folds(folder), strict=True):
        assert {name: new.metrics[name] for name in old.metrics} == old.metrics
        predictions = load_fold_predictions(folder, new)
        logits = predictions.logits.astype(np.float64)
        losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), predictions.targets]
        assert new.metrics["surprise"] == pytest.approx(losses.mean(), abs=1e-6)
        recall = sklearn_metrics.balanced_accuracy_score(predictions.targets, logits.argmax(axis=1))
        assert new.metrics["balanced_accuracy"] == pytest.approx(recall, abs=1e-6)
        # the second time nothing is computed
        assert add_metrics(cfg, folder, new) is new
    capsys.readouterr()
    write_summary(folder)
    summary = json.loads((folder / "cv.json").read_text())
    values = [result.metrics["surprise"] for result in load_folds(folder)]
    assert summary["surprise"] == pytest.approx(np.mean(values))
    assert summary["surprise_sd"] == pytest.approx(np.std(values, ddof=1))
    assert [fold["surprise"] for fold in summary["folds"]] == values
    print_run(load_folds(folder), load_run(folder))
    table = capsys.readouterr().out
    for text in ("macro F1 %", "top-5 accuracy %", "surprise", "balanced accuracy %", f"{np.mean(values):.4f} ±"):
        assert text in " ".join(table.split())
    page = write_run_page(folder, load_run(folder), OmegaConf.create({"page": "plain", "mistakes": 0})).read_text()
    for text in ('<th scope="col">surprise</th>', "balanced accuracy, %", f"<td>{np.mean(values):.4f} ± "):
        assert text in page
    runs, _ = list_runs([tmp_path])
    assert sort_runs(runs, "surprise") == runs
    assert ",surprise,surprise_sd,balanced_accuracy,balanced_accuracy_sd" in as_csv(runs)


def test_a_metric_that_some_folds_lack_has_no_mean(tmp_path):
    folder = write_run(tmp_path / "run", np.arange(12) % 3 > 0)
    add_metrics(with_metrics({"surprise": SURPRISE}), folder, load_folds(folder)[0])
    total = load_run(folder).total
    assert (total.metrics["surprise"], total.metrics_sd["surprise"], total.metrics["f1"]) == (None, None, 0.5)


def test_another_definition_is_computed_again(tmp_path):
    folder = write_run(tmp_path / "run", np.arange(12) % 3 > 0)
    kappa = {"_target_": "torchmetrics.classification.MulticlassCohenKappa"}
    results = [load_folds(folder)[0]]
    for entry in (kappa, {**kappa, "weights": "linear"}, SURPRISE):
        results.append(add_metrics(with_metrics({"mine": entry}), folder, results[-1]))
    assert results[1].metrics["mine"] == results[2].metrics["mine"] != results[3].metrics["mine"]
    assert FoldResult.load(folder / "fold1" / "result.json") == results[3]
    # a changed module is another definition, too
    stored = results[3].definitions["mine"]
    assert stored.pop("modules").keys() == {__name__}
    assert stored == SURPRISE
    results[3].definitions["mine"] = {**SURPRISE, "modules": {__name__: "0" * 64}}
    assert add_metrics(with_metrics({"mine": SURPRISE}), folder, results[3]) is not results[3]


def test_a_run_selects_by_a_metric_of_a_user(tmp_path):
    """Values of training equal those of the stored predictions."""
    root = tiny.render(tmp_path / "tiny")
    options = (
        "model.width=4",
        "split=nested",
        "fold=1",
        "metrics=full",
        f"metrics.surprise._target_={__name__}.Surprise",
    )
    objective = tiny.cross_validate(root, tmp_path / "out", *options, "selection.monitor=val/surprise")
    run = tiny.only(tmp_path / "out")
    (result,) = load_folds(run)
    epochs = np.genfromtxt(run / "fold1" / "metrics.csv", delimiter=",", names=True, deletechars="")
    assert objective == result.objective == pytest.approx(-epochs["val/surprise"].min(), rel=1e-5)
    # the same formula as the loss of validation
    assert epochs["val/surprise"] == pytest.approx(epochs["val/loss"], rel=1e-4)
    predictions = load_fold_predictions(run, result)
    logits, targets = torch.from_numpy(predictions.logits), torch.from_numpy(predictions.targets)
    entries = {**FULL, "surprise": SURPRISE}
    scores = score_clips(build_metrics(with_metrics(entries), 2), logits, targets)
    assert {"accuracy": result.accuracy, **result.metrics} == pytest.approx(scores, abs=1e-7)
    assert {name: entry["_target_"] for name, entry in result.definitions.items()} == {
        name: entry["_target_"] for name, entry in entries.items()
    }
    # a change of its module would change which weights are scored
    assert __name__ in result.modules
