"""Pictures for procedural sounds: each sound has shape and colours of its own, each seed another size and place.

They stand in for frames of videos where there are none, so that training with pictures can be tried and tested.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

SIDE = 64
SHAPES = ("ellipse", "rectangle", "triangle")


def drawn_frame(label: str, seed: int = 0, side: int = SIDE) -> Any:
    """A picture (PIL, RGB, `side` pixels) of a sound; the same arguments give the same pixels."""
    from PIL import Image, ImageDraw

    own = np.random.default_rng(zlib.crc32(label.encode()))
    ground, ink = (tuple(int(c) for c in own.integers(0, 256, 3)) for _ in range(2))
    shape = SHAPES[int(own.integers(len(SHAPES)))]
    rng = np.random.default_rng((zlib.crc32(label.encode()), seed))
    size = rng.uniform(0.3, 0.6) * side
    left, top = (float(v) for v in rng.uniform(0, side - size, 2))
    picture = Image.new("RGB", (side, side), ground)
    draw = ImageDraw.Draw(picture)
    if shape == "triangle":
        draw.polygon([(left, top + size), (left + size, top + size), (left + size / 2, top)], fill=ink)
    else:
        getattr(draw, shape)([left, top, left + size, top + size], fill=ink)
    return picture
