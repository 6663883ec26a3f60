"""Where a model comes from: a path, a zip archive, or a repository of the Hugging Face Hub."""

from __future__ import annotations

import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from soundfold.config import install_command
from soundfold.data.unpacking import ArchiveError, check_member, extract_members
from soundfold.errors import InputError
from soundfold.experiment.model_bundle import WEIGHTS

# files of a run's folder that prediction and its calibration need
MODEL_FILE = re.compile(
    r"cv\.json|fold(none|[1-9][0-9]*)/(result\.json|config\.yaml|predictions\.csv|checkpoints/weights\.pt)"
)
HUB_NAME = re.compile(r"hf:(?P<name>[^/@]+/[^/@]+)(@(?P<revision>.+))?")
MAX_BYTES = 8_000_000_000  # of an archive's content; five models have 0.2 GB


@contextmanager
def local_model(path: Path) -> Iterator[Path]:
    """Yield the local path of a model.

    Args:
        path: a run's folder or a weights.pt, which is yielded as it is; a ``.zip`` of ``soundfold export``, which is
            unpacked to a temporary folder; or ``hf:owner/name`` or ``hf:owner/name@revision``, which is downloaded to
            the cache of huggingface_hub unless it is there.

    Raises:
        InputError: the archive is damaged or unsafe, the repository cannot be downloaded or has no model, or
            huggingface_hub is not installed.
    """
    if path.parts and path.parts[0].startswith("hf:"):
        yield _download(path.as_posix())
    elif path.suffix == ".zip" and path.is_file():
        with tempfile.TemporaryDirectory() as folder:
            try:
                _unpack(path, Path(folder))
            except (ArchiveError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
                raise InputError(
                    f"{path} is not a model's archive ({error}). Export it again, or copy it again."
                ) from error
            yield Path(folder)
    else:
        yield path


def _unpack(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        for info in infos:
            check_member(info)
        members = [info for info in infos if MODEL_FILE.fullmatch(info.filename)]
        if not members:
            raise ArchiveError("it has no fold of a run")
        if len({info.filename for info in members}) < len(members):
            raise ArchiveError("it contains a file twice")
        if (size := sum(info.file_size for info in members)) > MAX_BYTES:
            raise ArchiveError(f"it would unpack to {size / 1e9:.1f} GB, more than {MAX_BYTES / 1e9:.0f} GB")
        extract_members(opened, {info.filename: info for info in members}, folder)


def _download(name: str) -> Path:
    match = HUB_NAME.fullmatch(name)
    if match is None:
        raise InputError(
            f"{name} is not a model on the Hugging Face Hub. Write hf:owner/name or hf:owner/name@revision."
        )
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise InputError(f"{name} requires huggingface_hub: {install_command('hub')}.") from error
    try:
        folder = snapshot_download(match["name"], revision=match["revision"], allow_patterns=["fold*/**", "cv.json"])
    except RevisionNotFoundError as error:
        raise InputError(f"{match['name']} on the Hub has no revision {match['revision']}.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise InputError(
            f"There is no model {match['name']} on the Hub, or it is private. Check the name; for a private one, "
            "log in with `hf auth login`."
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{match['name']} cannot be downloaded from the Hub ({reason:.200}). Download it on a machine with a "
            "network, and name its folder."
        ) from error
    if not any(Path(folder).glob(f"fold*/{WEIGHTS.as_posix()}")):
        raise InputError(f"{match['name']} on the Hub has no model of soundfold: no fold<k>/checkpoints/weights.pt.")
    return Path(folder)
