"""Spectra of separators before and after their masks, which bi-modal training compares, and resampling."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from separation.models.band_unet import BandUNet
from separation.models.base import ConditionedModel
from separation.models.bimodal_unet import GRID, HOP, BiModalUNet


class Bands:
    """View of `BandUNet`, which changes the phase: complex spectra.

    They are scaled to the level of the published network's mixtures, on which the weights of the losses depend.
    """

    def __init__(self, model: BandUNet, level: float = 0.1) -> None:
        self.model, self.scale = model, level / model.input_level

    def compared(self, waveform: Tensor) -> Tensor:
        """Spectra that losses compare: waveforms (..., time) -> (..., bins, frames)."""
        return self.scale * self.model.stft(waveform)

    def estimates(self, mixture: Tensor, conditions: Tensor) -> Tensor:
        """Estimates of a mixture (batch, time) by conditions (batch, queries, dim): (batch, queries, bins, frames)."""
        with torch.autocast(mixture.device.type, enabled=False):
            spectrum = self.model.stft(mixture)[:, None]
            features = self.model.features(spectrum)
        mask = self.model.mask(self.model.analyse(features), conditions)
        return self.model.apply_mask(mask, self.scale * spectrum)[:, :, 0]

    def waveforms(self, estimates: Tensor, mixture: Tensor) -> Tensor:
        """Estimates (batch, queries, bins, frames) and their mixture (batch, time) -> (batch, queries, time)."""
        return self.model.stft.inverse(estimates / self.scale, mixture.shape[-1])


class Magnitudes:
    """View of `BiModalUNet`, which scales magnitudes and keeps the mixture's phase. Methods as in `Bands`."""

    def __init__(self, model: BiModalUNet) -> None:
        self.model = model

    def spectrum(self, waveform: Tensor) -> Tensor:
        """Complex spectrum of waveforms (..., time), padded to whole cells of the network's coarsest grid."""
        frames = waveform.shape[-1] // HOP + 1
        return self.model.stft(F.pad(waveform, (0, -frames % GRID * HOP)))

    def compared(self, waveform: Tensor) -> Tensor:
        return self.spectrum(waveform).abs()

    def estimates(self, mixture: Tensor, conditions: Tensor) -> Tensor:
        magnitude, queries = self.compared(mixture), conditions.shape[1]
        masks = self.model.mask(magnitude.repeat_interleave(queries, 0), conditions.flatten(0, 1))
        return masks.unflatten(0, (-1, queries)) * magnitude[:, None]

    def waveforms(self, estimates: Tensor, mixture: Tensor) -> Tensor:
        spectrum = self.spectrum(mixture)
        phase = torch.polar(torch.ones_like(spectrum.real), spectrum.angle())
        padded = (spectrum.shape[-1] - 1) * HOP
        return self.model.stft.inverse(estimates * phase[:, None], padded + HOP - 1)[..., : mixture.shape[-1]]


def spectral_view(model: ConditionedModel) -> Bands | Magnitudes:
    """View of a separator.

    Raises:
        TypeError: the network is neither `BandUNet` nor `BiModalUNet`.
    """
    if isinstance(model, BandUNet):
        return Bands(model)
    if isinstance(model, BiModalUNet):
        return Magnitudes(model)
    raise TypeError(f"bi-modal training knows BandUNet and BiModalUNet, not {type(model).__name__}")


def resample(waveform: Tensor, source_rate: int, target_rate: int) -> Tensor:
    """Resample waveforms (..., time) by their Fourier transform, which has gradients."""
    if source_rate == target_rate:
        return waveform
    length = round(waveform.shape[-1] * target_rate / source_rate)
    spectrum = torch.fft.rfft(waveform)
    spectrum = F.pad(spectrum, (0, length // 2 + 1 - spectrum.shape[-1]))
    return torch.fft.irfft(spectrum, length) * (length / waveform.shape[-1])
