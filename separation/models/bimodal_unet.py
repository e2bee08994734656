"""The conditioned U-Net of bi-modal weak supervision: a text steers it at its coarsest grids and weighs its maps.

Mahmud et al., "Weakly-supervised Audio Separation via Bi-modal Semantic Similarity", 2024. The text enters twice: the
hidden states of CLAP's text tower by cross-attention at the three coarsest grids, and its embedding as the weights of
32 maps, as in CLIPSep. Both travel in one condition vector (`pack`). Tensors keep their released names.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.models.base import ConditionedModel, at_least_single
from separation.models.windows import count, in_windows, reach

SLOPE = 0.2
N_FFT, HOP = 1022, 256
SEGMENT = 131070  # samples of a training clip: 512 bins x 512 frames
GRID = 128  # frames are padded to multiples of this: seven levels, each of half the frames
WINDOW, WINDOW_HOP = 512, 375  # frames: a training clip; 6 s, which lie on the grid of whole seconds
HEADS = 8
MAPS = 32
CHANNELS, MULTIPLES = 64, (1, 2, 4, 8, 8, 8, 8)  # of the levels
CONDITIONED = (4, 5, 6)  # levels with attention
TOKENS, WIDTH, EMBEDDING = 77, 768, 512  # of the text tower


def heads(x: Tensor) -> Tensor:
    """(batch, tokens, dim) -> (batch, heads, tokens, dim / heads)."""
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    """Attention of `heads`-shaped queries to keys and values, those that are `seen`, to (batch, tokens, dim)."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)


def tokens_seen(hidden: Tensor) -> Tensor:
    """Which tokens (batch, 1, 1, tokens) of hidden states (batch, tokens, width) are no padding: those not all zero."""
    seen = hidden.abs().amax(-1) > 0
    return (seen | ~seen.any(-1, keepdim=True))[:, None, None]


class SelfAttention(nn.Module):
    """Every point of the grid looks at every other one."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, points, dim) -> the same."""
        return self.proj(attend(*(heads(part) for part in self.qkv(x).chunk(3, dim=-1))))


class CrossAttention(nn.Module):
    """Every point looks at every token of the text; states of zero stand for no token.

    The published network was trained with padding in sight: its encoder gives padding states of its own.
    """

    def __init__(self, dim: int, context: int) -> None:
        super().__init__()
        self.q, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(context, 2 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """(batch, points, dim) and hidden states (batch, tokens, context) -> (batch, points, dim)."""
        k, v = self.kv(hidden).chunk(2, dim=-1)
        return self.proj(attend(heads(self.q(x)), heads(k), heads(v), tokens_seen(hidden)))


class Perceptron(nn.Module):
    """Two layers, point by point."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, points, dim) -> the same."""
        return self.fc2(F.gelu(self.fc1(x)))


class AttentionBlock(nn.Module):
    """Attention and a perceptron, each behind a layer norm and with its input added."""

    def __init__(self, dim: int, attention: nn.Module) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), attention
        self.norm2, self.mlp = nn.LayerNorm(dim), Perceptron(dim)

    def forward(self, x: Tensor, *hidden: Tensor) -> Tensor:
        """(batch, points, dim) -> the same."""
        x = x + self.attn(self.norm1(x), *hidden)
        return x + self.mlp(self.norm2(x))


class Conditioning(nn.Module):
    """The grid attends to itself, then to the text. `norm1` is in the released files and is not used."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.sa_block = AttentionBlock(dim, SelfAttention(dim))
        self.ca_block = AttentionBlock(dim, CrossAttention(dim, WIDTH))

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """(batch, dim, rows, frames) -> the same."""
        points = x.flatten(2).transpose(1, 2)
        points = self.ca_block(self.sa_block(points), hidden)
        return points.transpose(1, 2).reshape(x.shape)


class Residual(nn.Module):
    """A 3x3 convolution and its norm, to which the input is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layer = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels))
        self.res_layers = nn.ModuleList([layer])

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, rows, frames) -> the same."""
        return F.leaky_relu(self.res_layers[0](x) + x, SLOPE)


class Level(nn.Module):
    """One level: down, residual block, attention where it has one, everything coarser, up."""

    def __init__(self, level: int, inputs: int, outputs: int, channels: int) -> None:
        super().__init__()
        width, self.outer, inner = channels * MULTIPLES[level], level == 0, level == len(MULTIPLES) - 1
        self.downconv = nn.Conv2d(inputs, width, 4, 2, 1, bias=False)
        self.downnorm, self.downresblock = nn.BatchNorm2d(width), Residual(width)
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
        """(batch, inputs, rows, frames) to (batch, outputs, ...) outside, to (batch, inputs + outputs, ...) within."""
        y = self.downresblock(F.leaky_relu(self.downnorm(self.downconv(x)), SLOPE))
        for block in getattr(self, "ca_blocks", ()):
            y = block(y, hidden)
        if hasattr(self, "submodule"):
            y = self.submodule(y, hidden)
        y = F.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=True)
        y = self.upconv(self.upresblock(y))
        return y if self.outer else torch.cat([x, F.relu(self.upnorm(y))], dim=1)


class SoundNet(nn.Module):
    """Batch norm, then the U-Net: (batch, 1, 512, frames) to (batch, 32, 512, frames)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(1)
        self.unet_block = Level(0, 1, MAPS, channels)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        return self.unet_block(self.bn0(x), hidden)


class InnerProduct(nn.Module):
    """Maps weighed by a query: sum over k of query_k * scale_k * map_k, plus a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(MAPS))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, query: Tensor, maps: Tensor) -> Tensor:
        """Query (batch, k), maps (batch, k, rows, frames) -> (batch, rows, frames)."""
        return torch.einsum("bk,bkft->bft", query * self.scale, maps) + self.bias


def pack(embedding: Tensor, hidden: Tensor) -> Tensor:
    """Text embedding (..., 512) and hidden states (..., 77, 768) as one condition (..., 59648)."""
    return torch.cat([embedding, hidden.flatten(-2)], dim=-1)


class BiModalUNet(ConditionedModel):
    """The separator of bi-modal weak supervision (see the module's text).

    A condition is `pack(embedding, hidden states)`.

    Args:
        faithful: compute as published: channel by channel, in hard segments of 131070 samples.
        channels: of the finest level, a multiple of the heads of attention, 8; by default the released network's 64.
    """

    window: Tensor
    sample_rate = 16000
    condition_dim = EMBEDDING + TOKENS * WIDTH
    stride = HOP * WINDOW_HOP
    context = HOP * reach(WINDOW, WINDOW_HOP) + N_FFT
    segment_seconds = 64  # windows are what takes the memory
    grid_seconds = 6
    input_level = 0.1
    published_otherwise = True
    estimates_presence = False

    def __init__(self, faithful: bool = False, channels: int | None = None) -> None:
        super().__init__()
        self.faithful = faithful
        self.net_sound = SoundNet(channels or CHANNELS)
        self.net_clap = nn.ModuleDict({"fc": nn.Linear(EMBEDDING, MAPS)})
        self.net_synthesizer = InnerProduct()
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)

    def spectrum(self, waveform: Tensor) -> Tensor:
        """Waveform (..., time) to (..., 512, frames), reflected at its ends."""
        flat = waveform.reshape(-1, waveform.shape[-1])
        spectrum = torch.stft(flat, N_FFT, HOP, window=self.window, return_complex=True)
        return spectrum.reshape(*waveform.shape[:-1], *spectrum.shape[-2:])

    def waveform(self, spectrum: Tensor, length: int) -> Tensor:
        """Spectrum (..., 512, frames) to (..., length)."""
        flat = spectrum.reshape(-1, *spectrum.shape[-2:])
        return torch.istft(flat, N_FFT, HOP, window=self.window, length=length).reshape(*spectrum.shape[:-2], length)

    def mask(self, magnitude: Tensor, condition: Tensor) -> Tensor:
        """Magnitude (batch, 512, frames) and condition (batch, 59648) to the soft mask (batch, 512, frames)."""
        embedding, hidden = condition.split([EMBEDDING, TOKENS * WIDTH], dim=-1)
        maps = self.net_sound(torch.log1p(magnitude)[:, None], hidden.unflatten(-1, (TOKENS, WIDTH)))
        query = torch.sigmoid(self.net_clap["fc"](embedding))
        return torch.sigmoid(at_least_single(self.net_synthesizer(query, maps)))

    def separate(self, mixture: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """See `ConditionedModel.separate`; the presence logits are zero, for nothing estimates them."""
        batch, channels, length = mixture.shape
        if self.faithful:
            pieces = F.pad(mixture, (0, -length % SEGMENT)).reshape(-1, 1, SEGMENT)
            each = conditions.repeat_interleave(len(pieces) // batch, 0)
            targets = torch.cat([self.joint(p, c) for p, c in zip(pieces.split(1), each.split(1), strict=True)])
            targets = targets.reshape(batch, channels, -1, *targets.shape[1:2], SEGMENT)
            targets = targets.permute(0, 3, 1, 2, 4).flatten(3)
        else:
            targets = self.joint(F.pad(mixture, (0, missing(length))), conditions)
        return targets[..., :length], mixture.new_zeros(*conditions.shape[:2], 1)

    def joint(self, mixture: Tensor, conditions: Tensor) -> Tensor:
        """One mask for all channels: (batch, channels, time) to (batch, queries, channels, time).

        Attention sees all that the network is given, so that is never more than a training clip.
        """
        spectrum = self.spectrum(mixture)
        magnitude = spectrum.abs().square().sum(1).sqrt()
        size = min(WINDOW, magnitude.shape[-1])
        masks = [
            in_windows(magnitude, size, WINDOW_HOP, lambda window, asked=condition: self.mask(window, asked))  # type: ignore[misc]
            for condition in conditions.unbind(1)
        ]
        return torch.stack([self.waveform(spectrum * mask[:, None], mixture.shape[-1]) for mask in masks], dim=1)


def missing(length: int) -> int:
    """Samples of silence to add: up to a training clip to what the levels divide, beyond one to whole windows."""
    frames = length // HOP + 1
    if frames <= WINDOW:
        return max(0, (frames + -frames % GRID - 1) * HOP - length)
    windows = count(frames, WINDOW, WINDOW_HOP)
    return ((windows - 1) * WINDOW_HOP + WINDOW - 1) * HOP - length
