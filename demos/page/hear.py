"""What is probably in a recording, to suggest it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from page.engine import Engine
from page.limits import Limits, Refusal
from page.store import GONE
from page.work import inspect, plain
from separation.audio import AudioError, Reader
from separation.pretrained import ModelError

if TYPE_CHECKING:
    from torch import Tensor

MOST = 6


def hear(engine: Engine, limits: Limits, source: Path, model: str) -> dict[str, Any]:
    """{"sounds": the likeliest first, "seconds": of the recording that were heard}; none where the model cannot tell.

    It takes turns with all other work, and ends when the recording is no longer wanted.

    Raises:
        Refusal: the recording is outside the limits, or gone.
    """
    reader = inspect(source, limits)
    separator = engine.separator(model, lambda: still_there(source))
    try:
        level = float(separator.level(blocks(reader, limits, source)))
        frames = 0

        def in_turns() -> Iterator[Tensor]:
            nonlocal frames
            for block in blocks(reader, limits, source):
                frames += block.shape[-1]
                with engine.turn:  # held while the block is scored
                    yield block

        found = separator.list_sounds(in_turns(), reader.sample_rate, level, most=MOST)
    except ModelError:
        return {"sounds": [], "seconds": 0.0}
    except AudioError as error:
        raise Refusal(plain(error, source)) from None
    sounds = [asdict(sound) | {"probability": round(sound.probability, 3)} for sound in found]
    return {"sounds": sounds, "seconds": round(frames / reader.sample_rate, 1)}


def still_there(source: Path) -> None:
    """Raises Refusal when the recording was removed: nobody wants to know any more."""
    if not source.is_file():
        raise Refusal(GONE)


def blocks(reader: Reader, limits: Limits, source: Path) -> Iterator[Tensor]:
    """The recording's first minutes, block by block.

    Raises:
        Refusal: it was removed meanwhile.
    """
    left = int(limits.hear_minutes * 60 * reader.sample_rate)
    for block in reader.blocks():
        still_there(source)
        yield block[:, :left]
        left -= block.shape[-1]
        if left <= 0:
            return
