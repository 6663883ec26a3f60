"""Occlusion, and deletion and insertion curves, of scores whose important parts are known."""

import pytest
import torch

from soundfold.errors import ArgumentError
from soundfold.models.faithfulness import mean_curves, rank_curves
from soundfold.models.occlusion import block_labels, block_means, fill_level, occlusion, score_filled

BANDS, FRAMES = 13, 50
LABELS = block_labels(BANDS, FRAMES, rows=4, columns=5)
# the clip is loud in blocks 3, 11 and 12, and the score is the share of their level above silence
USED = torch.tensor([3, 11, 12])
GENERATOR = torch.Generator().manual_seed(0)
LOG_MEL = torch.where(torch.isin(LABELS, USED), 0.0, -60.0)[None, None]


def score(log_mel: torch.Tensor) -> torch.Tensor:
    return 1 + torch.stack([block_means(clip[0], LABELS)[USED].mean() for clip in log_mel]) / 60


def test_blocks_divide_a_log_mel_and_their_means_are_those_of_their_cells():
    assert LABELS.unique().tolist() == list(range(20))
    sizes = torch.bincount(LABELS.flatten())
    assert sizes.max() <= 4 * 10
    assert sizes.min() >= 3 * 10
    values = torch.rand(BANDS, FRAMES, generator=GENERATOR)
    for block in (0, 7, 19):
        torch.testing.assert_close(block_means(values, LABELS)[block], values[block == LABELS].mean())
    # at most one block per band and frame
    assert block_labels(2, 3, rows=8, columns=16).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_occlusion_finds_the_blocks_that_the_score_depends_on():
    drops = occlusion(score, LOG_MEL, LABELS, fill="floor")
    expected = torch.zeros(20)
    expected[USED] = 1 / 3
    torch.testing.assert_close(drops, expected)
    mean = float(LOG_MEL.mean())
    torch.testing.assert_close(occlusion(score, LOG_MEL, LABELS), -expected * mean / 60)


def test_a_batch_scores_as_one_copy_at_a_time():
    replaced = torch.rand(37, 20, generator=GENERATOR) < 0.5
    level = fill_level(LOG_MEL, "floor")
    single = torch.cat([score_filled(score, LOG_MEL, LABELS, row[None], level) for row in replaced])
    torch.testing.assert_close(score_filled(score, LOG_MEL, LABELS, replaced, level), single)


@pytest.mark.parametrize(
    ("first", "deletion", "insertion"),
    [
        # removed one by one: 1, 2/3, 1/3, 0, 0, ...; the area of trapezoids
        (USED.tolist(), (0.5 + 2 / 3 + 1 / 3) / 20, 1 - (0.5 + 2 / 3 + 1 / 3) / 20),
        ([b for b in range(20) if b not in USED], 1 - (0.5 + 2 / 3 + 1 / 3) / 20, (0.5 + 2 / 3 + 1 / 3) / 20),
    ],
    ids=["important first", "important last"],
)
def test_areas_of_known_orders(first, deletion, insertion):
    order = torch.tensor(first + [block for block in range(20) if block not in first])
    curves = rank_curves(score, LOG_MEL, LABELS, order, fill="floor", steps=100)
    assert curves.fraction.tolist() == pytest.approx([n / 20 for n in range(21)])
    assert (float(curves.deletion[0]), float(curves.deletion[-1])) == pytest.approx((1, 0))
    assert curves.deletion_area == pytest.approx(deletion)
    assert curves.insertion_area == pytest.approx(insertion)
    # of a score that is linear in the blocks
    torch.testing.assert_close(curves.insertion, 1 - curves.deletion, atol=1e-6, rtol=0)


def test_random_orders_have_an_area_of_a_half_and_fewer_steps_approximate_it():
    orders = [torch.randperm(20, generator=GENERATOR) for _ in range(60)]
    curves = mean_curves([rank_curves(score, LOG_MEL, LABELS, order, "floor", steps=6) for order in orders])
    assert len(curves.fraction) == 7
    assert curves.deletion_area == pytest.approx(0.5, abs=0.06)
    assert curves.insertion_area == pytest.approx(0.5, abs=0.06)


def test_invalid_arguments_are_refused():
    with pytest.raises(ArgumentError, match="`fill`=zero is unknown"):
        occlusion(score, LOG_MEL, LABELS, fill="zero")
    with pytest.raises(ArgumentError, match="`rows`=0 and `columns`=3"):
        block_labels(4, 4, rows=0, columns=3)
    with pytest.raises(ArgumentError, match="`steps`=0"):
        rank_curves(score, LOG_MEL, LABELS, torch.arange(20), steps=0)
