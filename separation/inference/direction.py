"""Where a sound comes from: its pan or azimuth from the spatial covariances of its target and of the rest.

At each frequency, the covariance of the target (weighted by the share of the signal that it has in each bin) and that
of the rest are reduced to the response of the channels to the sound alone. The direction is that whose response is the
most similar over all frequencies (a steered response; for spaced microphones only phases count). `Array` says what the
channels are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from numbers import Real
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from separation.errors import expand_home, reason
from separation.inference.overlap_add import Segmenter
from separation.models.spectra import STFT

Spans = Sequence[tuple[float, float]]
SPEED_OF_SOUND = 343.0  # metres per second
LAYOUTS = {"stereo": 2, "ambix": 4, "fuma": 4}
"""Number of channels of what is no array of microphones: a stereo mix, ambisonics in the order W Y Z X or W X Y Z."""
MAX_MICROPHONES, MAX_METRES, MAX_TEXT = 32, 100.0, 1 << 16
WINDOW_SECONDS = 0.032
HERTZ = (100.0, 12000.0)  # what directions come from
BANDS = 24  # in which frequencies count together, where responses do not depend on them
NOISE = 0.1  # of the target's power, added to the covariance of the rest
CLEAR = 0.3  # least confidence of a direction
LOCATED_SECONDS = 60.0
"""Seconds of each sound that are separated to find its direction."""

SEGMENT_SECONDS, MARGIN_SECONDS = 24, 2  # of what is separated to find directions


@dataclass(frozen=True)
class Array:
    """What the channels of a recording are: a layout of `LAYOUTS`, or microphones.

    Attributes:
        layout: "stereo", "ambix", "fuma" or "microphones".
        positions: of the microphones in metres (x to the front, y to the left, z up).
    """

    layout: str = "stereo"
    positions: tuple[tuple[float, float, float], ...] = ()

    @classmethod
    def parse(cls, value: Any) -> Array:
        """Return an array: the name of a layout, or positions as rows of two or three numbers.

        A text is the name of a JSON or YAML file of such rows, or holds them itself: "[[0, 0.1], [0, -0.1]]".

        Raises:
            ValueError: for anything else, with one sentence that says why.
        """
        if isinstance(value, Array):
            return value
        if isinstance(value, str) and value in LAYOUTS:
            return cls(value)
        name = f"{str(value)[:200]}: " if isinstance(value, str | Path) else ""
        try:
            if name:
                text = str(value)
                if not text.lstrip().startswith("["):
                    with open(expand_home(value), encoding="utf-8") as file:
                        text = file.read(MAX_TEXT + 1)
                if len(text) > MAX_TEXT or text.count("[") > MAX_MICROPHONES + 1 or "&" in text:
                    raise ValueError
                value = yaml.safe_load(text)
            positions = tuple((*map(float, row), 0.0)[:3] for row in value if len(row) in (2, 3))
            real = all(isinstance(each, Real) and not isinstance(each, bool) for row in value for each in row)
            if not (real and 2 <= len(positions) == len(value) <= MAX_MICROPHONES):
                raise ValueError
        except (OSError, TypeError, ValueError, OverflowError, RecursionError, yaml.YAMLError) as error:
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                raise ValueError(f"{name}{reason(error)}.") from None
            rows = f"positions of 2 to {MAX_MICROPHONES} microphones, two or three numbers of metres each"
            what = "there is no such file; " if isinstance(error, FileNotFoundError) else ""
            raise ValueError(f"{name}{what}an array is {', '.join(LAYOUTS)}, or a file or rows of {rows}.") from None
        if not all(math.isfinite(each) and abs(each) <= MAX_METRES for row in positions for each in row):
            raise ValueError(f"{name}positions are finite numbers, at most {MAX_METRES:g} metres from the origin.")
        if len({row[:2] for row in positions}) < 2:
            raise ValueError(f"{name}microphones at one place of the horizontal plane tell no azimuth.")
        return cls("microphones", positions)  # type: ignore[arg-type]

    @property
    def channels(self) -> int:
        """Number of channels."""
        return LAYOUTS.get(self.layout) or len(self.positions)

    def check(self, channels: int) -> None:
        """Raise ValueError if a recording has another number of channels."""
        if channels != self.channels:
            raise ValueError(f"The array has {self.channels} channels, the recording has {channels}.")

    def responses(self, hertz: Tensor) -> tuple[Tensor, Tensor]:
        """Directions (n, values) and the responses of unit length to them (bins or 1, channels, n)."""
        if self.layout == "stereo":
            pan = torch.arange(-100, 101) / 100
            angle = (pan + 1) * (torch.pi / 4)
            return pan[:, None], torch.stack([angle.cos(), angle.sin()])[None].to(torch.complex64)
        azimuth, elevation = torch.arange(-179.0, 181.0), torch.zeros(1)
        if self.layout != "microphones":
            elevation = torch.arange(-90.0, 91.0, 5.0)
        else:
            flat = torch.tensor(self.positions)[:, :2]
            _, spread, axes = torch.linalg.svd(flat - flat.mean(0))
            if spread[1] < 1e-3 * spread[0]:  # on a line, which tells only one side: the sound is in front of it
                normal = torch.stack([-axes[0, 1], axes[0, 0]])
                normal = -normal if normal @ torch.tensor([1.0, 1e-3]) < 0 else normal
                middle = math.degrees(math.atan2(normal[1], normal[0]))
                azimuth = azimuth[((azimuth - middle + 180) % 360 - 180).abs() <= 90]
        points = torch.cartesian_prod(azimuth, elevation)
        a, e = points.deg2rad().T
        x, y, z = a.cos() * e.cos(), a.sin() * e.cos(), e.sin()
        if self.layout == "ambix":
            return points, torch.stack([torch.ones_like(x), y, z, x])[None].to(torch.complex64) / 2**0.5
        if self.layout == "fuma":
            return points, torch.stack([torch.full_like(x, 0.5**0.5), x, y, z])[None].to(torch.complex64) / 1.5**0.5
        delay = torch.tensor(self.positions) @ torch.stack([x, y, z]) / SPEED_OF_SOUND
        return points, torch.exp(2j * torch.pi * hertz[:, None, None] * delay) / len(delay) ** 0.5


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
