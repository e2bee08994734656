"""Spans of time and gains in dB: where and how much the sounds in a recording are changed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

FADE_SECONDS = 0.02
MAX_GAIN_DB = 60.0
TIME = re.compile(r"(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:\.\d*)?|\.\d+)")
NO_GAIN = "is not a number of decibels: use for example +3, -12, or -inf, which removes the sound"


def parse_time(value: str | float) -> float:
    """Convert a time to seconds: a number, or a text such as "3.2", "1:03.5" (minutes) or "1:00:03" (hours).

    Raises:
        ValueError: if it is none of these.
    """
    if isinstance(value, Real) and not isinstance(value, bool) and value >= 0:
        return float(value)
    match = TIME.fullmatch(str(value).strip())
    hours, minutes, seconds = match.groups("0") if match else ("0", "0", "nan")
    parts = float(hours), float(minutes), float(seconds)
    # Only the first of several numbers may exceed 59.
    if match is None or (match[2] and parts[2] >= 60) or (match[1] and parts[1] >= 60) or math.isinf(parts[2]):
        raise ValueError(f"{value!r} is not a time: use seconds (3.2), minutes (1:03.5) or hours (1:00:03)")
    return 3600 * parts[0] + 60 * parts[1] + parts[2]


@dataclass(frozen=True)
class Span:
    """A part of a recording, from `begin` to `end` in seconds; raises ValueError if it is empty."""

    begin: float = 0.0
    end: float = math.inf

    def __post_init__(self) -> None:
        if not self.begin < self.end:
            raise ValueError(f"A span must begin before it ends, not from {self.begin:g} s to {self.end:g} s.")

    @classmethod
    def parse(cls, value: Span | tuple[str | float | None, str | float | None] | None) -> Span | None:
        """Convert (from, to), where None is the start or end of the recording, or None; raise ValueError for others."""
        if value is None or isinstance(value, Span):
            return value
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise ValueError(f"A span is a pair of times (from, to), not {value!r}.")
        begin, end = value
        return cls(0.0 if begin is None else parse_time(begin), math.inf if end is None else parse_time(end))

    def envelope(self, first: int, length: int, sample_rate: int) -> Tensor:
        """Return the gain (length,) from sample `first` on: 1 inside, 0 outside, raised cosines at the inner edges."""
        import torch

        seconds = (torch.arange(first, first + length, dtype=torch.float64) + 0.5) / sample_rate
        fade = min(FADE_SECONDS, (self.end - self.begin) / 2)
        rise = (seconds - self.begin) / fade if self.begin > 0 else torch.ones_like(seconds)
        fall = (self.end - seconds) / fade
        return (0.5 - 0.5 * torch.cos(math.pi * torch.minimum(rise, fall).clamp(0, 1))).float()

    def remark(self, label: str, seconds: float, done: str = "changed") -> str | None:
        """Return a sentence if the recording is shorter than the span, in which sounds are `done`, else None."""
        if self.begin >= seconds:
            return f"{label} ends at {seconds:g} s, before the span begins ({self.begin:g} s), so nothing is {done}."
        if math.inf > self.end > seconds + 1e-6:
            return f"{label} ends at {seconds:g} s, before the span does ({self.end:g} s)."
        return None

    def cut(self, blocks: Iterable[Tensor], sample_rate: int) -> Iterable[Tensor]:
        """Yield the part within the span of a recording that is given in blocks (channels, n)."""
        position = 0
        for block in blocks:
            last = block.shape[-1] if self.end == math.inf else round(self.end * sample_rate) - position
            part = block[:, max(0, round(self.begin * sample_rate) - position) : max(0, last)]
            position += block.shape[-1]
            if part.shape[-1]:
                yield part


Times = Span | tuple[str | float | None, str | float | None] | None
"""A span, or (from, to) in seconds or as "mm:ss", where None is the start or end; None: the whole recording."""


def check_gain(decibels: float) -> float:
    """Return the gain as a float; raise ValueError unless it is between -inf and 60 dB."""
    try:
        value = float(decibels)
    except (TypeError, ValueError):
        value = math.nan
    if math.isnan(value) or value > MAX_GAIN_DB:
        raise ValueError(f"{decibels} {NO_GAIN}" if math.isnan(value) else f"{value:g} dB is more than +60 dB")
    return value


def parse_gain(text: str) -> tuple[str, float]:
    """Split for example "speech=+3" into the sound and the gain in dB; raise ValueError if it has another form."""
    name, equals, level = text.rpartition("=")
    if not equals or not name.strip():
        raise ValueError(f'"{text}" is not of the form SOUND=DECIBELS, for example "speech=+3"')
    level = re.sub(r"\s*dB$", "", level.strip(), flags=re.IGNORECASE)
    try:
        return name, check_gain(float(level))
    except ValueError as error:
        raise ValueError(str(error) if "more than" in str(error) else f'"{level}" {NO_GAIN}') from None


def pair_gains(gains: Mapping[Any, float] | Iterable[tuple[Any, float]], remove: Any = ()) -> list[tuple[Any, float]]:
    """Return pairs of query and gain in dB, with -inf for queries to remove; raise ValueError for an invalid gain."""
    single = isinstance(remove, str | bytes | int) or not isinstance(remove, Iterable) or hasattr(remove, "shape")
    removed = [remove] if single else list(remove)
    pairs: Any = gains.items() if isinstance(gains, Mapping) else gains
    pairs = list(pairs) if isinstance(pairs, Iterable) else [pairs]
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise ValueError(f'Gains are decibels by sound, such as {{"speech": 3.0}}, not {gains!r}.')
    return [(query, check_gain(gain)) for query, gain in pairs] + [(query, -math.inf) for query in removed]
