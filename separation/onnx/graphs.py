"""The networks as they are exported to ONNX: one recording, several queries, real numbers, no loops, any length.

Complex numbers are pairs (real part, imaginary part) on an axis of their own; transforms are matrix products. Sizes
stay tensors where the graph must not fix them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.encoders.joint import JointEncoder
from separation.encoders.sentence import load_bert
from separation.models import bimodal_unet, clipsep_unet, resunet
from separation.models.band_unet import POWER_FLOOR, BandUNet
from separation.models.base import Windows
from separation.models.spectra import STFT
from separation.models.tagger import LOG_FLOOR, PATCH_FRAMES, PATCH_HOP, LogMelPatches


class RealSTFT(nn.Module):
    """`STFT` on real numbers: waveforms (n, time) to spectra (n, 2, bins, frames).

    The transform of a frame is two matrix products, of its even part with cosines and of its odd part with sines.
    """

    window: Tensor
    cosines: Tensor
    sines: Tensor
    twice: Tensor
    square: Tensor

    def __init__(self, stft: STFT) -> None:
        super().__init__()
        self.n_fft, self.hop, self.middle, self.window_length = stft.n_fft, stft.hop, stft.n_fft // 2, len(stft.window)
        self.pad_mode, self.multiple, self.blocks = stft.pad_mode, stft.frame_multiple, -(-stft.n_fft // stft.hop)
        self.dtype = torch.float64 if stft.double_precision else torch.float32
        rest = self.n_fft - len(stft.window)
        window = F.pad(torch.hann_window(len(stft.window), dtype=torch.float64), (rest // 2, rest - rest // 2))
        number = torch.arange(self.middle + 1, dtype=torch.float64)
        phase = torch.outer(number, number) % self.n_fft * (2 * torch.pi / self.n_fft)
        twice = torch.full_like(number, 2.0 / self.n_fft)
        twice[[0, -1]] /= 2
        square = F.pad(window.square(), (0, self.blocks * self.hop - self.n_fft)).reshape(self.blocks, self.hop)
        numbers = {"window": window, "cosines": phase.cos(), "sines": phase.sin(), "twice": twice, "square": square}
        for name, value in numbers.items():
            self.register_buffer(name, value.to(self.dtype))

    def frames(self, length: Any) -> Any:
        """Number of frames of a signal of `length` samples."""
        if self.multiple is None:
            return length // self.hop + 1
        return ((length + self.hop - 1) // self.hop + self.multiple) // self.multiple * self.multiple

    def forward(self, waveform: Tensor) -> Tensor:
        frames, count = self.frames(waveform.shape[-1]), waveform.shape[0]
        x = F.pad(waveform, (self.middle, self.middle), self.pad_mode)
        x = F.pad(x, (0, (self.blocks + 1 + (self.multiple or 0)) * self.hop))  # enough for whole blocks
        blocks = x[:, : (frames + self.blocks - 1) * self.hop].to(self.dtype).reshape(count, -1, self.hop)
        framed = torch.cat([blocks[:, k : k + frames] for k in range(self.blocks)], dim=-1)[..., : self.n_fft]
        framed = framed * self.window
        mirrored = F.pad(framed[..., self.middle + 1 :].flip(-1), (1, 1))
        head = framed[..., : self.middle + 1]
        parts = [(head + mirrored) @ self.cosines, (mirrored - head) @ self.sines]
        return torch.stack(parts, dim=1).float().transpose(2, 3)

    def inverse(self, spectrum: Tensor, length: Any) -> Tensor:
        """Spectra (n, 2, bins, frames) to waveforms (n, length)."""
        real, imaginary = (spectrum.to(self.dtype) * self.twice[:, None]).transpose(2, 3).unbind(1)
        even, odd = real @ self.cosines, imaginary @ self.sines
        framed = torch.cat([even - odd, (even + odd)[..., 1 : self.middle].flip(-1)], dim=-1) * self.window
        framed = F.pad(framed, (0, self.blocks * self.hop - self.n_fft))
        framed = framed.reshape(framed.shape[0], -1, self.blocks, self.hop)
        both = framed, torch.ones_like(framed[:1, :, :1, :1]) * self.square
        steps = range(self.blocks)
        parts: Any = (sum(F.pad(x[:, :, k], (0, 0, k, self.blocks - 1 - k)) for k in steps) for x in both)
        wave, weight = parts
        wave = (wave / weight.clamp_min(1e-11)).reshape(spectrum.shape[0], -1)
        return wave[:, self.middle : self.middle + length].float()


class RealPatches(nn.Module):
    """`LogMelPatches` on a spectrum (1, channels, 2, bins, frames)."""

    filters: Tensor

    def __init__(self, patches: LogMelPatches) -> None:
        super().__init__()
        self.register_buffer("filters", patches.filters)

    def forward(self, spectrum: Tensor, count: Any) -> Tensor:
        magnitude = spectrum.square().sum((1, 2)).sqrt()
        log_mel = torch.log(magnitude.transpose(1, 2) @ self.filters + LOG_FLOOR)
        # More than is ever missing: the frames of the coarsest grid and of half a patch.
        padded = F.pad(log_mel, (0, 0, PATCH_FRAMES // 2, 4 * PATCH_FRAMES), value=torch.tensor(LOG_FLOOR).log().item())
        start = torch.arange(count) * PATCH_HOP
        return padded[:, start[:, None] + torch.arange(PATCH_FRAMES)]


class Graph(nn.Module):
    """What is exported of a network: waveform or spectra and conditions to targets, presence logits and gains above.

    Subclasses say how spectra become masks.

    Args:
        model: the network; it is changed.
        inside: whether the transforms are part of the graph.
    """

    transforms: Any
    turn: Tensor
    padding = "none"  # of the waveform, before the padding of the transform

    def __init__(self, model: Any, inside: bool) -> None:
        super().__init__()
        self.model, self.inside = model, inside
        self.transforms = nn.ModuleDict({"spectrum": RealSTFT(model.stft)})
        self.outputs = ["target"]

    def pad(self, mixture: Tensor) -> Tensor:
        """Mixture (channels, time) as the first transform takes it."""
        return mixture

    def estimate(self, spectra: list[Tensor], conditions: Tensor) -> tuple[Tensor, ...]:
        """Spectra (channels, 2, bins, frames) and conditions (queries, dim).

        Returns:
            Masks (queries, 2, bins, frames), real and imaginary part, and what else is in `outputs`.
        """
        raise NotImplementedError

    def transform(self, mixture: Tensor) -> dict[str, Tensor]:
        """Mixture (channels, time) to spectra (channels, 2, bins, frames)."""
        first = {"spectrum": self.pad(mixture)}
        return {name: stft(first.get(name, mixture)) for name, stft in self.transforms.items()}

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        *given, conditions = inputs
        if self.inside:
            length, given = given[0].shape[-1], [*self.transform(given[0]).values()]
        mask, *others = self.estimate(given, conditions)
        (a, b), (c, d) = mask[:, None].unbind(2), given[0][None].unbind(2)
        target = torch.stack([a * c - b * d, a * d + b * c], dim=2)
        if self.inside:
            stft, shape = self.transforms["spectrum"], target.shape
            waves = stft.inverse(target.reshape(shape[0] * shape[1], 2, shape[3], shape[4]), length)
            target = waves.reshape(shape[0], shape[1], -1)
        return (target, *others)


class BandGraph(Graph):
    """`BandUNet`."""

    def __init__(self, model: BandUNet, inside: bool) -> None:
        super().__init__(model, inside)
        model.fold_norms()
        self.outputs += ["presence"] + ["high_gain"] * model.carry_high
        if model.branch is not None:
            self.transforms["tagger_spectrum"] = RealSTFT(model.branch.patches.stft)
            model.branch.patches = RealPatches(model.branch.patches)  # type: ignore[assignment]
        self.register_buffer("turn", torch.view_as_real(model.advance), persistent=False)

    def features(self, spectrum: Tensor) -> Tensor:
        """`BandUNet.features` of a spectrum (channels, 2, bins, frames)."""
        model, (real, imaginary) = self.model, spectrum.unbind(1)

        def advance(later: Any, sooner: Any) -> tuple[Tensor, Tensor]:
            """Sum over channels of one part of the bins times the conjugate of another."""
            a, b, c, d = real[later], imaginary[later], real[sooner], imaginary[sooner]
            return (a * c + b * d).sum(0), (b * c - a * d).sum(0)

        p, q = advance(np.s_[..., 1:], np.s_[..., :-1])
        x, y = self.turn.unbind(-1)
        along_time = [F.pad(part, (1, 0)) for part in (p * x - q * y, p * y + q * x)]
        along_bins = [F.pad(part, (0, 0, 1, 0)) for part in advance(np.s_[:, 1:], np.s_[:, :-1])]
        band_power = model.to_bands @ spectrum.square().sum((0, 1))
        coherence = (model.to_bands @ torch.stack(along_time + along_bins)) / (band_power + POWER_FLOOR)
        loudness = torch.log10(band_power + POWER_FLOOR) / 2
        return torch.cat([loudness[None], coherence.clamp(-2, 2)])[None]

    def estimate(self, spectra: list[Tensor], conditions: Tensor) -> tuple[Tensor, ...]:
        features = self.features(spectra[0])
        analysis = self.model.analyse(features, spectra[-1][None])
        mask = self.model.mask(analysis, conditions[None])
        others = [self.model.presence(analysis, conditions[None])[0]]
        if self.model.carry_high:
            others.append(self.model.high_gain(mask, features)[0])
        return self.model.to_bins @ mask[0], *others


class ResUNetGraph(Graph):
    """`ResUNet30`."""

    padding = "with zeros at its end to n_fft / 2 + 1 samples"

    def pad(self, mixture: Tensor) -> Tensor:
        short = self.model.stft.n_fft // 2 + 1 - size_of(mixture)
        return F.pad(mixture, (0, short.clamp_min(0)))

    def estimate(self, spectra: list[Tensor], conditions: Tensor) -> tuple[Tensor, ...]:
        magnitude = magnitude_of(spectra[0]).clamp_min(resunet.FLOOR**0.5)
        each = magnitude.expand(conditions.shape[0], -1, -1)
        return (torch.stack(self.model.mask_parts(each, conditions), dim=1),)


class CLIPSepGraph(Graph):
    """`CLIPSepUNet`."""

    padding = f"repeated to {clipsep_unet.PERIOD} samples"

    def pad(self, mixture: Tensor) -> Tensor:
        length = size_of(mixture)
        return mixture[:, torch.arange(length.clamp_min(clipsep_unet.PERIOD)) % length]

    def estimate(self, spectra: list[Tensor], conditions: Tensor) -> tuple[Tensor, ...]:
        model = self.model
        features = torch.log(
            resample_rows(magnitude_of(spectra[0])[None, None] + clipsep_unet.EPSILON, model.among_bins)
        )

        def masks(windows: Tensor) -> Tensor:
            count, queries = windows.shape[0], conditions.shape[0]
            each = conditions.expand(count, -1, -1)
            if model.fusion not in ("early", "middle"):
                return model.masks(windows, each)
            repeated = windows.expand(-1, queries, -1, -1).reshape(count * queries, 1, *windows.shape[2:])
            masks = model.masks(repeated, each.reshape(count * queries, 1, -1))
            return masks.reshape(count, queries, *masks.shape[2:])

        mask = process_windows(clipsep_unet.WINDOWS, features, masks)
        mask = resample_rows(mask, model.among_rows)[0]
        return (torch.stack([mask, torch.zeros_like(mask)], dim=1),)


class BiModalGraph(Graph):
    """`BiModalUNet`."""

    padding = "with zeros at its end, to 128 n frames, or above 512 frames to 512 + 375 n"

    def pad(self, mixture: Tensor) -> Tensor:
        windows, grid, hop = bimodal_unet.WINDOWS, bimodal_unet.GRID, bimodal_unet.HOP
        length = size_of(mixture)
        frames = length // hop + 1
        longer = (count_windows(windows, frames) - 1) * windows.hop + windows.size
        frames = torch.where(frames <= windows.size, (frames + grid - 1) // grid * grid, longer)
        return F.pad(mixture, (0, ((frames - 1) * hop - length).clamp_min(0)))

    def estimate(self, spectra: list[Tensor], conditions: Tensor) -> tuple[Tensor, ...]:
        def masks(windows: Tensor) -> Tensor:
            count, queries = windows.shape[0], conditions.shape[0]
            every = windows.expand(-1, queries, -1, -1).flatten(0, 1)
            mask = self.model.mask(every, conditions.expand(count, -1, -1).flatten(0, 1))
            return mask.reshape(count, queries, *mask.shape[1:])

        mask = process_windows(bimodal_unet.WINDOWS, magnitude_of(spectra[0])[None, None], masks)[0]
        return (torch.stack([mask, torch.zeros_like(mask)], dim=1),)


GRAPHS: dict[type, Any] = {
    BandUNet: BandGraph,
    resunet.ResUNet30: ResUNetGraph,
    clipsep_unet.CLIPSepUNet: CLIPSepGraph,
    bimodal_unet.BiModalUNet: BiModalGraph,
}


def size_of(x: Tensor, axis: int = -1) -> Any:
    """Size of a tensor, which stays dynamic in the exported graph."""
    return torch.as_tensor(x.shape[axis])


def magnitude_of(spectrum: Tensor) -> Tensor:
    """Magnitude of all channels of a spectrum (channels, 2, bins, frames) together (bins, frames)."""
    return spectrum.square().sum((0, 1)).sqrt()


def resample_rows(x: Tensor, positions: Tensor) -> Tensor:
    """Resample as `spectra.resample_rows` does, for any number of frames."""
    count = size_of(x)
    frames = (torch.arange(count).double() * (2 / (count - 1).double()) - 1).float()
    grid = torch.stack(torch.broadcast_tensors(frames, positions[:, None]), dim=-1)
    return F.grid_sample(x, grid[None], mode="bilinear", align_corners=True)


def count_windows(windows: Windows, frames: Any) -> Any:
    """Number of windows, as `Windows.count` has it."""
    return 1 + (frames - windows.size + windows.hop - 1).clamp_min(0) // windows.hop


def process_windows(windows: Windows, features: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """`Windows.process` of features (1, ..., frames), with all windows in one batch and without a loop."""
    frames = size_of(features)
    count, size = count_windows(windows, frames), frames.clamp_max(windows.size)
    if windows is clipsep_unet.WINDOWS:
        size = torch.as_tensor(windows.size)
    start = torch.arange(count)[:, None] * windows.hop
    length = (frames - start).clamp_max(windows.size)
    index = start + torch.arange(size) % length  # the content of the last window is repeated
    parts = compute(features[..., index][0].permute(2, 0, 1, 3))  # (windows, queries, rows, size)
    # Each frame comes from the window on the left and the one on the right of the nearest border.
    place = torch.arange(frames) + 0.5 - (windows.size - windows.hop) / 2
    right = torch.minimum((place / windows.hop).round().long().clamp_min(1), (count - 1).clamp_min(1))
    weight = ((place - right * windows.hop) / windows.fade + 0.5).clamp(0, 1) * (count > 1)
    joined: Any = 0
    for number, share in ((right - 1, 1 - weight), (right, weight)):
        inside = (torch.arange(frames) - number * windows.hop).clamp_min(0).minimum(size - 1)
        chosen = parts.permute(1, 2, 0, 3).flatten(-2)[..., torch.minimum(number, count - 1) * size + inside]
        joined = joined + chosen * share
    return joined[None]


class TextGraph(nn.Module):
    """Token numbers and their mask (queries, templates, tokens) to conditions (queries, dim)."""

    def __init__(self, encoder: JointEncoder) -> None:
        super().__init__()
        self.bert, self.encoder = load_bert()[0], encoder

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        flat, seen, bert = tokens.flatten(0, 1), mask.flatten(0, 1) > 0, self.bert
        x = bert.norm(bert.words(flat) + bert.positions(torch.arange(size_of(flat, 1))) + bert.types.weight[0])
        layer: Any
        for layer in bert.layers:  # PyTorch's own forward has no export to any length
            attention = layer.self_attn
            parts = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
            q, k, v = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in parts)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None])
            x = layer.norm1(x + attention.out_proj(y.transpose(1, 2).flatten(2)))
            x = layer.norm2(x + layer.linear2(F.gelu(layer.linear1(x))))
        weight = seen[..., None].to(x.dtype)
        sentences = F.normalize((x * weight).sum(1) / weight.sum(1), dim=-1)
        conditions = self.encoder.embed_sentences(sentences).reshape(tokens.shape[0], tokens.shape[1], -1)
        return self.encoder.move(F.normalize(conditions.mean(1), dim=-1))
