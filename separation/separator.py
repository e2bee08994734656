"""`Separator`, the one class that users hold: mixture and query in, target and residual out.

Segments begin at whole seconds of the recording. A segment is brought to the model's rate, separated and brought back;
each sample of the result comes from a segment that sees more than the model's context on either side, so a file of any
length gives what one pass over the whole would give, in constant memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from separation.audio import resample
from separation.encoders.base import QueryEncoder
from separation.hub import ModelError, find_model, load_model, load_rule
from separation.level import Level
from separation.models.base import ConditionedModel
from separation.overlap_add import OverlapAdd
from separation.presence import PresenceRule, energy_ratio_db

SEGMENT_SECONDS = 24
RESAMPLER_SECONDS = 0.25  # more than the resampling filters reach

__all__ = ["ModelError", "Separation", "Separator", "Stream"]


@dataclass(frozen=True)
class Separation:
    """What came out: waveforms (channels, time) float32 with target + residual == mixture.

    presence: probability that the query sounds in the mixture at all, 0 to 1.
    """

    target: Tensor
    residual: Tensor
    sample_rate: int
    presence: float


def choose_device(name: str | torch.device | None) -> torch.device:
    """`auto` or nothing: CUDA, then Apple's MPS, then the CPU."""
    if isinstance(name, torch.device):
        return name
    if name not in (None, "auto"):
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def as_waveform(mixture: Tensor | np.ndarray) -> Tensor:
    """Any (time,) or (channels, time) array as float32 (channels, time) on the CPU; integers are scaled to [-1, 1).

    Raises:
        ValueError: other dimensions, no channels, or samples that are not finite.
    """
    if isinstance(mixture, np.ndarray):
        mixture = torch.from_numpy(np.require(mixture, requirements=["C", "W"]))
    wave = torch.as_tensor(mixture).detach().cpu()
    if wave.ndim == 1:
        wave = wave[None]
    if wave.ndim != 2 or wave.shape[0] == 0:
        raise ValueError(f"The mixture must be (time,) or (channels, time), not {tuple(wave.shape)}.")
    if not wave.is_floating_point():
        span = torch.iinfo(wave.dtype)
        wave = (wave.double() - (span.max + span.min + 1) / 2) / ((span.max - span.min + 1) / 2)
    wave = wave.float()
    if not torch.isfinite(wave).all():
        raise ValueError("The mixture holds NaN or infinite samples.")
    return wave


class Stream:
    """Separates a recording as it comes in, block by block. Made by `Separator.stream`.

    Every block pushed gives those target samples that have become final; all together they are as many as went in.
    """

    def __init__(
        self,
        model: ConditionedModel,
        conditions: Tensor,
        sample_rate: int,
        level: float,
        rule: PresenceRule | None = None,
        segment_seconds: int = SEGMENT_SECONDS,
    ) -> None:
        self.model, self.conditions, self.sample_rate, self.level = model, conditions, sample_rate, level
        self.rule = rule or PresenceRule()
        self.logits = torch.full((len(conditions),), -torch.inf)
        self.mixture_energy, self.target_energy = 0.0, torch.zeros(len(conditions), dtype=torch.float64)
        margin = model.context / model.sample_rate + RESAMPLER_SECONDS
        overlap = 2 * int(np.ceil(margin))  # whole seconds lie on the grid of both rates
        segment = max(segment_seconds, 2 * overlap)
        self.fade = int((overlap - 2 * margin) * sample_rate)
        self.runner = OverlapAdd(self._segment, segment * sample_rate, overlap * sample_rate, self.fade)

    def push(self, block: Tensor) -> Tensor:
        """Adds (channels, n); returns (queries, channels, m)."""
        self.mixture_energy += float(block.double().square().sum())
        return self._joined(self.runner.push(block), block.shape[0])

    def flush(self) -> Tensor:
        """The remaining (queries, channels, m)."""
        return self._joined(self.runner.flush(), 1)

    @property
    def presence(self) -> list[float]:
        """Probability per query that it sounds in what has been processed so far."""
        ratios = [energy_ratio_db(float(energy), self.mixture_energy) for energy in self.target_energy]
        return [self.rule(logit, ratio) for logit, ratio in zip(self.logits.tolist(), ratios, strict=True)]

    def _joined(self, pieces: Sequence[Tensor], channels: int) -> Tensor:
        targets = torch.cat(list(pieces), dim=-1) if pieces else torch.zeros(len(self.conditions), channels, 0)
        self.target_energy += targets.double().square().sum((1, 2))
        return targets

    @torch.inference_mode()
    def _segment(self, mixture: Tensor) -> Tensor:
        """(channels, n) at the recording's rate -> targets (queries, channels, n)."""
        queries, length = len(self.conditions), mixture.shape[-1]
        if self.level == 0 or length == 0:
            return torch.zeros(queries, *mixture.shape)
        at_model_rate = resample(mixture / self.level, self.sample_rate, self.model.sample_rate)
        device = self.conditions.device
        targets, logits = self.model.separate(at_model_rate[None].to(device), self.conditions[None])
        self.logits = torch.maximum(self.logits, logits[0].float().amax(-1).cpu())
        # One query after another: resampling needs no more memory than one target.
        return torch.stack([self._at_own_rate(target.float().cpu(), length) for target in targets[0]])

    def _at_own_rate(self, target: Tensor, length: int) -> Tensor:
        """(channels, time) at the model's rate -> (channels, length) at the recording's rate and level."""
        back = resample(target, self.model.sample_rate, self.sample_rate)[:, :length]
        return torch.nn.functional.pad(back, (0, length - back.shape[-1])) * self.level


class Separator:
    """Takes out of a recording what a query names.

        separator = Separator.from_pretrained()
        result = separator(mixture, "dog barking", sample_rate=44100)
        result.target, result.residual

    Args:
        model: the network.
        encoder: turns queries into the network's conditions.
        name: shown to people.
        device: where to compute; `auto` when not given.
        rule: how presence is told.
    """

    def __init__(
        self,
        model: ConditionedModel,
        encoder: QueryEncoder,
        name: str = "",
        device: str | torch.device | None = None,
        rule: PresenceRule | None = None,
    ) -> None:
        self.device, self.rule = choose_device(device), rule or PresenceRule()
        self.model, self.encoder, self.name = model.to(self.device).eval(), encoder.eval(), name
        self.sample_rate = model.sample_rate

    @classmethod
    def from_pretrained(cls, name: str | Path = "default", device: str | torch.device | None = None) -> Separator:
        """A model by its name (`separation.list_models()`) or by its directory.

        Raises:
            ModelError: it is unknown or its files are not usable.
        """
        directory = find_model(str(name))
        model, encoder = load_model(directory)
        return cls(model, encoder, directory.name, device, load_rule(directory))

    @overload
    def __call__(self, mixture: Tensor | np.ndarray, query: str, sample_rate: int) -> Separation: ...
    @overload
    def __call__(self, mixture: Tensor | np.ndarray, query: list[str], sample_rate: int) -> list[Separation]: ...
    def __call__(
        self, mixture: Tensor | np.ndarray, query: str | list[str], sample_rate: int
    ) -> Separation | list[Separation]:
        """Separates one recording.

        Args:
            mixture: (time,) or (channels, time), floats in [-1, 1] or integers of any type.
            query: what to take out; a list gives a list of results in its order, sharing the work.
            sample_rate: of the mixture, Hz.

        Raises:
            ValueError: the mixture, the rate or a query is not usable.
        """
        queries = [query] if isinstance(query, str) else list(query)
        wave = as_waveform(mixture)
        level = self.level([wave])
        stream = self.stream(queries, sample_rate, wave.shape[0], level)
        if wave.shape[-1]:
            targets = torch.cat([stream.push(wave), stream.flush().reshape(len(queries), wave.shape[0], -1)], dim=-1)
        else:
            targets = torch.zeros(len(queries), *wave.shape)
        results = [
            Separation(target.clone(), wave - target, sample_rate, presence)
            for target, presence in zip(targets, stream.presence, strict=True)
        ]
        return results[0] if isinstance(query, str) else results

    def level(self, blocks: Iterable[Tensor]) -> float:
        """The recording's level: a first, cheap pass over its blocks (channels, n). See `Level`."""
        meter = Level()
        for block in blocks:
            meter.push(block)
        return meter.value

    def stream(self, queries: list[str], sample_rate: int, channels: int, level: float) -> Stream:
        """A run over one recording of known level, to be fed block by block.

        Raises:
            ValueError: a query is empty, or the rate is not a positive whole number.
        """
        if int(sample_rate) != sample_rate or sample_rate < 1:
            raise ValueError(f"The sample rate must be a positive whole number of hertz, not {sample_rate}.")
        if channels < 1:
            raise ValueError("The recording has no channels.")
        return Stream(self.model, self.conditions(queries), int(sample_rate), level, self.rule)

    @torch.inference_mode()
    def conditions(self, queries: list[str]) -> Tensor:
        """Condition vectors (queries, dim) of texts.

        Raises:
            ValueError: there is none, or one is empty.
        """
        if not queries or any(not isinstance(query, str) or not query.strip() for query in queries):
            raise ValueError("A query is empty; say what to take out, for example: dog barking")
        return self.encoder.encode_text([" ".join(query.split()) for query in queries]).to(self.device)

    def __repr__(self) -> str:
        size: Any = sum(p.numel() for p in self.model.parameters()) / 1e6
        return f"Separator({self.name!r}, {size:.1f} M parameters, {self.sample_rate} Hz, on {self.device})"
