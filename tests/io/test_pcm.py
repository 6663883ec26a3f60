import numpy as np
import torch

from soundfold.io.pcm import float_to_pcm, pcm_to_float


def test_all_int16_values_survive_the_conversion_to_float_and_back():
    samples = np.arange(-32768, 32768).astype(np.int16)
    wave = pcm_to_float(samples)
    assert wave.dtype == np.float32
    assert (wave.min(), wave.max()) == (-1, 32767 / 32768)
    np.testing.assert_array_equal(float_to_pcm(wave), samples)
    np.testing.assert_array_equal(pcm_to_float(torch.from_numpy(samples)).numpy(), wave)


def test_floats_beyond_full_scale_are_clipped():
    np.testing.assert_array_equal(float_to_pcm(np.array([-2.0, 1.0, 1e9])), [-32768, 32767, 32767])
