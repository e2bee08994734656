"""Where in a labelled clip its label sounds, and how such segments are mixed.

"Universal Source Separation with Weakly Labelled Data" (Kong et al., 2023): a tagger's probability of the drawn class,
frame by frame, is averaged over 2 s; the place where it is largest is the anchor. Anchors of different classes are
mixed at 0 dB.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST, MOST = 0.02, 50.0  # gains of an interference
ENERGY_FLOOR = 1e-10
PUBLISHED_RANDOM = 200  # the published code draws random centres from the first 2 s only


def smoothed(probabilities: Tensor, reach: int) -> Tensor:
    """Moving average over 2 * reach + 1 frames, the ends repeated: (batch, frames) to the same."""
    padded = F.pad(probabilities[:, None], (reach, reach), mode="replicate")
    return F.avg_pool1d(padded, 2 * reach + 1, 1)[:, 0]


def mined(probabilities: Tensor, reach: int) -> Tensor:
    """First frames (batch,) of the segments of 2 * reach frames where a class is most probable.

    Args:
        probabilities: of one class, (batch, frames), with one frame more than there are whole hops in the clip.
        reach: frames on either side of a segment's middle.

    Raises:
        ValueError: the clips are shorter than a segment.
    """
    return within(smoothed(probabilities, reach).argmax(1), probabilities.shape[1], reach)


def random_starts(count: int, frames: int, reach: int, faithful: bool = False) -> Tensor:
    """First frames (count,) of segments anywhere in clips of `frames` frames.

    `faithful` draws their middles from the first 201 frames only, as the published code does.
    """
    if faithful:
        return within(torch.randint(PUBLISHED_RANDOM + 1, (count,)), frames, reach)
    return torch.randint(max(1, frames - 2 * reach), (count,))


def within(middle: Tensor, frames: int, reach: int) -> Tensor:
    """First frames of segments around `middle`, moved into the clip where they reach beyond it."""
    if frames - 1 < 2 * reach:
        raise ValueError(f"a clip of {frames - 1} frames holds no segment of {2 * reach}")
    return middle.clamp(reach, frames - 1 - reach) - reach


def cut(waveforms: Tensor, starts: Tensor, length: int) -> Tensor:
    """Segments (batch, length) of waveforms (batch, time) from sample `starts` (batch,) on."""
    return waveforms.gather(1, starts[:, None] + torch.arange(length, device=waveforms.device))


def partners(drawn: Tensor, tags: Tensor, count: int = 1) -> tuple[Tensor, Tensor]:
    """Whom every segment is mixed with: the next ones in the batch whose clips do not have its label.

    Args:
        drawn: class of each segment (batch,).
        tags: all classes of each clip, ones and zeros (batch, classes).
        count: partners a segment.

    Returns:
        indexes (batch, count), and which segments have so many partners (batch,).
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


def match_gain(target: Tensor, other: Tensor) -> Tensor:
    """What brings `other` to the target's energy, within bounds: (..., time) each to (..., 1)."""
    return (energy(target) / energy(other).clamp_min(ENERGY_FLOOR)).sqrt().clamp(LEAST, MOST)


def mixed(segments: Tensor, partner: Tensor) -> Tensor:
    """Every segment with its partners, each brought to its energy.

    Args:
        segments: (batch, time); these are the targets.
        partner: whom each is mixed with (batch, count).

    Returns:
        mixtures (batch, time).
    """
    others = segments[partner]  # (batch, count, time)
    return segments + (match_gain(segments[:, None], others) * others).sum(1)
