"""Paths in the file of an offline W&B run, after its folder was moved."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.message import DecodeError
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

from soundfold.errors import InputError
from soundfold.experiment.wandb_runs.offline import BLOCK, FILE_HEADER, HEADER, read_records
from soundfold.io.atomic import atomic_file

FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def relocate_artifacts(path: Path, folder: Path) -> None:
    """Correct the paths of artifacts' files in an offline run's file. W&B leaves out artifacts that it does not find.

    Args:
        path: of the offline run's file, which is rewritten if a path has changed.
        folder: of the cross-validation, where the files are now.

    Raises:
        InputError: a file is missing, or the offline run's file is damaged.
    """
    try:
        records, changed = list(read_records(path)), False
    except DecodeError as error:
        raise InputError(
            f"{path} is damaged ({error}). Start over with rerun=true, which logs a new W&B run."
        ) from error
    for record in records:
        if not record.HasField("artifact"):
            continue
        group = _group(records)
        for entry in record.artifact.manifest.contents:
            if not entry.local_path or Path(entry.local_path).is_file():
                continue
            # within the run's folder, whose name is the group of its W&B runs
            _, _, inner = entry.local_path.rpartition(f"{group}/")
            if not (folder / inner).is_file():
                raise InputError(
                    f"{folder / inner} is missing, a file of the artifact {record.artifact.name} of an offline W&B "
                    "run. Restore it; or start over with rerun=true, which logs a new W&B run."
                )
            entry.local_path, changed = str((folder / inner).resolve()), True
    if changed:
        with atomic_file(path) as stream:
            header = path.read_bytes()[:FILE_HEADER]
            stream.write(header + encode_records(records))


def _group(records: Iterable[Record]) -> str:
    return next(record.run.run_group for record in records if record.HasField("run"))


def encode_records(records: Iterable[Record]) -> bytes:
    """Return records as `read_records` reads them, without the header of the file."""
    log = bytearray()
    for record in records:
        rest, kind = record.SerializeToString(), FIRST
        while True:
            room = BLOCK - (len(log) + FILE_HEADER) % BLOCK
            if room < HEADER:
                log += bytes(room)
                continue
            part, rest = rest[: room - HEADER], rest[room - HEADER :]
            if not rest:
                kind = FULL if kind == FIRST else LAST
            checksum = zlib.crc32(part, zlib.crc32(bytes([kind])))
            log += checksum.to_bytes(4, "little") + len(part).to_bytes(2, "little") + bytes([kind]) + part
            kind = MIDDLE
            if not rest:
                break
    return bytes(log)
