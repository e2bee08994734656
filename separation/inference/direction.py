"""Where a sound comes from: its pan or azimuth from the spatial covariances of its target and of the rest.

At each frequency, the covariance of the target (weighted by the share of the signal that it has in each bin) and that
of the rest are reduced to the response of the channels to the sound alone. The direction is that whose response is the
most similar over all frequencies (a steered response; for spaced microphones only phases count).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from separation.inference.arrays import Array
from separation.inference.overlap_add import Segmenter
from separation.models.spectra import STFT

Spans = Sequence[tuple[float, float]]
WINDOW_SECONDS = 0.032
HERTZ = (100.0, 12000.0)  # what directions come from
BANDS = 24  # in which frequencies count together, where responses do not depend on them
NOISE = 0.1  # of the target's power, added to the covariance of the rest
CLEAR = 0.3  # least confidence of a direction
LOCATED_SECONDS = 60.0
"""Seconds of each sound that are separated to find its direction."""

SEGMENT_SECONDS, MARGIN_SECONDS = 24, 2  # of what is separated to find directions


@dataclass(frozen=True)
class Direction:
    """Where a sound comes from. Without a clear direction, pan and angles are None and `reason` says why.

    Attributes:
        pan: -1 (left) to 1 (right) in a stereo mix: left and right have cos and sin of (pan + 1) * 45 degrees.
        azimuth: degrees, 0 in front, 90 to the left, -90 to the right; up to 180.
        elevation: degrees above the horizon (ambisonics).
        confidence: 1 if all comes from this direction, 0 if it comes from everywhere alike.
        reason: why there is no direction.
    """

    pan: float | None = None
    azimuth: float | None = None
    elevation: float | None = None
    confidence: float = 0.0
    reason: str | None = None

    def __str__(self) -> str:
        if self.azimuth is not None:
            return f"{'left' if self.azimuth > 0 else 'right'} {abs(self.azimuth):.0f}°" if self.azimuth else "front"
        if self.pan is None:
            return "unclear"
        return f"{'left' if self.pan < 0 else 'right'} {abs(self.pan):.1f}" if abs(self.pan) >= 0.05 else "centre"

    def as_json(self) -> dict[str, Any]:
        """Return all attributes, and the direction in words as `text`."""
        return asdict(self) | {"text": str(self)}


class Covariances:
    """Spatial covariances of a target and of the rest of a recording, which arrive in pieces.

    Attributes:
        sums: of the target and of the rest (2, bins, channels, channels).
        hertz: of the bins (bins,).
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        size = 2 * max(8, round(WINDOW_SECONDS * sample_rate / 2))
        hertz = torch.arange(size // 2 + 1) * (sample_rate / size)
        self.stft, self.used = STFT(size, size // 2), (hertz >= HERTZ[0]) & (hertz <= HERTZ[1])
        self.hertz = hertz[self.used]
        self.sums = torch.zeros(2, len(self.hertz), channels, channels, dtype=torch.complex64)

    def push(self, target: Tensor, rest: Tensor) -> None:
        """Add samples (channels, n) of the target and of the rest."""
        spectra = self.stft(torch.stack([target, rest]))[:, :, self.used]
        power = spectra.abs().square().sum(1)
        share = power / (power.sum(0) + 1e-20)
        weighted = spectra * (share / (power.sum(0).sqrt() + 1e-20)).sqrt()[:, None]  # loud moments count less
        self.sums += torch.einsum("scft,sdft->sfcd", weighted, weighted.conj())


def estimate_direction(target: Tensor, rest: Tensor, hertz: Tensor, array: Array) -> Direction:
    """Return the direction that explains the spatial covariance of a target best.

    Args:
        target: covariance (bins, channels, channels), Hermitian.
        rest: that of everything else, which may also contain some of the target.
        hertz: of the bins (bins,).
        array: what the channels are.

    Raises:
        ValueError: if the number of channels is not that of the array.
    """
    array.check(target.shape[-1])
    points, responses = array.responses(hertz)
    if array.layout != "microphones":  # responses are real and the same at all frequencies
        edges = torch.logspace(math.log10(HERTZ[0]), math.log10(HERTZ[1]), BANDS + 1)[1:-1]
        bands = torch.zeros(BANDS, len(hertz)).scatter_(0, torch.bucketize(hertz, edges)[None], 1.0).to(torch.complex64)
        target, rest = (torch.einsum("bf,fcd->bcd", bands, each).real.to(torch.complex64) for each in (target, rest))
    powers = [each.diagonal(dim1=-2, dim2=-1).real.sum(-1) for each in (target, rest)]
    weight = powers[0].sqrt() * powers[0] / (powers[0] + powers[1] + 1e-30)
    heard = weight > 0
    if not heard.any():
        return Direction(reason="the sound is silent")
    target, rest, weight = target[heard].to(torch.complex128), rest[heard], weight[heard]
    responses = responses[heard] if len(responses) > 1 else responses
    # The largest generalised eigenvector, times the covariance of the rest, is the response to the target alone.
    floor = (NOISE * powers[0] + 1e-6 * powers[1])[heard, None, None] / len(target[0])
    noise = rest + floor * torch.eye(len(target[0]))
    factor = torch.linalg.cholesky(noise.to(torch.complex128))
    half = torch.linalg.solve_triangular(factor, target, upper=False)
    white = torch.linalg.solve_triangular(factor, half.mH, upper=False)
    vector = (factor @ torch.linalg.eigh(white).eigenvectors[..., -1:])[..., 0].to(torch.complex64)
    if array.layout == "microphones":
        vector = vector / vector.abs().clamp_min(1e-12)
    vector = vector / torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
    likeness = (responses.conj() * vector[:, :, None]).sum(1).abs().square()
    score = weight @ likeness / weight.sum()
    best, uniform = int(score.argmax()), 1 / len(target[0])
    confidence = round(max(0.0, (float(score[best]) - uniform) / (1 - uniform)), 3)
    if confidence < CLEAR:
        return Direction(confidence=confidence, reason="the sound comes from no single direction")
    values = [round(float(value), 2) for value in points[best]]
    if array.layout == "stereo":
        return Direction(pan=values[0], confidence=confidence)
    return Direction(None, values[0], values[1] if array.layout != "microphones" else None, confidence)


def locate_spans(
    spans: Sequence[Spans],
    blocks: Iterable[Tensor],
    sample_rate: int,
    array: Array,
    separate: Callable[[list[int], Tensor], Tensor],
    seconds: float = LOCATED_SECONDS,
) -> list[tuple[Direction, tuple[Direction | None, ...]]]:
    """Separate sounds in their spans; return the direction of each sound and in each of its spans.

    Args:
        spans: of each sound (from, to) in seconds.
        blocks: the recording in blocks (channels, n).
        sample_rate: Hz.
        array: what the channels are.
        separate: numbers of sounds and a part of the recording (channels, n) to targets (sounds, channels, n).
        seconds: of each sound that are used, its longest spans first.
    """
    used: dict[tuple[int, float, float], Covariances] = {}
    for number, each in enumerate(spans):
        left = seconds
        for begin, end in sorted(each, key=lambda span: span[0] - span[1]):
            if left > 0:
                used[number, begin, min(end, begin + left)] = Covariances(sample_rate, array.channels)
            left -= end - begin
    segmenter, start, margin = Segmenter(SEGMENT_SECONDS * sample_rate, 0), 0, MARGIN_SECONDS * sample_rate
    for block in chain(blocks, [None]):
        pieces = [segmenter.flush()] if block is None else segmenter.push(block)
        for segment in (piece for piece in pieces if piece is not None):
            array.check(len(segment))
            inside = {}
            for key in used:
                begin, end = (min(max(0, round(t * sample_rate) - start), segment.shape[-1]) for t in key[1:])
                if begin < end:
                    inside[key] = begin, end
            start += segment.shape[-1]
            if not inside:
                continue
            first = max(0, min(place[0] for place in inside.values()) - margin)
            numbers = sorted({key[0] for key in inside})
            part = segment[:, first : max(place[1] for place in inside.values()) + margin]
            alike = torch.equal(part[1:], part[:-1])  # then it is clear without separating anything
            targets = part.expand(len(numbers), *part.shape) if alike else separate(numbers, part)
            for key, (begin, end) in inside.items():
                target = targets[numbers.index(key[0]), :, begin - first : end - first]
                used[key].push(target, part[:, begin - first : end - first] - target)
    empty, found = Covariances(sample_rate, array.channels), []
    for number, each in enumerate(spans):
        parts = {key[1]: one for key, one in used.items() if key[0] == number}
        sums = sum((one.sums for one in parts.values()), empty.sums)
        whole = estimate_direction(sums[0], sums[1], empty.hertz, array)
        directions = {
            begin: estimate_direction(one.sums[0], one.sums[1], one.hertz, array) for begin, one in parts.items()
        }
        found.append((whole, tuple(directions.get(begin) for begin, _ in each)))
    return found
