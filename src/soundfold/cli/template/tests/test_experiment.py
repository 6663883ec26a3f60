from pathlib import Path

from soundfold import cross_validate

CONF = Path(__file__).parents[1] / "conf"


def test_the_experiment_trains(tmp_path):
    paths = [f"paths.outputs='{tmp_path}/outputs'", f"paths.cache='{tmp_path}/cache'", "report.page=none"]
    run = cross_validate(
        ["experiment=first", "fold=1", "trainer.max_epochs=1", "trainer.limit_train_batches=2", *paths], config_dir=CONF
    )
    assert run is not None
    assert run.config["model"]["_target_"] == "networks.SmallCNN"
    assert 0 <= run.accuracy <= 1
