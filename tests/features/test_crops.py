import pytest
import torch

from soundfold.errors import ArgumentError
from soundfold.features.augment_params import ParamSampler
from soundfold.features.crops import Crops, _crop_by_index, sounding_span
from soundfold.features.segments import index_segments, read_segments


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def numbered(clips: int = 50, samples: int = 1000) -> torch.Tensor:
    """Each sample is its position, counted from 1, so no sample is silent."""
    return torch.arange(1, samples + 1, dtype=torch.int16).expand(clips, -1).clone()


def drawn(crops: Crops, wave: torch.Tensor) -> torch.Tensor:
    return crops.crop_at(wave, crops.draw(ParamSampler(len(wave), generator())))


def padded(before: int, sound: int, after: int) -> torch.Tensor:
    return torch.cat([torch.zeros(before), torch.ones(sound), torch.zeros(after)]).to(torch.int16)[None]


def test_random_crops_start_anywhere_in_their_clips():
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


def test_the_sounding_span_excludes_silence_at_both_ends():
    wave = torch.cat([padded(100, 200, 700), padded(0, 1000, 0), padded(1000, 0, 0), padded(0, 1, 999)])
    start, end = sounding_span(wave)
    assert start.tolist() == [100, 0, 0, 0]
    assert end.tolist() == [300, 1000, 1000, 1]


def test_trimmed_crops_of_a_long_sound_contain_no_silence():
    wave = padded(200, 600, 200).expand(50, -1)
    crops = Crops(1000, 300, trim=True, test=4)
    assert (drawn(crops, wave) == 1).all()
    assert (crops.tta_crops(wave) == 1).all()
    assert (drawn(Crops(1000, 300), wave) == 0).any()


@pytest.mark.parametrize("wave", [padded(100, 50, 850), padded(0, 50, 950), padded(950, 50, 0)])
def test_trimmed_crops_contain_all_of_a_short_sound_at_any_position(wave):
    crops = Crops(1000, 300, trim=True, test=5)
    cut = drawn(crops, wave.expand(50, -1))
    assert (cut.sum(dim=1) == 50).all()
    assert cut.argmax(dim=1).unique().numel() > 20
    assert (crops.tta_crops(wave).sum(dim=1) == 50).all()
    assert set(crops.tta_crops(wave).argmax(dim=1).tolist()) >= {0, 250}


@pytest.mark.parametrize("trim", [False, True])
def test_crops_for_an_export_are_the_same_and_those_on_a_device_never_synchronize(monkeypatch, trim):
    crops, wave = Crops(1000, 300, trim), numbered(2) * torch.tensor([[1], [-1]], dtype=torch.int16)
    wave[:, 600:] *= trim is False
    position = torch.rand(2, 20, generator=generator())
    expected = crops.crop_at(wave, position)
    first = position[0] * (300 if trim else 700)
    assert expected[:20, 0].tolist() == [1 + round(float(at)) for at in first]
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert torch.equal(crops.crop_at(wave, position), expected)
    monkeypatch.undo()
    # meta tensors have no values: reading one is an error
    assert Crops(1000, 300, trim, test=5).tta_crops(wave.to("meta")).shape == (10, 300)


def test_crops_continue_at_the_start_of_the_clip(monkeypatch):
    """The last of a clip whose sound is at its end."""
    wave = padded(950, 50, 0)
    crops = Crops(1000, 300, trim=True).crop_at(wave, torch.ones(1, 1))
    assert crops[0, :50].eq(1).all()
    assert torch.equal(crops, _crop_by_index(wave, torch.tensor([[950]]), 300))


def test_segments_on_a_device_are_those_on_a_cpu():
    rows = torch.randn(3, 50, generator=generator())
    row, start = torch.tensor([2, 0, 0, 1]), torch.tensor([0, 30, 5, 12])
    assert torch.equal(index_segments(rows, row, start, 20), read_segments(rows, row, start, 20))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((100, 101), "^`length`=101 must be between 1 and 100"),
        ((100, 0), "^`length`=0 must be between 1 and 100"),
        ((100, 50, False, 0), "^`test`=0 must be between 1 and 1000"),
    ],
)
def test_invalid_values_are_refused_by_name(values, message):
    with pytest.raises(ArgumentError, match=message):
        Crops(*values)
