"""A separator that leaves out what other queries name: a target without its negatives.

The target and each negative are separated; where a negative has taken the larger part of a time-frequency point, the
target gives it up. This is Wiener's filter with the estimates' powers in the place of the sources' (Liutkus and Badeau,
"Generalized Wiener filtering with fractional power spectrograms", 2015, with exponent 2):

    result = target * |target|^2 / (|target|^2 + sum over negatives |negative|^2)

It needs nothing but the model's own targets, so it serves every model, the negatives share the model's pass over the
mixture, and a negative that is not in the mixture changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from separation.models.base import ConditionedModel

FRAMES_A_SECOND = 100  # whole seconds lie on the frames' grid, so segments equal the whole
OVERLAP = 4
FLOOR = 1e-12


class Excluding(ConditionedModel):
    """Gives the targets of `model` without those of the negatives.

    Args:
        model: separates targets and negatives.
        negatives: conditions (negatives, dim).
        excluded: which negative each query does without (queries, negatives), of booleans.
    """

    window: Tensor

    def __init__(self, model: ConditionedModel, negatives: Tensor, excluded: Tensor) -> None:
        super().__init__()
        self.model, self.negatives, self.excluded = model, negatives, excluded
        for name in ("sample_rate", "condition_dim", "stride", "segment_seconds", "grid_seconds", "input_level"):
            setattr(self, name, getattr(model, name))
        self.estimates_presence, self.faithful = model.estimates_presence, model.faithful
        self.hop = model.sample_rate // FRAMES_A_SECOND
        self.context = model.context + OVERLAP * self.hop
        self.register_buffer("window", torch.hann_window(OVERLAP * self.hop, device=negatives.device), persistent=False)

    def separate(self, mixture: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """See `ConditionedModel.separate`."""
        queries = conditions.shape[1]
        negatives = self.negatives[None].expand(len(mixture), -1, -1)
        targets, logits = self.model.separate(mixture, torch.cat([conditions, negatives], dim=1))
        left, unwanted = targets[:, :queries], targets[:, queries:]
        return self.without(left, unwanted), logits[:, :queries]

    def without(self, targets: Tensor, unwanted: Tensor) -> Tensor:
        """Targets (batch, queries, channels, time), unwanted (batch, negatives, channels, time): filtered targets."""
        length = targets.shape[-1]
        spectra = self.spectrum(targets)
        power = spectra.abs().square().sum(2, keepdim=True)  # of all channels together: the stereo image stays
        others = self.spectrum(unwanted).abs().square().sum(2)
        others = torch.einsum("qn,bnft->bqft", self.excluded.to(others), others)[:, :, None]
        return self.waveform(spectra * (power / (power + others + FLOOR)), length)

    def spectrum(self, waveform: Tensor) -> Tensor:
        """Waveform (..., time) to (..., bins, frames)."""
        flat = F.pad(waveform.reshape(-1, waveform.shape[-1]), (0, 2 * self.hop))
        size = len(self.window)
        spectrum = torch.stft(flat, size, self.hop, window=self.window, pad_mode="constant", return_complex=True)
        return spectrum.reshape(*waveform.shape[:-1], *spectrum.shape[-2:])

    def waveform(self, spectrum: Tensor, length: int) -> Tensor:
        """Spectrum (..., bins, frames) to (..., length)."""
        flat = spectrum.reshape(-1, *spectrum.shape[-2:])
        waveform = torch.istft(flat, len(self.window), self.hop, window=self.window, length=length)
        return waveform.reshape(*spectrum.shape[:-2], length)
