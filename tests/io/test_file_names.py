"""Names of files that are written for files of the user's."""

import os

from soundfold.io.atomic import atomic_file, short_stem


def test_long_names_are_shortened_and_stay_different(tmp_path):
    assert short_stem("rain-1") == "rain-1"
    odd = os.fsdecode(b"caf\xe9" * 50)
    names = [short_stem(name) for name in ("音" * 76, "音" * 75 + "声", "x" * 240, odd)]
    assert len(set(names)) == 4
    for name in names:
        with atomic_file(tmp_path / f"{name}.pdf") as stream:
            stream.write(b"page")
