"""Presence: the probability that a query occurs in a recording, and the word for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

RATIO_FLOOR_DB = -60.0
PRESENT, ABSENT = 0.6, 0.3
"""Presence from which a query is called present, and below which absent. Of the default's queries above the first, 91 %
occur, of those below the second 10 %, of those between 39 % (`python -m separation.calibrate` prints this)."""


@dataclass(frozen=True)
class PresenceRule:
    """Probability that a query occurs in a mixture.

        sigmoid(bias + logit * detection + background . condition + ratio * energy ratio in dB)

    `python -m separation.calibrate` fits it.

    Attributes:
        bias: added to the rest.
        logit: factor of the detection, the network's presence logit.
        ratio: factor of the energy of the estimate relative to the mixture; only older configs have one.
        background: (dim,); how strongly the network responds to a condition in mixtures of any kind depends on the
            condition, which this term compensates for.
    """

    bias: float = 0.0
    logit: float = 1.0
    ratio: float = 0.0
    background: tuple[float, ...] = ()

    def __call__(self, detection: Tensor, conditions: Tensor, ratios_db: Tensor | float = 0.0) -> Tensor:
        """Return the probability of each query, at any number of times; 0 where nothing has been detected.

        Args:
            detection: presence logits (queries, ...); -inf where the network has computed none.
            conditions: (queries, dim).
            ratios_db: energy ratio of each query (queries,), at least -60 dB.
        """
        offset = self.bias + self.ratio * torch.as_tensor(ratios_db).expand(len(detection))
        if self.background:
            offset = offset + conditions.to(detection) @ detection.new_tensor(self.background)
        evidence = self.logit * detection + offset.view(-1, *[1] * (detection.ndim - 1))
        return torch.where(detection > -math.inf, torch.sigmoid(evidence), 0.0)


def presence_word(presence: float) -> str | None:
    """Return "present", "uncertain" or "absent" for a probability; None for NaN."""
    if math.isnan(presence):
        return None
    shown = round(presence, 2)  # as in messages, so that 0.30 is never called absent
    return "present" if shown >= PRESENT else "absent" if shown < ABSENT else "uncertain"


def energy_ratio_db(target: float, mixture: float) -> float:
    """Ratio of two energies in dB, at least -60."""
    if target <= 0 or mixture <= 0:
        return RATIO_FLOOR_DB
    return max(RATIO_FLOOR_DB, 10 * math.log10(target / mixture))
