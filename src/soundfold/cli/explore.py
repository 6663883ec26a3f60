"""Analyze a collection and write a page to browse it: soundfold explore data=esc50

Arguments are GROUP=OPTION and KEY=VALUE, as in Hydra; --hydra-help lists its flags.
"""

import hydra
from omegaconf import DictConfig

from soundfold.cli.hydra_app import hydra_task, run
from soundfold.config import CONF, Explore
from soundfold.validation import validate_explore


@hydra_task
def task(cfg: DictConfig) -> None:
    """Explore the collection of a configuration."""
    validate_explore(cfg)
    # imported here, so that --help and a misspelled key answer at once
    from soundfold.eda.explore import explore

    explore(cfg)


def main() -> None:
    """Run the command on the arguments of this process."""
    run(hydra.main(version_base="1.3", config_path=str(CONF), config_name="explore")(task), Explore, __doc__)
