from types import SimpleNamespace

import numpy as np
import pytest
import torch

from soundfold.data.collection import Collection
from soundfold.data.datamodule import OfflineCopies, SoundDataModule
from soundfold.data.splits import Protocol
from soundfold.data.store import Waveforms
from soundfold.data.tables import ClipTable
from soundfold.errors import InputError
from soundfold.features.augment import Augmentation, Uniform
from soundfold.features.crops import Crops
from soundfold.features.logmel import LogMel, NormalizeAndResize
from soundfold.features.mixing import Mixing
from soundfold.features.pipeline import FrontEnd

RATE = 8000


def collection(test_level: float = 0.1) -> Collection:
    """Twenty seconds of noise: 20 clips, 4 folds, 2 classes; fold 1 at its own level."""
    rng = np.random.default_rng(0)
    folds = np.repeat([1, 2, 3, 4], 5)
    level = np.where(folds == 1, test_level, 0.1)[:, None]
    samples = (32768 * level * rng.uniform(-1, 1, (20, RATE))).astype(np.int16)
    files = tuple(f"{i}.wav" for i in range(20))
    table = ClipTable(files, folds, np.arange(20) % 2, files, ("a", "b"))
    return Collection(table, Waveforms(samples, np.full(20, RATE), files, RATE, "digest"))


def front_end(augmentation: Augmentation | None = None) -> FrontEnd:
    logmel = LogMel(sample_rate=RATE, n_fft=512, hop_length=80, n_mels=32, f_min=0.0, f_max=4000.0)
    return FrontEnd(logmel, augmentation=augmentation)


VARIED = Augmentation(
    RATE,
    time_stretch=Uniform(0.8, 1.2),
    pitch_shift=Uniform(-2, 2),
    noise_std=Uniform(0.0, 0.01),
    gain_db=Uniform(-6, 6),
    time_shift=Uniform(-0.5, 0.5),
)
MIXED = Mixing(mixup=1.0, between_class=0.5)


def module(augmentation: Augmentation | None = VARIED, mixing: Mixing | None = MIXED, **options) -> SoundDataModule:
    options = {"fold": 1, "batch_size": 4, **options}
    clips = options.pop("collection", collection())
    made = SoundDataModule(clips, front_end(augmentation), mixing=mixing, **options)
    made.setup()
    return made


def images(made: SoundDataModule, batches) -> torch.Tensor:
    return torch.cat([made.on_after_batch_transfer(batch, 0)[0] for batch in batches])


def test_statistics_come_from_training_clips_only():
    quiet, loud = module(), module(collection=collection(test_level=1.0))
    torch.testing.assert_close(quiet.front_end.mean, loud.front_end.mean)
    torch.testing.assert_close(quiet.front_end.std, loud.front_end.std)
    train = images(quiet, quiet._batches(quiet.split.train, 4))
    assert abs(train.mean()) < 1e-3
    assert abs(train.std() - 1) < 1e-3
    assert images(loud, loud.test_dataloader()).mean() > 1


def test_statistics_take_no_more_images_at_once_than_training(monkeypatch):
    seen = []
    monkeypatch.setattr(FrontEnd, "fit", lambda self, batches: seen.extend(map(len, batches)))
    module(crops=Crops(RATE, RATE // 2, test=3), batch_size=6)
    assert seen == [6, 6, 6, 6, 6, 6, 6, 3]


def test_evaluation_is_neither_varied_nor_shuffled():
    made = module(protocol=Protocol("nested"))
    first = [made.on_after_batch_transfer(batch, 0) for batch in made.val_dataloader()[0]]
    second = [made.on_after_batch_transfer(batch, 0) for batch in made.val_dataloader()[0]]
    clips = torch.cat([clip for _, _, clip in first])
    assert clips.tolist() == made.split.val.tolist()
    for (a, target, _), (b, _, _) in zip(first, second, strict=True):
        assert torch.equal(a, b)
        assert target.dtype == torch.int64
    plain = module(protocol=Protocol("nested"), augmentation=None, mixing=None)
    assert torch.equal(images(made, made.test_dataloader()), images(plain, plain.test_dataloader()))


def epoch(made: SoundDataModule, number: int) -> list:
    batches = made.train_dataloader()
    batches.sampler.set_epoch(number)
    return [made.augment(*batch) for batch in batches]


def test_an_epoch_is_a_function_of_seed_fold_and_epoch():
    made = module(seed=3)
    epoch(made, 0)
    after_another, alone = epoch(made, 1), epoch(module(seed=3), 1)
    for ours, theirs in zip(after_another, alone, strict=True):
        for a, b in zip(ours[:3], theirs[:3], strict=True):
            assert torch.equal(a, b)
    for other in (epoch(module(seed=4), 1), epoch(made, 2)):
        assert not torch.equal(other[0][0], alone[0][0])


def test_training_clips_are_varied_and_each_seen_once_an_epoch():
    made = module()
    batches = epoch(made, 0)
    clips = torch.cat([clip for _, _, clip, _ in batches]).tolist()
    assert sorted(clips) == made.split.train.tolist()
    assert clips != made.split.train.tolist()
    soft = torch.cat([target for _, target, *_ in batches])
    assert soft.shape == (15, 2)
    assert not torch.equal(batches[0][0], epoch(made, 1)[0][0])


def test_crops_are_drawn_in_training_and_evenly_spaced_when_scored():
    made = module(augmentation=None, mixing=None, crops=Crops(RATE, RATE // 2, test=3), batch_size=6)
    image, target, *_ = epoch(made, 0)[0]
    assert image.shape == (6, 1, 32, 51)
    assert target.shape == (6,)
    wave, target, clip = next(iter(made.test_dataloader()))
    image, target, _ = made.on_after_batch_transfer((wave, target, clip), 0)
    assert image.shape == (6, 1, 32, 51)
    assert target.shape == (2,)
    torch.testing.assert_close(image[4], made.front_end(wave[1:2, RATE // 4 : 3 * RATE // 4])[0])


def test_batch_statistics_are_measured_on_what_training_sees_and_leave_it_as_it_is():
    made = module()
    alone = epoch(module(), 1)
    first, second = list(made.training_images(6)), list(made.training_images(6))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    # four batches an epoch
    assert [len(image) for image in first] == [4, 4, 4, 3, 4, 4]
    assert not torch.equal(first[0], first[4])
    test = images(made, made._batches(made.split.train, 4))
    assert not any(torch.equal(image[0], other) for image in first for other in test)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(epoch(made, 1), alone, strict=True))


@pytest.mark.parametrize(("world", "micro"), [(2, 1), (3, 1), (1, 2), (2, 2)])
def test_shares_of_a_batch_are_those_of_one_device_whatever_is_drawn(world, micro):
    """Fifteen clips in batches of eight or seven: no clip is lost or given twice, and each image is the same."""
    options = {"mixing": Mixing(mixup=0.5, time_cutmix=0.5, between_class=0.5), "crops": Crops(RATE, RATE // 2)}
    # last batches of seven clips, and of one, which takes three from the batch before
    options["batch_size"] = 8 if world * micro > 2 else 7
    whole = {}
    for image, target, number, weight in epoch(module(**options), 1):
        assert weight == 1
        whole |= {clip: (image[i], target[i]) for i, clip in enumerate(number.tolist())}
    seen, weights = [], []
    for rank in range(world):
        made = module(**options, micro_batches=micro)
        made.trainer = SimpleNamespace(global_rank=rank, world_size=world, training=True, current_epoch=1)
        batches = made.train_dataloader()
        batches.set_epoch(1)
        given = [made.on_after_batch_transfer(batch, 0) for batch in batches]
        assert len(given) == len(batches)
        for image, target, number, weight in given:
            assert len(number) >= (2 if world * micro < 4 else 1)
            seen += number.tolist()
            weights.append(weight)
            for i, clip in enumerate(number.tolist()):
                if options["batch_size"] == 8:  # elsewhere the last batches are other ones
                    torch.testing.assert_close(image[i], whole[clip][0], atol=1e-4, rtol=0)
                    torch.testing.assert_close(target[i], whole[clip][1])
    assert sorted(seen) == sorted(whole) == module().split.train.tolist()
    # the weights of a batch's parts have a mean of 1
    np.testing.assert_allclose(np.array(weights).reshape(world, -1, micro).mean(axis=(0, 2)), 1)


def test_clips_are_scored_by_one_rank_each():
    seen = []
    for rank in range(2):
        made = module(batch_size=4)
        made.trainer = SimpleNamespace(global_rank=rank, world_size=2, training=False)
        seen.append(torch.cat([clip for _, _, clip in made.test_dataloader()]).tolist())
    assert sorted(map(len, seen)) == [2, 3]
    assert sorted(seen[0] + seen[1]) == made.split.test.tolist()


def test_clip_standardised_images_need_no_statistics():
    made = SoundDataModule(
        collection(),
        FrontEnd(front_end().logmel, NormalizeAndResize(n_mels=32, frames=128, size=16)),
        fold=1,
    )
    made.setup()
    assert made.front_end.mean == 0
    assert images(made, made.test_dataloader()).shape == (5, 1, 16, 16)


def test_audit_is_kept():
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


def test_copies_are_varied_once_and_clips_not_at_all():
    made = module(augmentation=ONE_OF, mixing=None, copies=OfflineCopies(2, 2), batch_size=64)
    plain = module(augmentation=None, mixing=None)
    ((first, target, image, _),) = epoch(made, 0)
    ((second, _, again, _),) = epoch(made, 1)
    assert len(first) == 45
    # in another order, the same images
    assert not torch.equal(image, again)
    torch.testing.assert_close(first[image.argsort()], second[again.argsort()])
    clips = torch.from_numpy(made._copies.clips)[image]
    assert torch.equal(target, torch.from_numpy(made._open().table.targets)[clips])
    originals = first[image.argsort()][:15]
    torch.testing.assert_close(originals, images(plain, plain._batches(plain.split.train, 4)), atol=1e-3, rtol=0)
    for number in clips.unique():
        a, b, c = first[clips == number]
        assert not torch.equal(a, b)
        assert not torch.equal(b, c)


def test_copies_that_validate_are_images_of_their_own():
    protocol = Protocol("random_clips", test=0.2, val=0.2, image_val=0.5)
    made = module(augmentation=ONE_OF, mixing=None, copies=OfflineCopies(2, 2), protocol=protocol, batch_size=64)
    ((image, _, number),) = [made.on_after_batch_transfer(batch, 0) for batch in made.val_dataloader()[0]]
    assert len(image) == 24
    assert sorted(number.tolist()) == made._copies.val.tolist()
    ((train, _, trained, _),) = epoch(made, 0)
    assert not set(number.tolist()) & set(trained.tolist())
    assert not (image[:, None] == train).flatten(2).all(dim=2).any()


@pytest.mark.parametrize(("low", "high", "after"), [(3, 2, 0), (0, 0, 0), (1, 1, -1)])
def test_bad_copies_are_refused(low, high, after):
    with pytest.raises(InputError, match=r"augment\.copies"):
        OfflineCopies(low, high, after)


def test_bad_fold_is_refused():
    with pytest.raises(InputError, match="fold=7"):
        module(fold=7)
