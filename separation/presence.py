"""Does what was asked for sound in the recording at all?

Two things tell: how surely the network detects the query in its surest frame, and how much it took out. A logistic rule
over both, fitted on training mixtures (`fit`), turns them into a probability.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATIO_FLOOR_DB = -60.0


def energy_ratio_db(target: float, mixture: float) -> float:
    """How far the target lies under the mixture, dB, not below -60."""
    if target <= 0 or mixture <= 0:
        return RATIO_FLOOR_DB
    return max(RATIO_FLOOR_DB, 10 * math.log10(target / mixture))


@dataclass(frozen=True)
class PresenceRule:
    """Probability = sigmoid(bias + logit * detection + ratio * energy ratio in dB)."""

    bias: float = 0.0
    logit: float = 1.0
    ratio: float = 0.0

    def __call__(self, detection: float, ratio_db: float) -> float:
        """Probability that the query sounds; 0 when nothing was heard at all."""
        if detection == -math.inf:
            return 0.0
        return 1 / (1 + math.exp(-max(-60.0, self.bias + self.logit * detection + self.ratio * ratio_db)))


def fit(detections: NDArray[np.float64], ratios_db: NDArray[np.float64], present: NDArray[np.bool_]) -> PresenceRule:
    """Logistic regression by Newton's method; both outcomes weigh the same, however many of each were seen."""
    columns = np.stack([np.ones_like(detections), detections, ratios_db], axis=1)
    weight = np.where(present, 0.5 / present.mean(), 0.5 / (1 - present.mean()))
    rule = np.zeros(3)
    for _ in range(30):
        probability = 1 / (1 + np.exp(-np.clip(columns @ rule, -30, 30)))
        gradient = columns.T @ (weight * (present - probability)) - 1e-3 * rule
        curvature = (columns * (weight * probability * (1 - probability))[:, None]).T @ columns + 1e-3 * np.eye(3)
        rule += np.linalg.solve(curvature, gradient)
    return PresenceRule(*(round(float(value), 4) for value in rule))
