"""Anchors: where the label of a clip sounds, and how such segments are mixed.

"Universal Source Separation with Weakly Labelled Data" (Kong et al., 2023): a tagger's frame-wise probabilities of the
class are averaged over 2 s; the anchor is where the average is largest. Anchors of different classes are mixed at 0 dB.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST, MOST = 0.02, 50.0  # bounds of the gain of an interference
ENERGY_FLOOR = 1e-10
PUBLISHED_RANDOM = 200  # the published code draws random centres from the first 2 s only


def smooth(probabilities: Tensor, reach: int) -> Tensor:
    """Moving average of (batch, frames) over 2 * reach + 1 frames; the first and last frame are repeated."""
    padded = F.pad(probabilities[:, None], (reach, reach), mode="replicate")
    return F.avg_pool1d(padded, 2 * reach + 1, 1)[:, 0]


def find_anchors(probabilities: Tensor, reach: int) -> Tensor:
    """First frames (batch,) of the segments of 2 * reach frames in which a class is most probable.

    Args:
        probabilities: (batch, frames), of one class; one frame more than the number of whole hops in the clip.
        reach: frames on either side of a segment's centre.

    Raises:
        ValueError: if the clips are shorter than a segment.
    """
    return _starts(smooth(probabilities, reach).argmax(1), probabilities.shape[1], reach)


def random_anchors(count: int, frames: int, reach: int, faithful: bool = False) -> Tensor:
    """First frames (count,) of random segments in clips of `frames` frames.

    With `faithful`, centres are drawn from the first 201 frames only, as in the published code.
    """
    if faithful:
        return _starts(torch.randint(PUBLISHED_RANDOM + 1, (count,)), frames, reach)
    return torch.randint(max(1, frames - 2 * reach), (count,))


def _starts(centres: Tensor, frames: int, reach: int) -> Tensor:
    """First frames of segments around `centres`, moved into the clip if they exceed it."""
    if frames - 1 < 2 * reach:
        raise ValueError(f"a clip of {frames - 1} frames holds no segment of {2 * reach}")
    return centres.clamp(reach, frames - 1 - reach) - reach


def choose_partners(drawn: Tensor, tags: Tensor, count: int = 1) -> tuple[Tensor, Tensor]:
    """Choose the segments that each one is mixed with: the next ones in the batch whose clips lack its label.

    Args:
        drawn: (batch,), class of each segment.
        tags: (batch, classes), all classes of each clip as ones and zeros.
        count: partners per segment.

    Returns:
        indices (batch, count), and whether a segment has so many partners (batch,).

    Raises:
        ValueError: if the batch is not larger than `count`.
    """
    size = len(drawn)
    if size <= count:
        raise ValueError(f"a batch of {size} has no {count} partners for each segment")
    follower = (torch.arange(size)[:, None] + torch.arange(1, size)).to(drawn.device) % size  # (batch, size - 1)
    fits = tags[follower, drawn[:, None]] == 0
    order = torch.argsort((~fits).to(torch.uint8), dim=1, stable=True)[:, :count]
    return follower.gather(1, order), fits.sum(1) >= count


def energy(waveforms: Tensor) -> Tensor:
    """Mean square (..., 1) of waveforms (..., time)."""
    return waveforms.square().mean(-1, keepdim=True)


def mix_segments(segments: Tensor, partner: Tensor) -> Tensor:
    """Mix segments (batch, time) with their partners (batch, count), each at the segment's energy: (batch, time)."""
    others = segments[partner]  # (batch, count, time)
    gains = (energy(segments)[:, None] / energy(others).clamp_min(ENERGY_FLOOR)).sqrt().clamp(LEAST, MOST)
    return segments + (gains * others).sum(1)
