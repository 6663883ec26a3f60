import torch
from augmentations import LostPacket

from soundfold.features.augment_params import ParamSampler


def test_a_packet_of_each_clip_is_lost():
    packet = LostPacket(sample_rate=1000, seconds=0.1)
    position = packet.draw(ParamSampler(4, torch.Generator().manual_seed(0)))
    wave = torch.ones(4, 1000)
    out = packet(wave, position)
    assert ((out == 0).sum(dim=1) == 100).all()
    assert len(position.unique()) == 4
    assert (wave == 1).all()  # the input is not modified
