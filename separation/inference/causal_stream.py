"""Separation of sound as it arrives: a causal network, and filters between its rate and that of the sound."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from separation.models.base import ConditionedModel, TargetFilter
from separation.models.causal import CONDITION, Past

if TYPE_CHECKING:
    from separation.models.band_unet import Analysis
    from separation.models.live_unet import LiveUNet

LOBES = 32  # of the resampling filter on either side
PASSED = 0.94  # of the lower Nyquist frequency
TABLE = 1 << 22  # largest number of filter coefficients that are kept
PIECE_SECONDS = 2  # that are computed at once


def split_filters(model: ConditionedModel) -> tuple[ConditionedModel, list[TargetFilter]]:
    """Return the network within filters, and these, the innermost first."""
    filters: list[TargetFilter] = []
    while isinstance(model, TargetFilter):
        filters.insert(0, model)
        model = model.model
    return model, filters


class StreamResampler:
    """Changes the sample rate of a signal that arrives in blocks, with a linear-phase filter of few milliseconds.

    Attributes:
        ahead: samples at the source rate after the place of an output sample that it depends on.
    """

    def __init__(self, source_rate: int, target_rate: int) -> None:
        divisor = math.gcd(source_rate, target_rate)
        self.up, self.down = target_rate // divisor, source_rate // divisor
        self.cutoff = PASSED * min(1.0, target_rate / source_rate)
        self.ahead = math.ceil(LOBES * max(1.0, source_rate / target_rate)) if self.up != self.down else 0
        small = self.up * 2 * self.ahead <= TABLE
        self.table = self.taps(torch.arange(self.up)) if small and self.ahead else None
        self.reset()

    def taps(self, phases: Tensor) -> Tensor:
        """Coefficients (n, 2 * ahead) of output samples that lie phases / up behind an input sample (n,)."""
        offset = torch.arange(1 - self.ahead, self.ahead + 1) - phases[:, None].double() / self.up
        window = torch.special.i0(9.0 * (1 - (offset / self.ahead).square()).clamp_min(0).sqrt())
        taps = torch.sinc(self.cutoff * offset) * window
        return (taps / taps.sum(1, keepdim=True)).float()

    def reset(self) -> None:
        """Start with a new signal."""
        self.buffer: Tensor | None = None  # samples (channels, n) from `first` on
        self.first, self.received, self.sent = 1 - self.ahead, 0, 0

    def push(self, block: Tensor) -> Tensor:
        """Add (channels, n); return the samples (channels, m) that are complete."""
        if not self.ahead:
            return block
        before = F.pad(block[:, :0], (self.ahead - 1, 0)) if self.buffer is None else self.buffer
        self.buffer = torch.cat([before, block], dim=1)
        self.received += block.shape[1]
        end = max(self.sent, ((self.received - self.ahead) * self.up - 1) // self.down + 1)
        if end == self.sent:
            return block[:, :0]
        place = torch.arange(self.sent, end) * self.down
        phases, starts = place % self.up, place // self.up - self.ahead + 1 - self.first
        taps = self.taps(phases) if self.table is None else self.table[phases]
        result = torch.einsum("cnt,nt->cn", self.buffer.unfold(1, 2 * self.ahead, 1)[:, starts], taps)
        self.sent = end
        keep = max(0, end * self.down // self.up - self.ahead + 1 - self.first)
        self.buffer, self.first = self.buffer[:, keep:], self.first + keep
        return result


@dataclass
class Decoding:
    """What a causal network is asked for.

    Attributes:
        conditions: (conditions, dim).
        filters: applied to the targets, the innermost first.
        sizes: number of conditions of each query, whose targets are added up.
        past: of the decoder.
    """

    conditions: Tensor
    filters: list[TargetFilter]
    sizes: list[int]
    past: Past = field(default_factory=Past)


class CausalRunner:
    """Runs a causal network on a signal that arrives in blocks.

    Args:
        model: the network, within its filters.
        conditions: (conditions, dim), on the device to compute on.
        sizes: number of conditions of each query.
        sample_rate: of the signal, Hz.
        keep_logits: is given the presence logits (conditions, frames) that are new.

    Attributes:
        latency: seconds from the arrival of a sample to that of its target, at most, without the computation.
    """

    def __init__(
        self,
        model: ConditionedModel,
        conditions: Tensor,
        sizes: list[int],
        sample_rate: int,
        keep_logits: Callable[[Tensor], None],
    ) -> None:
        network, filters = split_filters(model)
        self.model: LiveUNet = network  # type: ignore[assignment]
        self.rate, self.keep_logits = sample_rate, keep_logits
        self.decoding = Decoding(conditions, filters, sizes)
        self.down = StreamResampler(sample_rate, network.sample_rate)
        self.back = StreamResampler(network.sample_rate, sample_rate)
        self.carries_high = sample_rate > network.sample_rate
        waiting = self.model.delay + self.model.step
        if self.down.ahead:
            waiting += self.back.ahead + 1
        self.latency = waiting / network.sample_rate + self.down.ahead / sample_rate
        self.reset()

    def reset(self) -> None:
        """Start with a new signal."""
        self.past, self.decoding.past = Past(), Past()
        self.fading: Decoding | None = None
        self.received = self.sent = 0
        self.pending: list[Tensor] = []  # blocks that do not fill a step yet
        self.skip = self.model.delay  # samples before the first of the targets
        self.waiting = self.recent = torch.zeros(0, 0)
        self.down.reset()
        self.back.reset()

    def change(self, model: ConditionedModel, conditions: Tensor, sizes: list[int]) -> None:
        """Go over to other conditions within the next step."""
        before = self.decoding
        past = before.past.copy() if len(conditions) == len(before.conditions) else Past()
        past.pop(CONDITION, None)
        past.steps = self.past.steps
        self.fading = self.fading or before
        self.decoding = Decoding(conditions, split_filters(model)[1], sizes, past)

    def push(self, block: Tensor) -> list[Tensor]:
        """Add (channels, n); return targets (queries, channels, m) that are complete, in pieces."""
        return [self._push(piece) for piece in block.split(PIECE_SECONDS * self.rate, dim=1) if piece.shape[1]]

    def flush(self) -> list[Tensor]:
        """Return the remaining targets and start with a new signal."""
        pieces, total = [], self.received
        channels = len(self.pending[0]) if self.pending else len(self.waiting)
        while self.sent < total:
            piece = self._push(torch.zeros(channels, max(1, self.rate // 10)))
            pieces.append(piece[..., : max(0, total - self.sent + piece.shape[-1])])
        self.reset()
        return pieces

    def _push(self, block: Tensor) -> Tensor:
        self.received += block.shape[1]
        self.pending.append(block.clone())
        last = (self.past.steps + 1) * self.model.step - 1  # sample of the network that ends the next step
        if self.received <= last * self.down.down // self.down.up + self.down.ahead:
            return torch.zeros(len(self.decoding.sizes), len(block), 0)
        block, self.pending = torch.cat(self.pending, dim=1), []
        with torch.inference_mode():
            targets = self._separate_block(block)
        return targets.clone()  # a tensor without the limits of inference mode

    def _separate_block(self, block: Tensor) -> Tensor:
        channels, queries, step = len(block), len(self.decoding.sizes), self.model.step
        wave = self.down.push(block)
        if not self.past.steps:
            self.waiting, self.recent = wave[:, :0], block[:, :0]
        self.waiting = torch.cat([self.waiting, wave], dim=1)
        ready = self.waiting.shape[1] // step * step
        rows = torch.zeros(queries * channels + self.carries_high * (channels + queries), 0)
        if ready:
            rows = self._separate(self.waiting[:, :ready])
            self.waiting = self.waiting[:, ready:].clone()
            dropped = min(self.skip, rows.shape[1])
            self.skip, rows = self.skip - dropped, rows[:, dropped:]
        rows = self.back.push(rows)
        targets = rows[: queries * channels].unflatten(0, (queries, channels))
        if self.carries_high:  # what lies above the network's highest frequency gets the gain of its highest bands
            self.recent, length = torch.cat([self.recent, block], dim=1), targets.shape[-1]
            mixture, gains = rows[queries * channels :].split([channels, queries])
            targets = targets + (self.recent[:, :length] - mixture) * gains.clamp(0, 1)[:, None]
            self.recent = self.recent[:, length:].clone()
        self.sent += targets.shape[-1]
        return targets

    def _separate(self, wave: Tensor) -> Tensor:
        """Separate steps (channels, n) to rows (..., n): targets; if needed, mixture and gains above. They are late."""
        model, hop = self.model, self.model.stft.hop
        wave = wave.to(self.decoding.conditions.device)
        spectrum, features, analysis = model.listen(wave[None], self.past)
        spectra, gains = self._decode(spectrum, features, analysis, self.decoding)
        if self.fading:
            spectra_before, gains_before = self._decode(spectrum, features, analysis, self.fading)
            fade = (torch.arange(1, spectrum.shape[-1] + 1, device=wave.device) / 3).clamp_max(1.0)
            spectra = spectra_before + fade * (spectra - spectra_before)
            gains, self.fading = gains_before + fade * (gains - gains_before), None
        if analysis.frames.shape[-1]:
            self.keep_logits(model.presence(analysis, self.decoding.conditions[None])[0].float().cpu())
        rows = spectra.flatten(0, 1)
        if not self.carries_high:
            return model.stft.overlap_add(rows, self.past).float().cpu()
        rows = model.stft.overlap_add(torch.cat([rows, spectrum[0]]), self.past)
        # A gain stands for the hop in the middle of what its frame adds to the output.
        late = (model.stft.tail // hop - 1) // 2
        held = self.past.extend("gains", gains, late)[..., : gains.shape[-1]].repeat_interleave(hop, -1)
        return torch.cat([rows, held]).float().cpu()

    def _decode(
        self, spectrum: Tensor, features: Tensor, analysis: Analysis, decoding: Decoding
    ) -> tuple[Tensor, Tensor]:
        """Spectra of the queries' targets (queries, channels, bins, frames) and their gain above (queries, frames)."""
        conditions = decoding.conditions[None]
        for each in reversed(decoding.filters):
            conditions = each.all_conditions(conditions)
        mask = self.model.mask(analysis, conditions, decoding.past)
        spectra = self.model.apply_mask(mask, spectrum)
        gains = self.model.high_gain(mask, features) if self.carries_high else mask[:, :, 0, 0]
        for each in decoding.filters:
            total = spectrum.abs().square().sum(1, keepdim=True)
            gain, high = each.gain(spectra.abs().square().sum(2), total), gains.square()[:, :, None]
            spectra = spectra[:, : gain.shape[1]] * gain[:, :, None]
            gains = gains[:, : gain.shape[1]] * each.gain(high, torch.ones_like(high[:, :1]))[:, :, 0]
        joined = [torch.stack([part.sum(0) for part in each[0].split(decoding.sizes)]) for each in (spectra, gains)]
        return joined[0], joined[1]
