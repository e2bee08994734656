"""Separation of a recording in segments, in constant memory, and its level.

Segments start at whole seconds of the recording. Each is converted to the model's rate, separated and converted back.
Every sample of the result comes from a segment that contains more than the model's context on either side of it, so
a recording of any length gives the result of one pass over the whole.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from separation.audio.waveform import as_waveform, high_pass, resample
from separation.errors import NotFiniteError
from separation.models.base import ConditionedModel
from separation.overlap_add import OverlapAdd, Segmenter
from separation.presence import PresenceRule, energy_ratio_db
from separation.tensors import own_defaults

RESAMPLER_SAMPLES = 240  # at the lower rate, more than the context of the resampling filters there and back
LEVEL_FRAME = 4096  # samples, about a tenth of a second
LEVEL_GATE = 1e-4  # frames 40 dB below the loudest are pauses
HIGH_PASS_PERIODS = 10  # context of the high-pass filter in periods of its frequency
FAINT_RUMBLE, EXCESSIVE_RUMBLE, STEADY_RUMBLE = 0.003, 1.5, 0.9
"""Energy of a recording below the high-pass filter relative to the rest. Presence never depends on it. Targets contain
it, without a constant offset, between the first two limits: below the first it is inaudible, above the second a fault.
So is a tone: rumble whose energy in nine of ten half seconds is at least the third limit times the mean (in validation
mixtures, at most 0.82 times)."""
RUMBLE_FRAMES = 4  # half seconds from which rumble can be called steady
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
    powers: list[Tensor] = []
    rest: Tensor | None = None  # the incomplete last frame (channels, time)
    for block in blocks:
        samples = block.double() if rest is None else torch.cat([rest, block.double()], dim=1)
        whole = samples.shape[1] // LEVEL_FRAME * LEVEL_FRAME
        if whole:
            powers.append(_frame_power(samples[:, :whole].unflatten(1, (-1, LEVEL_FRAME))))
        rest = samples[:, whole:]
    if rest is None or not (powers or rest.numel()):
        return 0.0
    if not powers:  # too short to tell an offset from sound
        return float(rest.square().mean(1).sum().sqrt())
    if rest.numel():
        powers.append(_frame_power(rest[:, None]))
    power = torch.cat(powers)
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

    runner, frames = OverlapAdd(split, 12 * overlap, overlap, 0), Segmenter(max(sample_rate // 2, 1), 0)
    whole = filtered = 0.0
    total, samples = torch.zeros(1, dtype=torch.float64), 0
    moments: list[Tensor] = []  # sum and energy below the filter in each half second (2, channels)

    def filter_blocks() -> Iterator[Tensor]:
        nonlocal whole, filtered, total, samples
        for block in chain(blocks, [None]):
            if block is not None:
                whole += float(energy(block))
                total, samples = total + block.sum(1, dtype=torch.float64), samples + block.shape[1]
            for passed, low in runner.flush() if block is None else runner.push(block):
                filtered += float(energy(passed))
                moments.extend(torch.stack([half.sum(1), half.square().sum(1)]) for half in frames.push(low.double()))
                yield passed

    level = measure_level(filter_blocks())
    offset = total / max(samples, 1)
    rumble = max(0.0, whole - samples * float(offset.square().sum()) - filtered) / max(filtered, 1e-12)
    steadiness = 0.0
    if len(moments) >= RUMBLE_FRAMES:
        sums, energies = torch.stack(moments, 1)
        powers = (energies - 2 * offset * sums + frames.segment * offset.square()).sum(1)
        steadiness = float(powers.quantile(0.1) / powers.mean().clamp(min=1e-30))
    return Level(level, rumble, tuple(offset.tolist()), steadiness)


def margin_seconds(model: ConditionedModel, sample_rate: int) -> float:
    """Seconds on either side of a sample at `sample_rate` that can influence its estimate, with all filters."""
    high_pass_seconds = HIGH_PASS_PERIODS / model.high_pass if model.high_pass else 0.0
    return (
        model.context / model.sample_rate + RESAMPLER_SAMPLES / min(sample_rate, model.sample_rate) + high_pass_seconds
    )


def network_input(
    model: ConditionedModel, mixture: Tensor, sample_rate: int, level: float, ends: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Divide a segment (channels, time) by its level and filter it; return it at its own and at the model's rate.

    `ends` are as in `OverlapAdd`.
    """
    levelled = mixture / level
    if model.high_pass:
        levelled = high_pass(levelled, sample_rate, model.high_pass, ends)
    return levelled, resample(levelled, sample_rate, model.sample_rate)


class Stream:
    """Separates a recording that arrives in blocks. Made by `Separator.stream`.

    Args:
        model: the network.
        conditions: (queries, dim), on the device to compute on.
        sample_rate: of the recording, Hz.
        level: of the recording, see `measure_level`; with its rumble if the network has a high-pass filter.
        rule: how presence is estimated.
        segment_seconds: length of the segments; by default the model's.
        parts: names of the sounds that each query stands for (queries,), empty for a query of one sound. Each of them
            has a condition, in this order; their targets are added up.
    """

    @own_defaults()
    def __init__(
        self,
        model: ConditionedModel,
        conditions: Tensor,
        sample_rate: int,
        level: float,
        rule: PresenceRule | None = None,
        segment_seconds: int | None = None,
        parts: Sequence[Sequence[str]] | None = None,
    ) -> None:
        self.parts = [()] * len(conditions) if parts is None else list(parts)
        self.sizes, self.queries = [max(1, len(names)) for names in self.parts], len(self.parts)
        self.model, self.conditions, self.sample_rate = model, conditions, sample_rate
        self.level = 1.0 if model.faithful else level / model.input_level
        self.keeps_rumble = getattr(level, "keeps_rumble", False)
        self.offset = torch.tensor(getattr(level, "offset", ()))[:, None]
        self.rule = rule or PresenceRule()
        self.logits = self.last_logits = torch.full((len(conditions),), -torch.inf)
        self.mixture_energy, self.target_energy = 0.0, torch.zeros(self.queries, dtype=torch.float64)
        margin = margin_seconds(model, sample_rate)
        overlap = 2 * math.ceil(margin)  # whole seconds lie on the grid of both rates
        segment = max(segment_seconds or model.segment_seconds, 2 * overlap)
        segment += -(segment - overlap) % model.grid_seconds
        fade = int((overlap - 2 * margin) * sample_rate)
        # Of the frames in an overlap, the first half is the earlier segment's and the second half the later one's.
        self.shared_frames = overlap * model.sample_rate // model.stride // 2
        self.runner = OverlapAdd(self._separate_segment, segment * sample_rate, overlap * sample_rate, fade)
        self.silence_level: float | None = level  # until sound has come
        self.silent = 0  # samples before it
        self.channels = 0  # of the blocks
        self.step = segment - overlap  # seconds between the starts of two segments
        self.segments = 0
        self.counted = (0.0, math.inf)  # seconds between which presence counts
        if model.faithful:  # published inference processes the whole at once
            self.silence_level = None
            self.runner = OverlapAdd(self._separate_segment, sys.maxsize, 0)

    def limit(self, begin: float, end: float) -> tuple[float, float]:
        """Let presence come from a span (seconds) of the recording only.

        Returns:
            First and last sample of what must be pushed: the span and all that its targets depend on.
        """
        if self.model.faithful:
            first, last = 0.0, math.inf
        else:
            margin, grid = margin_seconds(self.model, self.sample_rate), self.model.grid_seconds
            first = max(0, math.floor((begin - margin) / grid) * grid)
            last = end if end == math.inf else math.ceil(end + margin)
        self.counted = (begin - first, end - first)
        return first * self.sample_rate, last * self.sample_rate

    @own_defaults()
    def push(self, block: Tensor) -> Tensor:
        """Add (channels, n); return the targets that have become final (queries, channels, m).

        Segments start at the first sample that is not silent, so silence before a recording changes no estimate.

        Raises:
            ValueError: if the block is not valid, or has another number of channels than those before it.
        """
        block = as_waveform(block, "block")
        self.channels = self.channels or len(block)
        if len(block) != self.channels:
            raise ValueError(f"The block has {len(block)} channels, those before it had {self.channels}.")
        self.mixture_energy += float(energy(block))
        silent, level = 0, self.silence_level
        if level is not None:
            silent = leading_silence(block, self.sample_rate, level, self.silent)
            self.silent += silent
        pieces = [torch.zeros(self.queries, len(block), silent)] if silent else []
        if silent < block.shape[-1]:
            self.silence_level = None
            pieces += self.runner.push(block[:, silent:])
        return self._collect(pieces, block.shape[0])

    @own_defaults()
    def flush(self) -> Tensor:
        """Return the remaining targets (queries, channels, m)."""
        return self._collect(self.runner.flush(), 1)

    def separate(self, blocks: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Separate a whole recording that is given in blocks (channels, n).

        Yields:
            Samples whose targets have become final: mixture (channels, m) and targets (queries, channels, m), on the
            CPU.
        """
        waiting: list[Tensor] = []  # not joined before they are needed: the segmenter holds the same blocks
        for block in chain(blocks, [None]):
            if block is not None:
                waiting.append(block)
            targets = (self.flush() if block is None else self.push(block)).detach().cpu()
            if waiting and targets.shape[-1]:
                mixture = torch.cat(waiting, dim=-1)
                # Neither a residual nor what all targets leave may overflow.
                if largest(mixture) + len(targets) * largest(targets) > torch.finfo(torch.float32).max:
                    raise NotFiniteError("output")
                waiting = [mixture[:, targets.shape[-1] :].clone()]
                yield mixture[:, : targets.shape[-1]], targets

    @property
    @own_defaults()
    def presence(self) -> list[float]:
        """Probability of each query to occur in what has been processed; NaN if the model does not estimate it.

        The largest of its parts' if it stands for several sounds.
        """
        return [max(each) for each in self._presences]

    @property
    @own_defaults()
    def part_presence(self) -> list[dict[str, float]]:
        """The same of each sound that a query stands for; empty for a query of one sound."""
        return [dict(zip(names, each, strict=False)) for names, each in zip(self.parts, self._presences, strict=True)]

    @property
    def _presences(self) -> list[list[float]]:
        """Presence of each condition, by query."""
        if not self.model.estimates_presence:
            return [[math.nan] * size for size in self.sizes]
        ratios = [energy_ratio_db(float(target), self.mixture_energy) for target in self.target_energy]
        detection = torch.maximum(self.logits, self.last_logits)
        ratio = torch.tensor(ratios).repeat_interleave(torch.tensor(self.sizes))
        each = self.rule(detection, self.conditions.cpu(), ratio)
        return [part.tolist() for part in each.split(self.sizes)]

    def _collect(self, pieces: list[Tensor], channels: int) -> Tensor:
        """Join pieces of output and add up the energy of each target."""
        nothing = torch.zeros(self.queries, channels, 0)
        targets = pieces[0] if len(pieces) == 1 else torch.cat([nothing, *pieces], dim=-1)
        self.target_energy += torch.stack([energy(target) for target in targets])
        if not torch.isfinite(self.target_energy).all():
            raise NotFiniteError("output")
        return targets

    def _collect_logits(self, logits: Tensor) -> None:
        """Keep the largest logits (queries, frames) so far; each frame of the recording counts in one segment only."""
        if not torch.isfinite(logits).all():
            raise NotFiniteError("presence")
        # A frame counts if the part of the recording that it stands for meets the span.
        following, frame = self.segments > 0, self.model.stride / self.model.sample_rate
        seconds = self.silent / self.sample_rate + self.segments * self.step + frame * torch.arange(logits.shape[1])
        counted = (seconds > self.counted[0] - frame / 2) & (seconds < self.counted[1] + frame / 2)
        logits = logits.masked_fill(~counted, -torch.inf)
        self.segments += 1
        shared = self.shared_frames
        padded = F.pad(logits[:, shared * following :], (shared + 1, 0), value=-torch.inf)
        self.logits = torch.maximum(self.logits, padded[:, : -shared or None].amax(-1))
        self.last_logits = padded[:, -shared:].amax(-1)  # counts only if no segment follows

    def _add_parts(self, values: Tensor) -> Tensor:
        """Add up the values (conditions, ...) of the sounds that each query stands for: (queries, ...)."""
        if self.queries == len(values):
            return values
        return torch.stack([part.sum(0) for part in values.split(self.sizes)])

    @torch.no_grad()
    def _separate_segment(self, mixture: Tensor, ends: tuple[bool, bool]) -> Tensor:
        """(channels, n) at the recording's rate to targets (queries, channels, n)."""
        if self.level == 0:
            return torch.zeros(self.queries, *mixture.shape)
        model, rate = self.model, self.sample_rate
        levelled, wave = network_input(model, mixture, rate, self.level, ends)
        filtered = wave  # presence comes from this, targets from the segment with its rumble if that is kept
        if self.keeps_rumble:
            offset = self.offset if len(self.offset) == len(mixture) else 0.0
            levelled = (mixture - offset) / self.level
            wave = resample(levelled, rate, model.sample_rate)
        with model.autocast(self.conditions.device):
            estimate = model.separate(wave[None].to(self.conditions.device), self.conditions[None])
            logits = estimate.logits
            if self.keeps_rumble and model.estimates_presence:
                logits, _ = model.score_presence(filtered[None].to(self.conditions.device), self.conditions[None])
        if model.estimates_presence:
            self._collect_logits(logits[0].float().cpu())
        targets, gains = self._add_parts(estimate.targets[0]), None
        length = mixture.shape[-1]
        if rate > model.sample_rate and estimate.high_gain is not None:
            gains = self._add_parts(estimate.high_gain[0])
        if gains is not None:  # the band above the network's, and where the values of its gain lie
            high = levelled - resample(wave, model.sample_rate, rate)[:, :length]
            place = np.arange(length) * (model.sample_rate / rate / model.gain_stride)

        def restore(number: int) -> Tensor:
            """Return the target of a query (channels, n) at the rate and level of the recording."""
            target = resample(targets[number].float().cpu(), model.sample_rate, rate)[:, :length]
            if gains is not None:
                gain = np.interp(place, np.arange(gains.shape[-1]), gains[number].float().cpu())
                target = target + high * torch.from_numpy(gain).float()
            return target * self.level

        result = torch.zeros(self.queries, *mixture.shape)
        # Target by target, because the resampler uses one thread; this holds only a few of them in memory.
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for number, target in enumerate(pool.map(restore, range(len(result)))):
                result[number, :, : target.shape[-1]] = target
        return result
