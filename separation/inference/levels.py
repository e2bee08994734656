"""Level of a recording, and rumble below what a network hears."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import chain

import torch
from torch import Tensor

from separation.audio.waveform import high_pass
from separation.inference.overlap_add import OverlapAdd

LEVEL_FRAME = 4096  # samples, about a tenth of a second
LEVEL_GATE = 1e-4  # frames 40 dB below the loudest are pauses
HIGH_PASS_PERIODS = 10  # context of the high-pass filter in periods of its frequency
FAINT_RUMBLE, EXCESSIVE_RUMBLE, STEADY_RUMBLE = 0.003, 1.5, 0.9
"""Energy of a recording below the high-pass filter relative to the rest. Presence never depends on it. Targets contain
it, without a constant offset, between the first two limits: below the first it is inaudible, above the second a fault.
So is a tone: rumble whose energy in nine of ten half seconds is at least the third limit times the mean (in validation
mixtures, at most 0.82 times)."""
RUMBLE_FRAMES = 4  # half seconds from which rumble can be called steady
ROUNDING = 1e-12  # of the energy of a recording, or less, is what its filter leaves of an offset alone
SILENCE = 1e-5  # samples 100 dB below the level are silent


class Level(float):
    """Level of a recording, see `measure_level`.

    Attributes:
        rumble: energy below the network's high-pass filter, without the offset, relative to the rest; 0 if unknown.
        offset: mean of each channel; empty if unknown.
        keeps_rumble: whether the rumble may be part of a sound, so that targets contain it, see `FAINT_RUMBLE`.
    """

    rumble: float
    offset: tuple[float, ...]
    keeps_rumble: bool

    def __new__(
        cls, level: float, rumble: float = 0.0, offset: tuple[float, ...] = (), steadiness: float = 0.0
    ) -> Level:
        self = super().__new__(cls, level)
        self.rumble, self.offset = rumble, offset
        self.keeps_rumble = FAINT_RUMBLE < rumble < EXCESSIVE_RUMBLE and steadiness < STEADY_RUMBLE
        return self


def measure_level(blocks: Iterable[Tensor]) -> float:
    """Measure the level of a recording: root mean square of the sum over channels, linear; 0 for silence.

    The mean is over frames of 4096 samples within 40 dB of the loudest, so pauses do not count; nor does a constant
    offset. The level scales with the recording and does not depend on how it is cut into blocks.

    Args:
        blocks: (channels, time) each.
    """
    powers: list[float] = []  # numbers: small tensors between large ones, which are freed, would scatter the memory
    rest: Tensor | None = None  # the incomplete last frame (channels, time)
    for block in blocks:
        samples = block.double() if rest is None else torch.cat([rest, block.double()], dim=1)
        whole = samples.shape[1] // LEVEL_FRAME * LEVEL_FRAME
        if whole:
            powers += _frame_power(samples[:, :whole].unflatten(1, (-1, LEVEL_FRAME))).tolist()
        rest = samples[:, whole:].clone()
    if rest is None or not (powers or rest.numel()):
        return 0.0
    if not powers:  # too short to tell an offset from sound
        return float(rest.square().mean(1).sum().sqrt())
    if rest.numel():
        powers += _frame_power(rest[:, None]).tolist()
    power = torch.tensor(powers, dtype=torch.float64)
    loudest = power.max()
    return float(power[power >= LEVEL_GATE * loudest].mean().sqrt()) if loudest > 0 else 0.0


def _frame_power(frames: Tensor) -> Tensor:
    """Variance summed over channels: (channels, frames, samples) to (frames,)."""
    variance, mean = torch.var_mean(frames, -1, correction=0)
    # Below this lies the rounding of an offset.
    return torch.where(variance > 1e-12 * mean.square(), variance, 0).sum(0)


def leading_silence(block: Tensor, sample_rate: int, level: float, before: int = 0) -> int:
    """Number of silent samples before the first sound in a block (channels, time) after `before` silent ones.

    0 if the silence lasts less than 10 ms, which matters to no estimate.
    """
    sounding = (block.abs().amax(0) > SILENCE * level).nonzero()
    silent = int(sounding[0]) if len(sounding) else block.shape[-1]
    return silent if silent == block.shape[-1] or before + silent >= sample_rate // 100 else 0


def energy(waveform: Tensor) -> Tensor:
    """Sum of squares in float64, without a copy of the waveform in that precision."""
    return torch.linalg.vector_norm(waveform, dtype=torch.float64).square()


def largest(waveform: Tensor) -> float:
    """Largest absolute sample, without a copy of the waveform; 0 if there is none."""
    return max(abs(float(each)) for each in waveform.aminmax()) if waveform.numel() else 0.0


def measure_level_and_rumble(blocks: Iterable[Tensor], sample_rate: int, hertz: float) -> Level:
    """Measure level and rumble of a recording that is given in blocks (channels, n), with `high_pass` at `hertz`."""
    overlap = 2 * math.ceil(HIGH_PASS_PERIODS / hertz) * sample_rate

    def split(wave: Tensor, ends: tuple[bool, bool]) -> Tensor:
        filtered = high_pass(wave, sample_rate, hertz, ends)
        return torch.stack([filtered, wave - filtered])

    runner, half = OverlapAdd(split, 12 * overlap, overlap, 0), max(sample_rate // 2, 1)
    whole = filtered = 0.0
    total, samples = torch.zeros(1, dtype=torch.float64), 0
    moments: list[list[list[float]]] = []  # sum and energy below the filter in each half second, by channel
    rest: Tensor | None = None  # an incomplete half second

    def filter_blocks() -> Iterator[Tensor]:
        nonlocal whole, filtered, total, samples, rest
        for block in chain(blocks, [None]):
            if block is not None:
                whole += float(energy(block))
                total, samples = total + block.sum(1, dtype=torch.float64), samples + block.shape[1]
            for passed, low in runner.flush() if block is None else runner.push(block):
                filtered += float(energy(passed))
                low = low.double() if rest is None else torch.cat([rest, low.double()], dim=1)
                parts = low[:, : low.shape[1] // half * half].unflatten(1, (-1, half))
                moments.extend(torch.stack([parts.sum(-1), parts.square().sum(-1)]).movedim(-1, 0).tolist())
                rest = low[:, parts.shape[1] * half :].clone()
                yield passed

    level = measure_level(filter_blocks())
    level = 0.0 if filtered <= ROUNDING * whole else level  # NaN stays
    offset = total / max(samples, 1)
    rumble = max(0.0, whole - samples * float(offset.square().sum()) - filtered) / max(filtered, 1e-12)
    steadiness = 0.0
    if len(moments) >= RUMBLE_FRAMES:
        sums, energies = torch.tensor(moments, dtype=torch.float64).unbind(1)
        powers = (energies - 2 * offset * sums + half * offset.square()).sum(1)
        steadiness = float(powers.quantile(0.1) / powers.mean().clamp(min=1e-30))
    return Level(level, rumble, tuple(offset.tolist()), steadiness)
