"""What is done to sources after they were drawn: equaliser and level, for a whole batch at once, on its device.

`mixing.py` draws clips, cuts and these parameters in worker processes; nothing here is random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

KNOTS = 8  # of the equaliser, evenly spaced in log frequency from 0.4 % of the highest frequency to all of it
LOWEST = 0.004
STOP_DB, SLOPE = 60.0, 0.02  # a low-pass falls by so much within this share of the highest frequency
NO_LOW_PASS = 2.0
SILENT = 1e-5


@dataclass
class Treatment:
    """Parameters of sources' treatment, each tensor (..., slots) as the sources are (..., slots, time).

    filtered: whether the equaliser is applied. knots: (..., slots, 8), its gains, dB. cutoff: of its low-pass, as a
    share of the highest frequency; over one there is none. gain: the source's level afterwards, dB over a root mean
    square of one.
    """

    filtered: Tensor
    knots: Tensor
    cutoff: Tensor
    gain: Tensor


def untreated(slots: int) -> Treatment:
    """A treatment that brings every source to a root mean square of one and does nothing else."""
    return Treatment(
        filtered=torch.zeros(slots, dtype=torch.bool),
        knots=torch.zeros(slots, KNOTS),
        cutoff=torch.full((slots,), NO_LOW_PASS),
        gain=torch.zeros(slots),
    )


def stacked(treatments: Sequence[Treatment]) -> Treatment:
    """Treatments of mixtures as that of their batch."""
    return Treatment(*(torch.stack([getattr(one, f.name) for one in treatments]) for f in fields(Treatment)))


def response(bins: int, knots: Tensor, cutoff: Tensor) -> Tensor:
    """Gain of equalisers at evenly spaced frequencies from zero to the highest.

    Args:
        bins: number of frequencies.
        knots: gains (..., 8), dB; between them they are interpolated along log frequency.
        cutoff: (...), share of the highest frequency.

    Returns:
        (..., bins), linear.
    """
    frequency = torch.linspace(0, 1, bins, device=knots.device)
    position = (KNOTS - 1) * (frequency.clamp_min(LOWEST) / LOWEST).log() / -torch.tensor(LOWEST).log()
    hats = (1 - (position - torch.arange(KNOTS, device=knots.device)[:, None]).abs()).clamp_min(0)  # (8, bins)
    stop = STOP_DB * ((frequency - cutoff[..., None]) / SLOPE).clamp(0, 1)
    return 10 ** ((knots @ hats - stop) / 20)


def treated(waves: Tensor, treatment: Treatment) -> Tensor:
    """Waves (..., slots, time) through their equalisers and at their levels; silent ones stay silent."""
    chosen = treatment.filtered
    if chosen.any():
        waves = waves.clone()
        spectra = torch.fft.rfft(waves[chosen])
        shape = response(spectra.shape[-1], treatment.knots[chosen], treatment.cutoff[chosen])
        waves[chosen] = torch.fft.irfft(spectra * shape, waves.shape[-1])
    level = waves.square().mean(-1).sqrt().clamp_min(SILENT)
    return waves * (10 ** (treatment.gain / 20) / level)[..., None]
