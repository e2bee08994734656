"""CLIPSep and related networks: conditioned U-Nets that estimate masks on a log-frequency axis.

Dong et al., "CLIPSep: Learning Text-queried Sound Separation with Noisy Unlabeled Videos", 2023, after Zhao et al.,
"The Sound of Pixels", 2018. The variants published with it, with their released tensor names:

- late fusion (CLIPSep, BERTSep, SOP): the U-Net estimates 32 maps, which the query weights;
- with noise heads (CLIPSep-NIT): two more masks, from the projected query, capture what no query explains;
- with a table of labels (LabelSep), whose rows replace CLIP vectors;
- without a query (PIT): two masks in arbitrary order; a condition of two numbers selects or mixes them;
- early and middle fusion: the query joins the input, or the coarsest grid.

Only in the last two do the maps depend on the query; elsewhere several queries share one pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from separation.models.base import (
    ConditionedModel,
    Estimate,
    InnerProduct,
    NormalisedUNet,
    Windows,
    at_least_single,
    double,
    halve,
)
from separation.models.spectra import STFT, log_frequency, resample_rows

SLOPE = 0.2
N_FFT, HOP = 1024, 256
ROWS, BINS = 256, N_FFT // 2 + 1
PERIOD = 65535  # samples of a training clip; k of them give 256 k frames
WINDOWS = Windows(256, 125)  # frames: a training clip, every 2 s
EPSILON = 1e-10
FUSIONS = ("late", "early", "middle", "none")


def widths(layers: int, finest: int) -> list[int]:
    """Channels of each level, finest first."""
    return [finest, 2 * finest, 4 * finest] + [8 * finest] * (layers - 3)


def up(inputs: int, outputs: int, bias: bool = False) -> nn.Conv2d:
    """Convolution after upsampling."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


class Level(nn.Module):
    """One level of the late-fusion U-Net: down, all coarser levels, up. Layers are numbered as released."""

    def __init__(self, sizes: list[int], level: int, inputs: int, outputs: int) -> None:
        super().__init__()
        width, self.outer = sizes[level], level == 0
        activate, upsample = nn.LeakyReLU(SLOPE), nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=True)
        if level == len(sizes) - 1:
            layers = [activate, halve(inputs, width), nn.ReLU(), upsample, up(width, outputs), nn.BatchNorm2d(outputs)]
        else:
            coarser = Level(sizes, level + 1, width, width)
            layers = [halve(inputs, width), coarser, nn.ReLU(), upsample, up(2 * width, outputs, bias=self.outer)]
            if not self.outer:
                layers = [activate, layers[0], nn.BatchNorm2d(width), *layers[1:], nn.BatchNorm2d(outputs)]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, rows, frames) to (batch, outputs, rows, frames), with x before it but for the finest."""
        return self.model(x) if self.outer else torch.cat([x, self.model(x)], dim=1)


class NamedLevel(nn.Module):
    """One level of the middle-fusion U-Net: as `Level`, with batch norm on all levels; the query joins the coarsest."""

    def __init__(self, sizes: list[int], level: int, inputs: int, outputs: int, query: int) -> None:
        super().__init__()
        width, self.outer, self.inner = sizes[level], level == 0, level == len(sizes) - 1
        self.downconv, self.downnorm = halve(inputs, width), nn.BatchNorm2d(width)
        if not self.inner:
            self.submodule = NamedLevel(sizes, level + 1, width, width, query)
        self.upconv = up(width + (query if self.inner else width), outputs, bias=self.outer)
        if not self.outer:
            self.upnorm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor, query: Tensor) -> Tensor:
        """(batch, inputs, rows, frames) and query (batch, dim) to the output of `Level`."""
        y = F.leaky_relu(self.downnorm(self.downconv(x)), SLOPE)
        y = self.upconv(double(concatenate_query(y, query) if self.inner else self.submodule(y, query)))
        return y if self.outer else torch.cat([x, F.relu(self.upnorm(y))], dim=1)


def concatenate_query(x: Tensor, query: Tensor) -> Tensor:
    """Append query (batch, dim) to the channels of x (batch, channels, rows, frames) at every point."""
    return torch.cat([x, query[:, :, None, None].expand(-1, -1, *x.shape[2:])], dim=1)


class CLIPSepUNet(ConditionedModel):
    """CLIPSep and related networks, see above.

    Args:
        condition_dim: 512 for CLIP vectors (not normalised), 256 for BERTSep; 2 if `fusion` is "none".
        fusion: how the query enters: "late", "early", "middle" or "none" (PIT).
        noise_heads: 2 for CLIPSep-NIT.
        labels: rows of the label table, for LabelSep.
        channels: maps that the U-Net estimates.
        layers: levels of the U-Net, at least 5.
        faithful: use the published inference: channel by channel, the whole recording at once, samples clipped to
            [-1, 1], a binary mask.
        width: channels of the finest level; 64 was published.
        published_start: initialise the weights as published: so small that all masks are close to one half, above or
            below it by the seed (0.48 to 0.51), and constant in inference.

    Raises:
        ValueError: if `fusion` is unknown or there are too few layers.
    """

    among_bins: Tensor
    among_rows: Tensor
    sample_rate = 16000
    stride, context = HOP * WINDOWS.hop, HOP * WINDOWS.context + N_FFT
    segment_seconds = 60  # memory is determined by the windows
    grid_seconds = 2
    input_level = 0.1
    has_published_inference = True
    estimates_presence = False
    binary = True  # masks of the published inference; its evaluation has soft ones

    def __init__(
        self,
        condition_dim: int = 512,
        fusion: str = "late",
        noise_heads: int = 0,
        labels: int = 0,
        channels: int = 32,
        layers: int = 7,
        faithful: bool = False,
        width: int = 64,
        published_start: bool = False,
    ) -> None:
        super().__init__()
        if fusion not in FUSIONS or layers < 5:
            raise ValueError(f"fusion must be one of {', '.join(FUSIONS)} and layers at least 5.")
        self.fusion, self.faithful, self.frame_multiple = fusion, faithful, 2**layers
        self.condition_dim = 2 if fusion == "none" else condition_dim
        self.stft = STFT(N_FFT, HOP, None, double=True)  # the logarithm amplifies rounding in nearly silent bins
        among_bins, among_rows = log_frequency(ROWS, BINS)
        self.register_buffer("among_bins", among_bins, persistent=False)
        self.register_buffer("among_rows", among_rows, persistent=False)

        inputs, outputs = (1 + channels if fusion == "early" else 1), (1 if fusion in ("early", "middle") else channels)
        sizes, middle = widths(layers, width), fusion == "middle"
        unet = NamedLevel(sizes, 0, inputs, outputs, channels) if middle else Level(sizes, 0, inputs, outputs)
        self.sound_net = NormalisedUNet(inputs, unet)
        self.synth_net: nn.Module
        if fusion == "none":
            self.synth_net = nn.Conv2d(channels, 2, 1)
        else:
            project = nn.Linear(self.condition_dim, channels)
            self.frame_net: nn.Module = nn.ModuleDict({"fc": project}) if fusion == "early" else project
            if fusion != "early":
                self.synth_net = InnerProduct(channels)  # released with middle fusion too, which does not use it
            if noise_heads:
                self.pit_nets = nn.ModuleList(nn.Linear(channels, channels) for _ in range(noise_heads))
            if labels:
                self.label_net = nn.Embedding(labels, self.condition_dim)
        for part in self.modules() if published_start else ():
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, 0.0, 0.001)
            elif isinstance(part, nn.BatchNorm2d):
                nn.init.normal_(part.weight, 1.0, 0.02)
            elif isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, 0.0, 1e-4)

    def project(self, conditions: Tensor) -> Tensor:
        """Conditions (batch, n, dim) to projected queries (batch, n, channels), before the sigmoid."""
        return (self.frame_net["fc"] if isinstance(self.frame_net, nn.ModuleDict) else self.frame_net)(conditions)

    def logits(self, features: Tensor, conditions: Tensor) -> Tensor:
        """Features (batch, 1, 256, frames) and conditions (batch, n, dim) to logits (batch, n, 256, frames)."""
        queries = torch.sigmoid(self.project(conditions))
        if self.fusion == "early":
            fused = [self.sound_net(concatenate_query(features, query)) for query in queries.unbind(1)]
            return torch.cat(fused, dim=1)
        if self.fusion == "middle":
            return torch.cat([self.sound_net(features, query) for query in queries.unbind(1)], dim=1)
        return self.synth_net(queries, self.sound_net(features))

    def masks(self, features: Tensor, conditions: Tensor) -> Tensor:
        """Soft masks on the log-frequency axis (batch, n, 256, frames)."""
        if self.fusion == "none":
            both = torch.sigmoid(self.synth_net(self.sound_net(features)))
            return torch.einsum("bqk,bkft->bqft", conditions, both)
        return torch.sigmoid(self.logits(features, conditions))

    def masks_with_noise(self, features: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Soft masks of queries (batch, n, 256, frames) and of noise heads (batch, heads, 256, frames), in one pass.

        The noise heads take the mean of the projected queries.
        """
        maps, projected = self.sound_net(features), self.project(conditions)
        noise = torch.stack([torch.sigmoid(head(projected.mean(1))) for head in self.pit_nets], dim=1)
        targets = torch.sigmoid(self.synth_net(torch.sigmoid(projected), maps))
        return targets, torch.sigmoid(self.synth_net(noise, maps))

    def features(self, magnitude: Tensor) -> Tensor:
        """Magnitude (batch, 513, frames) to log-magnitude on the log-frequency axis (batch, 1, 256, frames)."""
        return torch.log(self.rows((magnitude + EPSILON)[:, None]))

    def rows(self, magnitude: Tensor) -> Tensor:
        """Magnitude (batch, n, 513, frames) to the log-frequency axis (batch, n, 256, frames)."""
        return resample_rows(magnitude, self.among_bins)

    def as_scored(self) -> CLIPSepUNet:
        other: Any = super().as_scored()
        other.binary = False
        return other

    def separate(self, mixture: Tensor, conditions: Tensor) -> Estimate:
        return Estimate(self._apply_masks(self.masks, mixture, conditions), mixture.new_zeros(*conditions.shape[:2], 1))

    def separate_noise(self, mixture: Tensor, conditions: Tensor) -> Tensor:
        """Output of the noise heads: (batch, channels, time) to (batch, heads, channels, time)."""
        return self._apply_masks(lambda *inputs: self.masks_with_noise(*inputs)[1], mixture, conditions)

    def _apply_masks(self, masks: Callable[[Tensor, Tensor], Tensor], mixture: Tensor, conditions: Tensor) -> Tensor:
        """Estimate masks from the mixture (batch, channels, time) and apply them: (batch, masks, channels, time)."""
        channels, length = mixture.shape[1:]
        if self.faithful:
            mixture = rearrange(mixture.clamp(-1, 1), "b c t -> (b c) 1 t")
            conditions = conditions.repeat_interleave(channels, 0)
        # As published, mixtures of up to a training clip are repeated to whole periods and processed at once.
        at_once = self.faithful or length < PERIOD
        spectrum = self.stft(repeat_to_period(mixture) if at_once else mixture)
        features = self.features(spectrum.abs().square().sum(1).sqrt())

        def compute(window: Tensor) -> Tensor:
            frames = window.shape[-1]
            return masks(F.pad(window, (0, -frames % self.frame_multiple)), conditions)[..., :frames]

        mask = at_least_single(compute(features) if at_once else WINDOWS.process(features, compute))
        mask = resample_rows(mask, self.among_rows)
        if self.faithful and self.binary:
            mask = (mask > 0.5).to(mask.dtype)
        targets = self.stft.inverse(mask[:, :, None] * spectrum[:, None], length)
        if self.faithful:
            return rearrange(targets.clamp(-1, 1), "(b c) q 1 t -> b q c t", c=channels)
        return targets


def repeat_to_period(mixture: Tensor) -> Tensor:
    """Repeat (..., time) up to the next multiple of a training clip, at least one more sample than it has."""
    length = mixture.shape[-1]
    wanted = PERIOD * (length // PERIOD + 1)
    return mixture.repeat(*[1] * (mixture.ndim - 1), -(-wanted // max(length, 1)))[..., :wanted]
