"""The network for live sound: a causal U-Net on frequency bands that sees a tagger's features of what has sounded.

It has the form of `band_unet`, but looks at the past only, so it can be given a recording piece by piece: everything
that later pieces need is kept in a `Past`, and the whole recording is one piece with an empty past. A step is two
frames, 31 ms. The coarser grids of the network are computed every second or fourth step and hold until the next.

The analysis window is longer than the part of it that is added to the output (Mauler and Martin, "A low delay, variable
resolution, perfect reconstruction spectral analysis-synthesis system", 2007): 50 ms of resolution at a latency of a
shorter window. The level that mixtures are divided by is a running mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from separation.models.band_unet import FEATURES, PATCH, POWER_FLOOR, Analysis, BandMaskModel, FiLM, add_shared
from separation.models.base import Estimate
from separation.models.causal import CONDITION, CausalConv, LowDelaySTFT, Past, Pointwise, hold
from separation.models.tagger import LATE_DIM, LOG_FLOOR, PATCH_FRAMES, LogMelPatches, Tagger

LEVEL_SECONDS, PAUSE_SECONDS = 4.0, 30.0  # time constants of the running level
PAUSE = 1e-4  # power relative to the level's, below which a step is a pause, as in `levels.measure_level`
SILENCE = 1e-12  # power of a step that is digital silence
RUMBLE_BINS = 2  # the lowest bins, below 30 Hz, which neither level nor features depend on
TIME_STRIDES = (2, 2, 1)
COARSE = 4  # steps of the coarsest grid


class CausalResidual(nn.Module):
    """Two causal convolutions with a residual connection, on (batch, channels, bands, frames)."""

    def __init__(self, channels: int, rank: int, taps: int) -> None:
        super().__init__()
        self.first = CausalConv(channels, channels, rank, taps=taps)
        self.second = CausalConv(channels, channels, rank, taps=taps)

    def forward(self, x: Tensor, past: Past) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x, past)), past))


class CausalLevel(nn.Module):
    """One level of the encoder: go to a coarser grid, convolve."""

    def __init__(self, inputs: int, outputs: int, rank: int, stride: tuple[int, int], taps: int) -> None:
        super().__init__()
        self.down = CausalConv(inputs, outputs, rank, stride, taps=max(taps, stride[1]))
        self.residual = CausalResidual(outputs, rank, taps)

    def forward(self, x: Tensor, past: Past, before: int) -> Tensor:
        x = self.down(x, past, before)
        return self.residual(F.relu(x), past) if x.shape[-1] else x


class CausalDecoder(nn.Module):
    """One level of the decoder: upsample by `scale` in bands and frames, add the encoder's map, convolve, modulate."""

    def __init__(
        self, inputs: int, outputs: int, condition_dim: int, rank: int, taps: int, scale: tuple[int, int]
    ) -> None:
        super().__init__()
        self.scale = scale
        self.reduce = Pointwise(inputs, outputs)
        self.conv = CausalConv(outputs, outputs, rank, taps=taps)
        self.film = FiLM(condition_dim, outputs)

    def forward(self, x: Tensor, skip: Tensor, modulation: Tensor, past: Past, before: int) -> Tensor:
        """x (batch * queries, ...), the encoder's map (batch, ...) after `before` frames, and what `film` projects."""
        x = self.reduce(x)
        if self.scale[1] == 2:
            x = hold(x, past, self, before, skip.shape[-1])
        x = x.repeat_interleave(2, dim=2)
        if not x.shape[-1]:
            return x
        return F.relu(modulate(self.conv(add_shared(x, skip), past), modulation))


def modulate(x: Tensor, modulation: Tensor) -> Tensor:
    """Modulate x (batch, channels, ...) by scale and shift (batch, 2 * channels, ...), as `FiLM` does."""
    scale, shift = modulation.chunk(2, dim=1)
    return torch.addcmul(shift, x, 1 + scale)


class CausalTags(nn.Module):
    """A tagger's features of the last second, for the frame stream and the bottom of the U-Net.

    Args:
        sample_rate: Hz.
        channels: of the bottom.
        stream_dim: channels of the frame stream.
        step: samples of a step.
        every: steps between two looks.
    """

    WINDOW, HOP = 40, 100  # parts of a second

    filters: Tensor
    window: Tensor

    def __init__(self, sample_rate: int, channels: int, stream_dim: int, step: int, every: int) -> None:
        super().__init__()
        self.size, self.hop, self.step, self.every = sample_rate // self.WINDOW, sample_rate // self.HOP, step, every
        self.length = (PATCH_FRAMES - 1) * self.hop + self.size
        mels = LogMelPatches(sample_rate)
        self.n_fft = mels.stft.n_fft
        self.register_buffer("filters", mels.filters, persistent=False)
        self.register_buffer("window", torch.hann_window(self.size, device="cpu"), persistent=False)
        self.tagger = Tagger().requires_grad_(False)
        del self.tagger.classify  # its features are enough
        self.norm = nn.BatchNorm1d(LATE_DIM, affine=False)
        self.to_stream = nn.Linear(LATE_DIM, stream_dim, bias=False)
        self.to_bottom = nn.Linear(LATE_DIM, channels, bias=False)
        for layer in (self.to_stream, self.to_bottom):
            nn.init.zeros_(layer.weight)  # an untrained branch leaves the U-Net as it is

    def forward(self, mixture: Tensor, level: Tensor, past: Past, before: int) -> tuple[Tensor, Tensor]:
        """Mixture (batch, channels, steps * step), its level (batch, steps) and the number of steps before them.

        Returns:
            What the looks that are due add to the frame stream (batch, stream_dim, looks) and to the bottom (batch,
            channels, looks).
        """
        joined = past.extend(self, mixture, self.length)
        due = [step for step in range(level.shape[1]) if (before + step) % self.every == 0]
        if not due:
            sizes = self.to_stream.out_features, self.to_bottom.out_features
            return level.new_zeros(len(level), sizes[0], 0), level.new_zeros(len(level), sizes[1], 0)
        looks = torch.stack([joined[..., (step + 1) * self.step :][..., : self.length] for step in due], dim=1)
        frames = looks.unfold(-1, self.size, self.hop) * self.window  # (batch, looks, channels, 96, size)
        power = torch.fft.rfft(frames, self.n_fft).abs().square().sum(2)
        patches = torch.log(power.sqrt() @ self.filters / level[:, due, None, None] + LOG_FLOOR)
        with torch.no_grad():
            late = self.tagger(patches)[1]
        late = self.norm(late.flatten(0, 1)).unflatten(0, late.shape[:2])
        return self.to_stream(late).transpose(1, 2), self.to_bottom(late).transpose(1, 2)


class LiveUNet(BandMaskModel):
    """Causal conditioned U-Net on frequency bands, see above.

    Args:
        sample_rate: Hz.
        n_fft: analysis window in samples.
        hop: samples between frames.
        tail: samples of the end of the window that are added to the output, a multiple of `hop`.
        bands: number of bands.
        linear_bands: how many of the lowest bands are single bins.
        channels: at the four resolutions, finest first.
        ranks: of the convolutions at each resolution; 0: full.
        taps: frames that a convolution sees at each resolution.
        stream_dim: channels of the frame stream.
        stream_rank: of the frame stream's projection of all bands.
        condition_dim: length of the condition vectors, which have unit length.
        tagger: whether a tagger's features of the last second are added to the frame stream and to the bottom.
        tag_steps: steps between two looks of the tagger.

    Raises:
        ValueError: `tail` and `hop` do not fit.
    """

    causal = True
    lists_sounds = True
    has_tagger = False
    branch = None  # of `BandUNet`, which trains its tagger

    lower_band: Tensor
    second_share: Tensor

    def __init__(
        self,
        sample_rate: int = 32000,
        n_fft: int = 1600,
        hop: int = 500,
        tail: int = 1500,
        bands: int = 128,
        linear_bands: int = 48,
        channels: Sequence[int] = (64, 128, 224, 256),
        ranks: Sequence[int] = (0, 0, 0, 0),
        taps: Sequence[int] = (2, 2, 2, 2),
        stream_dim: int = 256,
        stream_rank: int = 0,
        condition_dim: int = 256,
        tagger: bool = True,
        tag_steps: int = 8,
    ) -> None:
        super().__init__()
        if tail % hop or not 2 * hop <= tail <= n_fft:
            raise ValueError(f"tail {tail} must be a multiple of hop {hop}, at least twice that, at most {n_fft}.")
        self.sample_rate, self.condition_dim, self.step = sample_rate, condition_dim, PATCH * hop
        self.stride, self.context = self.step * COARSE, 5 * sample_rate // 2
        self.delay = tail - hop  # samples between the end of a step and the end of the output that is final then
        self.stft = LowDelaySTFT(n_fft, hop, tail, PATCH * COARSE)
        self.register_bands(bands, linear_bands, n_fft, hop)
        first = (self.to_bins > 0).int().argmax(1).clamp_max(bands - 2)  # of the two bands that reach a bin
        self.register_buffer("lower_band", first, persistent=False)
        self.register_buffer("second_share", self.to_bins.gather(1, first[:, None] + 1), persistent=False)

        c1, c2, c3, c4 = channels
        self.stem = CausalConv(FEATURES * PATCH**2, c1, taps=taps[0])
        self.position = nn.Parameter(torch.zeros(1, c1, bands // PATCH, 1))
        self.first = CausalResidual(c1, ranks[0], taps[0])
        self.levels = nn.ModuleList([
            CausalLevel(channels[level], channels[level + 1], ranks[level + 1], (2, stride), taps[level + 1])
            for level, stride in enumerate(TIME_STRIDES)
        ])  # fmt: skip
        self.gather = CausalConv(c4, stream_dim, stream_rank, bands=bands // 16, taps=1)
        self.near = CausalConv(stream_dim, stream_dim, bands=1, taps=3)
        self.far = CausalConv(stream_dim, stream_dim, bands=1, taps=3, dilation=3)
        self.tags = CausalTags(sample_rate, c4, stream_dim, self.step, tag_steps) if tagger else None
        self.skips = nn.ModuleList(Pointwise(c, c) for c in channels[:-1])
        self.bottom_skip = Pointwise(c4, c4)
        self.query = nn.Sequential(nn.Linear(condition_dim, condition_dim), nn.ReLU())
        self.detect = nn.Linear(condition_dim, stream_dim)
        self.detect_bias = nn.Parameter(torch.tensor(-4.0))
        self.match = nn.Linear(condition_dim, stream_dim)
        self.matched = Pointwise(stream_dim, c4)
        self.bottom = CausalConv(c4, c4, ranks[3], taps=taps[3])
        self.bottom_film = FiLM(condition_dim, c4)
        self.decoders = nn.ModuleList([
            CausalDecoder(c4, c3, condition_dim, ranks[2], taps[2], (2, 1)),
            CausalDecoder(c3, c2, condition_dim, ranks[1], taps[1], (2, 2)),
            CausalDecoder(c2, c1, condition_dim, ranks[0], taps[0], (2, 2)),
        ])  # fmt: skip
        self.head = nn.Conv2d(c1, 3 * PATCH**2, 1)

    def fold_norms(self) -> None:
        for module in self.modules():
            if isinstance(module, CausalConv):
                module.fold()
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as the maps are

    def level(self, spectrum: Tensor, past: Past) -> Tensor:
        """Running level of the mixture, from its spectrum (batch, channels, bins, frames), at each step (batch, steps).

        Steps that sound count alike until `LEVEL_SECONDS` are over, then the last ones count more. Steps 40 dB below
        the level hardly count, and those before a sound 40 dB above it no longer.
        """
        power = spectrum.detach()[:, :, RUMBLE_BINS:].abs().square().sum((1, 2)).unflatten(-1, (-1, PATCH)).sum(-1)
        power = power / (PATCH * (spectrum.shape[2] - 1) * self.stft.window.square().sum())
        states = past.get("level", torch.zeros(len(power), 2, dtype=torch.float64)).tolist()
        fast, slow = (self.step / (seconds * self.sample_rate) for seconds in (LEVEL_SECONDS, PAUSE_SECONDS))
        levels: list[list[float]] = []
        for state, powers in zip(states, power.tolist(), strict=True):  # plain numbers: a push has one step
            mean, count = state
            levels.append([])
            for now in powers:
                if now * PAUSE > mean:
                    count = 0.0
                if now > max(PAUSE * mean, SILENCE):
                    count += 1
                    mean += max(1 / count, fast) * (now - mean)
                elif count:
                    mean += slow * (now - mean)
                levels[-1].append(max(mean, SILENCE) ** 0.5)
            state[:] = mean, count
        past["level"] = torch.tensor(states, dtype=torch.float64)
        return power.new_tensor(levels)

    def features(self, spectrum: Tensor, past: Past | None = None, level: Tensor | None = None) -> Tensor:
        """Spectrum (batch, channels, bins, frames) to features (batch, 5, bands, frames), as those of `BandUNet`."""
        past = Past() if past is None else past
        level = self.level(spectrum, past) if level is None else level
        scale = level.square().repeat_interleave(PATCH, dim=-1)[:, None]
        before = past.extend("spectrum", spectrum, 1)[..., :-1]
        power = F.pad(spectrum[:, :, RUMBLE_BINS:].abs().square().sum(1), (0, 0, RUMBLE_BINS, 0))
        along_time = (spectrum * before.conj()).sum(1) * self.advance
        along_bins = F.pad((spectrum[..., 1:, :] * spectrum[..., :-1, :].conj()).sum(1), (0, 0, 1, 0))
        parts = torch.stack([power, along_time.real, along_time.imag, along_bins.real, along_bins.imag], dim=2)
        parts = (self.to_bands @ parts.flatten(2)).unflatten(2, (FEATURES, -1)).transpose(1, 2) / scale[:, None]
        band_power = parts[:, 0]
        coherence = parts[:, 1:] / (band_power[:, None] + POWER_FLOOR)
        loudness = torch.log10(band_power + POWER_FLOOR) / 2
        return torch.cat([loudness[:, None], coherence.clamp(-2, 2)], dim=1)

    def analyse(
        self, features: Tensor, mixture: Tensor, past: Past | None = None, level: Tensor | None = None
    ) -> Analysis:
        """Features (batch, 5, bands, frames) and mixture (batch, channels, time) to what does not depend on a query."""
        past = Past() if past is None else past
        if level is None:
            level = self.level(self.stft(mixture), Past())
            mixture = F.pad(mixture, (0, level.shape[1] * self.step - mixture.shape[-1]))
        before = past.steps
        past.steps += level.shape[1]
        patches = F.pixel_unshuffle(features, PATCH).contiguous(memory_format=torch.channels_last)
        x = F.relu(self.stem(patches, past) + self.position)
        maps = [self.first(x, past)]
        for number, to_coarser in enumerate(self.levels):
            maps.append(to_coarser(maps[-1], past, before))
            before = -(-before // TIME_STRIDES[number])
        skips = [skip(x) for skip, x in zip(self.skips, maps, strict=False)]
        coarsest = maps[-1]
        frames, bottom = self.gather(coarsest, past), self.bottom_skip(coarsest)
        if self.tags is not None:
            to_stream, to_bottom = self.tags(mixture, level, past, past.steps - level.shape[1])
            factor = self.tags.every // COARSE
            to_stream = hold(to_stream, past, "to_stream", before, coarsest.shape[-1], factor)
            to_bottom = hold(to_bottom, past, "to_bottom", before, coarsest.shape[-1], factor)
            frames, bottom = frames + to_stream[:, :, None], bottom + to_bottom[:, :, None]
        frames = F.relu(frames)
        frames = F.relu(frames + self.near(frames, past))
        return Analysis(skips, bottom, F.relu(frames + self.far(frames, past)))

    def mask(self, analysis: Analysis, conditions: Tensor, past: Past | None = None) -> Tensor:
        """Conditions (batch, queries, dim) to masks (batch, queries, 2, bands, frames).

        The past is that of the decoder, another one than that of `analyse`. It belongs to the conditions.
        """
        past = Past() if past is None else past
        queries, bottom = conditions.shape[1], analysis.bottom
        if CONDITION not in past:
            condition = self.query(rearrange(self.unit_variance(conditions), "b q dim -> (b q) dim"))
            past[CONDITION] = torch.cat([self.match(condition), *(film.project(condition) for film in self.films())], 1)
        sizes = [self.match.out_features, *(film.project.out_features for film in self.films())]
        key, *modulations = past[CONDITION][:, :, None, None].split(sizes, dim=1)
        x = bottom.repeat_interleave(queries, 0)
        if x.shape[-1]:
            matched = key * analysis.frames.repeat_interleave(queries, 0)
            x = F.relu(modulate(self.bottom(x + self.matched(F.relu(matched)), past), modulations[0]))
        befores = (-(-past.steps // COARSE), -(-past.steps // 2), past.steps)
        places = zip(self.decoders, reversed(analysis.skips), modulations[1:], befores, strict=True)
        for decoder, skip, modulation, before in places:
            x = decoder(x, skip, modulation, past, before)
        past.steps += analysis.skips[0].shape[-1]
        return self.complex_mask(self.head(x), queries)

    def apply_mask(self, mask: Tensor, spectrum: Tensor) -> Tensor:
        """Interpolate without matrices, which are slow for the few frames of a push."""
        below, above = mask.index_select(3, self.lower_band), mask.index_select(3, self.lower_band + 1)
        real, imaginary = (below + (above - below) * self.second_share).unbind(2)
        return torch.complex(real, imaginary)[:, :, None] * spectrum[:, None]

    def films(self) -> list[FiLM]:
        """Where the condition enters, the coarsest first."""
        decoders = [decoder for decoder in self.decoders if isinstance(decoder, CausalDecoder)]
        return [self.bottom_film, *(decoder.film for decoder in decoders)]

    def listen(self, mixture: Tensor, past: Past) -> tuple[Tensor, Tensor, Analysis]:
        """Analyse the next piece of a mixture (batch, channels, steps * step).

        Returns:
            Its spectrum (batch, channels, bins, frames), its features, and what does not depend on a query.
        """
        spectrum = self.stft(mixture, past)
        level = self.level(spectrum, past)
        features = self.features(spectrum, past, level)
        return spectrum, features, self.analyse(features, mixture, past, level)

    def separate(self, mixture: Tensor, conditions: Tensor) -> Estimate:
        length = mixture.shape[-1]
        padding = self.delay + -(length + self.delay) % self.step
        spectrum, _, analysis = self.listen(F.pad(mixture, (0, padding)), Past())
        targets = self.stft.inverse(self.apply_mask(self.mask(analysis, conditions), spectrum), length)
        return Estimate(targets, self.presence(analysis, conditions))

    def score_presence(self, mixture: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.presence(self.analyse(self.features(self.stft(mixture)), mixture), conditions), None
