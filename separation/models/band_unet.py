"""The default separator: a conditioned U-Net on frequency bands, to which a tagger's features of the mixture are added.

The encoder sees the mixture only, so several queries on one recording share it. The decoder is conditioned by FiLM.
The input features do not change with the polarity of the recording, the signs of its channels or their order: band
powers, and products of neighbouring time-frequency bins summed over the channels, which distinguish tones (the phase
advances evenly from frame to frame) from clicks (evenly from bin to bin).

The estimate is one complex mask per band, interpolated to the bins, which multiplies the spectrum of each channel.
Above the network's Nyquist frequency, the gain of its highest bands is carried on. Nothing normalises or attends over
time, so segments with enough context equal the whole.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from separation.models.base import ConditionedModel, Estimate, at_least_single
from separation.models.spectra import STFT, band_matrix
from separation.models.tagger import LATE_DIM, MIDDLE_DIM, PATCHES_PER_SECOND, LogMelPatches, Tagger

POWER_FLOOR = 1e-3  # about -60 dB under white noise of unit variance; codecs leave traces below that
FEATURES = 5
HIGH_BANDS = 8  # of 128 bands: 11 to 16 kHz
FRAMES_PER_SECOND = 8  # of the coarsest grid, if the network has a tagger
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
    """Projects all bands of the coarsest grid to one vector per frame, then convolves in time."""

    def __init__(self, channels: int, bands: int, dim: int) -> None:
        super().__init__()
        self.gather = nn.Conv2d(channels, dim, (bands, 1), bias=False)
        self.norm = nn.BatchNorm2d(dim)
        self.near = nn.Conv2d(dim, dim, (1, 3), padding=(0, 1), bias=False)
        self.near_norm = nn.BatchNorm2d(dim)
        self.far = nn.Conv2d(dim, dim, (1, 3), padding=(0, 3), dilation=(1, 3), bias=False)
        self.far_norm = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor, tagged: Tensor | None = None) -> Tensor:
        """(batch, channels, bands, frames), and what a tagger adds, to (batch, dim, 1, frames)."""
        x = self.norm(self.gather(x))
        x = F.relu(x if tagged is None else x + tagged)
        x = F.relu(x + self.near_norm(self.near(x)))
        return F.relu(x + self.far_norm(self.far(x)))


class TaggerBranch(nn.Module):
    """Runs a tagger on the mixture and projects its features to the frame stream and the bottom of the U-Net."""

    GROUPS = 32  # channels per band into which the middle features are unfolded

    def __init__(self, sample_rate: int, channels: int, bands: int, stream_dim: int) -> None:
        super().__init__()
        self.patches, self.tagger = LogMelPatches(sample_rate), Tagger()
        self.late_norm = nn.BatchNorm1d(LATE_DIM, affine=False)
        self.middle_norm = nn.BatchNorm1d(MIDDLE_DIM, affine=False)
        self.late_to_stream = nn.Linear(LATE_DIM, stream_dim, bias=False)
        self.middle_to_stream = nn.Linear(MIDDLE_DIM, stream_dim, bias=False)
        self.late_to_bottom = nn.Linear(LATE_DIM, channels, bias=False)
        self.middle_to_bands = nn.Linear(MIDDLE_DIM, self.GROUPS * bands, bias=False)
        self.bands_to_bottom = nn.Conv2d(self.GROUPS, channels, 1, bias=False)
        for layer in (self.late_to_stream, self.middle_to_stream, self.late_to_bottom, self.bands_to_bottom):
            nn.init.zeros_(layer.weight)  # an untrained branch leaves the U-Net as it is

    def forward(self, mixture: Tensor, frames: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mixture (batch, channels, time) to features of the patches and what they add on a grid of `frames` frames.

        Returns:
            Late features (batch, patches, 1024), class logits (batch, patches, 521), and what is added to the frame
            stream (batch, stream_dim, 1, frames) and to the bottom (batch, channels, bands, frames).
        """
        patches = self.patches(mixture, (frames - 1) * PATCHES_PER_SECOND // FRAMES_PER_SECOND + 2)
        middle, late = self.tagger(patches)
        tags = self.tagger.classify(late)
        middle_unit = self.middle_norm(middle.flatten(0, 1)).unflatten(0, patches.shape[:2])
        late_unit = self.late_norm(late.flatten(0, 1)).unflatten(0, patches.shape[:2])
        to_stream = self.late_to_stream(late_unit) + self.middle_to_stream(middle_unit)
        to_bottom = interpolate_patches(self.late_to_bottom(late_unit), frames)[:, :, None]
        banded = F.relu(interpolate_patches(self.middle_to_bands(middle_unit), frames)).unflatten(1, (self.GROUPS, -1))
        return late, tags, interpolate_patches(to_stream, frames)[:, :, None], to_bottom + self.bands_to_bottom(banded)


def interpolate_patches(x: Tensor, frames: int) -> Tensor:
    """Interpolate features (batch, patches, dim) linearly to the frames of the coarsest grid (batch, dim, frames)."""
    position = torch.arange(frames, device=x.device, dtype=torch.float32) * (PATCHES_PER_SECOND / FRAMES_PER_SECOND)
    left = position.long()  # the patch after it always exists
    return torch.lerp(x[:, left], x[:, left + 1], (position - left).to(x.dtype)[:, None]).transpose(1, 2)


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
        late, tags: the tagger's late features and class logits (batch, patches, ...), None without a tagger.
    """

    skips: list[Tensor]
    bottom: Tensor
    frames: Tensor
    late: Tensor | None = None
    tags: Tensor | None = None


class BandMaskModel(ConditionedModel):
    """What networks with masks on frequency bands share: presence from a frame stream, and how masks are applied."""

    to_bins: Tensor
    to_bands: Tensor
    advance: Tensor
    detect: nn.Linear
    detect_bias: nn.Parameter

    def register_bands(self, bands: int, linear_bands: int, n_fft: int, hop: int) -> None:
        """Set the matrices between bands and bins, and the turn (bins, 1) of the phase of a bin's tone in one hop."""
        to_bins = band_matrix(bands, n_fft // 2 + 1, linear_bands)
        turn = torch.arange(n_fft // 2 + 1, device="cpu").to(torch.complex64)
        self.register_buffer("to_bins", to_bins, persistent=False)
        self.register_buffer("to_bands", (to_bins / to_bins.sum(0)).T.contiguous(), persistent=False)
        self.register_buffer("advance", torch.exp(-2j * torch.pi * turn * hop / n_fft)[:, None], persistent=False)

    def presence(self, analysis: Analysis, conditions: Tensor) -> Tensor:
        """Conditions (batch, queries, dim) to presence logits over time (batch, queries, frames / 8)."""
        with torch.autocast(conditions.device.type, enabled=False):
            keys = self.detect(self.unit_variance(conditions.float()))
            return keys @ analysis.frames[:, :, 0].float() / keys.shape[-1] ** 0.5 + self.detect_bias

    def unit_variance(self, conditions: Tensor) -> Tensor:
        """Scale conditions of unit length to components of unit variance."""
        return conditions * self.condition_dim**0.5

    def complex_mask(self, x: Tensor, queries: int) -> Tensor:
        """Output of the head (batch * queries, 12, ...) to masks (batch, queries, 2, bands, frames), at most 1."""
        magnitude, real, imaginary = F.pixel_shuffle(x, PATCH).float().unbind(1)
        real = real + 1.0  # an untrained network leaves the phase unchanged
        scale = torch.sigmoid(magnitude) * torch.rsqrt(real.square() + imaginary.square() + 1e-6)
        mask = torch.stack([scale * real, scale * imaginary])
        return rearrange(mask, "part (b q) bands frames -> b q part bands frames", q=queries)

    def high_gain(self, mask: Tensor, features: Tensor) -> Tensor:
        """Gain of the highest bands of masks (batch, queries, 2, bands, frames) over time (batch, queries, frames).

        It is the square root of the share of their power that the mask lets through.
        """
        power = 100 ** features[:, 0, -HIGH_BANDS:]  # (batch, bands, frames); the inverse of `features`
        share = mask[..., -HIGH_BANDS:, :].square().sum(2)  # (batch, queries, bands, frames)
        return ((share * power[:, None]).sum(2) / power.sum(1)[:, None]).sqrt()

    def apply_mask(self, mask: Tensor, spectrum: Tensor) -> Tensor:
        """Masks (batch, queries, 2, bands, frames) times spectrum (batch, channels, bins, frames).

        Returns:
            (batch, queries, channels, bins, frames).
        """
        with torch.autocast(mask.device.type, enabled=False):
            real, imaginary = (self.to_bins @ mask).unbind(2)
        return torch.complex(real, imaginary)[:, :, None] * spectrum[:, None]


class BandUNet(BandMaskModel):
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
        tagger: whether a tagger's features of the mixture are added to the frame stream and to the bottom.
        high_pass: lowest frequency that the network is given, Hz; see `ConditionedModel`.
        carry_high: whether the gain of the highest bands is carried on above the network's Nyquist frequency.

    Raises:
        ValueError: if `n_fft` or `sample_rate` do not fit the hop, or with a tagger, if the coarsest grid does not have
            8 frames per second.
    """

    lists_sounds = True
    prefers_bfloat16 = True

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
        tagger: bool = False,
        high_pass: float = 0.0,
        carry_high: bool = False,
    ) -> None:
        super().__init__()
        if n_fft < 2 * hop or sample_rate % (8 * hop):
            raise ValueError(
                f"hop {hop} must be half of n_fft {n_fft} or less; 8 * hop must divide sample_rate {sample_rate}."
            )
        if tagger and sample_rate != FRAMES_PER_SECOND * 8 * hop:
            raise ValueError(f"A network with a tagger needs a hop of {sample_rate // 64} samples, not {hop}.")
        self.sample_rate, self.condition_dim = sample_rate, condition_dim
        self.high_pass, self.carry_high, self.gain_stride, self.has_tagger = high_pass, carry_high, hop, tagger
        self.stride, self.context = hop * 8, 5 * sample_rate // 2
        self.stft = STFT(n_fft, hop, frame_multiple=8)
        self.register_bands(bands, linear_bands, n_fft, hop)

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
        self.branch = TaggerBranch(sample_rate, c4, bands // 16, stream_dim) if tagger else None
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

    def fold_norms(self) -> None:
        for module in self.modules():
            if isinstance(module, ConvNorm | FrameStream):
                children: list[tuple[str, Any]] = list(module.named_children())  # convolutions, each before its norm
                for (_, conv), (norm_name, norm) in zip(children[::2], children[1::2], strict=True):
                    conv.weight, conv.bias = fuse_conv_bn_weights(
                        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
                    )
                    module.register_module(norm_name, nn.Identity())
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as the maps are

    def features(self, spectrum: Tensor) -> Tensor:
        """Spectrum (batch, channels, bins, frames) to features (batch, 5, bands, frames)."""
        with torch.autocast(spectrum.device.type, enabled=False):
            power = spectrum.abs().square().sum(1)
            along_time = (spectrum[..., 1:] * spectrum[..., :-1].conj()).sum(1) * self.advance
            along_time = F.pad(along_time, (1, 0))
            along_bins = F.pad((spectrum[..., 1:, :] * spectrum[..., :-1, :].conj()).sum(1), (0, 0, 1, 0))
            band_power = self.to_bands @ power
            cross = torch.stack([along_time.real, along_time.imag, along_bins.real, along_bins.imag], dim=1)
            coherence = (self.to_bands @ cross) / (band_power[:, None] + POWER_FLOOR)
            loudness = torch.log10(band_power + POWER_FLOOR) / 2
            return torch.cat([loudness[:, None], coherence.clamp(-2, 2)], dim=1)

    def analyse(self, features: Tensor, mixture: Tensor) -> Analysis:
        """Features (batch, 5, bands, frames) and mixture (batch, channels, time) to what does not depend on a query."""
        patches = F.pixel_unshuffle(features, PATCH).contiguous(memory_format=torch.channels_last)
        x = self.stem(patches)
        x = F.relu(x + self.position.to(x.dtype))  # (batch, c1, bands / 2, frames / 2)
        maps = []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        skips = [skip(x) for skip, x in zip(self.skips, maps, strict=False)]
        bottom = self.bottom_skip(maps[-1])
        # The tagger and the frame stream, 6 % of the operations, decide about presence: no bfloat16 in inference.
        with nullcontext() if self.training else torch.autocast(mixture.device.type, enabled=False):
            coarsest = maps[-1] if self.training else at_least_single(maps[-1])
            if self.branch is None:
                return Analysis(skips, bottom, self.stream(coarsest))
            late, tags, to_stream, to_bottom = self.branch(mixture, bottom.shape[-1])
            return Analysis(skips, bottom + to_bottom, self.stream(coarsest, to_stream), late, tags)

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
        return self.complex_mask(self.head(x), queries)

    def separate(self, mixture: Tensor, conditions: Tensor) -> Estimate:
        spectrum = self.stft(mixture)
        features = self.features(spectrum)
        analysis = self.analyse(features, mixture)
        # One query after another, because the maps of one query fit into the processor's cache. In training, batch
        # norm needs all queries at once.
        at_once = conditions.shape[1] if self.bottom[1].training else 1
        targets, gains = [], []
        for some in conditions.split(at_once, dim=1):
            mask = self.mask(analysis, some)
            targets.append(self.stft.inverse(self.apply_mask(mask, spectrum), mixture.shape[-1]))
            if self.carry_high:
                gains.append(self.high_gain(mask, features))
        gain = torch.cat(gains, dim=1) if gains else None
        return Estimate(torch.cat(targets, dim=1), self.presence(analysis, conditions), analysis.tags, gain)

    def score_presence(self, mixture: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Costs less than separating one query, for any number of queries."""
        analysis = self.analyse(self.features(self.stft(mixture)), mixture)
        return self.presence(analysis, conditions), analysis.tags
