"""A whole signal as overlapping segments, for any callable and any length.

Segments of `segment` samples start every `segment - overlap` samples. Where two overlap, the earlier one is used up to
the middle and the later one from there, with a short linear fade between: every sample comes from a segment that
sees at least `(overlap - fade) / 2` samples on either side of it. A process whose output depends on no more than that
therefore gives the same result in segments as on the whole signal, and there are no seams.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Process = Callable[[Tensor], Tensor]


class OverlapAdd:
    """Feeds a signal of unknown length through `process`, segment by segment, in constant memory.

    Args:
        process: (channels, n) -> (..., n) for any n >= 1; its result is blended in place.
        segment, overlap: in samples; overlap at most half of the segment.
        fade: samples over which two segments are blended; overlap / 10 by default.

    Raises:
        ValueError: the lengths do not fit each other.
    """

    def __init__(self, process: Process, segment: int, overlap: int, fade: int | None = None) -> None:
        fade = overlap // 10 if fade is None else fade
        if not 0 <= 2 * overlap <= segment or not 0 <= fade <= overlap or segment < 1:
            raise ValueError(f"segment {segment}, overlap {overlap} and fade {fade} do not fit each other.")
        self.process, self.segment, self.overlap, self.fade = process, segment, overlap, fade
        self.waiting: list[Tensor] = []  # input from the next segment's first sample on
        self.length = 0
        self.tail: Tensor | None = None  # the last segment's output from there on, (..., overlap)

    def push(self, block: Tensor) -> list[Tensor]:
        """Adds input (channels, n); returns output (..., m) pieces that are final."""
        self.waiting.append(block)
        self.length += block.shape[-1]
        final = []
        # One sample more than a segment must be there: otherwise this segment may be the last, and flush's.
        while self.length > self.segment:
            buffer = torch.cat(self.waiting, dim=-1)
            joined = self.join(self.process(buffer[..., : self.segment]))
            final.append(joined[..., : self.segment - self.overlap])
            self.tail = joined[..., self.segment - self.overlap :]
            rest = buffer[..., self.segment - self.overlap :].clone()
            self.waiting, self.length = [rest], rest.shape[-1]
        return final

    def flush(self) -> list[Tensor]:
        """The end of the output; the object is then as new."""
        buffer = torch.cat(self.waiting, dim=-1) if self.waiting else None
        tail = self.tail
        final = [self.join(self.process(buffer))] if buffer is not None and self.length else []
        self.waiting, self.length, self.tail = [], 0, None
        return final if final or tail is None else [tail]

    def join(self, output: Tensor) -> Tensor:
        """Replaces the beginning of a segment's output by the end of the previous one's, blending in the middle."""
        if self.tail is None:
            return output
        weight = self.rise(output)
        head = output[..., : self.overlap]
        head.copy_(torch.lerp(self.tail.to(output), head, weight))
        return output

    def rise(self, like: Tensor) -> Tensor:
        """Weight of the later segment over the overlap: zeros, a linear rise of `fade` samples, ones."""
        centre = (self.overlap - 1) / 2
        position = torch.arange(self.overlap, device=like.device, dtype=like.dtype) - centre
        return (position / max(self.fade, 1) + 0.5).clamp(0, 1)


def overlap_add(signal: Tensor, process: Process, segment: int, overlap: int, fade: int | None = None) -> Tensor:
    """Signal (channels, time) through `process` in segments; see `OverlapAdd`."""
    if signal.shape[-1] == 0:
        return process(signal)
    runner = OverlapAdd(process, segment, overlap, fade)
    return torch.cat([*runner.push(signal), *runner.flush()], dim=-1)
