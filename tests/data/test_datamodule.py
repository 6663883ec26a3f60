from types import SimpleNamespace

import numpy as np
import pytest
import torch

from soundfold.data.collection import Collection
from soundfold.data.copies import OfflineCopies
from soundfold.data.datamodule import SoundDataModule
from soundfold.data.splits import Protocol
from soundfold.data.store import Waveforms
from soundfold.data.tables import ClipTable
from soundfold.errors import ArgumentError
from soundfold.features.augment import Augmentation
from soundfold.features.augment_params import Uniform
from soundfold.features.crops import Crops
from soundfold.features.logmel import LogMel, NormalizeAndResize
from soundfold.features.mixing import Mixing
from soundfold.features.pipeline import FrontEnd

RATE = 8000


def collection(test_amplitude: float = 0.1) -> Collection:
    """Return 20 clips of one second of noise, in 4 folds and 2 classes; fold 1 with another amplitude."""
    rng = np.random.default_rng(0)
    folds = np.repeat([1, 2, 3, 4], 5)
    amplitude = np.where(folds == 1, test_amplitude, 0.1)[:, None]
    samples = (32768 * amplitude * rng.uniform(-1, 1, (20, RATE))).astype(np.int16)
    files = tuple(f"{i}.wav" for i in range(20))
    table = ClipTable(files, folds, np.arange(20) % 2, files, ("a", "b"))
    return Collection(table, Waveforms(samples, np.full(20, RATE), files, RATE, "digest"))


def front_end(augmentation: Augmentation | None = None) -> FrontEnd:
    logmel = LogMel(sample_rate=RATE, n_fft=512, hop_length=80, n_mels=32, f_min=0.0, f_max=4000.0)
    return FrontEnd(logmel, augmentation=augmentation)


AUGMENTED = Augmentation(
    RATE,
    time_stretch=Uniform(0.8, 1.2),
    pitch_shift=Uniform(-2, 2),
    noise_std=Uniform(0.0, 0.01),
    gain_db=Uniform(-6, 6),
    time_shift=Uniform(-0.5, 0.5),
)
MIXED = Mixing(mixup=1.0, between_class=0.5)


def module(augmentation: Augmentation | None = AUGMENTED, mixing: Mixing | None = MIXED, **options) -> SoundDataModule:
    options = {"fold": 1, "batch_size": 4, **options}
    clips = options.pop("collection", collection())
    data = SoundDataModule(clips, front_end(augmentation), mixing=mixing, **options)
    data.setup()
    return data


def images(data: SoundDataModule, batches) -> torch.Tensor:
    return torch.cat([data.on_after_batch_transfer(batch, 0)[0] for batch in batches])


def test_statistics_come_from_training_clips_only():
    quiet, loud = module(), module(collection=collection(test_amplitude=1.0))
    torch.testing.assert_close(quiet.front_end.mean, loud.front_end.mean)
    torch.testing.assert_close(quiet.front_end.std, loud.front_end.std)
    train = images(quiet, quiet._loader(quiet.split.train, 4))
    assert abs(train.mean()) < 1e-3
    assert abs(train.std() - 1) < 1e-3
    assert images(loud, loud.test_dataloader()).mean() > 1


def test_statistics_use_batches_as_large_as_in_training(monkeypatch):
    sizes = []
    monkeypatch.setattr(FrontEnd, "fit", lambda self, batches: sizes.extend(map(len, batches)))
    module(crops=Crops(RATE, RATE // 2, test=3), batch_size=6)
    assert sizes == [6, 6, 6, 6, 6, 6, 6, 3]


def test_evaluation_is_neither_augmented_nor_shuffled():
    data = module(protocol=Protocol("nested"))
    first = [data.on_after_batch_transfer(batch, 0) for batch in data.val_dataloader()[0]]
    second = [data.on_after_batch_transfer(batch, 0) for batch in data.val_dataloader()[0]]
    clips = torch.cat([clip for _, _, clip in first])
    assert clips.tolist() == data.split.val.tolist()
    for (a, target, _), (b, _, _) in zip(first, second, strict=True):
        assert torch.equal(a, b)
        assert target.dtype == torch.int64
    plain = module(protocol=Protocol("nested"), augmentation=None, mixing=None)
    assert torch.equal(images(data, data.test_dataloader()), images(plain, plain.test_dataloader()))


def epoch(data: SoundDataModule, number: int) -> list:
    batches = data.train_dataloader()
    batches.sampler.set_epoch(number)
    return [data.augment(*batch) for batch in batches]


def test_an_epoch_is_a_function_of_seed_fold_and_epoch():
    data = module(seed=3)
    epoch(data, 0)
    second, first = epoch(data, 1), epoch(module(seed=3), 1)
    for batch, expected in zip(second, first, strict=True):
        for a, b in zip(batch[:3], expected[:3], strict=True):
            assert torch.equal(a, b)
    for other in (epoch(module(seed=4), 1), epoch(data, 2)):
        assert not torch.equal(other[0][0], first[0][0])


def test_training_clips_are_augmented_and_each_loaded_once_an_epoch():
    data = module()
    batches = epoch(data, 0)
    clips = torch.cat([clip for _, _, clip, _ in batches]).tolist()
    assert sorted(clips) == data.split.train.tolist()
    assert clips != data.split.train.tolist()
    soft = torch.cat([target for _, target, *_ in batches])
    assert soft.shape == (15, 2)
    assert not torch.equal(batches[0][0], epoch(data, 1)[0][0])


def test_crops_are_random_in_training_and_evenly_spaced_in_evaluation():
    data = module(augmentation=None, mixing=None, crops=Crops(RATE, RATE // 2, test=3), batch_size=6)
    image, target, *_ = epoch(data, 0)[0]
    assert image.shape == (6, 1, 32, 51)
    assert target.shape == (6,)
    wave, target, clip = next(iter(data.test_dataloader()))
    image, target, _ = data.on_after_batch_transfer((wave, target, clip), 0)
    assert image.shape == (6, 1, 32, 51)
    assert target.shape == (2,)
    torch.testing.assert_close(image[4], data.front_end(wave[1:2, RATE // 4 : 3 * RATE // 4])[0])


def test_training_images_are_augmented_and_leave_training_unchanged():
    data = module()
    undisturbed = epoch(module(), 1)
    first, second = list(data.training_images(6)), list(data.training_images(6))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    # four batches an epoch
    assert [len(image) for image in first] == [4, 4, 4, 3, 4, 4]
    # 15 clips: batch norm statistics are a mean over batches, so none has one clip only
    assert [len(image) for image in module(batch_size=7).training_images(3)] == [7, 5, 3]
    assert not torch.equal(first[0], first[4])
    plain = images(data, data._loader(data.split.train, 4))
    assert not any(torch.equal(image[0], other) for image in first for other in plain)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(epoch(data, 1), undisturbed, strict=True))


@pytest.mark.parametrize(("world", "micro"), [(2, 1), (3, 1), (1, 2), (2, 2)])
def test_images_do_not_depend_on_the_number_of_shards(world, micro):
    """15 clips in batches of 8 or 7: each clip is loaded once, and its image is that of a single device."""
    options = {"mixing": Mixing(mixup=0.5, time_cutmix=0.5, between_class=0.5), "crops": Crops(RATE, RATE // 2)}
    # the last batch has 7 clips; or 1, which takes 3 from the batch before
    options["batch_size"] = 8 if world * micro > 2 else 7
    expected = {}
    for image, target, number, weight in epoch(module(**options), 1):
        assert weight == 1
        expected |= {clip: (image[i], target[i]) for i, clip in enumerate(number.tolist())}
    loaded, weights = [], []
    for rank in range(world):
        data = module(**options, accumulate_grad_batches=micro)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world, training=True, current_epoch=1)
        batches = data.train_dataloader()
        batches.set_epoch(1)
        transferred = [data.on_after_batch_transfer(batch, 0) for batch in batches]
        assert len(transferred) == len(batches)
        for image, target, number, weight in transferred:
            assert len(number) >= (2 if world * micro < 4 else 1)
            loaded += number.tolist()
            weights.append(weight)
            for i, clip in enumerate(number.tolist()):
                if options["batch_size"] == 8:  # otherwise the last two batches differ from those of a single device
                    torch.testing.assert_close(image[i], expected[clip][0], atol=1e-4, rtol=0)
                    torch.testing.assert_close(target[i], expected[clip][1])
    assert sorted(loaded) == sorted(expected) == module().split.train.tolist()
    # the weights of a batch's micro-batches have a mean of 1
    np.testing.assert_allclose(np.array(weights).reshape(world, -1, micro).mean(axis=(0, 2)), 1)


def test_each_clip_is_evaluated_by_one_rank():
    clips = []
    for rank in range(2):
        data = module(batch_size=4)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2, training=False)
        clips.append(torch.cat([clip for _, _, clip in data.test_dataloader()]).tolist())
    assert sorted(map(len, clips)) == [2, 3]
    assert sorted(clips[0] + clips[1]) == data.split.test.tolist()


def test_images_normalized_per_clip_need_no_statistics():
    data = SoundDataModule(
        collection(),
        FrontEnd(front_end().logmel, NormalizeAndResize(n_mels=32, frames=128, size=16)),
        fold=1,
    )
    data.setup()
    assert data.front_end.mean == 0
    assert images(data, data.test_dataloader()).shape == (5, 1, 16, 16)


def test_audit_of_the_split():
    assert module().audit.as_dict() == {
        "train": 15,
        "val": 0,
        "test": 5,
        "images": 15,
        "same_clip": 0,
        "same_source_and_class": 0,
        "same_source": 0,
        "same_audio": 0,
        "val_copies": 0,
        "seen_before": 0,
    }


ONE_OF = Augmentation(
    RATE,
    time_stretch=Uniform(0.8, 1.2, 0.5),
    noise_std=Uniform(0.1, 0.1, 0.5),
    one_of=True,
)


def test_copies_are_augmented_once_and_clips_are_not():
    data = module(augmentation=ONE_OF, mixing=None, copies=OfflineCopies(2, 2), batch_size=64)
    plain = module(augmentation=None, mixing=None)
    ((first, target, image, _),) = epoch(data, 0)
    ((second, _, again, _),) = epoch(data, 1)
    assert len(first) == 45
    # the same images in another order
    assert not torch.equal(image, again)
    torch.testing.assert_close(first[image.argsort()], second[again.argsort()])
    clips = torch.from_numpy(data._copies.clips)[image]
    assert torch.equal(target, torch.from_numpy(data._open().table.targets)[clips])
    originals = first[image.argsort()][:15]
    torch.testing.assert_close(originals, images(plain, plain._loader(plain.split.train, 4)), atol=1e-3, rtol=0)
    for number in clips.unique():
        a, b, c = first[clips == number]
        assert not torch.equal(a, b)
        assert not torch.equal(b, c)


def test_validation_copies_do_not_train():
    protocol = Protocol("random_clips", test=0.2, val=0.2, image_val=0.5)
    data = module(augmentation=ONE_OF, mixing=None, copies=OfflineCopies(2, 2), protocol=protocol, batch_size=64)
    ((val_image, _, val_index),) = [data.on_after_batch_transfer(batch, 0) for batch in data.val_dataloader()[0]]
    assert len(val_image) == 24
    assert sorted(val_index.tolist()) == data._copies.val.tolist()
    ((image, _, index, _),) = epoch(data, 0)
    assert not set(val_index.tolist()) & set(index.tolist())
    assert not (val_image[:, None] == image).flatten(2).all(dim=2).any()


@pytest.mark.parametrize(
    ("low", "high", "after", "message"),
    [(3, 2, 0, "`low`=3 and `high`=2"), (0, 0, 0, "`low`=0 and `high`=0"), (1, 1, -1, "`after`=-1")],
)
def test_invalid_copies_are_refused(low, high, after, message):
    with pytest.raises(ArgumentError, match=message):
        OfflineCopies(low, high, after)


def test_copies_require_an_augmentation():
    with pytest.raises(ArgumentError, match="`copies` requires an augmentation"):
        module(augmentation=None, copies=OfflineCopies(1, 1))


def test_unknown_fold_is_refused():
    with pytest.raises(ArgumentError, match="`fold`=7"):
        module(fold=7)


def test_a_balanced_epoch_has_as_many_clips_of_each_class():
    # 15 training clips: 12, 2 and 1 per class
    clips = collection()
    targets = np.repeat([0, 0, 1, 2], 5)
    targets[np.arange(20) % 4 > 0] = 0
    table = ClipTable(clips.table.files, np.arange(20) % 4 + 1, targets, clips.table.files, ("a", "b", "c"))
    data = module(collection=Collection(table, clips.waves), fold=2, sampler="balanced")
    train = data.split.train
    counts = np.bincount(targets[train], minlength=3)
    assert counts.max() > 5 > counts.min() > 0
    loader, epochs = data.train_dataloader(), []
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        epochs.append(torch.cat([batch[2] for batch in loader]).numpy())
    assert (epochs[0] == epochs[2]).all()
    assert (epochs[0] != epochs[1]).any()
    for epoch in epochs:
        assert set(epoch) <= set(train)
        assert np.bincount(targets[epoch]).tolist() == [5, 5, 5]
        for target in range(3):
            times = np.bincount(epoch, minlength=20)[train[targets[train] == target]]
            assert times.max() - times.min() <= 1
    other = module(collection=Collection(table, clips.waves), fold=2, sampler="balanced", seed=1).train_dataloader()
    assert (torch.cat([batch[2] for batch in other]).numpy() != epochs[0]).any()
