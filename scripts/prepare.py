"""Download, decode and audit a collection: python scripts/prepare.py data=esc50 audit=true"""

import hydra
from omegaconf import DictConfig

from soundfold.cli import plain_errors, run
from soundfold.config import CONF, Prepare
from soundfold.validation import validate_data


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="prepare")
@plain_errors
def main(cfg: DictConfig) -> None:
    validate_data(cfg)
    # imported here, so that --help and a misspelled key answer at once
    from soundfold.eda.prepare import prepare

    prepare(cfg)


if __name__ == "__main__":
    run(main, CONF, Prepare)
