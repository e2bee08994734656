"""ResUNet30, the separator of USS and of AudioSep: a residual U-Net on magnitudes, steered by additive FiLM.

Kong et al., "Universal Source Separation with Weakly Labelled Data", 2023 (conditions of 527 tagger probabilities or
of 2048 embedding components, 32 kHz); Liu et al., "Separate Anything You Describe", 2023 (512 CLAP components, 32 kHz);
the baseline of DCASE 2024 task 9 (512 components, 16 kHz). All three are one network with other sizes, and their
tensors keep the names they were released with. The transforms, which those files carry as frozen convolutions, are
computed.

The network sees the mixture's magnitude and gives, for each bin, a factor between 0 and 1 and a rotation. Here the
magnitude is that of all channels together and the result multiplies each channel, so the stereo image stays; for one
channel that is what was published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.models.base import ConditionedModel, at_least_single

SLOPE = 0.01
MOMENTUM = 0.01
POWER_FLOOR = 1e-10
ROTATION_FLOOR = 1e-10
CHANNELS = (32, 32, 64, 128, 256, 384, 384)  # before the encoder, and after each of its six blocks
POOLS = ((2, 2), (2, 2), (2, 2), (2, 2), (2, 2), (1, 2))  # (time, frequency)
HALVINGS = 5
REACH = 348  # frames on either side that can change one: two 3x3 convolutions at each scale, and the cells' width
TILE = 256  # frames computed at once; only memory depends on it
HALO = 2  # frames that a block's two 3x3 convolutions reach beyond
SEGMENTS_AT_ONCE = 8

Betas = dict[str, Tensor]


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm as this family has it."""
    return nn.BatchNorm2d(channels, momentum=MOMENTUM)


def activate(bn: nn.BatchNorm2d, x: Tensor, beta: Tensor) -> Tensor:
    """Norm, then the condition's shift (batch, channels), then leaky ReLU: (batch, channels, time, frequency)."""
    return F.leaky_relu(bn(x).add_(beta[:, :, None, None]), SLOPE, inplace=True)


def in_tiles(frames: int, compute: Callable[[slice], Tensor]) -> Tensor:
    """What `compute` gives for all frames, (batch, channels, frames, frequency), from spans of frames with a halo.

    Exact, because a block sees no more than the halo; it takes less memory than the whole at once.
    """
    out = torch.empty(0)
    for start in range(0, frames, TILE):
        stop = min(start + TILE, frames)
        low, high = max(start - HALO, 0), min(stop + HALO, frames)
        part = compute(slice(low, high))[:, :, start - low : stop - low]
        if frames <= TILE:
            return part
        if start == 0:
            out = part.new_empty(*part.shape[:2], frames, part.shape[3])
        out[:, :, start:stop] = part
    return out


class ConvBlock(nn.Module):
    """Residual block of two 3x3 convolutions, each behind a norm and a shift by the condition."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = norm(inputs), norm(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None
        self.sites = {"beta1": inputs, "beta2": outputs}

    def forward(self, x: Tensor, betas: Betas, name: str) -> Tensor:
        """(batch, inputs, time, frequency) -> (batch, outputs, time, frequency)."""
        y = self.conv1(activate(self.bn1, x, betas[f"{name}->beta1"]))
        y = self.conv2(activate(self.bn2, y, betas[f"{name}->beta2"]))
        return y.add_(x if self.shortcut is None else self.shortcut(x))


class EncoderBlock(nn.Module):
    """A residual block; its output is kept for the decoder, its average-pooled output goes on."""

    def __init__(self, inputs: int, outputs: int, pool: tuple[int, int]) -> None:
        super().__init__()
        self.conv_block1 = ConvBlock(inputs, outputs)
        self.pool = pool

    def forward(self, x: Tensor, betas: Betas, name: str) -> tuple[Tensor, Tensor]:
        """(batch, inputs, time, frequency) to what is kept (batch, outputs, time, frequency) and what goes on."""
        kept = in_tiles(x.shape[2], lambda span: self.conv_block1(x[:, :, span], betas, f"{name}->conv_block1"))
        return kept, F.avg_pool2d(kept, self.pool)


class DecoderBlock(nn.Module):
    """Transposed convolution, the encoder's map beside it, a residual block.

    `bn2` and its shift are in the released files and are not used.
    """

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(inputs, outputs, stride, stride, bias=False)
        self.bn1, self.bn2 = norm(inputs), norm(inputs)
        self.conv_block2 = ConvBlock(2 * outputs, outputs)
        self.step = stride[0]
        self.sites = {"beta1": inputs, "beta2": inputs}

    def forward(self, x: Tensor, kept: Tensor, betas: Betas, name: str) -> Tensor:
        """(batch, inputs, time, frequency) and the encoder's finer map to (batch, outputs, finer time, frequency)."""
        return in_tiles(kept.shape[2], lambda span: self.span(x, kept, betas, name, span))

    def span(self, x: Tensor, kept: Tensor, betas: Betas, name: str, span: slice) -> Tensor:
        """The same for a span of the finer frames; it begins and ends at whole coarse ones."""
        coarse = x[:, :, span.start // self.step : span.stop // self.step]
        up = self.conv1(activate(self.bn1, coarse, betas[f"{name}->beta1"]))
        return self.conv_block2(torch.cat([up, kept[:, :, span]], dim=1), betas, f"{name}->conv_block2")


def sites(module: nn.Module) -> Iterator[tuple[str, int]]:
    """Every place where the condition enters, by its released name, and its number of channels."""
    for name, block in module.named_modules():
        for site, channels in getattr(block, "sites", {}).items():
            yield "->".join([*name.split("."), site]), channels


class Base(nn.Module):
    """The U-Net proper: magnitudes (batch, 1, time, bins) to logits (batch, 3, time, bins)."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bn0 = norm(bins)
        self.pre_conv = nn.Conv2d(1, CHANNELS[0], 1)
        blocks = list(zip(CHANNELS, CHANNELS[1:], POOLS, strict=False))
        for i, (inputs, outputs, pool) in enumerate(blocks, 1):
            self.add_module(f"encoder_block{i}", EncoderBlock(inputs, outputs, pool))
        width = CHANNELS[-1]
        self.conv_block7a = EncoderBlock(width, width, (1, 1))
        for i, (_, outputs, pool) in enumerate(reversed(blocks), 1):
            self.add_module(f"decoder_block{i}", DecoderBlock(width, outputs, pool))
            width = outputs
        self.after_conv = nn.Conv2d(width, 3, 1)
        self.depth = len(blocks)

    def forward(self, magnitude: Tensor, betas: Betas) -> Tensor:
        """(batch, 1, time, bins) -> (batch, 3, time, bins); the last bin's logits are zero."""
        frames = magnitude.shape[2]
        x = self.bn0(magnitude.transpose(1, 3)).transpose(1, 3)
        x = F.pad(x, (0, -1, 0, -frames % 2**HALVINGS))  # whole cells of the coarsest grid, without the last bin
        x, maps = self.pre_conv(x), []
        for i in range(1, self.depth + 1):
            kept, x = self.get_submodule(f"encoder_block{i}")(x, betas, f"encoder_block{i}")
            maps.append(kept)
        del kept
        _, x = self.conv_block7a(x, betas, "conv_block7a")
        for i in range(1, self.depth + 1):
            x = self.get_submodule(f"decoder_block{i}")(x, maps.pop(), betas, f"decoder_block{i}")
        return F.pad(self.after_conv(x), (0, 1))[:, :, :frames]


class ResUNet30(ConditionedModel):
    """The separator of USS, AudioSep and the DCASE 2024 baseline (see the module's text).

    Args:
        condition_dim: 512 (CLAP), 527 (tagger probabilities) or 2048 (tagger embedding).
        sample_rate: Hz.
        n_fft, hop: STFT in samples.
        faithful: compute as published: channel by channel, at the recording's own level, and in one pass over the
            whole or in `segment`s.
        segment: samples of the published hard segments (USS: 2 s); None for one pass (AudioSep).
    """

    window: Tensor
    input_level = 0.1  # about as loud as what these networks were trained on
    published_otherwise = True
    estimates_presence = False

    def __init__(
        self,
        condition_dim: int = 512,
        sample_rate: int = 32000,
        n_fft: int = 2048,
        hop: int = 320,
        faithful: bool = False,
        segment: int | None = None,
    ) -> None:
        super().__init__()
        self.condition_dim, self.sample_rate = condition_dim, sample_rate
        self.n_fft, self.hop, self.faithful, self.segment = n_fft, hop, faithful, segment
        self.stride = hop * 2**HALVINGS
        self.context = hop * REACH + n_fft // 2
        self.base = Base(n_fft // 2 + 1)
        self.film = nn.ModuleDict({name: nn.Linear(condition_dim, channels) for name, channels in sites(self.base)})
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def spectrum(self, waveform: Tensor) -> Tensor:
        """Waveform (..., time) of more than n_fft / 2 samples to (..., bins, frames), reflected at its ends."""
        flat = waveform.reshape(-1, waveform.shape[-1])
        spectrum = torch.stft(flat, self.n_fft, self.hop, window=self.window, return_complex=True)
        return spectrum.reshape(*waveform.shape[:-1], *spectrum.shape[-2:])

    def waveform(self, spectrum: Tensor, length: int) -> Tensor:
        """Spectrum (..., bins, frames) back to (..., length)."""
        flat = spectrum.reshape(-1, *spectrum.shape[-2:])
        waveform = torch.istft(flat, self.n_fft, self.hop, window=self.window, length=length)
        return waveform.reshape(*spectrum.shape[:-2], length)

    def mask(self, magnitude: Tensor, condition: Tensor) -> Tensor:
        """Magnitude (batch, bins, frames) and condition (batch, dim) to the complex mask (batch, bins, frames)."""
        betas = {name: linear(condition) for name, linear in self.film.items()}
        logits = at_least_single(self.base(magnitude.transpose(1, 2)[:, None], betas).transpose(2, 3))
        factor, real, imaginary = logits.unbind(1)
        real, imaginary = torch.tanh(real), torch.tanh(imaginary)
        length = (real.square() + imaginary.square()).sqrt().clamp_min(ROTATION_FLOOR)
        scale = torch.sigmoid(factor) / length
        return torch.complex(scale * real, scale * imaginary)

    def separate(self, mixture: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """See `ConditionedModel.separate`; the presence logits are zero, for nothing estimates them."""
        length = mixture.shape[-1]
        padded = F.pad(mixture, (0, max(self.n_fft // 2 + 1 - length, 0)))
        if self.faithful:
            targets = torch.stack([self.published(padded, c) for c in conditions.unbind(1)], dim=1)
        else:
            targets = self.joint(padded, conditions)
        return targets[..., :length], mixture.new_zeros(*conditions.shape[:2], 1)

    def gate(self, encoder: Any, by_class: list[bool]) -> ConditionedModel:
        """What separates by classes as published; the tagger is the encoder, or its part for audio."""
        tagger = encoder.part("audio") if hasattr(encoder, "part") else encoder
        return ClassGate(self, lambda waveform: tagger.tag(waveform.cpu()).probabilities.to(waveform.device), by_class)

    def joint(self, mixture: Tensor, conditions: Tensor) -> Tensor:
        """One mask for all channels: (batch, channels, time) to (batch, queries, channels, time)."""
        spectrum = self.spectrum(mixture)
        magnitude = spectrum.abs().square().sum(1).clamp_min(POWER_FLOOR).sqrt()
        # One query after another: the maps at full resolution are what takes the memory.
        targets = [
            self.waveform(spectrum * self.mask(magnitude, condition)[:, None], mixture.shape[-1])
            for condition in conditions.unbind(1)
        ]
        return torch.stack(targets, dim=1)

    def published(self, mixture: Tensor, condition: Tensor) -> Tensor:
        """Each channel by itself, in hard segments where the model has them; all (batch, channels, time).

        Args:
            mixture: (batch, channels, time).
            condition: (batch, dim), or one for each segment (batch, segments, dim). A segment whose condition is
                zero throughout is silent: that is the published gate on classes.
        """
        batch, channels, length = mixture.shape
        size = self.segment or length
        count = -(-length // size)
        pieces = F.pad(mixture, (0, count * size - length)).reshape(batch * channels * count, 1, size)
        gated = condition.ndim == 3
        each = condition if gated else condition[:, None].expand(-1, count, -1)
        each = each[:, None].expand(-1, channels, -1, -1).reshape(len(pieces), -1)
        spans = zip(pieces.split(SEGMENTS_AT_ONCE), each.split(SEGMENTS_AT_ONCE), strict=True)
        targets = torch.cat([self.joint(piece, one[:, None])[:, 0] for piece, one in spans])
        if gated:
            targets = targets * each.any(-1)[:, None, None]
        return targets.reshape(batch, channels, count * size)[..., :length]


def class_conditions(probabilities: Tensor, classes: list[int], threshold: float = 0.2) -> Tensor:
    """USS's conditions for a set of classes, from the tagger's view of each segment of the mixture itself.

    Args:
        probabilities: (..., segments, 527) of the tagger.
        classes: indexes that belong to the query.
        threshold: a segment in which no class of the set reaches it is silent.

    Returns:
        (..., segments, 527): the probabilities of the set, others zero; all zero for a silent segment.
    """
    kept = torch.zeros_like(probabilities)
    kept[..., classes] = probabilities[..., classes]
    return kept * (kept.amax(-1, keepdim=True) >= threshold)


class ClassGate(ConditionedModel):
    """USS's published separation by classes: each 2-s segment is conditioned on what the tagger hears in it.

    A condition is 1 for each class that is asked for. Segments in which none of them reaches 0.2 are silent.

    Args:
        model: the 527-class network.
        tag: class probabilities (batch, 527) of waveforms (batch, time) at the model's rate.
        by_class: of each query, whether it asks for classes; the condition of another is used as it is. All by default.
    """

    faithful = True
    estimates_presence = False

    def __init__(self, model: ResUNet30, tag: Callable[[Tensor], Tensor], by_class: list[bool] | None = None) -> None:
        super().__init__()
        self.model, self.tag, self.by_class = model, tag, by_class
        self.sample_rate, self.condition_dim = model.sample_rate, model.condition_dim
        self.size = model.segment or 2 * model.sample_rate

    def separate(self, mixture: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """See `ConditionedModel.separate`."""
        pieces = F.pad(mixture.mean(1), (0, -mixture.shape[-1] % self.size)).unflatten(-1, (-1, self.size))
        heard = torch.cat([self.tag(piece) for piece in pieces.flatten(0, 1).split(SEGMENTS_AT_ONCE)])
        heard = heard.unflatten(0, pieces.shape[:2])  # (batch, segments, 527)
        targets = []
        asked = zip(self.by_class or [True] * conditions.shape[1], conditions.unbind(1), strict=True)
        for by_class, condition in asked:
            given = class_conditions(heard, condition[0].nonzero()[:, 0].tolist()) if by_class else condition
            targets.append(self.model.published(mixture, given))
        return torch.stack(targets, dim=1), mixture.new_zeros(*conditions.shape[:2], 1)
