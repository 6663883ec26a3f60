"""Names of configuration keys in the errors of library classes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from soundfold.config import known_keys
from soundfold.errors import ArgumentError, InputError


@contextmanager
def config_keys(*sections: str) -> Iterator[None]:
    """Replace argument names by configuration keys in `ArgumentError`: "`n_fft`" becomes "features.n_fft".

    Args:
        sections: sections that the arguments come from, such as ``features``; the first that has the key is used.

    Raises:
        InputError: the body raised an `ArgumentError`.
    """
    known = known_keys()

    def key(match: re.Match[str]) -> str:
        candidates = (f"{section}.{match[1]}" for section in sections)
        return next((candidate for candidate in candidates if candidate in known), match[1])

    try:
        yield
    except ArgumentError as error:
        raise InputError(re.sub(r"`([\w.]+)`", key, str(error))) from error
