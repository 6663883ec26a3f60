"""Lightning loggers that record what they receive, as a user would write them."""

from typing import Any, ClassVar

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only


class LoggerWithoutFolder(Logger):
    """A logger that stores metrics and final statuses in memory."""

    def __init__(self, url: str = "") -> None:
        super().__init__()
        self.url = url
        self.metrics: dict[str, float] = {}
        self.rows: list[tuple[int | None, dict[str, float]]] = []
        self.statuses: list[str] = []
        self.hparams: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return "recording"

    @property
    def version(self) -> int:
        return 0

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.hparams |= params

    @rank_zero_only  # as Lightning's documentation recommends
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.metrics |= metrics
        self.rows.append((step, dict(metrics)))

    def finalize(self, status: str) -> None:
        self.statuses.append(status)


class RecordingLogger(LoggerWithoutFolder):
    """As above, with a folder and tags. The class lists its instances."""

    opened: ClassVar[list["RecordingLogger"]] = []

    def __init__(self, save_dir: str, tags: dict[str, Any] | None = None) -> None:
        super().__init__()
        self._save_dir = save_dir
        self.tags = tags
        self.opened.append(self)

    @property
    def save_dir(self) -> str:
        return self._save_dir
