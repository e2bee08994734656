"""The stream's parts on signals whose result is known: level, segments and overlap-add, the presence rule."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from separation.inference.levels import LEVEL_FRAME, measure_level
from separation.inference.overlap_add import OverlapAdd
from separation.presence import ABSENT, PRESENT, PresenceRule, energy_ratio_db, presence_word

SEGMENT, OVERLAP = 100, 40


def wave(length, channels=2, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((channels, length)).astype(np.float32))


def sine(frames=10, amplitude=1.0, channels=1):
    """Whole periods in every frame of the level."""
    phase = 2 * np.pi * 16 * np.arange(frames * LEVEL_FRAME) / LEVEL_FRAME
    return torch.tensor(amplitude * np.sin(phase), dtype=torch.float32).expand(channels, -1)


# --- Level -------------------------------------------------------------------------------------

OFFSET = torch.tensor([[0.5], [-0.2]])
PULSES = torch.tensor([[1.0, -1.0]])


@pytest.mark.parametrize(
    ("blocks", "level"),
    [
        ([sine(amplitude=0.3)], 0.3 / np.sqrt(2)),
        ([torch.cat([sine(amplitude=0.3), sine(amplitude=-0.3)])], 0.3),
        ([torch.cat([sine(amplitude=0.3), sine(amplitude=0.0)])], 0.3 / np.sqrt(2)),
        ([torch.zeros(1, 200 * LEVEL_FRAME), sine(3, 0.3), torch.zeros(1, 99 * LEVEL_FRAME)], 0.3 / np.sqrt(2)),
        ([PULSES.repeat(1, LEVEL_FRAME // 2), 2 * PULSES.repeat(1, 5)], np.sqrt((1 + 4) / 2)),
        ([sine(1), sine(1, 10 ** (-39.5 / 20))], np.sqrt((1 + 10**-3.95) / 4)),
        ([sine(1), sine(1, 10 ** (-40.5 / 20))], np.sqrt(0.5)),
        ([torch.tensor([[0.25]])], 0.25),
        ([1e30 * PULSES.repeat(2, LEVEL_FRAME // 2)], np.sqrt(2) * 1e30),
        ([sine(channels=2) * 0.01 + OFFSET], 0.01),
        ([OFFSET.expand(-1, 3 * LEVEL_FRAME + 5) * 1.1], 0.0),
        ([torch.zeros(2, 3 * LEVEL_FRAME + 5)], 0.0),
        ([torch.zeros(2, 0)], 0.0),
        ([], 0.0),
    ],
    ids=["sine", "opposite channels", "silent channel", "pauses", "incomplete frame counts as one", "39.5 dB quieter",
         "a pause 40.5 dB quieter", "one sample", "large values", "offset", "offset alone", "silence", "no sample",
         "no block"],
)  # fmt: skip
def test_level(blocks, level):
    assert measure_level(blocks) == pytest.approx(level, rel=1e-4 if level == 0.01 else 1e-6)


@pytest.mark.parametrize("length", [1, LEVEL_FRAME - 1, LEVEL_FRAME, LEVEL_FRAME + 1, 5 * LEVEL_FRAME + 17])
def test_level_does_not_depend_on_the_blocks_and_scales_with_the_input(length):
    signal = wave(length).double()
    whole, rng = measure_level([signal]), np.random.default_rng(length)
    for decibel in (-120, -20, 0, 40):
        gain, cuts = 10 ** (decibel / 20), np.sort(rng.integers(0, length + 1, 4)).tolist()
        assert measure_level(torch.tensor_split(gain * signal, cuts, dim=1)) == pytest.approx(gain * whole, rel=1e-9)


# --- Overlap-add -------------------------------------------------------------------------------


def run(process, signal, sizes=(), segment=SEGMENT, overlap=OVERLAP, fade=None):
    """All output when the signal arrives in blocks of these sizes, the last one taking the rest."""
    runner, pieces, start = OverlapAdd(lambda x, ends: process(x), segment, overlap, fade), [], 0
    for size in [*sizes, signal.shape[-1]]:
        pieces += runner.push(signal[:, start : start + size])
        start = min(start + size, signal.shape[-1])
    pieces += runner.flush()
    assert runner.flush() == []
    return torch.cat(pieces, dim=-1)


def fir(taps):
    """Centred convolution with silence outside the signal; its context is len(taps) // 2 samples."""
    return lambda x: F.conv1d(x[:, None], taps[None, None], padding=len(taps) // 2)[:, 0]


@pytest.mark.parametrize("length", [1, OVERLAP, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT - OVERLAP, 161, 997])
def test_identity_is_exact_and_leaves_the_signal_unchanged(length):
    signal = wave(length)
    before = signal.clone()
    assert torch.equal(run(lambda x: x.clone(), signal, fade=0), signal)
    assert torch.equal(run(lambda x: torch.stack([x, 2 * x]), signal), torch.stack([signal, 2 * signal]))
    run(lambda x: x * 0, signal)
    assert torch.equal(signal, before)


@pytest.mark.parametrize("seed", range(30))
def test_random_blocks_and_segments_give_the_result_of_one_pass(seed):
    rng = np.random.default_rng(seed)
    overlap = 2 * int(rng.integers(2, 30))
    segment = 2 * overlap + int(rng.integers(0, 50))
    fade = int(rng.integers(0, overlap // 2 + 1))
    context = int(rng.integers(0, (overlap - fade) // 2 + 1))
    taps = torch.from_numpy(rng.standard_normal(2 * context + 1).astype(np.float32))
    signal = wave(int(rng.integers(1, 2000)), seed=seed)
    sizes = rng.integers(0, 70, int(rng.integers(0, 60))).tolist()
    assert torch.allclose(run(fir(taps), signal, sizes, segment, overlap, fade), fir(taps)(signal), atol=1e-4)


def test_too_large_a_context_is_noticed():
    signal, taps = wave(500), torch.ones(2 * OVERLAP + 1)
    assert not torch.allclose(run(fir(taps), signal), fir(taps)(signal), atol=1e-3)


def test_segments_start_on_the_grid():
    spans = []
    run(lambda x: spans.append((int(x[0, 0]), x.shape[-1])) or x, torch.arange(250.0)[None])
    assert spans == [(0, 100), (60, 100), (120, 100), (180, 70)]


def test_segments_are_blended_linearly_in_the_middle_of_the_overlap():
    values = iter([0.0, 1.0])
    result = run(lambda x: torch.full_like(x, next(values)), torch.zeros(1, 160), fade=4)[0]
    assert torch.equal(result[:78], torch.zeros(78))
    assert torch.allclose(result[78:82], torch.tensor([0.125, 0.375, 0.625, 0.875]))
    assert torch.equal(result[82:], torch.ones(78))


def test_output_comes_as_soon_as_it_is_final():
    runner, done = OverlapAdd(lambda x, ends: x, SEGMENT, OVERLAP), 0
    for start in range(0, 5000, 10):
        done += sum(piece.shape[-1] for piece in runner.push(wave(10)))
        assert done >= start + 10 - SEGMENT
        assert runner.segmenter.length <= SEGMENT
    assert done + sum(piece.shape[-1] for piece in runner.flush()) == 5000


@pytest.mark.parametrize(
    "segment, overlap, fade", [(100, 51, 0), (100, 40, 41), (0, 0, 0), (100, -1, 0), (100, 40, -1)]
)
def test_inconsistent_lengths_are_refused(segment, overlap, fade):
    with pytest.raises(ValueError, match=f"segment {segment}, overlap {overlap} and fade {fade}"):
        OverlapAdd(lambda x, ends: x, segment, overlap, fade)


# --- Presence ----------------------------------------------------------------------------------


def test_presence_is_a_logistic_function_of_detection_energy_ratio_and_condition():
    rule = PresenceRule(bias=1.0, logit=2.0, ratio=0.5, background=(3.0, -1.0))
    conditions = torch.tensor([[0.0, 0.0], [0.6, 0.8]])
    expected = [1 / (1 + math.exp(-(1 + 2 * 0.5 + 0.5 * -4))), 1 / (1 + math.exp(-(1 - 2 + 1.8 - 0.8)))]
    result = rule(torch.tensor([0.5, -1.0]), conditions, torch.tensor([-4.0, 0.0]))
    assert result.tolist() == pytest.approx(expected)
    over_time = rule(torch.tensor([[0.5, -1.0], [2.0, -torch.inf]]), conditions)
    assert over_time.tolist()[0] == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))])
    assert over_time[1, 1] == 0.0
    steep = PresenceRule(logit=1000.0)(torch.tensor([-1000.0, 1000.0]), conditions)
    assert steep.tolist() == pytest.approx([0.0, 1.0])


def test_words_of_presence():
    words = [presence_word(presence) for presence in (0.0, ABSENT - 0.01, ABSENT - 0.001, PRESENT - 0.01, PRESENT, 1.0)]
    assert words == ["absent", "absent", "uncertain", "uncertain", "present", "present"]
    assert presence_word(math.nan) is None


@pytest.mark.parametrize(
    ("target", "mixture", "ratio"), [(1.0, 10.0, -10.0), (0.0, 1.0, -60.0), (1e-12, 1.0, -60.0), (1.0, 0.0, -60.0)]
)
def test_energy_ratio(target, mixture, ratio):
    assert energy_ratio_db(target, mixture) == pytest.approx(ratio)
