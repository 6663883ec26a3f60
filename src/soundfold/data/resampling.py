"""Sample-rate conversion by libsoxr, block by block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import ceil

import numpy as np

MAX_SAMPLES = 1 << 18  # per call of soxr, at the higher of the two rates: bounds the memory of any ratio


def resample_blocks(blocks: Iterable[np.ndarray], rate: int, target_rate: int) -> Iterator[np.ndarray]:
    """Resample a stream with soxr's HQ filter: n samples become ceil(n * target_rate / rate).

    The samples do not depend on how the stream is divided into blocks, nor on what follows beyond the filter's delay.
    So the packed store, which decodes the start of a file, and the predictor, which reads all of it, agree bit for bit.

    Args:
        blocks: float32 (samples,) each.
        rate: sample rate of the blocks, Hz.
        target_rate: Hz.

    Yields:
        float32 (samples,), delayed: the last block is complete once all input is consumed.
    """
    if rate == target_rate:
        yield from blocks
        return
    # imported here: most collections are stored at the rate of their files
    import soxr

    stream = soxr.ResampleStream(rate, target_rate, num_channels=1, dtype="float32", quality="HQ")
    step = ceil(MAX_SAMPLES * rate / max(rate, target_rate))
    n_in = n_out = 0
    for block in blocks:
        n_in += len(block)
        for start in range(0, len(block), step):
            resampled = stream.resample_chunk(block[start : start + step])
            n_out += len(resampled)
            yield resampled
    # soxr rounds the length to nearest, so a short clip could become empty: append silence, then cut
    silence = np.zeros(2 * ceil(rate / target_rate), dtype=np.float32)
    yield stream.resample_chunk(silence, last=True)[: ceil(n_in * target_rate / rate) - n_out]
