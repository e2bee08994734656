"""The default separator: a conditioned U-Net on frequency bands.

The encoder sees the mixture only, so several queries on one recording share it. The decoder is conditioned by FiLM.
The input features do not change with the polarity of the recording, the signs of its channels or their order: band
powers, and products of neighbouring time-frequency bins summed over the channels, which distinguish tones (the phase
advances evenly from frame to frame) from clicks (evenly from bin to bin).

The estimate is one complex mask per band, interpolated to the bins, which multiplies the spectrum of each channel.
Nothing normalises or attends over time, so segments with enough context equal the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from separation.models.base import ConditionedModel
from separation.models.spectra import STFT, band_matrix

POWER_FLOOR = 1e-3  # about -60 dB under white noise of unit variance; codecs leave traces below that
FEATURES = 5
PATCH = 2  # bands and frames that share one position of the finest grid: same detail at a quarter of the cost


class FiLM(nn.Module):
    """Feature-wise linear modulation, x * (1 + scale(condition)) + shift(condition) (Perez et al., 2018)."""

    def __init__(self, condition_dim: int, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(condition_dim, 2 * channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Modulate x (batch, channels, bands, frames) by condition (batch, dim)."""
        scale, shift = self.project(condition).to(x.dtype)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(shift, x, 1 + scale)


class ConvNorm(nn.Sequential):
    """3x3 convolution and batch norm, which is one multiply-add in inference."""

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int] = (1, 1)) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """Two convolutions with a residual connection, on (batch, channels, bands, frames)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = ConvNorm(channels, channels), ConvNorm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class FrameStream(nn.Module):
    """Projects all bands of the coarsest grid to one vector per frame, then convolves in time.

    (batch, channels, bands, frames) to (batch, dim, 1, frames).
    """

    def __init__(self, channels: int, bands: int, dim: int) -> None:
        super().__init__()
        self.gather = nn.Conv2d(channels, dim, (bands, 1), bias=False)
        self.norm = nn.BatchNorm2d(dim)
        self.near = nn.Conv2d(dim, dim, (1, 3), padding=(0, 1), bias=False)
        self.near_norm = nn.BatchNorm2d(dim)
        self.far = nn.Conv2d(dim, dim, (1, 3), padding=(0, 3), dilation=(1, 3), bias=False)
        self.far_norm = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.gather(x)))
        x = F.relu(x + self.near_norm(self.near(x)))
        return F.relu(x + self.far_norm(self.far(x)))


class Decoder(nn.Module):
    """One level of the decoder: upsample, add the encoder's map, convolve, modulate."""

    def __init__(self, inputs: int, outputs: int, condition_dim: int, scale: tuple[int, int]) -> None:
        super().__init__()
        self.scale = tuple(map(float, scale))
        self.reduce = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.conv = ConvNorm(outputs, outputs)
        self.film = FiLM(condition_dim, outputs)

    def forward(self, x: Tensor, skip: Tensor, condition: Tensor) -> Tensor:
        """x (batch * queries, ...), the encoder's map (batch, ...) and condition (batch * queries, dim)."""
        x = F.interpolate(self.reduce(x), scale_factor=self.scale, mode="nearest")
        return F.relu(self.film(self.conv(add_shared(x, skip)), condition))


def add_shared(x: Tensor, shared: Tensor) -> Tensor:
    """Add to x (batch * queries, ...) what the queries of a mixture share (batch, ...), without copying the latter."""
    return (x.unflatten(0, (shared.shape[0], -1)) + shared[:, None]).flatten(0, 1)


@dataclass
class Analysis:
    """Output of the encoder for a mixture, independent of any query.

    Attributes:
        skips: maps for the decoder, finest first, each (batch, channels, bands, frames).
        bottom: map of the coarsest grid (batch, channels, bands / 16, frames / 8).
        frames: output of the frame stream (batch, dim, 1, frames / 8).
    """

    skips: list[Tensor]
    bottom: Tensor
    frames: Tensor


class BandUNet(ConditionedModel):
    """Conditioned U-Net on frequency bands, see above.

    Args:
        sample_rate: Hz.
        n_fft: STFT window in samples.
        hop: STFT hop in samples; `hop * 8` must divide `sample_rate`, so that whole seconds lie on the coarse grid.
        bands: number of bands.
        linear_bands: how many of the lowest bands are single bins.
        channels: at the four resolutions, finest first. The finest grid holds patches of 2 bands x 2 frames.
        stream_dim: channels of the frame stream.
        condition_dim: length of the condition vectors, which have unit length.
    """

    lists_sounds = True

    to_bins: Tensor
    to_bands: Tensor
    advance: Tensor

    def __init__(
        self,
        sample_rate: int = 32000,
        n_fft: int = 1600,
        hop: int = 500,
        bands: int = 128,
        linear_bands: int = 48,
        channels: tuple[int, int, int, int] = (64, 128, 224, 256),
        stream_dim: int = 256,
        condition_dim: int = 256,
    ) -> None:
        super().__init__()
        self.sample_rate, self.condition_dim = sample_rate, condition_dim
        self.stride, self.context = hop * 8, 5 * sample_rate // 2
        self.stft = STFT(n_fft, hop, frame_multiple=8)
        to_bins = band_matrix(bands, n_fft // 2 + 1, linear_bands)
        self.register_buffer("to_bins", to_bins, persistent=False)
        self.register_buffer("to_bands", (to_bins / to_bins.sum(0)).T.contiguous(), persistent=False)
        advance = torch.exp(-2j * torch.pi * torch.arange(n_fft // 2 + 1) * hop / n_fft)
        self.register_buffer("advance", advance.to(torch.complex64)[:, None], persistent=False)

        c1, c2, c3, c4 = channels
        self.stem = ConvNorm(FEATURES * PATCH**2, c1)
        self.position = nn.Parameter(torch.zeros(1, c1, bands // PATCH, 1))
        self.levels = nn.ModuleList([
            nn.Sequential(Residual(c1)),
            nn.Sequential(ConvNorm(c1, c2, (2, 2)), nn.ReLU(), Residual(c2)),
            nn.Sequential(ConvNorm(c2, c3, (2, 2)), nn.ReLU(), Residual(c3)),
            nn.Sequential(ConvNorm(c3, c4, (2, 1)), nn.ReLU(), Residual(c4)),
        ])  # fmt: skip
        self.stream = FrameStream(c4, bands // 16, stream_dim)
        self.skips = nn.ModuleList(nn.Conv2d(c, c, 1, bias=False) for c in channels[:-1])
        self.bottom_skip = nn.Conv2d(c4, c4, 1, bias=False)

        self.query = nn.Sequential(nn.Linear(condition_dim, condition_dim), nn.ReLU())
        self.detect = nn.Linear(condition_dim, stream_dim)
        self.detect_bias = nn.Parameter(torch.tensor(-4.0))
        self.match = nn.Linear(condition_dim, stream_dim)
        self.matched = nn.Conv2d(stream_dim, c4, 1, bias=False)
        self.bottom = ConvNorm(c4, c4)
        self.bottom_film = FiLM(condition_dim, c4)
        self.decoders = nn.ModuleList([
            Decoder(c4, c3, condition_dim, (2, 1)),
            Decoder(c3, c2, condition_dim, (2, 2)),
            Decoder(c2, c1, condition_dim, (2, 2)),
        ])  # fmt: skip
        self.head = nn.Conv2d(c1, 3 * PATCH**2, 1)

    def features(self, spectrum: Tensor) -> Tensor:
        """Spectrum (batch, channels, bins, frames) to features (batch, 5, bands, frames)."""
        power = spectrum.abs().square().sum(1)
        along_time = (spectrum[..., 1:] * spectrum[..., :-1].conj()).sum(1) * self.advance
        along_time = F.pad(along_time, (1, 0))
        along_bins = F.pad((spectrum[..., 1:, :] * spectrum[..., :-1, :].conj()).sum(1), (0, 0, 1, 0))
        band_power = self.to_bands @ power
        cross = torch.stack([along_time.real, along_time.imag, along_bins.real, along_bins.imag], dim=1)
        coherence = (self.to_bands @ cross) / (band_power[:, None] + POWER_FLOOR)
        loudness = torch.log10(band_power + POWER_FLOOR) / 2
        return torch.cat([loudness[:, None], coherence.clamp(-2, 2)], dim=1)

    def analyse(self, features: Tensor) -> Analysis:
        """Features (batch, 5, bands, frames) to everything that does not depend on a query."""
        patches = F.pixel_unshuffle(features, PATCH).contiguous(memory_format=torch.channels_last)
        x = F.relu(self.stem(patches) + self.position)  # (batch, c1, bands / 2, frames / 2)
        maps = []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        skips = [skip(x) for skip, x in zip(self.skips, maps, strict=False)]
        return Analysis(skips, self.bottom_skip(maps[-1]), self.stream(maps[-1]))

    def presence(self, analysis: Analysis, conditions: Tensor) -> Tensor:
        """Conditions (batch, queries, dim) to presence logits over time (batch, queries, frames / 8)."""
        keys = self.detect(self.unit_variance(conditions))
        return keys @ analysis.frames[:, :, 0].to(keys.dtype) / keys.shape[-1] ** 0.5 + self.detect_bias

    def unit_variance(self, conditions: Tensor) -> Tensor:
        """Scale conditions of unit length to components of unit variance."""
        return conditions * self.condition_dim**0.5

    def mask(self, analysis: Analysis, conditions: Tensor) -> Tensor:
        """Conditions (batch, queries, dim) to masks (batch, queries, 2, bands, frames), real and imaginary part."""
        queries = conditions.shape[1]
        condition = self.query(rearrange(self.unit_variance(conditions), "b q dim -> (b q) dim"))
        key = rearrange(self.match(condition).to(analysis.frames.dtype), "(b q) dim -> b q dim 1 1", q=queries)
        matched = rearrange(analysis.frames[:, None] * key, "b q dim 1 frames -> (b q) dim 1 frames")
        bands = analysis.bottom.shape[2]
        x = add_shared(self.matched(F.relu(matched)).expand(-1, -1, bands, -1), analysis.bottom)
        x = F.relu(self.bottom_film(self.bottom(x), condition))
        for decoder, skip in zip(self.decoders, reversed(analysis.skips), strict=True):
            x = decoder(x, skip, condition)
        magnitude, real, imaginary = F.pixel_shuffle(self.head(x), PATCH).float().unbind(1)
        real = real + 1.0  # an untrained network leaves the phase unchanged
        scale = torch.sigmoid(magnitude) * torch.rsqrt(real.square() + imaginary.square() + 1e-6)
        mask = torch.stack([scale * real, scale * imaginary])
        return rearrange(mask, "part (b q) bands frames -> b q part bands frames", q=queries)

    def separate(self, mixture: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """See `ConditionedModel.separate`."""
        spectrum = self.stft(mixture)
        analysis = self.analyse(self.features(spectrum))
        # One query after another, because the maps of one query fit into the processor's cache. In training, batch
        # norm needs all queries at once.
        at_once = conditions.shape[1] if self.bottom[1].training else 1
        targets = [
            self.stft.inverse(self.apply_mask(self.mask(analysis, some), spectrum), mixture.shape[-1])
            for some in conditions.split(at_once, dim=1)
        ]
        return torch.cat(targets, dim=1), self.presence(analysis, conditions)

    def apply_mask(self, mask: Tensor, spectrum: Tensor) -> Tensor:
        """Masks (batch, queries, 2, bands, frames) times spectrum (batch, channels, bins, frames).

        Returns:
            (batch, queries, channels, bins, frames).
        """
        with torch.autocast(mask.device.type, enabled=False):
            real, imaginary = (self.to_bins @ mask).unbind(2)
        return torch.complex(real, imaginary)[:, :, None] * spectrum[:, None]

    def presence_logits(self, mixture: Tensor, conditions: Tensor) -> Tensor:
        """See `ConditionedModel.presence_logits`. Costs half of separating one query, for any number of queries."""
        return self.presence(self.analyse(self.features(self.stft(mixture))), conditions)
