"""ResUNet30, the separator of USS and AudioSep: a residual U-Net on magnitudes, conditioned by additive FiLM.

Kong et al., "Universal Source Separation with Weakly Labelled Data", 2023 (conditions: 527 tagger probabilities or a
tagger embedding of 2048, 32 kHz); Liu et al., "Separate Anything You Describe", 2023 (512 CLAP components, 32 kHz);
the baseline of DCASE 2024 task 9 (512 components, 16 kHz). All are one network in different sizes. Tensors keep their
released names; the transforms, which the released files store as frozen convolutions, are computed.

The network estimates a gain between 0 and 1 and a rotation for each bin from the magnitude of the mixture. Here the
magnitude is that of all channels together and the mask multiplies each channel, which keeps the stereo image; for one
channel this is the published computation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from separation.models.base import ConditionedModel, Estimate, apply_shared_masks, at_least_single
from separation.models.spectra import STFT

SLOPE = 0.01
MOMENTUM = 0.01
FLOOR = 1e-10  # of powers and of rotations
CHANNELS = (32, 32, 64, 128, 256, 384, 384)  # before the encoder, and after each of its six blocks
POOLS = ((2, 2), (2, 2), (2, 2), (2, 2), (2, 2), (1, 2))  # (time, frequency)
HALVINGS = 5
CONTEXT_FRAMES = 348  # on either side: two 3x3 convolutions at each resolution, and the cells of the coarsest grid
TILE = 256  # frames processed at once where batch norm does not measure statistics; affects memory only
HALO = 2  # context of a block's two 3x3 convolutions, frames
SEGMENTS_AT_ONCE = 8

Betas = dict[str, Tensor]
"""Shifts (batch, channels) of each conditioned layer, by its released name."""


def activate(norm: nn.BatchNorm2d, x: Tensor, beta: Tensor) -> Tensor:
    """Batch norm, shift by beta (batch, channels), leaky ReLU: (batch, channels, time, frequency)."""
    return F.leaky_relu(norm(x).add_(beta[:, :, None, None]), SLOPE, inplace=True)


def process_in_tiles(frames: int, norm: nn.BatchNorm2d, compute: Callable[[slice], Tensor]) -> Tensor:
    """Compute (batch, channels, frames, frequency) in spans of frames with a halo, which takes less memory.

    The result is exact if no output frame depends on more than the halo. While `norm` measures statistics, every frame
    depends on all others, so all are computed at once; so they are in an exported graph, which has no loops.
    """
    if norm.training or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return compute(slice(0, frames))
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
    """Residual block of two 3x3 convolutions, each after a batch norm and a shift by the condition."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs, momentum=MOMENTUM)
        self.bn2 = nn.BatchNorm2d(outputs, momentum=MOMENTUM)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None
        self.sites = {"beta1": inputs, "beta2": outputs}

    def forward(self, x: Tensor, betas: Betas, name: str) -> Tensor:
        """(batch, inputs, time, frequency) to (batch, outputs, time, frequency)."""
        y = self.conv1(activate(self.bn1, x, betas[f"{name}->beta1"]))
        y = self.conv2(activate(self.bn2, y, betas[f"{name}->beta2"]))
        return y.add_(x if self.shortcut is None else self.shortcut(x))


class EncoderBlock(nn.Module):
    """A residual block and average pooling."""

    def __init__(self, inputs: int, outputs: int, pool: tuple[int, int]) -> None:
        super().__init__()
        self.conv_block1 = ConvBlock(inputs, outputs)
        self.pool = pool

    def forward(self, x: Tensor, betas: Betas, name: str) -> tuple[Tensor, Tensor]:
        """(batch, inputs, time, frequency) to the map for the decoder (batch, outputs, time, frequency), and pooled."""
        name = f"{name}->conv_block1"
        kept = process_in_tiles(
            x.shape[2], self.conv_block1.bn1, lambda span: self.conv_block1(x[:, :, span], betas, name)
        )
        return kept, F.avg_pool2d(kept, self.pool)


class DecoderBlock(nn.Module):
    """A transposed convolution, concatenated with the encoder's map, and a residual block.

    `bn2` and its shift exist in the released files but are not used.
    """

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(inputs, outputs, stride, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs, momentum=MOMENTUM)
        self.bn2 = nn.BatchNorm2d(inputs, momentum=MOMENTUM)
        self.conv_block2 = ConvBlock(2 * outputs, outputs)
        self.step = stride[0]
        self.sites = {"beta1": inputs, "beta2": inputs}

    def forward(self, x: Tensor, kept: Tensor, betas: Betas, name: str) -> Tensor:
        """(batch, inputs, time, frequency) and the encoder's finer map to (batch, outputs, finer time, frequency)."""

        def compute(span: slice) -> Tensor:  # spans start and end at multiples of `step`
            coarse = x[:, :, span.start // self.step : span.stop // self.step]
            up = self.conv1(activate(self.bn1, coarse, betas[f"{name}->beta1"]))
            return self.conv_block2(torch.cat([up, kept[:, :, span]], dim=1), betas, f"{name}->conv_block2")

        return process_in_tiles(kept.shape[2], self.bn1, compute)


class Base(nn.Module):
    """The U-Net: magnitudes (batch, 1, time, bins) to logits (batch, 3, time, bins)."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(bins, momentum=MOMENTUM)
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
        """The logits of the last bin are zero."""
        frames = magnitude.shape[2]
        x = self.bn0(magnitude.transpose(1, 3)).transpose(1, 3)
        x = F.pad(x, (0, -1, 0, -frames % 2**HALVINGS))  # without the last bin, with whole cells of the coarsest grid
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
    """The separator of USS, AudioSep and the DCASE 2024 baseline, see above.

    Args:
        condition_dim: 512 (CLAP), 527 (tagger probabilities) or 2048 (tagger embedding).
        sample_rate: Hz.
        n_fft: STFT window in samples.
        hop: STFT hop in samples.
        faithful: use the published inference: channel by channel, at the recording's own level, in one pass or in
            segments of `segment` samples.
        segment: samples of the published segments, which do not overlap (USS: 2 s); None: one pass (AudioSep).
    """

    input_level = 0.1  # about the level of the published training data
    has_published_inference = True
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
        self.faithful, self.segment = faithful, segment
        self.stride, self.context = hop * 2**HALVINGS, hop * CONTEXT_FRAMES + n_fft // 2
        self.stft = STFT(n_fft, hop, None, "reflect")
        self.base = Base(n_fft // 2 + 1)
        self.film = nn.ModuleDict({
            "->".join([*name.split("."), site]): nn.Linear(condition_dim, channels)
            for name, block in self.base.named_modules()
            for site, channels in getattr(block, "sites", {}).items()
        })  # fmt: skip
        for part in self.modules():  # batch norms start at one and zero by themselves
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def mask(self, magnitude: Tensor, condition: Tensor) -> Tensor:
        """Magnitude (batch, bins, frames) and condition (batch, dim) to the complex mask (batch, bins, frames)."""
        return torch.complex(*self.mask_parts(magnitude, condition))

    def mask_parts(self, magnitude: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of `mask`."""
        betas = {name: linear(condition) for name, linear in self.film.items()}
        logits = at_least_single(self.base(magnitude.transpose(1, 2)[:, None], betas).transpose(2, 3))
        factor, real, imaginary = logits.unbind(1)
        real, imaginary = torch.tanh(real), torch.tanh(imaginary)
        scale = torch.sigmoid(factor) / (real.square() + imaginary.square()).sqrt().clamp_min(FLOOR)
        return scale * real, scale * imaginary

    def separate(self, mixture: Tensor, conditions: Tensor) -> Estimate:
        length = mixture.shape[-1]
        padded = F.pad(mixture, (0, max(self.stft.n_fft // 2 + 1 - length, 0)))  # the least that can be reflected
        if self.faithful:
            targets = torch.stack([self.separate_as_published(padded, c) for c in conditions.unbind(1)], dim=1)
        else:
            targets = apply_shared_masks(self.stft, self.mask, padded, conditions, FLOOR)
        return Estimate(targets[..., :length], mixture.new_zeros(*conditions.shape[:2], 1))

    def separate_as_published(self, mixture: Tensor, condition: Tensor) -> Tensor:
        """Separate each channel on its own, in the published segments if the model has them.

        Args:
            mixture: (batch, channels, time).
            condition: (batch, dim), or one for each segment (batch, segments, dim). Segments whose condition is zero
                are silent: this is the published gate on classes.

        Returns:
            Target (batch, channels, time).
        """
        batch, channels, length = mixture.shape
        size = self.segment or length
        pieces = rearrange(F.pad(mixture, (0, -length % size)), "b c (n t) -> (b c n) 1 t", t=size)
        gated = condition.ndim == 3
        if gated:
            each = repeat(condition, "b n d -> (b c n) 1 d", c=channels)
        else:
            each = condition.repeat_interleave(len(pieces) // batch, 0)[:, None]
        batches = zip(pieces.split(SEGMENTS_AT_ONCE), each.split(SEGMENTS_AT_ONCE), strict=True)
        targets = torch.cat([apply_shared_masks(self.stft, self.mask, *each_batch, FLOOR) for each_batch in batches])
        if gated:
            targets = targets * each.any(-1)[..., None, None]
        return rearrange(targets, "(b c n) 1 1 t -> b c (n t)", b=batch, c=channels)[..., :length]

    def gate(self, encoder: Any, by_class: list[bool]) -> ConditionedModel:
        """Return the published separation by classes; its tagger is the encoder, or the encoder's part for audio."""
        tagger = encoder.part("audio") if hasattr(encoder, "part") else encoder
        return ClassGate(self, lambda waveform: tagger.tag(waveform.cpu()).probabilities.to(waveform.device), by_class)


def class_conditions(probabilities: Tensor, classes: list[int], threshold: float = 0.2) -> Tensor:
    """USS's conditions for a set of classes, from the tagger's probabilities of each segment (..., segments, 527).

    Returns:
        (..., segments, 527): the probabilities of the set, zero for other classes and for silent segments, in which no
        class of the set reaches the threshold.
    """
    kept = torch.zeros_like(probabilities)
    kept[..., classes] = probabilities[..., classes]
    return kept * (kept.amax(-1, keepdim=True) >= threshold)


class ClassGate(ConditionedModel):
    """USS's published separation by classes: each segment of 2 s is conditioned on the classes detected in it.

    A condition is 1 for each class of the query. Segments in which none of these reaches 0.2 are silent.

    Args:
        model: the network for 527 classes.
        tag: waveforms (batch, time) at the model's rate to class probabilities (batch, 527).
        by_class: whether each query names classes; the condition of other queries is used as it is.
    """

    faithful = True
    estimates_presence = False

    def __init__(self, model: ResUNet30, tag: Callable[[Tensor], Tensor], by_class: list[bool]) -> None:
        super().__init__()
        self.model, self.tag, self.by_class = model, tag, by_class
        self.sample_rate, self.condition_dim = model.sample_rate, model.condition_dim
        self.size = model.segment or 2 * model.sample_rate

    def separate(self, mixture: Tensor, conditions: Tensor) -> Estimate:
        padded = F.pad(mixture.mean(1), (0, -mixture.shape[-1] % self.size))
        pieces = rearrange(padded, "b (n t) -> (b n) t", t=self.size)
        detected = torch.cat([self.tag(piece) for piece in pieces.split(SEGMENTS_AT_ONCE)])
        detected = rearrange(detected, "(b n) classes -> b n classes", b=len(mixture))
        targets = []
        for by_class, condition in zip(self.by_class, conditions.unbind(1), strict=True):
            classes = condition[0].nonzero()[:, 0].tolist()
            given = class_conditions(detected, classes) if by_class else condition
            targets.append(self.model.separate_as_published(mixture, given))
        return Estimate(torch.stack(targets, dim=1), mixture.new_zeros(*conditions.shape[:2], 1))
