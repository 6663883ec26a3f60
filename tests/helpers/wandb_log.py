"""Records of an offline W&B run."""

from pathlib import Path

BLOCK = 32768
FULL, LAST = 1, 4  # types of a chunk that completes a record


def wandb_records(path: Path) -> list:
    """Read a ``.wandb`` file, a LevelDB log: a header of 7 bytes, then records in chunks within blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, offset, records, record = path.read_bytes(), 7, [], b""
    while offset + 7 <= len(content):
        rest = BLOCK - offset % BLOCK
        if rest < 7:  # padding at the end of a block
            offset += rest
            continue
        length, kind = int.from_bytes(content[offset + 4 : offset + 6], "little"), content[offset + 6]
        record += content[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (FULL, LAST):
            records.append(Record.FromString(record))
            record = b""
    return records
