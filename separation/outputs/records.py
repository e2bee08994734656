"""What `separate` reports about one input."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Record:
    """The result for one input: the line that --json prints, with all of these keys whatever happened."""

    input: str
    outputs: list[str] = field(default_factory=list)
    targets: dict[str, str] = field(default_factory=dict)
    residuals: dict[str, str] = field(default_factory=dict)
    plots: list[str] = field(default_factory=list)
    presence: dict[str, float | None] = field(default_factory=dict)
    verdict: dict[str, str | None] = field(default_factory=dict)
    parts: dict[str, dict[str, float | None]] = field(default_factory=dict)
    sounding: list[str] = field(default_factory=list)
    hints: list[dict[str, Any]] = field(default_factory=list)
    scale: dict[str, float] = field(default_factory=dict)
    duration: float | None = None
    level: float | None = None
    levels: dict[str, float | None] = field(default_factory=dict)
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    heard: list[dict[str, Any]] | None = None
    rest: str | None = None
    remix: str | None = None
    skipped: bool = False
    passed_over: str | None = None
    error: str | None = None

    def enter_presence(self, name: str, presence: float) -> None:
        """Set presence and verdict of a query."""
        from separation.presence import presence_word

        self.presence[name], self.verdict[name] = rounded(presence), presence_word(presence)


def decibels(level: float) -> float | None:
    """Return a linear level in dB of full scale with two decimals; None for silence, which JSON has no number for."""
    return round(20 * math.log10(level), 2) if level > 0 else None


def rounded(presence: float) -> float | None:
    """Return a presence with four decimals; None if the model does not estimate it."""
    return None if math.isnan(presence) else round(presence, 4)
