import pytest
import torch

from soundfold.errors import InputError
from soundfold.features.crops import Crops, _indexed, _sliced, sounding_span


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def numbered(clips: int = 50, samples: int = 1000) -> torch.Tensor:
    """Every sample is its own place, from 1 on: nothing is silent."""
    return torch.arange(1, samples + 1, dtype=torch.int16).expand(clips, -1).clone()


def drawn(crops: Crops, wave: torch.Tensor) -> torch.Tensor:
    return crops.crop_at(wave, crops.draw(len(wave), generator()))


def padded(before: int, sound: int, after: int) -> torch.Tensor:
    return torch.cat([torch.zeros(before), torch.ones(sound), torch.zeros(after)]).to(torch.int16)[None]


def test_random_crops_are_parts_of_their_clips_from_everywhere():
    crops = drawn(Crops(1000, 300), numbered())
    assert crops.shape == (50, 300)
    assert torch.equal(crops[:, -1] - crops[:, 0], torch.full((50,), 299, dtype=torch.int16))
    starts = crops[:, 0].long() - 1
    assert starts.unique().numel() > 30
    assert starts.min() < 100
    assert starts.max() > 600
    assert torch.equal(crops, drawn(Crops(1000, 300), numbered()))


def test_scored_crops_are_evenly_spaced_and_reach_both_ends():
    crops = Crops(1000, 300, test=3).tta_crops(numbered(2)).view(2, 3, 300)
    assert crops[:, :, 0].tolist() == [[1, 351, 701]] * 2
    assert Crops(1000, 300, test=1).tta_crops(numbered(1))[0, 0] == 351
    assert torch.equal(Crops(1000, 300).tta_crops(numbered()), numbered())


def test_sound_is_found_between_its_silences():
    wave = torch.cat([padded(100, 200, 700), padded(0, 1000, 0), padded(1000, 0, 0), padded(0, 1, 999)])
    start, end = sounding_span(wave)
    assert start.tolist() == [100, 0, 0, 0]
    assert end.tolist() == [300, 1000, 1000, 1]


def test_trimmed_crops_of_a_long_sound_hold_no_silence_that_they_can_leave_out():
    wave = padded(200, 600, 200).expand(50, -1)
    crops = Crops(1000, 300, trim=True, test=4)
    assert (drawn(crops, wave) == 1).all()
    assert (crops.tta_crops(wave) == 1).all()
    assert (drawn(Crops(1000, 300), wave) == 0).any()


@pytest.mark.parametrize("wave", [padded(100, 50, 850), padded(0, 50, 950), padded(950, 50, 0)])
def test_trimmed_crops_of_a_short_sound_hold_all_of_it_anywhere(wave):
    crops = Crops(1000, 300, trim=True, test=5)
    cut = drawn(crops, wave.expand(50, -1))
    assert (cut.sum(dim=1) == 50).all()
    assert cut.argmax(dim=1).unique().numel() > 20
    assert (crops.tta_crops(wave).sum(dim=1) == 50).all()
    assert set(crops.tta_crops(wave).argmax(dim=1).tolist()) >= {0, 250}


def test_an_accelerator_cuts_as_the_processor_does_and_is_never_waited_for():
    wave, start = numbered(2), torch.tensor([[0, 350, 900], [5, 700, 999]])
    assert torch.equal(_indexed(wave, start, 300), _sliced(wave, start, 300))
    # a value that is read back fails on this device
    crops = Crops(1000, 300, trim=True, test=5).tta_crops(wave.to("meta"))
    assert crops.shape == (10, 300)


@pytest.mark.parametrize(
    ("values", "word"), [((100, 101), "seconds"), ((100, 0), "seconds"), ((100, 50, False, 0), "test")]
)
def test_bad_values_are_refused(values, word):
    with pytest.raises(InputError, match=rf"crops\.{word}"):
        Crops(*values)
