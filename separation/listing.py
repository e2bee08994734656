"""Lists the sounds in a recording. All known labels are scored in one pass over the mixture, without separating it.

The query-independent part of the network runs once; one more condition costs next to nothing. One number is kept for
each second and label, so the list does not depend on how the recording is cut into blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from einops import reduce
from torch import Tensor
from torch.nn import functional as F

from separation.audio import high_pass, resample
from separation.models.base import ConditionedModel
from separation.stream import RESAMPLER_SECONDS, Segmenter
from separation.wordings import wordings

LIST_THRESHOLD = 0.15
"""Probability from which a sound is listed; about a third of these sounds occur (`benchmarks/listing.py`)."""

DUPLICATE_COSINE = 0.75
"""Cosine of the conditions of two labels from which they count as one sound."""

SMOOTHING_SECONDS = 0.75  # detections are averaged over this time: shorter ones are not reliable
SEGMENT_SECONDS = 24


@dataclass(frozen=True)
class DetectedSound:
    """A sound that probably occurs in a recording.

    Attributes:
        label: what it is.
        probability: the largest over all seconds, 0 to 1.
        times: spans (from, to) in seconds in which its probability reaches the threshold.
    """

    label: str
    probability: float
    times: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ListingRule:
    """Probability that a sound occurs: sigmoid(slope * largest logit + bias), fitted by `separation.calibrate`.

    Attributes:
        slope: of the logit.
        bias: added to it.
        sounds: labels that are looked for.
    """

    slope: float = 1.0
    bias: float = 0.0
    sounds: tuple[str, ...] = field(default_factory=lambda: tuple(wordings()))

    def __call__(self, logits: Tensor) -> Tensor:
        """Return the probabilities of logits of any shape."""
        return torch.sigmoid(self.slope * logits + self.bias)


@torch.inference_mode()
def score_seconds(
    model: ConditionedModel, conditions: Tensor, blocks: Iterable[Tensor], sample_rate: int, level: float
) -> Tensor:
    """Compute the largest smoothed presence logit of every second and sound (seconds, sounds).

    Args:
        model: a network that `lists_sounds`.
        conditions: of the sounds (sounds, dim), on the device to compute on.
        blocks: the recording, (channels, time) each.
        sample_rate: of the recording, Hz.
        level: of the recording, see `stream.measure_level`.
    """
    margin = math.ceil(model.context / model.sample_rate + RESAMPLER_SECONDS)
    segmenter = Segmenter(SEGMENT_SECONDS * sample_rate, 2 * margin * sample_rate)

    def score(segment: Tensor) -> Tensor:
        if level == 0:
            return torch.full((math.ceil(segment.shape[-1] / sample_rate), len(conditions)), -math.inf).half()
        segment = segment * (model.input_level / level)
        if model.high_pass:
            segment = high_pass(segment, sample_rate, model.high_pass)
        wave = resample(segment, sample_rate, model.sample_rate)
        with model.autocast(conditions.device):
            logits = model.score_presence(wave[None].to(conditions.device), conditions[None])[0][0].float().cpu()
        return second_maxima(logits, model.sample_rate / model.stride, wave.shape[-1] / model.sample_rate).half()

    scores: list[Tensor] = []
    for block in blocks:
        scores += [score(segment)[: SEGMENT_SECONDS - margin] for segment in segmenter.push(block)]
    last = segmenter.flush()
    if last is not None:
        scores.append(score(last))
    if not scores:
        return torch.zeros(0, len(conditions))
    return torch.cat([scores[0], *(later[margin:] for later in scores[1:])]).float()


def second_maxima(logits: Tensor, rate: float, seconds: float) -> Tensor:
    """Smooth logits (sounds, frames) at `rate` frames per second; return each second's maximum (seconds, sounds)."""
    width = max(1, round(SMOOTHING_SECONDS * rate) // 2 * 2 + 1)
    smooth = F.avg_pool1d(logits, width, 1, width // 2, count_include_pad=False)
    smooth = smooth[:, : max(1, round(seconds * rate))]
    whole = round(rate)
    padded = F.pad(smooth, (0, -smooth.shape[-1] % whole), value=-math.inf)
    return reduce(padded, "sounds (seconds frames) -> seconds sounds", "max", frames=whole)


def select_sounds(
    logits: Tensor, conditions: Tensor, rule: ListingRule, at_least: float, most: int | None = None
) -> list[DetectedSound]:
    """Select sounds by their logits (seconds, sounds): the most probable first, of near-synonyms only the first.

    Args:
        logits: from `score_seconds`.
        conditions: of the sounds (sounds, dim), of unit length.
        rule: how their probability is computed.
        at_least: probability from which a sound is listed.
        most: largest number of sounds.
    """
    if not len(logits):
        return []
    probability = rule(logits)
    best = probability.amax(0)
    order = best.argsort(descending=True, stable=True)
    listed: list[int] = []
    for number in order[best[order] >= at_least].tolist():
        if most is not None and len(listed) == most:
            break
        if not listed or float((conditions[listed] @ conditions[number]).max()) < DUPLICATE_COSINE:
            listed.append(number)
    return [DetectedSound(rule.sounds[n], float(best[n]), spans(probability[:, n] >= at_least)) for n in listed]


def spans(active: Tensor) -> tuple[tuple[float, float], ...]:
    """Runs of active seconds (seconds,) as (from, to)."""
    edges = torch.diff(F.pad(active.int(), (1, 1))).nonzero()[:, 0].tolist()
    return tuple((float(start), float(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True))
