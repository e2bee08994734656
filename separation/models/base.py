"""The interface of separator networks, and what several of them share."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.models.spectra import STFT

REST_EXPONENT = 1.25  # of the share of the mixture that is left when several targets are taken away


class Estimate(NamedTuple):
    """What a network returns for several queries on each mixture.

    Attributes:
        targets: (batch, queries, channels, time).
        logits: presence logits over time (batch, queries, frames), one per `stride` samples.
        tags: logits of AudioSet's classes (batch, patches, 521), two per second; None without a tagger.
        high_gain: gain above the network's Nyquist frequency (batch, queries, frames), one per `gain_stride` samples;
            None if the network has no estimate for it.
    """

    targets: Tensor
    logits: Tensor
    tags: Tensor | None = None
    high_gain: Tensor | None = None


class ConditionedModel(nn.Module):
    """A network that extracts the sound described by a condition vector from a mixture.

    Attributes:
        sample_rate: rate of the waveforms, Hz.
        condition_dim: length of the condition vectors.
        stride: samples between two frames of the presence logits. Segments that start at a multiple of it are
            computed on the same grid as the whole recording.
        context: samples on either side that can influence an output sample.
        segment_seconds: length of the segments into which long recordings are cut.
        grid_seconds: segments start at multiples of this many seconds, which lie on the network's grid.
        input_level: level to which mixtures are scaled before they enter the network, see `levels.measure_level`.
        estimates_presence: whether `separate` estimates presence; otherwise its logits are zero.
        high_pass: frequencies below this, in Hz, and constant offsets affect neither level nor presence; targets may
            contain them, see `levels.FAINT_RUMBLE`. 0: no filter.
        gain_stride: samples between two values of `Estimate.high_gain`.
        lists_sounds: whether `score_presence` is implemented.
        has_tagger: whether `Estimate.tags` has logits.
        prefers_bfloat16: whether convolutions in bfloat16 change estimates so little that they are used by default
            on processors that compute with them.
        use_bfloat16: whether inference uses them, see `autocast`.
        has_published_inference: whether the published inference differs from this package's, see `as_scored`.
        causal: whether the network can be given a recording piece by piece, see `models.live_unet`.
        faithful: use the published inference: the whole recording at once, at its own level.
    """

    sample_rate: int
    condition_dim: int
    stride: int = 1
    context: int = 0
    segment_seconds: int = 24
    grid_seconds: int = 1
    input_level: float = 1.0
    high_pass: float = 0.0
    gain_stride: int = 1
    estimates_presence: bool = True
    lists_sounds: bool = False
    has_tagger: bool = False
    prefers_bfloat16: bool = False
    use_bfloat16: bool = False
    has_published_inference: bool = False
    causal: bool = False
    faithful: bool = False

    def forward(self, mixture: Tensor, condition: Tensor) -> Tensor:
        """Mixture (batch, channels, time) and condition (batch, dim) to target (batch, channels, time)."""
        return self.separate(mixture, condition[:, None]).targets[:, 0]

    def fold_norms(self) -> None:
        """Fold batch norms into convolutions, for inference only; estimates stay the same."""

    def autocast(self, device: torch.device) -> torch.autocast:
        """Context in which inference runs the network: convolutions in bfloat16 if `use_bfloat16` is set."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.use_bfloat16)

    def as_scored(self) -> ConditionedModel:
        """Return this network with the inference of the published evaluation; both share their weights."""
        other = copy(self)
        other.faithful = True
        return other

    def separate(self, mixture: Tensor, conditions: Tensor) -> Estimate:
        """Separate several queries from each mixture.

        Args:
            mixture: (batch, channels, time).
            conditions: (batch, queries, dim).
        """
        raise NotImplementedError

    def score_presence(self, mixture: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute only the presence logits and tags of `separate`."""
        raise NotImplementedError


class TargetFilter(ConditionedModel):
    """A network whose targets are multiplied by gains that depend on all of its estimates.

    At each point of time and frequency they come from powers summed over channels, which keeps the stereo image.
    """

    def __init__(self, model: ConditionedModel, device: torch.device) -> None:
        super().__init__()
        self.model = model
        for name in ("sample_rate", "condition_dim", "stride", "segment_seconds", "grid_seconds", "input_level"):
            setattr(self, name, getattr(model, name))
        self.estimates_presence, self.faithful, self.causal = model.estimates_presence, model.faithful, model.causal
        self.high_pass, self.gain_stride, self.use_bfloat16 = model.high_pass, model.gain_stride, model.use_bfloat16
        hop = model.sample_rate // 100  # whole seconds lie on the grid of the frames, so segments equal the whole
        self.context = model.context + 4 * hop
        self.stft = STFT(4 * hop, hop, None).to(device)

    def separate(self, mixture: Tensor, conditions: Tensor) -> Estimate:
        queries, length = conditions.shape[1], mixture.shape[-1]
        estimate = self.model.separate(mixture, self.all_conditions(conditions))
        spectra, total = (self.stft(F.pad(x, (0, 2 * self.stft.hop))) for x in (estimate.targets, mixture))
        gain = self.gain(spectra.abs().square().sum(2), total.abs().square().sum(1, keepdim=True))
        high_gain = estimate.high_gain
        if high_gain is not None:
            power = high_gain.square()[:, :, None]
            high_gain = high_gain[:, :queries] * self.gain(power, torch.ones_like(power[:, :1]))[:, :, 0]
        targets = self.stft.inverse(spectra[:, :queries] * gain[:, :, None], length)
        return Estimate(targets, estimate.logits[:, :queries], estimate.tags, high_gain)

    def score_presence(self, mixture: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.model.score_presence(mixture, conditions)

    def all_conditions(self, conditions: Tensor) -> Tensor:
        """Conditions of the queries (batch, queries, dim) followed by those of other estimates that the gains need."""
        return conditions

    def gain(self, power: Tensor, mixture: Tensor) -> Tensor:
        """Powers of estimates (batch, n, bins, frames) and mixture (batch, 1, bins, frames) to gains of the queries."""
        raise NotImplementedError


class NegativeFilter(TargetFilter):
    """A network whose targets are attenuated where other queries, the negatives, claim the signal.

    Targets and negatives are separated together. The target is then multiplied by a Wiener filter with the power of
    the estimates in place of the power of the sources (Liutkus and Badeau, "Generalized Wiener filtering with
    fractional power spectrograms", 2015, exponent 2):

        result = target * |target|^2 / (|target|^2 + sum over negatives |negative|^2)

    A negative that does not occur in the mixture changes nothing.

    Args:
        model: separates targets and negatives.
        negatives: conditions (negatives, dim).
        excluded: which negatives apply to each query (queries, negatives), booleans.
    """

    def __init__(self, model: ConditionedModel, negatives: Tensor, excluded: Tensor) -> None:
        super().__init__(model, negatives.device)
        self.negatives, self.excluded = negatives, excluded

    def all_conditions(self, conditions: Tensor) -> Tensor:
        return torch.cat([conditions, self.negatives[None].expand(len(conditions), -1, -1)], dim=1)

    def gain(self, power: Tensor, mixture: Tensor) -> Tensor:
        target, negative = power.split(self.excluded.shape, dim=1)
        claimed = torch.stack([negative[:, applies].sum(1) for applies in self.excluded], dim=1)
        return target / (target + claimed + 1e-12)


class SharedTargets(TargetFilter):
    """A network of whose targets some never claim more than the mixture together, so that no energy is taken twice.

    With s = sum over the targets of a group |target| / |mixture|, all of them are multiplied by the same gain:

        result = target * min(1, s) / s          or, in groups of which only the sum is used,
        result = target * (1 - (1 - min(1, s)) ^ 1.25) / s

    The second is better by 0.1 dB for the sum and for the rest (docs/experiments.md).

    Args:
        model: separates them.
        device: to compute on.
        groups: number of each target's group (queries,); those of group 0 stay as they are. None: all share.
        summed: groups of which only the sum is used.
    """

    def __init__(
        self,
        model: ConditionedModel,
        device: torch.device,
        groups: Sequence[int] | None = None,
        summed: Container[int] = (),
    ) -> None:
        super().__init__(model, device)
        self.groups = torch.tensor([1] if groups is None else groups, device=device).int()
        self.summed = summed

    def gain(self, power: Tensor, mixture: Tensor) -> Tensor:
        groups, gains = self.groups.expand(power.shape[1]), torch.ones_like(power)
        for group in set(groups.tolist()) - {0}:
            members = groups == group
            claimed = power[:, members].sqrt().sum(1, keepdim=True)
            gain = (mixture.sqrt() / (claimed + 1e-12)).clamp_max(1.0)
            if group in self.summed:
                share = (claimed / (mixture.sqrt() + 1e-12)).clamp(1e-6, 1.0)
                gain *= (1 - (1 - share) ** REST_EXPONENT) / share
            gains[:, members] = gain
        return gains


@dataclass(frozen=True)
class Windows:
    """Processes long spectrograms in windows of fixed length, for networks whose output depends on the input's length.

    Such networks attend over the whole input or stretch their grid from corner to corner. Each frame is taken from the
    window in whose middle it lies, with a linear fade from one window to the next. A segment that starts at a multiple
    of `hop` frames is cut into the same windows as the whole recording, so segments equal the whole.

    Args:
        size: frames of a window.
        hop: frames between the starts of two windows.
        fade: frames over which two windows are blended.
    """

    size: int
    hop: int
    fade: int = 32

    @property
    def context(self) -> int:
        """Frames on either side that can influence a frame."""
        return self.size - (self.size - self.hop) // 2 + self.fade // 2

    def count(self, frames: int) -> int:
        """Number of windows that cover all frames."""
        return 1 + max(0, -(-(frames - self.size) // self.hop))

    def weight(self, number: int, windows: int, like: Tensor) -> Tensor:
        """Weight of each frame of a window (size,); the weights of all windows add up to one."""
        position = torch.arange(self.size, device=like.device, dtype=like.dtype) + 0.5 - (self.size - self.hop) / 2
        rise = (position / self.fade + 0.5).clamp(0, 1) if number else torch.ones_like(position)
        if number == windows - 1:
            return rise
        return rise - ((position - self.hop) / self.fade + 0.5).clamp(0, 1)

    def process(self, features: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Apply `compute` to windows (..., size) of features (..., frames) and join its results (..., frames).

        The content of the last window is repeated until it is full.
        """
        frames, windows = features.shape[-1], self.count(features.shape[-1])
        joined = features.new_zeros(0)
        for number in range(windows):
            start = number * self.hop
            window = features[..., start : start + self.size]
            length = window.shape[-1]
            full = window.repeat(*[1] * (window.ndim - 1), -(-self.size // length))[..., : self.size]
            part = compute(full)[..., :length] * self.weight(number, windows, features)[:length]
            if number == 0:
                joined = part.new_zeros(*part.shape[:-1], frames)
            joined[..., start : start + length] += part
        return joined


class InnerProduct(nn.Module):
    """Sum of maps weighted by queries: sum over k of query_k * scale_k * map_k, plus a bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, queries: Tensor, maps: Tensor) -> Tensor:
        """Queries (batch, n, k) and maps (batch, k, rows, frames) to (batch, n, rows, frames)."""
        return torch.einsum("bqk,bkft->bqft", queries * self.scale, maps) + self.bias


class NormalisedUNet(nn.Module):
    """Batch norm and a U-Net: (batch, inputs, rows, frames) to (batch, outputs, rows, frames)."""

    def __init__(self, inputs: int, unet: nn.Module) -> None:
        super().__init__()
        self.bn0, self.unet_block = nn.BatchNorm2d(inputs), unet

    def forward(self, x: Tensor, *query: Tensor) -> Tensor:
        return self.unet_block(self.bn0(x), *query)


def halve(inputs: int, outputs: int) -> nn.Conv2d:
    """Convolution that halves both axes."""
    return nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)


def double(x: Tensor) -> Tensor:
    """Bilinear upsampling by two; corners stay corners, so the grid depends slightly on the size."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)


def apply_shared_masks(
    stft: STFT, mask: Callable[[Tensor, Tensor], Tensor], mixture: Tensor, conditions: Tensor, floor: float = 0.0
) -> Tensor:
    """Separate (batch, channels, time) by conditions (batch, queries, dim): (batch, queries, channels, time).

    `mask` estimates one for all channels from their magnitude together, at least `floor`**0.5, (batch, bins, frames),
    and conditions (batch, dim).
    """
    spectrum = stft(mixture)
    magnitude = spectrum.abs().square().sum(1).clamp_min(floor).sqrt()
    # One query after another, because maps at full resolution need much memory.
    targets = [
        stft.inverse(spectrum * mask(magnitude, condition)[:, None], mixture.shape[-1])
        for condition in conditions.unbind(1)
    ]
    return torch.stack(targets, dim=1)


def at_least_single(x: Tensor) -> Tensor:
    """Convert to single precision what autocast computed in less: there are no complex numbers of bfloat16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
