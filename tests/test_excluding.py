"""A target without its negatives."""

import pytest
import torch
from tiny import TinyEncoder, noise, tiny_model

from separation import Query, Separator
from separation.models.base import ConditionedModel, NegativeFilter
from separation.separator import Stream
from separation.stream import OverlapAdd

RATE = 8000


class Bands(ConditionedModel):
    """Gives, for a condition (low, high), the partials of a fixed list between these frequencies in Hz."""

    sample_rate, condition_dim = RATE, 2

    def separate(self, mixture, conditions):
        spectrum = torch.fft.rfft(mixture)
        hertz = torch.fft.rfftfreq(mixture.shape[-1], 1 / RATE)
        masks = [(hertz >= low) & (hertz < high) for low, high in conditions[0]]
        targets = torch.stack([torch.fft.irfft(spectrum * mask, mixture.shape[-1]) for mask in masks], dim=1)
        return targets, mixture.new_ones(*conditions.shape[:2], 1)


def tone(hertz, seconds=2.0):
    return torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * RATE)) / RATE)


def separate(mixture, wanted, negatives, excluded):
    model = NegativeFilter(Bands(), torch.tensor(negatives), torch.tensor(excluded))
    return model.separate(mixture[None], torch.tensor(wanted)[None])[0][0]


def energy(signal):
    return float(signal.square().sum())


def test_what_both_claim_is_halved_and_the_rest_stays():
    low, shared = tone(500), tone(1500)
    [target] = separate((low + shared)[None], [[0.0, 2000.0]], [[1000.0, 4000.0]], [[True]])
    inside = slice(1000, -1000)
    # target and negative are of equal power at the shared tone: the filter is 1/2 there
    assert torch.allclose(target[0, inside], (low + shared / 2)[inside], atol=0.02)


def test_a_negative_that_takes_nothing_changes_nothing():
    mixture = (tone(500) + tone(1500))[None]
    [target] = separate(mixture, [[0.0, 1000.0]], [[3000.0, 4000.0]], [[True]])
    assert torch.allclose(target, Bands().separate(mixture[None], torch.tensor([[[0.0, 1000.0]]]))[0][0, 0], atol=1e-4)


def test_each_query_does_without_its_own_negatives():
    mixture = (tone(500) + tone(1500))[None]
    wide, also = [[0.0, 4000.0]] * 2, [[1000.0, 4000.0], [0.0, 1000.0]]
    first, second = separate(mixture, wide, also, [[True, False], [False, False]])
    assert energy(first) < 0.7 * energy(mixture)
    assert energy(second) == pytest.approx(energy(mixture), rel=1e-3)


def test_the_stereo_image_is_kept():
    mixture = torch.stack([tone(500) + tone(1500), 0.5 * (tone(500) + tone(1500))])
    [target] = separate(mixture, [[0.0, 4000.0]], [[1000.0, 4000.0]], [[True]])
    assert torch.allclose(target[1], target[0] / 2, atol=1e-5)


@pytest.mark.parametrize("length", [1, 10, 79, 81, 12345])
def test_any_length(length):
    [target] = separate(0.1 * torch.randn(2, length), [[0.0, 5000.0]], [[0.0, 5000.0]], [[True]])
    assert target.shape == (2, length)
    assert torch.isfinite(target).all()


def test_segments_equal_the_whole():
    model, encoder = tiny_model(), TinyEncoder()
    vectors = encoder.encode_text(["dog", "rain"])
    excluding = NegativeFilter(model, vectors[1:], torch.tensor([[True]]))
    mixture = noise(31.3, channels=2)
    whole, pieces = (Stream(excluding, vectors[:1], 32000, 1.0, segment_seconds=12) for _ in range(2))
    whole.runner = OverlapAdd(whole._separate_segment, 10**9, 0)
    expected = torch.cat([whole.push(mixture), whole.flush()], dim=-1)
    found = torch.cat([pieces.push(mixture), pieces.flush()], dim=-1)
    assert (expected - found).abs().max() < 1e-5
    assert expected.abs().max() > 1e-3


def test_through_the_separator():
    separator = Separator(tiny_model(), TinyEncoder(), "tiny", "cpu")
    mixture = noise(1.0, channels=2)
    plain, without, list_of = separator(
        mixture, ["dog", Query("dog", negative="rain"), Query("dog", negative=["rain", "dog"])], 32000
    )
    single = separator(mixture, "dog", 32000)
    assert torch.allclose(plain.target, single.target, atol=1e-6)
    assert energy(without.target) < 0.98 * energy(plain.target)
    assert energy(list_of.target) <= 0.26 * energy(plain.target)  # half the amplitude or less
    assert torch.allclose(without.target + without.residual, mixture, atol=1e-6)
    assert without.presence <= plain.presence
