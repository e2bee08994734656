"""What bi-modal training needs of separators and joint encoders: spectra, and embeddings with gradients."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from separation.encoders.base import EncoderError, QueryEncoder
from separation.encoders.table import RandomEncoder
from separation.models.band_unet import BandUNet
from separation.models.base import ConditionedModel
from separation.models.bimodal_unet import HOP, BiModalUNet

CELL = 128  # frames of BiModalUNet's coarsest grid


class SpectralView(Protocol):
    """Spectra of a separator before and after its masks."""

    def compared(self, waveform: Tensor) -> Tensor:
        """Spectra that losses compare: waveforms (..., time) -> (..., bins, frames)."""

    def estimates(self, mixture: Tensor, conditions: Tensor) -> Tensor:
        """Estimates of a mixture (batch, time) by conditions (batch, queries, dim): (batch, queries, bins, frames)."""

    def waveforms(self, estimates: Tensor, mixture: Tensor) -> Tensor:
        """Estimates (batch, queries, bins, frames) and their mixture (batch, time) -> (batch, queries, time)."""


class Bands:
    """View of `BandUNet`, which changes the phase: complex spectra.

    They are scaled to the level of the published network's mixtures, on which the weights of the losses depend.
    """

    def __init__(self, model: BandUNet, level: float = 0.1) -> None:
        self.model, self.scale = model, level / model.input_level

    def compared(self, waveform: Tensor) -> Tensor:
        return self.scale * self.model.stft(waveform)

    def estimates(self, mixture: Tensor, conditions: Tensor) -> Tensor:
        with torch.autocast(mixture.device.type, enabled=False):
            spectrum = self.model.stft(mixture)
            features = self.model.features(spectrum[:, None])
        mask = self.model.mask(self.model.analyse(features), conditions)
        with torch.autocast(mixture.device.type, enabled=False):
            real, imaginary = (self.model.to_bins @ mask).unbind(2)  # each (batch, queries, bins, frames)
            return torch.complex(real, imaginary) * (self.scale * spectrum)[:, None]

    def waveforms(self, estimates: Tensor, mixture: Tensor) -> Tensor:
        return self.model.stft.inverse(estimates / self.scale, mixture.shape[-1])


class Magnitudes:
    """View of `BiModalUNet`, which scales magnitudes and keeps the mixture's phase."""

    def __init__(self, model: BiModalUNet) -> None:
        self.model = model

    def spectrum(self, waveform: Tensor) -> Tensor:
        """Complex spectrum of waveforms (..., time), padded to whole cells of the network's coarsest grid."""
        frames = waveform.shape[-1] // HOP + 1
        return self.model.stft(F.pad(waveform, (0, -frames % CELL * HOP)))

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


def spectral_view(model: ConditionedModel) -> SpectralView:
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


class JointSpace:
    """The joint audio-text space of an encoder, with gradients from recordings; texts have none.

    Args:
        encoder: `JointEncoder`, `ClapEncoder`, or an encoder whose attribute `clap` is one.

    Raises:
        EncoderError: the encoder has no joint space.
    """

    def __init__(self, encoder: QueryEncoder) -> None:
        if not {"text", "audio"} <= encoder.modalities:
            raise EncoderError(f"{type(encoder).__name__} does not put texts and recordings into one space.")
        self.encoder = encoder

    @property
    def joint(self) -> Any:
        """The encoder itself or its CLAP, which may be loaded at its first use."""
        return getattr(self.encoder, "clap", self.encoder)

    @torch.no_grad()
    def text(self, texts: list[str]) -> Tensor:
        """Texts to unit vectors (texts, dim)."""
        return self.joint.encode_text(texts)

    def audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Recordings (batch, time) to unit vectors (batch, dim)."""
        if isinstance(self.encoder, RandomEncoder):  # has no weights: the first samples let gradients through
            size = self.encoder.embedding_dim
            return F.normalize(F.pad(waveform, (0, max(0, size - waveform.shape[-1])))[:, :size], dim=-1)
        return self.joint.embed_audio(resample(waveform, sample_rate, self.joint.sample_rate))
