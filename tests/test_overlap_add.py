"""Segments against the whole, for processes whose result is known."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from separation.overlap_add import OverlapAdd, overlap_add

SEGMENT, OVERLAP = 100, 40


def wave(length, channels=2, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((channels, length)).astype(np.float32))


def pushed(runner, signal, sizes):
    """All output when the signal comes in pieces of these sizes, the last one taking the rest."""
    pieces, start = [], 0
    for size in [*sizes, signal.shape[-1]]:
        pieces += runner.push(signal[:, start : start + size])
        start = min(start + size, signal.shape[-1])
    return torch.cat([*pieces, *runner.flush()], dim=-1)


def fir(taps):
    """Convolution, centred, with silence outside the signal; reaches len(taps) // 2 samples either way."""

    def process(x):
        return F.conv1d(x[:, None], taps[None, None], padding=len(taps) // 2)[:, 0]

    return process


@pytest.mark.parametrize(
    "length",
    [0, 1, OVERLAP, SEGMENT - OVERLAP, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT - OVERLAP, 160, 161, 997],
)
def test_identity_is_exact(length):
    signal = wave(length)
    assert torch.equal(overlap_add(signal, lambda x: x, SEGMENT, OVERLAP), signal)
    assert torch.equal(overlap_add(signal, lambda x: x.clone(), SEGMENT, OVERLAP, fade=0), signal)


@pytest.mark.parametrize("seed", range(30))
def test_random_pushes_and_sizes_give_what_one_pass_gives(seed):
    rng = np.random.default_rng(seed)
    overlap = 2 * int(rng.integers(2, 30))
    segment = 2 * overlap + int(rng.integers(0, 50))
    fade = int(rng.integers(0, overlap // 2 + 1))
    reach = (overlap - fade) // 2
    taps = torch.from_numpy(rng.standard_normal(2 * int(rng.integers(0, reach + 1)) + 1).astype(np.float32))
    signal = wave(int(rng.integers(1, 2000)), seed=seed)
    whole = fir(taps)(signal)
    sizes = rng.integers(0, 70, int(rng.integers(0, 60))).tolist()
    for result in (
        overlap_add(signal, fir(taps), segment, overlap, fade),
        pushed(OverlapAdd(fir(taps), segment, overlap, fade), signal, sizes),
    ):
        assert result.shape == whole.shape
        assert torch.allclose(result, whole, atol=1e-4)


def test_a_process_that_reaches_further_than_promised_is_seen():
    signal = wave(500)
    taps = torch.ones(2 * OVERLAP + 1)
    assert not torch.allclose(overlap_add(signal, fir(taps), SEGMENT, OVERLAP), fir(taps)(signal), atol=1e-3)


def test_segments_start_on_the_grid_and_none_is_longer():
    starts, sizes = [], []

    def process(x):
        starts.append(int(x[0, 0]))
        sizes.append(x.shape[-1])
        return x

    overlap_add(torch.arange(250.0)[None], process, SEGMENT, OVERLAP)
    assert starts == [0, 60, 120, 180]
    assert sizes == [100, 100, 100, 70]


def test_the_blend_is_a_short_straight_line_in_the_middle():
    values = iter([0.0, 1.0])
    result = overlap_add(torch.zeros(1, 160), lambda x: torch.full_like(x, next(values)), 100, 40, fade=4)[0]
    assert torch.equal(result[:78], torch.zeros(78))
    assert torch.allclose(result[78:82], torch.tensor([0.125, 0.375, 0.625, 0.875]))
    assert torch.equal(result[82:], torch.ones(78))


def test_output_comes_as_soon_as_it_is_final_and_input_is_not_hoarded():
    runner = OverlapAdd(lambda x: x, SEGMENT, OVERLAP)
    signal, out = wave(5000), 0
    for start in range(0, 5000, 10):
        out += sum(piece.shape[-1] for piece in runner.push(signal[:, start : start + 10]))
        assert out >= start + 10 - SEGMENT
        assert sum(piece.shape[-1] for piece in runner.waiting) == runner.length <= SEGMENT
    assert out + sum(piece.shape[-1] for piece in runner.flush()) == 5000


def test_a_process_may_add_axes():
    signal = wave(333)
    result = overlap_add(signal, lambda x: torch.stack([x, 2 * x, -x]), SEGMENT, OVERLAP)
    assert torch.equal(result, torch.stack([signal, 2 * signal, -signal]))


def test_after_the_end_the_runner_is_as_new():
    runner = OverlapAdd(lambda x: x, SEGMENT, OVERLAP)
    for seed in range(3):
        signal = wave(333, seed=seed)
        assert torch.equal(pushed(runner, signal, [50, 0, 200]), signal)
    assert runner.flush() == []


def test_the_signal_is_left_as_it_was():
    signal = wave(333)
    before = signal.clone()
    overlap_add(signal, lambda x: x * 0, SEGMENT, OVERLAP)
    assert torch.equal(signal, before)


@pytest.mark.parametrize(
    "segment, overlap, fade", [(100, 51, 0), (100, 40, 41), (0, 0, 0), (100, -1, 0), (100, 40, -1)]
)
def test_lengths_that_do_not_fit_are_refused(segment, overlap, fade):
    with pytest.raises(ValueError, match=f"segment {segment}, overlap {overlap} and fade {fade}"):
        OverlapAdd(lambda x: x, segment, overlap, fade)
