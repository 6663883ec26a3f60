"""Analyze a collection and write a page to browse it: python scripts/explore.py data=esc50"""

import hydra
from omegaconf import DictConfig

from soundfold.cli import plain_errors, run
from soundfold.config import CONF, Explore
from soundfold.validation import validate_explore


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="explore")
@plain_errors
def main(cfg: DictConfig) -> None:
    validate_explore(cfg)
    # imported here, so that --help and a misspelled key answer at once
    from soundfold.eda.explore import explore

    explore(cfg)


if __name__ == "__main__":
    run(main, CONF, Explore)
