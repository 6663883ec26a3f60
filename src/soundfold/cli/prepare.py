"""Download, decode and audit a collection: soundfold prepare data=esc50 audit=true

Arguments are GROUP=OPTION and KEY=VALUE, as in Hydra; --hydra-help lists its flags.
"""

import hydra
from omegaconf import DictConfig

from soundfold.cli.hydra_app import hydra_task, run
from soundfold.config import CONF, Prepare
from soundfold.validation import validate_data


@hydra_task
def task(cfg: DictConfig) -> None:
    """Prepare the collection of a configuration."""
    validate_data(cfg)
    # imported here, so that --help and a misspelled key answer at once
    from soundfold.eda.prepare import prepare

    prepare(cfg)


def main() -> None:
    """Run the command on the arguments of this process."""
    run(hydra.main(version_base="1.3", config_path=str(CONF), config_name="prepare")(task), Prepare, __doc__)
