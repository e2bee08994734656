"""The small networks of the weak-supervision studies, and scores at the level that they are used at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from common import Pair, score_pairs
from torch import Tensor

from separation.models.band_unet import BandUNet

RATE = 16000
SECONDS = 3.0


def band_unet(condition_dim: int, seed: int) -> BandUNet:
    """A network of half a million parameters at 16 kHz; a training step of 8 mixtures takes a fraction of a second."""
    torch.manual_seed(seed)
    return BandUNet(
        sample_rate=RATE,
        n_fft=800,
        hop=250,
        bands=64,
        linear_bands=24,
        channels=(24, 40, 64, 96),
        stream_dim=96,
        condition_dim=condition_dim,
    )


def scored(model: BandUNet, encode: Callable[[list[str]], Tensor], pairs: list[Pair]) -> list[float]:
    """SDRi, dB, two values a pair; every mixture comes at the network's input level."""
    levels = [model.input_level / pair.waves.sum(0).square().mean().sqrt() for pair in pairs]
    brought = [replace(pair, waves=pair.waves * level) for pair, level in zip(pairs, levels, strict=True)]
    return score_pairs(model, encode, brought)


def groups(pairs: list[Pair]) -> list[str]:
    """The recording of every value that `scored` gives."""
    return [recording for pair in pairs for recording in pair.recordings]
