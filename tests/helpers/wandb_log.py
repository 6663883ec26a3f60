"""Records of offline W&B runs."""

from pathlib import Path


def wandb_records(path: Path) -> list:
    """Return the records of an offline run's file: a LevelDB log in blocks of 32 KiB, after a file header of 7 bytes.

    Source: https://github.com/google/leveldb/blob/main/doc/log_format.md
    """
    from wandb.proto.wandb_internal_pb2 import Record

    raw, offset, records, fragments = path.read_bytes(), 7, [], b""
    while offset + 7 <= len(raw):
        remaining = 32768 - offset % 32768
        if remaining < 7:  # padding
            offset += remaining
            continue
        length, kind = int.from_bytes(raw[offset + 4 : offset + 6], "little"), raw[offset + 6]
        fragments += raw[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):  # a complete record or the last fragment of one
            records.append(Record.FromString(fragments))
            fragments = b""
    return records
