"""Separation of a recording in segments, in constant memory, and its level.

Segments start at whole seconds of the recording. Each is converted to the model's rate, separated and converted back.
Every sample of the result comes from a segment that contains more than the model's context on either side of it, so
a recording of any length gives the result of one pass over the whole.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from separation.audio.waveform import as_waveform, high_pass, resample
from separation.errors import NotFiniteError
from separation.inference import levels
from separation.inference.causal_stream import CausalRunner
from separation.inference.overlap_add import OverlapAdd
from separation.models.base import ConditionedModel
from separation.presence import PresenceRule, energy_ratio_db
from separation.storage.tensors import own_defaults

# glibc keeps what is freed between segments in pieces, which grow for ten minutes, unless it is told to return it.
MALLOC_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
RESAMPLER_SAMPLES = 240  # at the lower rate, more than the context of the resampling filters there and back


def margin_seconds(model: ConditionedModel, sample_rate: int) -> float:
    """Seconds on either side of a sample at `sample_rate` that can influence its estimate, with all filters."""
    high_pass_seconds = levels.HIGH_PASS_PERIODS / model.high_pass if model.high_pass else 0.0
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


Runner = OverlapAdd | CausalRunner


class Stream:
    """Separates a recording that arrives in blocks. Made by `Separator.stream`.

    Args:
        model: the network.
        conditions: (queries, dim), on the device to compute on.
        sample_rate: of the recording, Hz.
        level: of the recording, see `measure_level`; with its rumble if the network has a high-pass filter. None: that
            of the first segment that is not silent. A causal network has a running level, so it needs none.
        rule: how presence is estimated.
        segment_seconds: length of the segments; by default the model's.
        parts: names of the sounds that each query stands for (queries,), empty for a query of one sound. Each of them
            has a condition, in this order; their targets are added up.
        channels: of the blocks; None: those of the first one.
        understand: converts queries to a network with filters, conditions and parts, for `change`.

    Attributes:
        latency: seconds from the arrival of a sample to that of its target, at most, without the computation.
    """

    @own_defaults()
    def __init__(
        self,
        model: ConditionedModel,
        conditions: Tensor,
        sample_rate: int,
        level: float | None,
        rule: PresenceRule | None = None,
        segment_seconds: int | None = None,
        parts: Sequence[Sequence[str]] | None = None,
        channels: int | None = None,
        understand: Callable[[Sequence[Any]], tuple[ConditionedModel, Tensor, list[tuple[str, ...]]]] | None = None,
    ) -> None:
        self.parts: list[Sequence[str]] = [()] * len(conditions) if parts is None else list(parts)
        self.sizes, self.queries = [max(1, len(names)) for names in self.parts], len(self.parts)
        self.model, self.conditions, self.sample_rate = model, conditions, sample_rate
        self.rule, self.understand = rule or PresenceRule(), understand
        self.given_level, self.given_channels = level, channels
        margin = margin_seconds(model, sample_rate)
        overlap = 2 * math.ceil(margin)  # whole seconds lie on the grid of both rates
        segment = max(segment_seconds or model.segment_seconds, 2 * overlap)
        segment += -(segment - overlap) % model.grid_seconds
        fade = int((overlap - 2 * margin) * sample_rate)
        # Of the frames in an overlap, the first half is the earlier segment's and the second half the later one's.
        self.shared_frames = overlap * model.sample_rate // model.stride // 2
        self.step, self.latency = segment - overlap, float(segment)  # seconds between the starts of two segments
        if model.causal:
            self.runner: Runner = CausalRunner(model, conditions, self.sizes, sample_rate, self._collect_logits)
            self.latency = self.runner.latency
        elif model.faithful:  # published inference processes the whole at once
            self.runner, self.latency = OverlapAdd(self._separate_segment, sys.maxsize, 0), math.inf
        else:
            self.runner = OverlapAdd(self._separate_segment, segment * sample_rate, overlap * sample_rate, fade)
        self.counted = (0.0, math.inf)  # seconds between which presence counts
        self._begin()

    def _begin(self) -> None:
        """Set what changes with the recording to its start."""
        self.set_level(self.given_level)
        self.logits = self.last_logits = torch.full((len(self.conditions),), -torch.inf)
        self.recent = self.logits[:, None]  # logits of the last second
        self.mixture_energy, self.target_energy = 0.0, torch.zeros(self.queries, dtype=torch.float64)
        # Silence before the recording is left out, until sound has come.
        self.silence_level = None if self.model.causal or self.model.faithful else self.given_level
        self.silent = 0  # samples before it
        self.channels = self.given_channels or 0  # of the blocks
        self.segments = self.frames = 0  # that have given logits; of a causal network, frames are counted

    def set_level(self, level: float | None) -> None:
        """Take a level, with its rumble; None: that of the next segment that is not silent."""
        self.level = 1.0 if self.model.faithful else None if level is None else level / self.model.input_level
        self.keeps_rumble = getattr(level, "keeps_rumble", False)
        self.offset = torch.tensor(getattr(level, "offset", ()))[:, None]

    @own_defaults()
    def reset(self) -> None:
        """Start with a new recording."""
        self.runner.flush() if isinstance(self.runner, OverlapAdd) else self.runner.reset()
        self._begin()

    @own_defaults()
    def change(self, queries: Any) -> None:
        """Ask for other sounds from now on: with a causal network from the next step, otherwise the next segment.

        The targets of both are blended for 30 ms, or for the overlap of the segments.

        Args:
            queries: as many as before; a single one need not be a list.

        Raises:
            ValueError, ModelError: as `Separator.stream`.
        """
        if self.understand is None:
            raise ValueError("Only streams of a Separator can change their queries.")
        listed = list(queries) if isinstance(queries, list | tuple) else [queries]
        if len(listed) != self.queries:
            raise ValueError(f"The stream has {self.queries} queries, not {len(listed)}.")
        model, conditions, parts = self.understand(listed)
        self.parts, self.sizes = [*parts], [max(1, len(names)) for names in parts]
        if isinstance(self.runner, CausalRunner):
            self.runner.change(model, conditions, self.sizes)
        self.model, self.conditions = model, conditions
        self.logits = self.last_logits = torch.full((len(conditions),), -torch.inf)
        self.recent = self.logits[:, None]

    def limit(self, begin: float, end: float) -> tuple[float, float]:
        """Let presence come from a span (seconds) of the recording only.

        Returns:
            First and last sample of what must be pushed: the span and all that its targets depend on.
        """
        if self.model.faithful or self.model.causal:  # a running level depends on all that was before
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
        self.mixture_energy += float(levels.energy(block))
        silent, level = 0, self.silence_level
        if level is not None:
            silent = levels.leading_silence(block, self.sample_rate, level, self.silent)
            self.silent += silent
        pieces = [torch.zeros(self.queries, len(block), silent)] if silent else []
        if silent < block.shape[-1]:
            self.silence_level = None
            pieces += self.runner.push(block[:, silent:])
        return self._collect(pieces, block.shape[0])

    @own_defaults()
    def flush(self) -> Tensor:
        """Return the remaining targets (queries, channels, m)."""
        return self._collect(self.runner.flush(), self.channels or 1)

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
                if levels.largest(mixture) + len(targets) * levels.largest(targets) > torch.finfo(torch.float32).max:
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
        self.target_energy += torch.stack([levels.energy(target) for target in targets])
        if not torch.isfinite(self.target_energy).all():
            raise NotFiniteError("output")
        return targets

    @property
    @own_defaults()
    def sounding(self) -> list[float]:
        """Probability of each query to sound in the last second; NaN as in `presence`. With segments, in the last."""
        if not self.model.estimates_presence:
            return [math.nan] * self.queries
        detection = self.recent.amax(1) if self.model.causal else self.last_logits
        return [float(part.max()) for part in self.rule(detection, self.conditions.cpu()).split(self.sizes)]

    def _collect_logits(self, logits: Tensor) -> None:
        """Keep the largest logits (queries, frames) so far; each frame of the recording counts in one segment only."""
        if not torch.isfinite(logits).all():
            raise NotFiniteError("presence")
        frame, number = self.model.stride / self.model.sample_rate, torch.arange(logits.shape[1])
        if self.model.causal:
            self.recent = torch.cat([self.recent, logits], dim=1)[:, -(self.model.sample_rate // self.model.stride) :]
            seconds = frame * (self.frames + number)
            self.frames += logits.shape[1]
        else:
            seconds = self.silent / self.sample_rate + self.segments * self.step + frame * number
        # A frame counts if the part of the recording that it stands for meets the span.
        counted = (seconds > self.counted[0] - frame / 2) & (seconds < self.counted[1] + frame / 2)
        logits = logits.masked_fill(~counted, -torch.inf)
        if self.model.causal:
            self.logits = torch.maximum(self.logits, logits.amax(1))
            return
        shared, following = self.shared_frames, self.segments > 0
        self.segments += 1
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
        model, rate = self.model, self.sample_rate
        if not self.level and self.given_level is None:  # the level of the first segment that is not silent
            hertz = model.high_pass
            self.set_level(
                levels.measure_level_and_rumble([mixture], rate, hertz) if hertz else levels.measure_level([mixture])
            )
        if not self.level:
            return torch.zeros(self.queries, *mixture.shape)
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

        back = float(self.level)

        def restore(number: int) -> Tensor:
            """Return the target of a query (channels, n) at the rate and level of the recording."""
            target = resample(targets[number].float().cpu(), model.sample_rate, rate)[:, :length]
            if gains is not None:
                gain = np.interp(place, np.arange(gains.shape[-1]), gains[number].float().cpu())
                target = target + high * torch.from_numpy(gain).float()
            return target * back

        result = torch.zeros(self.queries, *mixture.shape)
        # Target by target, because the resampler uses one thread; this holds only a few of them in memory.
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for number, target in enumerate(pool.map(restore, range(len(result)))):
                result[number, :, : target.shape[-1]] = target
        if MALLOC_TRIM:
            MALLOC_TRIM(0)
        return result
