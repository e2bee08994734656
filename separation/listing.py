"""What sounds in a recording: every known sound is scored in one pass, and nothing is separated.

The network's query-independent half runs once; comparing its frames with one more condition costs next to nothing, so
all known sounds are looked for at once. What is kept does not depend on how the recording was cut into blocks: a number
for every second and sound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from separation.audio import resample
from separation.models.base import ConditionedModel
from separation.wordings import wordings

LIKELY = 0.15
"""Probability from which a sound is listed: a third of what is listed then is there (`benchmarks/listing.py`)."""

SAME = 0.75
"""Cosine of two sounds' conditions from which they are taken for one."""

STEADY = 0.75  # seconds over which the network's frames are averaged: a detection that lasts shorter is not trusted
SEGMENT_SECONDS = 24
MARGIN_SECONDS = 0.25  # more than the resampling filter reaches


@dataclass(frozen=True)
class Heard:
    """A sound that is probably in a recording.

    probability: 0 to 1, of its surest second. times: (from, to) in seconds, where it is listed by itself.
    """

    label: str
    probability: float
    times: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ListingRule:
    """Probability that a sound is there = sigmoid(slope * its surest logit + bias); see `fit`.

    sounds: what is listened for.
    """

    slope: float = 1.0
    bias: float = 0.0
    sounds: tuple[str, ...] = field(default_factory=lambda: tuple(wordings()))

    def __call__(self, logits: Tensor) -> Tensor:
        """Probabilities of logits, of any shape."""
        return torch.sigmoid(self.slope * logits + self.bias)


class Listener:
    """Hears one recording, block by block.

    Args:
        model: a network that lists sounds.
        conditions: of the sounds to listen for, (sounds, dim).
        sample_rate: of the recording, Hz.
        level: of the recording, see `level.Level`.
    """

    def __init__(self, model: ConditionedModel, conditions: Tensor, sample_rate: int, level: float) -> None:
        self.model, self.conditions, self.sample_rate = model, conditions, sample_rate
        self.level = level / model.input_level
        self.margin = math.ceil(model.context / model.sample_rate + MARGIN_SECONDS)
        self.waiting: list[Tensor] = []
        self.length, self.first = 0, True
        self.seconds: list[Tensor] = []

    def push(self, block: Tensor) -> None:
        """Adds (channels, n)."""
        self.waiting.append(block)
        self.length += block.shape[-1]
        segment, step = (self.sample_rate * n for n in (SEGMENT_SECONDS, SEGMENT_SECONDS - 2 * self.margin))
        while self.length > segment:
            buffer = torch.cat(self.waiting, dim=-1)
            self._hear(buffer[:, :segment], SEGMENT_SECONDS - self.margin)
            rest = buffer[:, step:].clone()
            self.waiting, self.length, self.first = [rest], rest.shape[-1], False

    def flush(self) -> Tensor:
        """The surest logit of every second (seconds, sounds); the last second may be a part of one."""
        if self.length:
            self._hear(torch.cat(self.waiting, dim=-1), None)
        self.waiting, self.length = [], 0
        return torch.cat(self.seconds).float() if self.seconds else torch.zeros(0, len(self.conditions))

    @torch.inference_mode()
    def _hear(self, mixture: Tensor, end: int | None) -> None:
        """One segment; its seconds are kept from the margin (the recording's beginning has none) to `end`."""
        if self.level == 0:
            logits = torch.full((math.ceil(mixture.shape[-1] / self.sample_rate), len(self.conditions)), -math.inf)
        else:
            wave = resample(mixture / self.level, self.sample_rate, self.model.sample_rate)
            found = (
                self.model.presence_logits(wave[None].to(self.conditions.device), self.conditions[None])[0]
                .float()
                .cpu()
            )
            logits = surest(found, self.model.sample_rate / self.model.stride, wave.shape[-1] / self.model.sample_rate)
        self.seconds.append(logits[0 if self.first else self.margin : end].half())


def surest(logits: Tensor, rate: float, seconds: float) -> Tensor:
    """Steadied logits (sounds, frames) at `rate` frames a second to each second's largest (seconds, sounds)."""
    width = max(1, round(STEADY * rate) // 2 * 2 + 1)
    steady = F.avg_pool1d(logits, width, 1, width // 2, count_include_pad=False)
    steady = steady[:, : max(1, round(seconds * rate))]
    whole = round(rate)
    padded = F.pad(steady, (0, -steady.shape[-1] % whole), value=-math.inf)
    return padded.unflatten(-1, (-1, whole)).amax(-1).T


def heard(logits: Tensor, conditions: Tensor, rule: ListingRule, least: float, most: int | None) -> list[Heard]:
    """What a listener's logits (seconds, sounds) say: sounds from `least` on, the surest first, near-synonyms once."""
    if not len(logits):
        return []
    probability, labels = rule(logits), rule.sounds
    best = probability.amax(0)
    order = best.argsort(descending=True, stable=True)
    listed: list[int] = []
    for number in order[best[order] >= least].tolist():
        if most is not None and len(listed) == most:
            break
        if not listed or float((conditions[listed] @ conditions[number]).max()) < SAME:
            listed.append(number)
    return [Heard(labels[n], float(best[n]), spans((probability[:, n] >= least).tolist())) for n in listed]


def spans(on: Iterable[bool]) -> tuple[tuple[float, float], ...]:
    """Runs of true seconds as (from, to)."""
    found: list[tuple[float, float]] = []
    for second, yes in enumerate(on):
        if yes and found and found[-1][1] == second:
            found[-1] = (found[-1][0], second + 1.0)
        elif yes:
            found.append((float(second), second + 1.0))
    return tuple(found)


def fit(logits: Tensor, present: Tensor) -> tuple[float, float]:
    """Slope and bias by logistic regression (Newton's method), from recordings whose sounds are known.

    Recordings and sounds count alike, so the probability holds where recordings hold about as many sounds as these.
    They must not have been trained on: of what a network knows by heart it is too sure.

    Args:
        logits: the surest of each recording (recordings, sounds).
        present: whether it sounds (recordings, sounds), of booleans.
    """
    columns = torch.stack([logits.flatten().double(), torch.ones(logits.numel(), dtype=torch.float64)], dim=1)
    truth, rule = present.double().flatten(), torch.zeros(2, dtype=torch.float64)
    for _ in range(30):
        probability = torch.sigmoid((columns @ rule).clamp(-30, 30))
        gradient = columns.T @ (truth - probability) - 1e-3 * rule
        weights = (probability * (1 - probability))[:, None]
        curvature = columns.T @ (columns * weights) + 1e-3 * torch.eye(2, dtype=torch.float64)
        rule = rule + torch.linalg.solve(curvature, gradient)
    return round(float(rule[0]), 4), round(float(rule[1]), 4)
