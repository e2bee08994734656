"""The presence rule: analytic values, and a fit that finds a known boundary."""

from __future__ import annotations

import math

import numpy as np
import pytest

from separation.presence import PresenceRule, energy_ratio_db, fit


def test_rule_is_a_logistic_function_of_detection_and_ratio() -> None:
    rule = PresenceRule(bias=1.0, logit=2.0, ratio=0.5)
    assert rule(0.5, -4.0) == pytest.approx(1 / (1 + math.exp(-(1 + 1 - 2))))
    assert rule(3.0, 0.0) == pytest.approx(1 / (1 + math.exp(-7)))


def test_nothing_heard_is_absent_and_extremes_do_not_overflow() -> None:
    assert PresenceRule()(-math.inf, -60.0) == 0.0
    assert PresenceRule(logit=1000.0)(-1000.0, 0.0) == pytest.approx(0.0)
    assert PresenceRule(logit=1000.0)(1000.0, 0.0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("target", "mixture", "expected"), [(1.0, 10.0, -10.0), (0.0, 1.0, -60.0), (1e-12, 1.0, -60.0), (1.0, 0.0, -60.0)]
)
def test_energy_ratio(target: float, mixture: float, expected: float) -> None:
    assert energy_ratio_db(target, mixture) == pytest.approx(expected)


def test_fit_finds_the_boundary_it_was_given() -> None:
    rng = np.random.default_rng(0)
    detections, ratios = rng.normal(0, 3, 4000), rng.uniform(-40, 0, 4000)
    truth = 2.0 * detections + 0.3 * ratios + 6.0
    present = rng.random(4000) < 1 / (1 + np.exp(-truth))
    rule = fit(detections, ratios, present)
    assert rule.logit == pytest.approx(2.0, rel=0.15)
    assert rule.ratio == pytest.approx(0.3, rel=0.15)
    assert -rule.bias / rule.ratio == pytest.approx(-20.0, abs=2.0)


def test_fit_weighs_both_outcomes_the_same() -> None:
    """Nine in ten present, and nothing to tell by: still an even chance."""
    present = np.arange(1000) % 10 > 0
    rule = fit(np.zeros(1000), np.zeros(1000), present)
    assert rule(0.0, 0.0) == pytest.approx(0.5, abs=1e-3)
