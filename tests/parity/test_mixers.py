"""Mixtures as AudioSep mixes them, with the published code's own draws."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from fixtures import ROOT, needs_fixtures

from separation.data.gains import EnergyGains

BOUNDS = (-10, 10)


class Draws:
    """A generator that gives recorded whole numbers, and looks that the same ones are asked for."""

    def __init__(self, draws):
        self.left = draws.tolist()

    def integers(self, low, high):
        first, last, value = self.left.pop(0)
        assert (low, high) == (first, last + 1)
        return value


@needs_fixtures
@pytest.mark.parametrize("most", [2, 3])
def test_mixtures_are_audioseps(most):
    fixture = np.load(ROOT / "uss" / "fixtures" / f"audiosep_mixer_{most}.npz", allow_pickle=False)
    waves, draws = torch.from_numpy(fixture["waveforms"])[:, 0], Draws(fixture["draws"])
    for number in range(len(waves)):
        sources = draws.integers(2, most + 1)
        chosen = torch.stack([waves[(number + i) % len(waves)] for i in range(sources)])
        gains = EnergyGains(*map(float, BOUNDS))
        scaled = gains.apply(chosen, gains.draw(sources, draws))
        assert np.abs(scaled.sum(0).numpy() - fixture["mixture"][number, 0]).max() < 1e-5
        assert np.abs(scaled[0].numpy() - fixture["segment"][number, 0]).max() < 1e-5
    assert draws.left == []
