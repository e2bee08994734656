"""Parts of causal networks: what they remember, a Fourier transform of low delay, and convolutions over the past.

A network of these parts can be given a recording piece by piece. Everything that later pieces need is kept in a `Past`;
the whole recording is one piece with an empty past.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

CONDITION = "condition"  # in the past of a decoder: what becomes of its conditions


class Past(dict[object, Tensor]):
    """What a causal network remembers between two pieces of a recording.

    Attributes:
        steps: number of steps so far.
    """

    steps = 0

    def extend(self, key: object, x: Tensor, frames: int) -> Tensor:
        """Put the last `frames` frames before x (..., frames) in front of it, and keep the last ones of the result."""
        if frames == 0:
            return x
        before = self.get(key)
        joined = F.pad(x, (frames, 0)) if before is None else torch.cat([before, x], dim=-1)
        self[key] = joined[..., joined.shape[-1] - frames :]
        return joined

    def copy(self) -> Past:
        """Return a past that goes on by itself."""
        other = Past(self)
        other.steps = self.steps
        return other


class LowDelaySTFT(nn.Module):
    """Short-time Fourier transform whose frames are complete early, and its inverse.

    Frame k ends before sample (k + 1) * hop. Its window rises slowly and falls within one hop; only its last `tail`
    samples are added to the output, under a second window. The product of both is a Hann window.

    Args:
        n_fft: length of the transform.
        hop: samples between frames.
        tail: multiple of `hop`, at least two hops.
        frame_multiple: signals are padded until the number of their frames is a multiple of this.
    """

    window: Tensor
    synthesis: Tensor

    def __init__(self, n_fft: int, hop: int, tail: int, frame_multiple: int) -> None:
        super().__init__()
        self.n_fft, self.hop, self.tail, self.frame_multiple = n_fft, hop, tail, frame_multiple
        rise, fall = n_fft - tail // 2, tail // 2
        up = torch.sin(torch.pi / 2 * torch.arange(rise, device="cpu") / rise)
        down = torch.cos(torch.pi / 2 * torch.arange(fall, device="cpu") / fall)
        window = torch.cat([up.square(), down])
        hann = torch.hann_window(tail, device="cpu") * (2 * hop / tail)
        synthesis = hann / window[-tail:].clamp_min(1e-6)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("synthesis", synthesis, persistent=False)

    def forward(self, waveform: Tensor, past: Past | None = None) -> Tensor:
        """Waveform (..., time) to complex spectrum (..., frequency, frames).

        With a past, `time` is a multiple of the hop; without, frames of silence follow until `inverse` is complete.
        """
        if past is None:
            past, late = Past(), self.tail - self.hop
            waveform = F.pad(waveform, (0, late + -(waveform.shape[-1] + late) % (self.hop * self.frame_multiple)))
        frames = past.extend(self, waveform, self.n_fft - self.hop).unfold(-1, self.n_fft, self.hop)
        return torch.fft.rfft(frames * self.window).transpose(-1, -2)

    def inverse(self, spectrum: Tensor, length: int) -> Tensor:
        """Complex spectrum (..., frequency, frames) to waveform (..., time) of `length` samples."""
        late = self.tail - self.hop
        return self.overlap_add(spectrum, Past())[..., late : late + length]

    def overlap_add(self, spectrum: Tensor, past: Past) -> Tensor:
        """Complex spectrum (..., frequency, frames) to waveform (..., frames * hop), which is `tail - hop` late."""
        frames = torch.fft.irfft(spectrum.transpose(-1, -2), self.n_fft)[..., -self.tail :] * self.synthesis
        parts = frames.unflatten(-1, (-1, self.hop))  # (..., frames, tail / hop, hop)
        late = self.tail // self.hop - 1
        joined = past.extend("overlap", parts.movedim(-3, -1), late)  # (..., tail / hop, hop, late + frames)
        count = spectrum.shape[-1]
        # Sample block j of the output is the sum of part p of the frame that starts p blocks earlier.
        pieces = [joined[..., part, :, late - part : late - part + count] for part in range(late + 1)]
        return torch.stack(pieces).sum(0).transpose(-1, -2).flatten(-2)


class Pointwise(nn.Conv2d):
    """Convolution of one position, without bias, which also takes no frames."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.shape[-1] else x.new_zeros(len(x), self.out_channels, *x.shape[2:])


class CausalConv(nn.Module):
    """Convolution over 3 bands and over time frames up to now, in two factors if it has a rank, and batch norm.

    Args:
        inputs, outputs: channels.
        rank: channels between the two factors; 0: one factor.
        stride: in bands and frames. With a stride of two, every frame of even number is computed.
        bands: size of the kernel in bands.
        taps: frames.
        dilation: distance of the taps in frames; other than one only for a single band.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        rank: int = 0,
        stride: tuple[int, int] = (1, 1),
        bands: int = 3,
        taps: int = 2,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.outputs, self.stride, self.reach, self.dilation = outputs, stride, (taps - 1) * dilation, dilation
        padding = bands // 2 if bands == 3 else 0
        self.conv = nn.Conv2d(inputs, rank or outputs, (bands, taps), stride, (padding, 0), bias=False)
        self.expand = nn.Conv2d(rank, outputs, 1, bias=False) if rank else nn.Identity()
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor, past: Past, before: int = 0) -> Tensor:
        """(batch, channels, bands, frames), and the number of frames before them, to (..., frames that are due)."""
        if not x.shape[-1]:
            return x.new_zeros(len(x), self.outputs, self.bands_after(x), 0)
        joined = past.extend(self, x, self.reach)[..., before % self.stride[1] :]
        if joined.shape[-1] <= self.reach:
            return x.new_zeros(len(x), self.outputs, self.bands_after(x), 0)
        if self.dilation > 1:  # torch's dilated convolution is slow: the taps of a frame become neighbours
            count = joined.shape[-1] - self.reach
            taps = [joined[:, :, 0, start : start + count] for start in range(0, self.reach + 1, self.dilation)]
            return self.norm(self.conv(torch.stack(taps, dim=-1))).transpose(2, 3)
        result: Tensor = self.norm(self.expand(self.conv(joined)))
        return result

    def bands_after(self, x: Tensor) -> int:
        """Number of bands of the result."""
        return -(-x.shape[2] // self.stride[0]) if self.conv.padding[0] else x.shape[2] - self.conv.kernel_size[0] + 1

    def fold(self) -> None:
        """Fold the norm into the convolution before it."""
        if isinstance(self.norm, nn.BatchNorm2d):
            last = "conv" if isinstance(self.expand, nn.Identity) else "expand"
            setattr(self, last, fuse_conv_bn_eval(getattr(self, last), self.norm))
            self.norm = nn.Identity()


def hold(x: Tensor, past: Past, key: object, before: int, frames: int, factor: int = 2) -> Tensor:
    """Repeat frames that are due every `factor` frames until the next one, for `frames` frames after `before` ones."""
    held = past.extend(key, x, 1).repeat_interleave(factor, dim=-1)
    start = factor + before - factor * -(-before // factor)
    return held[..., start : start + frames]
