"""CLIPSep's conditioned U-Net and its relatives: masks on a log-frequency axis, queried by CLIP vectors.

Dong et al., "CLIPSep: Learning Text-queried Sound Separation with Noisy Unlabeled Videos", 2023, after Zhao et al.,
"The Sound of Pixels", 2018. One file holds the variants that were published with it, with their released tensor names:

- late fusion (CLIPSep, BERTSep, SOP): the U-Net gives 32 maps, the query weighs them;
- with noise heads (CLIPSep-NIT): two more masks, from the query's projection, take up what no query explains;
- with a table of labels (LabelSep), whose rows stand in for CLIP vectors;
- without a query (PIT): two masks, in no order; a condition of two numbers chooses or mixes them;
- early and middle fusion: the query joins the input, or the coarsest grid.

Their maps do not depend on the query but in the last two, so several queries share one pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.models.base import ConditionedModel, at_least_single
from separation.models.spectra import log_frequency, resample_rows
from separation.models.windows import in_windows, reach

SLOPE = 0.2
N_FFT, HOP = 1024, 256
ROWS, BINS = 256, N_FFT // 2 + 1
PERIOD = 65535  # samples of a training clip; k of them give 256 k frames
WINDOW, WINDOW_HOP = 256, 125  # frames: a training clip; 2 s, which lie on the grid of whole seconds
EPSILON = 1e-10
THRESHOLD = 0.5
FUSIONS = ("late", "early", "middle", "none")


def widths(layers: int, finest: int) -> list[int]:
    """Channels of each level, finest first."""
    return [finest, 2 * finest, 4 * finest] + [8 * finest] * (layers - 3)


def doubled(x: Tensor) -> Tensor:
    """Bilinear x2; corners stay corners, so the grid depends a little on the size."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)


def down(inputs: int, outputs: int) -> nn.Conv2d:
    """Halves both axes."""
    return nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)


def up(inputs: int, outputs: int, bias: bool = False) -> nn.Conv2d:
    """The convolution behind a doubling."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


class Level(nn.Module):
    """One level of the late-fusion U-Net: down, everything coarser, up; numbered as it was released."""

    def __init__(self, sizes: list[int], level: int, inputs: int, outputs: int) -> None:
        super().__init__()
        width, self.outer, self.inner = sizes[level], level == 0, level == len(sizes) - 1
        parts: dict[str, nn.Module]
        if self.inner:
            parts = {"1": down(inputs, width), "4": up(width, outputs), "5": nn.BatchNorm2d(outputs)}
        else:
            coarser = Level(sizes, level + 1, width, width)
            if self.outer:
                parts = {"0": down(inputs, width), "1": coarser, "4": up(2 * width, outputs, bias=True)}
            else:
                parts = {"1": down(inputs, width), "2": nn.BatchNorm2d(width), "3": coarser}
                parts |= {"6": up(2 * width, outputs), "7": nn.BatchNorm2d(outputs)}
        self.model = nn.ModuleDict(parts)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, rows, frames) to (batch, outputs, ...) outside, to (batch, inputs + outputs, ...) within."""
        part = self.model
        if self.outer:
            return part["4"](doubled(F.relu(part["1"](part["0"](x)))))
        y = part["1"](F.leaky_relu(x, SLOPE))
        if self.inner:
            y = part["5"](part["4"](doubled(F.relu(y))))
        else:
            y = part["7"](part["6"](doubled(F.relu(part["3"](part["2"](y))))))
        return torch.cat([x, y], dim=1)


class NamedLevel(nn.Module):
    """One level of the middle-fusion U-Net: as `Level`, but with norms at all levels; the query joins the coarsest."""

    def __init__(self, sizes: list[int], level: int, inputs: int, outputs: int, query: int) -> None:
        super().__init__()
        width, self.outer, self.inner = sizes[level], level == 0, level == len(sizes) - 1
        self.downconv, self.downnorm = down(inputs, width), nn.BatchNorm2d(width)
        if not self.inner:
            self.submodule = NamedLevel(sizes, level + 1, width, width, query)
        self.upconv = up(width + (query if self.inner else width), outputs, bias=self.outer)
        if not self.outer:
            self.upnorm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor, query: Tensor) -> Tensor:
        """(batch, inputs, rows, frames) and query (batch, numbers) to what `Level` gives."""
        y = F.leaky_relu(self.downnorm(self.downconv(x)), SLOPE)
        y = torch.cat([y, spread(query, y)], dim=1) if self.inner else self.submodule(y, query)
        y = self.upconv(doubled(y))
        return y if self.outer else torch.cat([x, F.relu(self.upnorm(y))], dim=1)


def spread(query: Tensor, like: Tensor) -> Tensor:
    """Query (batch, numbers) at every point of a grid (batch, ..., rows, frames)."""
    return query[:, :, None, None].expand(-1, -1, *like.shape[2:])


class SoundNet(nn.Module):
    """Batch norm, then the U-Net: (batch, inputs, 256, frames) to (batch, outputs, 256, frames)."""

    def __init__(self, inputs: int, outputs: int, layers: int, query: int = 0, width: int = 64) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(inputs)
        sizes = widths(layers, width)
        self.unet_block: nn.Module = (
            NamedLevel(sizes, 0, inputs, outputs, query) if query else Level(sizes, 0, inputs, outputs)
        )

    def forward(self, x: Tensor, *query: Tensor) -> Tensor:
        return self.unet_block(self.bn0(x), *query)


class InnerProduct(nn.Module):
    """Maps weighed by a query: sum over k of query_k * scale_k * map_k, plus a bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, queries: Tensor, maps: Tensor) -> Tensor:
        """Queries (batch, n, k), maps (batch, k, rows, frames) -> (batch, n, rows, frames)."""
        return torch.einsum("bqk,bkft->bqft", queries * self.scale, maps) + self.bias


def begin(network: nn.Module) -> None:
    """Random weights as published: so small that all masks are nearly the same number, somewhat over a half."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, 0.0, 0.001)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.02)
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, 0.0, 1e-4)


class CLIPSepUNet(ConditionedModel):
    """CLIPSep and its relatives (see the module's text).

    Args:
        condition_dim: 512 for CLIP vectors (not normalised), 256 for BERTSep; 2 where `fusion` is "none".
        fusion: how the query enters: "late", "early", "middle" or "none" (PIT).
        noise_heads: 2 for CLIPSep-NIT.
        labels: rows of the label table, for LabelSep.
        channels: maps that the U-Net gives.
        layers: halvings of the U-Net, at least 5.
        width: channels of its finest level; 64 was published.
        published_start: begin a training with the published random weights, see `begin`.
        faithful: compute as published: channel by channel, one pass over the whole, samples clipped to [-1, 1], and a
            binary mask instead of the soft one.
    """

    window: Tensor
    among_bins: Tensor
    among_rows: Tensor
    sample_rate = 16000
    segment_seconds = 60  # windows are what takes the memory
    grid_seconds = 2
    input_level = 0.1
    published_otherwise = True
    estimates_presence = False

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
        self.fusion, self.faithful = fusion, faithful
        self.condition_dim = 2 if fusion == "none" else condition_dim
        self.stride, self.context = HOP * WINDOW_HOP, HOP * reach(WINDOW, WINDOW_HOP) + N_FFT
        self.frame_multiple = 2**layers
        self._build(channels, layers, noise_heads, labels, width)
        if published_start:
            begin(self)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)
        among_bins, among_rows = log_frequency(ROWS, BINS)
        self.register_buffer("among_bins", among_bins, persistent=False)
        self.register_buffer("among_rows", among_rows, persistent=False)

    def _build(self, channels: int, layers: int, noise_heads: int, labels: int, width: int) -> None:
        """The layers, under their released names."""
        single = self.fusion in ("early", "middle")
        inputs, outputs = (1 + channels if self.fusion == "early" else 1), (1 if single else channels)
        self.sound_net = SoundNet(inputs, outputs, layers, channels if self.fusion == "middle" else 0, width)
        if self.fusion == "none":
            self.synth_net: nn.Module = nn.Conv2d(channels, 2, 1)
            return
        project = nn.Linear(self.condition_dim, channels)
        self.frame_net: nn.Module = nn.ModuleDict({"fc": project}) if self.fusion == "early" else project
        if self.fusion != "early":
            self.synth_net = InnerProduct(channels)  # with middle fusion it is in the files and not used
        if noise_heads:
            self.pit_nets = nn.ModuleList(nn.Linear(channels, channels) for _ in range(noise_heads))
        if labels:
            self.label_net = nn.Embedding(labels, self.condition_dim)

    def project(self, conditions: Tensor) -> Tensor:
        """Conditions (batch, n, dim) to the weights of the maps, before the sigmoid (batch, n, channels)."""
        if isinstance(self.frame_net, nn.ModuleDict):
            return self.frame_net["fc"](conditions)
        return self.frame_net(conditions)

    def logits(self, features: Tensor, conditions: Tensor) -> Tensor:
        """Log-magnitudes (batch, 1, 256, frames) and conditions (batch, n, dim) to logits (batch, n, 256, frames)."""
        if self.fusion in ("early", "middle"):
            queries = torch.sigmoid(self.project(conditions)).unbind(1)
            return torch.cat([self._fused(features, query) for query in queries], dim=1)
        return self.synth_net(torch.sigmoid(self.project(conditions)), self.sound_net(features))

    def _fused(self, features: Tensor, query: Tensor) -> Tensor:
        """One query (batch, channels) through the whole network: (batch, 1, 256, frames)."""
        if self.fusion == "early":
            return self.sound_net(torch.cat([features, spread(query, features)], dim=1))
        return self.sound_net(features, query)

    def noise_logits(self, features: Tensor, conditions: Tensor) -> Tensor:
        """Logits of the noise heads (batch, heads, 256, frames), for the mean of all queries' projections."""
        return self.synth_net(self._noise_queries(self.project(conditions)), self.sound_net(features))

    def _noise_queries(self, projected: Tensor) -> Tensor:
        """Weights of the maps for the noise heads (batch, heads, channels), from the queries' projections."""
        mean = projected.mean(1)
        return torch.stack([torch.sigmoid(head(mean)) for head in self.pit_nets], dim=1)

    def masks_with_noise(self, features: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """What `masks` and `noise_masks` give, from one pass of the U-Net: for training."""
        maps, projected = self.sound_net(features), self.project(conditions)
        noise = self.synth_net(self._noise_queries(projected), maps)
        return torch.sigmoid(self.synth_net(torch.sigmoid(projected), maps)), torch.sigmoid(noise)

    def masks(self, features: Tensor, conditions: Tensor) -> Tensor:
        """Soft masks on the log-frequency axis (batch, n, 256, frames)."""
        if self.fusion == "none":
            both = torch.sigmoid(self.synth_net(self.sound_net(features)))
            return torch.einsum("bqk,bkft->bqft", conditions, both)
        return torch.sigmoid(self.logits(features, conditions))

    def noise_masks(self, features: Tensor, conditions: Tensor) -> Tensor:
        """Soft masks of the noise heads (batch, heads, 256, frames)."""
        return torch.sigmoid(self.noise_logits(features, conditions))

    def features(self, magnitude: Tensor) -> Tensor:
        """Magnitude (batch, 513, frames) to log-magnitude on the log-frequency axis (batch, 1, 256, frames)."""
        return torch.log(self.rows((magnitude + EPSILON)[:, None]))

    def rows(self, magnitude: Tensor) -> Tensor:
        """Magnitude (batch, n, 513, frames) on the log-frequency axis (batch, n, 256, frames)."""
        return resample_rows(magnitude, self.among_bins)

    def spectrum(self, waveform: Tensor) -> Tensor:
        """Waveform (..., time) to (..., 513, frames); outside it is silent.

        In double precision, as published: the logarithm makes rounding audible in bins that are almost silent.
        """
        flat = waveform.reshape(-1, waveform.shape[-1])
        if flat.device.type != "mps":  # which has no double precision
            flat = flat.double()
        window = torch.hann_window(N_FFT, dtype=flat.dtype, device=flat.device)
        spectrum = torch.stft(flat, N_FFT, HOP, window=window, pad_mode="constant", return_complex=True)
        return spectrum.to(torch.complex64).reshape(*waveform.shape[:-1], *spectrum.shape[-2:])

    def waveform(self, spectrum: Tensor, length: int) -> Tensor:
        """Spectrum (..., 513, frames) to (..., length)."""
        flat = spectrum.reshape(-1, *spectrum.shape[-2:])
        return torch.istft(flat, N_FFT, HOP, window=self.window, length=length).reshape(*spectrum.shape[:-2], length)

    def separate(self, mixture: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """See `ConditionedModel.separate`; the presence logits are zero, for nothing estimates them."""
        return self._filtered(self.masks, mixture, conditions), mixture.new_zeros(*conditions.shape[:2], 1)

    def separate_noise(self, mixture: Tensor, conditions: Tensor) -> Tensor:
        """What the noise heads take out: (batch, channels, time) to (batch, heads, channels, time)."""
        return self._filtered(self.noise_masks, mixture, conditions)

    def _filtered(self, masks: Callable[[Tensor, Tensor], Tensor], mixture: Tensor, conditions: Tensor) -> Tensor:
        """Masks of one kind on the mixture: (batch, channels, time) to (batch, masks, channels, time)."""
        batch, channels, length = mixture.shape
        if not self.faithful:
            return self._masked(masks, mixture, conditions)
        alone = mixture.clamp(-1, 1).reshape(batch * channels, 1, length)
        targets = self._masked(masks, alone, conditions.repeat_interleave(channels, 0)).clamp(-1, 1)
        return targets.reshape(batch, channels, -1, length).transpose(1, 2)

    def _masked(self, masks: Callable[[Tensor, Tensor], Tensor], mixture: Tensor, conditions: Tensor) -> Tensor:
        """One mask for all channels, from their magnitudes together.

        As published the mixture is repeated to whole periods and goes through the network at once; so it does here if
        it is no longer than a training clip. Longer ones go through it in windows of that length.
        """
        length = mixture.shape[-1]
        at_once = self.faithful or length < PERIOD
        spectrum = self.spectrum(repeated(mixture) if at_once else mixture)  # (batch, channels, 513, frames)
        features = self.features(spectrum.abs().square().sum(1).sqrt())
        size, hop = (features.shape[-1],) * 2 if at_once else (WINDOW, WINDOW_HOP)
        mask = at_least_single(in_windows(features, size, hop, lambda window: self._padded(masks, window, conditions)))
        mask = resample_rows(mask, self.among_rows)
        if self.faithful:
            mask = (mask > THRESHOLD).to(mask.dtype)
        return self.waveform(mask[:, :, None] * spectrum[:, None], length)

    def _padded(self, masks: Callable[[Tensor, Tensor], Tensor], features: Tensor, conditions: Tensor) -> Tensor:
        """Masks of features with as many frames as the halvings need; up to 8 layers that is no more than given."""
        more = -features.shape[-1] % self.frame_multiple
        return masks(F.pad(features, (0, more)), conditions)[..., : features.shape[-1]]


def repeated(mixture: Tensor) -> Tensor:
    """(..., time) over and over, to the next multiple of the training clips' length (a full one gets one more)."""
    length = mixture.shape[-1]
    wanted = PERIOD * (length // PERIOD + 1)
    return mixture.repeat(*[1] * (mixture.ndim - 1), -(-wanted // max(length, 1)))[..., :wanted]
