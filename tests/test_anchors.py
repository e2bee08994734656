"""Anchors of a class and their mixtures: by hand, and against the published mixer where its fixtures are."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent / "parity"))
from fixtures import arrays, needs_fixtures, rules

from separation.data.tagged import BalancedSampler
from separation.errors import DataError
from separation.training.objectives.weakly_supervised import (
    choose_partners,
    find_anchors,
    mean_square,
    mix_segments,
    random_anchors,
    smooth,
)

HOP, REACH = 320, 100


@needs_fixtures
def test_anchors_are_the_published_ones():
    expected = arrays("uss", "uss_anchor_and_mix")
    probabilities = expected["probs"][torch.arange(6), :, expected["class_ids"]]
    assert (smooth(probabilities, REACH) - expected["smoothed"]).abs().max() < 1e-6
    starts = find_anchors(probabilities, REACH) * HOP
    assert torch.equal(starts, expected["bgn_sample"])
    assert torch.equal(starts + 2 * REACH * HOP, expected["end_sample"])


@needs_fixtures
def test_mixtures_are_the_published_ones():
    expected = arrays("uss", "uss_anchor_and_mix")
    draw = rules("uss").signed_uniform
    scales = (1, 0.001, 0, 0.3, 1, 1)
    waves = [torch.from_numpy(np.asarray(draw(f"anchorwav/{b}", 320000, seed=1))).float() for b in range(6)]
    segments = torch.stack([scale * wave[:64000] for scale, wave in zip(scales, waves, strict=True)])
    assert (segments[:, :4000] - expected["mix_in"]).abs().max() < 1e-6
    partner, fits = choose_partners(torch.arange(6), torch.eye(6))  # all different: the next one, as published
    assert partner[:, 0].tolist() == [1, 2, 3, 4, 5, 0] and fits.all()
    found = mix_segments(segments, partner)
    assert (found[:, :4000] - expected["mix_first4000"]).abs().max() < 1e-5
    assert torch.allclose(mean_square(found)[:, 0], expected["mix_out_full_energy"], rtol=1e-4)


def test_the_average_repeats_the_ends():
    found = smooth(torch.tensor([[1.0, 0.0, 0.0, 0.0, 4.0]]), 1)
    assert found[0].tolist() == pytest.approx([2 / 3, 1 / 3, 0, 4 / 3, 8 / 3])


@pytest.mark.parametrize("place, start", [(0, 0), (5, 0), (10, 5), (33, 28), (95, 90), (100, 90)])
def test_the_anchor_lies_around_the_surest_place_and_within_the_clip(place, start):
    # A single frame gives a plateau of equal averages, of which the first counts.
    found = find_anchors(F.one_hot(torch.tensor([place]), 101).float(), 5)[0].item()
    assert found == (max(0, min(90, max(place - 5, 0) - 5)))
    hill = torch.exp(-0.5 * ((torch.arange(101.0) - place) / 8) ** 2)[None]
    assert find_anchors(hill, 5)[0].item() == pytest.approx(start, abs=1 if place in (5, 95) else 0)


def test_a_clip_shorter_than_an_anchor_is_refused():
    with pytest.raises(ValueError, match="holds no segment of 10"):
        find_anchors(torch.rand(1, 10), 5)
    assert find_anchors(torch.rand(1, 11), 5).tolist() == [0]


def test_random_anchors_lie_anywhere_or_as_published_at_the_start():
    torch.manual_seed(0)
    starts = random_anchors(4000, 1001, REACH)
    assert starts.min() < 10 and starts.max() > 790 and starts.max() <= 800
    assert starts.float().mean().item() == pytest.approx(400, abs=12)
    published = random_anchors(4000, 1001, REACH, faithful=True)
    assert published.min() == 0 and published.max() == 100
    assert (published == 0).float().mean().item() == pytest.approx(101 / 201, abs=0.03)


def test_partners_never_have_the_label():
    drawn = torch.tensor([0, 0, 1, 2])
    tags = F.one_hot(drawn, 3).float()
    tags[3, 0] = 1  # the last clip holds the first class as well
    partner, fits = choose_partners(drawn, tags)
    assert partner[:, 0].tolist() == [2, 2, 3, 0] and fits.all()
    with_two, fits = choose_partners(drawn, tags, 2)
    assert fits.tolist() == [False, False, True, True]  # only one clip lacks class 0
    assert with_two[2].tolist() == [3, 0]
    rng = np.random.default_rng(0)
    for _ in range(50):
        drawn = torch.from_numpy(rng.integers(0, 4, 8))
        tags = F.one_hot(drawn, 4).float()
        partner, fits = choose_partners(drawn, tags)
        assert (drawn[partner[fits, 0]] != drawn[fits]).all()
        assert fits.all() == (len(set(drawn.tolist())) > 1)


def test_a_batch_of_one_class_has_no_partners():
    drawn = torch.zeros(3, dtype=torch.long)
    assert not choose_partners(drawn, torch.ones(3, 1))[1].any()
    with pytest.raises(ValueError, match="a batch of 1"):
        choose_partners(torch.tensor([0]), torch.ones(1, 1))


def test_sources_are_mixed_at_the_target_s_energy():
    generator = torch.Generator().manual_seed(0)
    segments = torch.randn(3, 4000, generator=generator) * torch.tensor([1.0, 0.2, 3.0])[:, None]
    found = mix_segments(segments, torch.tensor([[1, 2], [2, 0], [0, 1]]))
    for row, others in enumerate(([1, 2], [2, 0], [0, 1])):
        wanted = segments[row].clone()
        for other in others:
            wanted += segments[other] * math.sqrt(segments[row].square().mean() / segments[other].square().mean())
        assert torch.allclose(found[row], wanted, atol=1e-5)


@pytest.mark.parametrize("target, other, gain", [(1.0, 1e-9, 50.0), (1e-6, 1.0, 0.02), (0.3, 0.1, 3.0)])
def test_gains_have_bounds(target, other, gain):
    segments = torch.tensor([[target], [other]], dtype=torch.float64).expand(2, 8)
    added = mix_segments(segments, torch.tensor([[1], [0]]))[0, 0].item() - target
    assert added == pytest.approx(gain * other, rel=1e-5, abs=0)


def test_classes_are_drawn_equally_often_and_clips_of_a_class_too():
    members = [[0, 1, 2], [3], [4, 5]]
    sampler = BalancedSampler(members, seed=3)
    drawn = [sampler[position] for position in range(3 * 6 * 4)]
    for start in range(0, len(drawn), 3):
        assert sorted(label for label, _ in drawn[start : start + 3]) == [0, 1, 2]
    for label, clips in enumerate(members):
        own = [clip for each, clip in drawn if each == label]
        for start in range(0, len(own), len(clips)):
            assert sorted(own[start : start + len(clips)]) == clips
    for seed in (3, 4):
        again = BalancedSampler(members, seed)
        assert (drawn == [again[position] for position in range(len(drawn))]) == (seed == 3)
    for empty, said in (([[0], []], "The class number 1 has no clip"), ([], "No clip has one of the classes")):
        with pytest.raises(DataError, match=said):
            BalancedSampler(empty, 0)
