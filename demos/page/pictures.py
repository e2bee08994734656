"""Spectrograms for the page: bare pictures for a browser to put axes around, on one time axis and one colour scale."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation.plot import RANGE, TICKS, draw

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COLOURS = "magma"


def top_of(levels: list[NDArray[np.float64]]) -> float:
    """The upper end of the colour scale, whole tens of dB."""
    return 10.0 * math.ceil(max(float(level.max()) for level in levels) / 10.0)


def strip(levels: NDArray[np.float64], top: float) -> bytes:
    """A PNG without axes: time to the right, frequency upwards.

    Args:
        levels: decibels (rows, columns) of `separation.plot.Spectrogram`.
        top: the level of the brightest colour; the darkest is RANGE below.
    """
    import numpy as np
    from matplotlib import colormaps, image

    shades = colormaps[COLOURS](np.clip((levels - top) / RANGE + 1.0, 0.0, 1.0), bytes=True)
    file = io.BytesIO()
    image.imsave(file, np.ascontiguousarray(shades[::-1]), format="png")
    return file.getvalue()


def scale() -> bytes:
    """The colour scale as a PNG, the loudest at the top."""
    import numpy as np

    return strip(np.linspace(-RANGE, 0.0, 256)[:, None].repeat(4, axis=1), 0.0)


def axis(edges: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Frequencies to label: in kHz, and how far up they stand, 0 to 1."""
    low, high = math.log2(edges[0]), math.log2(edges[-1])
    return [
        {"label": f"{tick / 1000:g}", "at": round((math.log2(tick) - low) / (high - low), 4)}
        for tick in TICKS
        if edges[0] <= tick <= edges[-1]
    ]


def picture(path: Path, panels: dict[str, NDArray[np.float64]], title: str, seconds: float, edges: Any) -> None:
    """Draws the picture that `separate --plot` draws."""
    with open(path, "wb") as file:
        draw(file, panels, title, seconds, edges)
