"""Weak supervision from text.

Mahmud et al., "Weakly-supervised Audio Separation via Bi-modal Semantic Similarity", 2024.

The training clips are mixtures with a caption, and their sources are unknown. Two clips are mixed and queried by their
captions, for which the targets are known. They are also queried by each phrase of the captions. These targets are
unknown, but the estimates by a clip's phrases add up to the clip, and a frozen joint audio-text encoder compares each
of them with its phrase.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from separation.data.captioned import CaptionedBatch
from separation.encoders.base import EncoderError, QueryEncoder
from separation.encoders.table import RandomEncoder
from separation.models.band_unet import BandUNet
from separation.models.base import ConditionedModel
from separation.models.bimodal_unet import GRID, HOP, BiModalUNet
from separation.training.losses import consistency_loss, matching_loss, reconstruction_loss
from separation.training.objectives.base import EmbeddingCache, Objective

CACHED_NUMBERS = 50_000_000  # of conditions, 200 MB


class BiModal(Objective):
    """Trains a separator on captioned mixtures: mix-and-separate, weak, semi-supervised, supervised.

    - *weak*: all three terms;
    - *mix-and-separate*: `consistency` and `contrast` are zero, and no phrase is queried;
    - *supervised*: the same, with data whose clips are isolated recordings (`CaptionedData(sources=1)`);
    - *semi-supervised*: weak, with data that also has `isolated` mixtures.

    Args:
        model: the separator to train, `BandUNet` or `BiModalUNet`.
        encoder: computes the conditions and is the joint space of CNT (`JointEncoder`, CLAP). Frozen.
        reconstruction: weight of URL, of the clips by their captions and of the isolated clips by their names.
        consistency: weight of CRL.
        contrast: weight of CNT.
        mixtures_weight: weight of the weak loss in semi-supervised training.
        isolated_weight: weight of the URL of isolated clips in semi-supervised training.
        scale: inverse temperature of the joint space in CNT.
        own_level: scale every mixture to the input level of the separator.
        compared: items of a device whose phrases CNT compares a recording with, 2 as published (16 on 8 devices); 0
            compares with all phrases of all devices.
        faithful: count equal phrases of other items as negatives, like the published code.
        common: see `Objective`.

    Raises:
        TypeError: the separator is another network.
        EncoderError: the encoder has no joint space.
    """

    def __init__(
        self,
        model: ConditionedModel,
        encoder: QueryEncoder,
        reconstruction: float = 5.0,
        consistency: float = 5.0,
        contrast: float = 0.5,
        mixtures_weight: float = 1.0,
        isolated_weight: float = 1.0,
        scale: float = 20.0,
        own_level: bool = True,
        compared: int = 0,
        faithful: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(model, encoder, **common)
        if not {"text", "audio"} <= self.encoder.modalities:
            raise EncoderError(f"{type(self.encoder).__name__} does not put texts and recordings into one space.")
        self.view = spectral_view(self.model)
        self.weights = {"url": reconstruction, "crl": consistency, "cnt": contrast}
        self.mixtures_weight, self.isolated_weight = mixtures_weight, isolated_weight
        self.vectors = EmbeddingCache(CACHED_NUMBERS // encoder.embedding_dim)
        self.scale, self.own_level, self.compared, self.faithful = scale, own_level, compared, faithful

    @property
    def joint(self) -> Any:
        """The encoder of the joint space: the encoder itself or its CLAP, which may be loaded at its first use."""
        return getattr(self.encoder, "clap", self.encoder)

    def embed_audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Recordings (batch, time) to unit vectors (batch, dim), with gradients."""
        if isinstance(self.encoder, RandomEncoder):  # has no weights: the first samples let gradients through
            size = self.encoder.embedding_dim
            return F.normalize(F.pad(waveform, (0, max(0, size - waveform.shape[-1])))[:, :size], dim=-1)
        return self.joint.embed_audio(resample(waveform, sample_rate, self.joint.sample_rate))

    def conditions(self, texts: list[str], *shape: int) -> Tensor:
        """Conditions (*shape, dim) of texts."""
        return self.vectors(texts, self.encoder.encode_text).to(self.device).unflatten(0, shape)

    def estimate(self, clips: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Separate the mixture of clips.

        Args:
            clips: (batch, clips, time).
            conditions: (batch, queries, dim).

        Returns:
            Estimates (batch, queries, bins, frames), spectra of the clips (batch, clips, bins, frames) and of their
            mixture (batch, bins, frames), and the mixture (batch, time).
        """
        if self.own_level:
            level = clips.sum(1).square().mean(-1).sqrt()
            clips = clips * (self.model.input_level / level.clamp_min(1e-5))[:, None, None]
        mixture = clips.sum(1)
        self.keep_batch(mixture[:, None], conditions)
        return self.view.estimates(mixture, conditions), self.view.compared(clips), self.view.compared(mixture), mixture

    def weak_terms(self, batch: CaptionedBatch) -> dict[str, Tensor]:
        """URL, CRL and CNT of the batch's mixtures; the latter two only if one of them has a weight."""
        size, count, slots = batch.shares.shape
        conditions = self.conditions(batch.captions, size, count)
        by_phrases = bool(self.weights["crl"] or self.weights["cnt"])
        if by_phrases:
            phrases = self.conditions(batch.phrases, size, count * slots)
            conditions = torch.cat([conditions, phrases], dim=1)
        estimates, clips, mixture, wave = self.estimate(batch.clips, conditions)
        terms = {"url": reconstruction_loss(estimates[:, :count], clips, mixture)}
        if by_phrases:
            parts = estimates[:, count:]
            terms["crl"] = consistency_loss(parts.unflatten(1, (count, slots)), batch.shares, clips)
            terms["cnt"] = self.contrast_term(parts, wave, batch)
        return terms

    def contrast_term(self, parts: Tensor, mixture: Tensor, batch: CaptionedBatch) -> Tensor:
        """CNT, from audio to text: sum over the clips of a mixture; each is compared with the phrases of all batches.

        `parts` are estimates by the phrases (batch, clips * slots, bins, frames), the mixture is (batch, time).
        """
        size, count, slots = batch.shares.shape
        total = parts.real.new_zeros(())
        with torch.autocast(self.device.type, enabled=False):
            waves = self.view.waveforms(parts, mixture).unflatten(1, (count, slots))
            for clip in range(count):
                audio = self.embed_audio(waves[:, clip].flatten(0, 1), self.model.sample_rate)
                starts = [(item * count + clip) * slots for item in range(size)]
                own = [phrase for start in starts for phrase in batch.phrases[start : start + slots]]
                group = (self.compared or size) * slots
                losses = [self.phrase_loss(audio[i : i + group], own[i : i + group]) for i in range(0, len(own), group)]
                sizes = torch.tensor([min(group, len(own) - i) for i in range(0, len(own), group)])
                total = total + torch.stack(losses) @ (sizes / len(own)).to(audio)
        return total

    def phrase_loss(self, audio: Tensor, own: list[str]) -> Tensor:
        """Cross-entropy of audio (items, dim) with its phrases among those of all devices. Equal phrases match.

        With `compared`, among its own phrases alone.
        """
        with torch.no_grad():
            text, phrases, first = self.joint.encode_text(own).to(audio.device), own, 0
            if not self.compared:
                text, phrases = self.gather(text).flatten(0, 1), self.gather_objects(own)
                first = self.global_rank * len(own)
        if self.faithful:
            same = torch.eye(len(phrases))[first : first + len(own)]
        else:
            same = torch.tensor([[float(mine == other) for other in phrases] for mine in own])
        return matching_loss(self.scale * audio @ text.T, same.to(audio.device))

    def training_step(self, batch: CaptionedBatch, index: int) -> Tensor | None:
        terms = self.weak_terms(batch)
        total = self.mixtures_weight * torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        if len(batch.isolated):
            conditions = self.conditions(batch.names, *batch.isolated.shape[:2])
            estimates, clips, mixture, _ = self.estimate(batch.isolated, conditions)
            terms["isolated"] = reconstruction_loss(estimates, clips, mixture)
            total = total + self.isolated_weight * self.weights["url"] * terms["isolated"]
        for name, term in terms.items():
            self.log(f"train/{name}", term, prog_bar=name == "url")
        return self.skip_invalid(total)


class Bands:
    """View of `BandUNet`, which changes the phase: complex spectra.

    They are scaled to the level of the published network's mixtures, on which the weights of the losses depend.
    """

    def __init__(self, model: BandUNet, level: float = 0.1) -> None:
        self.model, self.scale = model, level / model.input_level

    def compared(self, waveform: Tensor) -> Tensor:
        """Spectra that losses compare: waveforms (..., time) -> (..., bins, frames)."""
        return self.scale * self.model.stft(waveform)

    def estimates(self, mixture: Tensor, conditions: Tensor) -> Tensor:
        """Estimates of a mixture (batch, time) by conditions (batch, queries, dim): (batch, queries, bins, frames)."""
        with torch.autocast(mixture.device.type, enabled=False):
            spectrum = self.model.stft(mixture)[:, None]
            features = self.model.features(spectrum)
        mask = self.model.mask(self.model.analyse(features, mixture[:, None]), conditions)
        return self.model.apply_mask(mask, self.scale * spectrum)[:, :, 0]

    def waveforms(self, estimates: Tensor, mixture: Tensor) -> Tensor:
        """Estimates (batch, queries, bins, frames) and their mixture (batch, time) -> (batch, queries, time)."""
        return self.model.stft.inverse(estimates / self.scale, mixture.shape[-1])


class Magnitudes:
    """View of `BiModalUNet`, which scales magnitudes and keeps the mixture's phase. Methods as in `Bands`."""

    def __init__(self, model: BiModalUNet) -> None:
        self.model = model

    def spectrum(self, waveform: Tensor) -> Tensor:
        """Complex spectrum of waveforms (..., time), padded to whole cells of the network's coarsest grid."""
        frames = waveform.shape[-1] // HOP + 1
        return self.model.stft(F.pad(waveform, (0, -frames % GRID * HOP)))

    def compared(self, waveform: Tensor) -> Tensor:
        return self.spectrum(waveform).abs()

    def estimates(self, mixture: Tensor, conditions: Tensor) -> Tensor:
        magnitude, queries = self.compared(mixture), conditions.shape[1]
        masks = self.model.mask(magnitude.repeat_interleave(queries, 0), conditions.flatten(0, 1))
        return masks.unflatten(0, (-1, queries)) * magnitude[:, None]

    def waveforms(self, estimates: Tensor, mixture: Tensor) -> Tensor:
        spectrum = self.spectrum(mixture)
        phase = torch.polar(torch.ones_like(spectrum.real), spectrum.angle())
        padded = (spectrum.shape[-1] - 1) * HOP
        return self.model.stft.inverse(estimates * phase[:, None], padded + HOP - 1)[..., : mixture.shape[-1]]


def spectral_view(model: ConditionedModel) -> Bands | Magnitudes:
    """Return the view of a separator; raise TypeError if it is neither `BandUNet` nor `BiModalUNet`."""
    if isinstance(model, BandUNet):
        return Bands(model)
    if isinstance(model, BiModalUNet):
        return Magnitudes(model)
    raise TypeError(f"bi-modal training knows BandUNet and BiModalUNet, not {type(model).__name__}")


def resample(waveform: Tensor, source_rate: int, target_rate: int) -> Tensor:
    """Resample waveforms (..., time) by their Fourier transform, which has gradients."""
    if source_rate == target_rate:
        return waveform
    length = round(waveform.shape[-1] * target_rate / source_rate)
    spectrum = torch.fft.rfft(waveform)
    spectrum = F.pad(spectrum, (0, length // 2 + 1 - spectrum.shape[-1]))
    return torch.fft.irfft(spectrum, length) * (length / waveform.shape[-1])
