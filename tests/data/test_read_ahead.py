from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from soundfold.data import read_ahead
from soundfold.data.collection import Collection
from soundfold.data.datamodule import SoundDataModule
from soundfold.data.loader import ClipBatches
from soundfold.data.read_ahead import BATCHES_AHEAD, ClipReader, make_reader
from soundfold.data.store import Waveforms, open_store
from soundfold.data.tables import ClipTable
from soundfold.errors import InputError
from soundfold.features.augment import Augmentation
from soundfold.features.augment_params import Uniform
from soundfold.features.logmel import LogMel
from soundfold.features.mixing import Mixing
from soundfold.features.pipeline import FrontEnd

RATE, CLIPS = 8000, 23
CPU = torch.device("cpu")
FILES = tuple(f"{i}.wav" for i in range(CLIPS))


@pytest.fixture(scope="module")
def mapped(tmp_path_factory) -> Waveforms:
    """A packed store of 23 clips of noise of 0.4 to 0.5 s."""
    folder = tmp_path_factory.mktemp("mapped")
    rng = np.random.default_rng(0)
    for name in FILES:
        soundfile.write(folder / name, 0.1 * rng.standard_normal(rng.integers(3200, 4000)), RATE)
    return open_store(folder, FILES, seconds=0.5, sample_rate=RATE, cache=folder / "cache")


def in_memory(waves: Waveforms) -> Waveforms:
    return Waveforms(np.array(waves.samples), waves.lengths, waves.hashes, waves.sample_rate, waves.digest)


def loader(waves: Waveforms, reader: ClipReader | None, **options) -> ClipBatches:
    samples, targets = torch.from_numpy(waves.samples), torch.arange(CLIPS) % 3
    generator = torch.Generator()
    return ClipBatches(samples, targets, np.arange(CLIPS), 4, CPU, generator, (7, 1), reader=reader, **options)


@pytest.mark.parametrize("options", [{}, {"balanced": True, "numbers": 5}])
def test_batches_equal_those_from_memory_in_every_epoch(mapped, options):
    assert isinstance(mapped.samples, np.memmap)
    plain = loader(in_memory(mapped), None, **options)
    for ahead in (loader(mapped, ClipReader(w), **options) for w in (mapped, in_memory(mapped))):
        for epoch in (0, 1, 0):
            plain.set_epoch(epoch)
            ahead.set_epoch(epoch)
            for expected, batch in zip(plain, ahead, strict=True):
                assert all(torch.equal(a, b) for a, b in zip(expected, batch, strict=True))


def test_training_images_do_not_depend_on_reading_ahead(mapped):
    table = ClipTable(FILES, np.arange(CLIPS) % 4 + 1, np.arange(CLIPS) % 2, FILES, ("a", "b"))
    images = []
    for waves, ahead in ((in_memory(mapped), False), (mapped, True)):
        mel = LogMel(sample_rate=RATE, n_fft=512, hop_length=80, n_mels=16, f_min=0.0, f_max=4000.0)
        augmentation = Augmentation(RATE, noise_std=Uniform(0.0, 0.01), time_shift=Uniform(-0.5, 0.5))
        front_end = FrontEnd(mel, augmentation=augmentation)
        data = SoundDataModule(
            Collection(table, waves), front_end, 1, mixing=Mixing(mixup=1.0), batch_size=4, read_ahead=ahead
        )
        data.setup()
        assert (data._reader is not None) == ahead
        training = data.train_dataloader()
        training.set_epoch(3)
        batches = [data.augment(*batch)[0] for batch in training]
        images.append((data.front_end.mean, *batches, *(wave for wave, *_ in data.test_dataloader())))
    assert all(torch.equal(a, b) for a, b in zip(*images, strict=True))


def test_memory_is_bounded_and_an_epoch_can_be_abandoned(mapped, monkeypatch):
    reader, read = ClipReader(mapped), []
    original = reader._read
    monkeypatch.setattr(reader, "_read", lambda clips: (read.append(clips), original(clips))[1])
    batches = reader.batches(torch.arange(CLIPS).split(1))
    for number in range(3):
        assert (next(batches).numpy() == mapped.samples[number]).all()
    batches.close()
    assert len(read) <= 3 + BATCHES_AHEAD


def test_a_store_that_is_removed_is_read_on_and_one_that_is_cut_off_is_refused(mapped, tmp_path):
    path = tmp_path / "samples.npy"
    path.write_bytes(Path(mapped.samples.filename).read_bytes())
    copied = Waveforms(np.load(path, mmap_mode="c"), mapped.lengths, mapped.hashes, RATE, mapped.digest)
    reader = ClipReader(copied)
    with path.open("r+b") as stream:
        path.unlink()
        assert (next(reader.batches([torch.tensor([22, 0])])).numpy() == mapped.samples[[22, 0]]).all()
        stream.truncate(path_size(mapped) - 10)
    with pytest.raises(InputError, match="was cut off while it was read"):
        next(reader.batches([torch.tensor([22])]))


def path_size(waves: Waveforms) -> int:
    return Path(waves.samples.filename).stat().st_size


@pytest.mark.parametrize(
    ("option", "share", "device", "expected"),
    [
        (None, 0.6, CPU, True),
        (None, 0.4, CPU, False),
        (None, 0.4, torch.device("meta"), True),
        (False, 0.6, CPU, False),
        (True, 0.4, CPU, True),
    ],
)
def test_clips_beyond_half_of_the_memory_and_streamed_ones_are_read_ahead(
    mapped, monkeypatch, option, share, device, expected
):
    monkeypatch.setattr(read_ahead, "available_memory", lambda: mapped.samples.nbytes / share)
    host = torch.from_numpy(mapped.samples)
    assert (make_reader(mapped, host, device, option) is not None) == expected
    assert make_reader(mapped, host.to("meta"), torch.device("meta"), option) is None
