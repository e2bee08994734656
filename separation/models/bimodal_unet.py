"""The conditioned U-Net of bi-modal weak supervision.

Mahmud et al., "Weakly-supervised Audio Separation via Bi-modal Semantic Similarity", 2024. The text enters twice: the
hidden states of CLAP's text tower by cross-attention on the three coarsest grids, and its embedding as the weights of
32 maps, as in CLIPSep. One condition vector holds both (`pack`). Tensors keep their released names.
"""

from __future__ import annotations

from collections import OrderedDict

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
    apply_shared_masks,
    at_least_single,
    double,
    halve,
)
from separation.models.spectra import STFT

SLOPE = 0.2
N_FFT, HOP = 1022, 256
SEGMENT = 131070  # samples of a training clip: 512 bins x 512 frames
GRID = 128  # frames are padded to multiples of this: seven levels, each of half the frames
WINDOWS = Windows(512, 375)  # frames: a training clip, every 6 s
HEADS = 8
MAPS = 32
CHANNELS, MULTIPLES = 64, (1, 2, 4, 8, 8, 8, 8)  # of the levels
CONDITIONED = (4, 5, 6)  # levels with attention
TOKENS, WIDTH, EMBEDDING = 77, 768, 512  # of the text tower


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Multi-head attention of queries (batch, points, dim) to keys and values (batch, tokens, dim)."""
    q, k, v = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Attention among the points of the grid (batch, points, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj(attend(q, k, v))


class CrossAttention(nn.Module):
    """Attention of the points to the tokens of the text; states of zero count as padding.

    The published network was trained with visible padding, because its encoder gives padding states of its own.
    """

    def __init__(self, dim: int, context: int) -> None:
        super().__init__()
        self.q, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(context, 2 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """(batch, points, dim) and hidden states (batch, tokens, context) to (batch, points, dim)."""
        k, v = self.kv(hidden).chunk(2, dim=-1)
        seen = hidden.abs().amax(-1) > 0
        seen = seen | ~seen.any(-1, keepdim=True)  # all of them if all are zero
        return self.proj(attend(self.q(x), k, v, seen[:, None, None]))


class AttentionBlock(nn.Module):
    """Attention and a perceptron, each with layer norm and a residual connection, on (batch, points, dim)."""

    def __init__(self, dim: int, attention: nn.Module) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), attention
        layers = OrderedDict(fc1=nn.Linear(dim, 2 * dim), activation=nn.GELU(), fc2=nn.Linear(2 * dim, dim))
        self.norm2, self.mlp = nn.LayerNorm(dim), nn.Sequential(layers)

    def forward(self, x: Tensor, *hidden: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), *hidden)
        return x + self.mlp(self.norm2(x))


class Conditioning(nn.Module):
    """Self-attention of the grid (batch, dim, rows, frames), then cross-attention to the text.

    `norm1` exists in the released files but is not used.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.sa_block = AttentionBlock(dim, SelfAttention(dim))
        self.ca_block = AttentionBlock(dim, CrossAttention(dim, WIDTH))

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        points = self.ca_block(self.sa_block(x.flatten(2).transpose(1, 2)), hidden)
        return points.transpose(1, 2).unflatten(2, (x.shape[2], -1))


class Residual(nn.Module):
    """A 3x3 convolution with batch norm and a residual connection, on (batch, channels, rows, frames)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layer = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels))
        self.res_layers = nn.ModuleList([layer])

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.res_layers[0](x) + x, SLOPE)


class Level(nn.Module):
    """One level: down, residual block, attention on some levels, all coarser levels, up."""

    def __init__(self, level: int, inputs: int, outputs: int, channels: int) -> None:
        super().__init__()
        width, self.outer, inner = channels * MULTIPLES[level], level == 0, level == len(MULTIPLES) - 1
        self.downconv, self.downnorm, self.downresblock = halve(inputs, width), nn.BatchNorm2d(width), Residual(width)
        if level in CONDITIONED:
            self.ca_blocks = nn.ModuleList([Conditioning(width)])
        if not inner:
            self.submodule = Level(level + 1, width, width, channels)
        coarse = width if inner else 2 * width
        self.upresblock = Residual(coarse)
        self.upconv = nn.Conv2d(coarse, outputs, 3, padding=1, bias=self.outer)
        if not self.outer:
            self.upnorm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """(batch, inputs, rows, frames) to (batch, outputs, rows, frames), with x before it but for the finest."""
        y = self.downresblock(F.leaky_relu(self.downnorm(self.downconv(x)), SLOPE))
        for block in getattr(self, "ca_blocks", ()):
            y = block(y, hidden)
        if hasattr(self, "submodule"):
            y = self.submodule(y, hidden)
        y = self.upconv(self.upresblock(double(y)))
        return y if self.outer else torch.cat([x, F.relu(self.upnorm(y))], dim=1)


def pack(embedding: Tensor, hidden: Tensor) -> Tensor:
    """Text embedding (..., 512) and hidden states (..., 77, 768) to one condition (..., 59648)."""
    return torch.cat([embedding, hidden.flatten(-2)], dim=-1)


class BiModalUNet(ConditionedModel):
    """The separator of bi-modal weak supervision, see above. Its conditions are made by `pack`.

    Args:
        faithful: use the published inference: channel by channel, in segments of 131070 samples without overlap.
        channels: of the finest level, a multiple of the number of attention heads, 8; 64 was published.
    """

    sample_rate = 16000
    condition_dim = EMBEDDING + TOKENS * WIDTH
    stride, context = HOP * WINDOWS.hop, HOP * WINDOWS.context + N_FFT
    segment_seconds = 64  # memory is determined by the windows
    grid_seconds = 6
    input_level = 0.1
    has_published_inference = True
    estimates_presence = False

    def __init__(self, faithful: bool = False, channels: int | None = None) -> None:
        super().__init__()
        self.faithful = faithful
        self.stft = STFT(N_FFT, HOP, None, "reflect")
        self.net_sound = NormalisedUNet(1, Level(0, 1, MAPS, channels or CHANNELS))
        project = nn.Linear(EMBEDDING, MAPS)
        nn.init.normal_(project.weight, 0.0, 1e-4)  # as published: queries start out nearly equal
        self.net_clap = nn.ModuleDict({"fc": project})
        self.net_synthesizer = InnerProduct(MAPS)

    def mask(self, magnitude: Tensor, condition: Tensor) -> Tensor:
        """Magnitude (batch, 512, frames) and condition (batch, 59648) to the soft mask (batch, 512, frames)."""
        embedding, hidden = condition.split([EMBEDDING, TOKENS * WIDTH], dim=-1)
        maps = self.net_sound(torch.log1p(magnitude)[:, None], hidden.unflatten(-1, (TOKENS, WIDTH)))
        query = torch.sigmoid(self.net_clap["fc"](embedding))[:, None]
        return torch.sigmoid(at_least_single(self.net_synthesizer(query, maps)[:, 0]))

    def separate(self, mixture: Tensor, conditions: Tensor) -> Estimate:
        batch, channels, length = mixture.shape
        if self.faithful:
            pieces = rearrange(F.pad(mixture, (0, -length % SEGMENT)), "b c (n t) -> (b c n) 1 t", t=SEGMENT)
            each = conditions.repeat_interleave(len(pieces) // batch, 0)
            parts = [self._separate_jointly(p, c) for p, c in zip(pieces.split(1), each.split(1), strict=True)]
            targets = rearrange(torch.cat(parts), "(b c n) q 1 t -> b q c (n t)", b=batch, c=channels)
        else:
            frames = length // HOP + 1
            if frames <= WINDOWS.size:
                frames += -frames % GRID  # of all levels
            else:
                frames = (WINDOWS.count(frames) - 1) * WINDOWS.hop + WINDOWS.size  # whole windows
            targets = self._separate_jointly(F.pad(mixture, (0, max(0, (frames - 1) * HOP - length))), conditions)
        return Estimate(targets[..., :length], mixture.new_zeros(*conditions.shape[:2], 1))

    def _separate_jointly(self, mixture: Tensor, conditions: Tensor) -> Tensor:
        """Apply one mask to all channels: (batch, channels, time) to (batch, queries, channels, time).

        The network never sees more than a training clip, because it attends over its whole input.
        """

        def mask(magnitude: Tensor, condition: Tensor) -> Tensor:
            if magnitude.shape[-1] <= WINDOWS.size:
                return self.mask(magnitude, condition)
            return WINDOWS.process(magnitude, lambda window: self.mask(window, condition))

        return apply_shared_masks(self.stft, mask, mixture, conditions)
