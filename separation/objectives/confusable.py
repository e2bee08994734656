"""Queries for what is absent but could be taken for what sounds: the hard half of learning to be silent.

Labels drawn at random are mostly far from everything in the mixture ("violin" for a dog and rain), and silence for
them is learnt soon. People ask for near things ("cat meow" where a baby cries). Which ones are near, the network says
itself: the labels that it finds likeliest of all that do not sound, as in Shrivastava et al., "Training region-based
object detectors with online hard example mining", 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEAREST = 12  # one of the so many likeliest labels is drawn: the very likeliest may sound indeed, unlabelled
ALIKE = 0.6  # cosine of conditions from which on two labels may name the same sound ("traffic", "highway")


def unlike(bank: Tensor, labels: Tensor, sounds: Tensor, alike: float = ALIKE) -> Tensor:
    """Which labels are far in meaning from all that sound, (batch, labels).

    Args:
        bank: (labels, dim), unit conditions of all labels.
        labels: (batch, slots), label numbers.
        sounds: (batch, slots), which of them sound.
        alike: cosine from which on two labels count as one.
    """
    near = bank[labels] @ bank.T >= alike  # (batch, slots, labels)
    return ~(near & sounds[..., None]).any(1)


def confusable(logits: Tensor, candidates: Tensor, slots: int, nearest: int = NEAREST) -> Tensor:
    """Numbers (batch, slots) of labels drawn from the `nearest` candidates that the network finds likeliest.

    A row without candidates gets -1.

    Args:
        logits: (batch, labels, frames), presence of every label over time.
        candidates: (batch, labels), which of them may be drawn.
        slots: how many are drawn of each row, with repetition.
        nearest: of how many.
    """
    peak = logits.float().amax(-1).masked_fill(~candidates, -torch.inf)
    likeliest = peak.topk(min(nearest, peak.shape[-1])).indices
    weight = candidates.gather(1, likeliest).float()
    some = weight.any(1, keepdim=True)
    drawn = torch.multinomial(torch.where(some, weight, 1.0), slots, replacement=True)  # (batch, slots)
    return torch.where(some, likeliest.gather(1, drawn), -1)
