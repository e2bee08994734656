"""Processing of a signal of any length in overlapping segments."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


class Segmenter:
    """Cuts a signal that arrives in blocks into overlapping segments.

    Segments of `segment` samples start every `segment - overlap` samples; the last one may be shorter.

    Attributes:
        length: samples that wait for the next segment.
    """

    def __init__(self, segment: int, overlap: int) -> None:
        self.segment, self.overlap = segment, overlap
        self.waiting: list[Tensor] = []
        self.length = 0

    def push(self, block: Tensor) -> Iterator[Tensor]:
        """Add (channels, time) and yield segments, except the last one of the signal."""
        self.waiting.append(block)
        self.length += block.shape[-1]
        while self.length > self.segment:  # otherwise this segment may be the last
            buffer = torch.cat(self.waiting, dim=-1)
            rest = buffer[..., self.segment - self.overlap :].clone()
            self.waiting, self.length = [rest], rest.shape[-1]
            yield buffer[..., : self.segment]

    def flush(self) -> Tensor | None:
        """Return the last segment (None if there is no sample) and start anew."""
        last = torch.cat(self.waiting, dim=-1) if self.length else None
        self.waiting, self.length = [], 0
        return last


class OverlapAdd:
    """Applies a function to a signal of any length, segment by segment.

    Where two segments overlap, the earlier one is used up to the middle and the later one from there, with a linear
    fade between: every sample comes from a segment that contains at least `(overlap - fade) / 2` samples on either
    side of it. If its value depends on no more than that, the result equals that of the whole signal.

    Args:
        process: (channels, n) to (..., n) for any n >= 1; its result is changed in place. It is also told whether the
            signal starts and whether it ends with this segment.
        segment: length of the segments in samples.
        overlap: samples that two segments share, at most half of a segment.
        fade: samples over which two segments are blended; overlap / 10 by default.

    Raises:
        ValueError: if these lengths are inconsistent.
    """

    def __init__(
        self,
        process: Callable[[Tensor, tuple[bool, bool]], Tensor],
        segment: int,
        overlap: int,
        fade: int | None = None,
    ) -> None:
        fade = overlap // 10 if fade is None else fade
        if not 0 <= 2 * overlap <= segment or not 0 <= fade <= overlap or segment < 1:
            raise ValueError(f"segment {segment}, overlap {overlap} and fade {fade} do not fit each other.")
        self.process, self.segment, self.overlap, self.fade = process, segment, overlap, fade
        self.segmenter = Segmenter(segment, overlap)
        self.tail: Tensor | None = None  # end of the previous segment's output (..., overlap)

    def push(self, block: Tensor) -> list[Tensor]:
        """Add (channels, n) to the input; return output (..., m) that is final, in pieces."""
        final = []
        for segment in self.segmenter.push(block):
            joined = self._join(self.process(segment, (self.tail is None, False)))
            final.append(joined[..., : self.segment - self.overlap])
            self.tail = joined[..., self.segment - self.overlap :]
        return final

    def flush(self) -> list[Tensor]:
        """Return the end of the output and start anew."""
        last = self.segmenter.flush()
        final = [] if last is None else [self._join(self.process(last, (self.tail is None, True)))]
        self.tail = None
        return final

    def _join(self, output: Tensor) -> Tensor:
        """Blend the end of the previous segment's output into the beginning of this one's."""
        if self.tail is not None:
            position = torch.arange(self.overlap, device=output.device, dtype=output.dtype) - (self.overlap - 1) / 2
            weight = (position / max(self.fade, 1) + 0.5).clamp(0, 1)
            head = output[..., : self.overlap]
            head.copy_(torch.lerp(self.tail.to(output), head, weight))
        return output
