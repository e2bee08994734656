"""What the channels of a recording are, and how they respond to a sound from each direction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from separation.errors import expand_home, reason

SPEED_OF_SOUND = 343.0  # metres per second
LAYOUTS = {"stereo": 2, "ambix": 4, "fuma": 4}
"""Number of channels of what is no array of microphones: a stereo mix, ambisonics in the order W Y Z X or W X Y Z."""
MAX_MICROPHONES, MAX_METRES, MAX_TEXT = 32, 100.0, 1 << 16


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
