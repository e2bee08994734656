"""Supervised mix-and-separate for the default separator, on its bands: every source is asked for by text or by example.

Per mixture the network's query-independent half runs once for all queries. Three terms: the SNR of every source that
sounds; silence for what is asked for but absent, from `absent_from` on (rewarded from the start, silence is all a
network ever learns); and which classes sound when, of all classes at once, which teaches the shared half to tell
sounds apart long before masks can.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from separation.data.mixing import Batch
from separation.encoders.joint import JointEncoder
from separation.losses import MaskError, absent_loss
from separation.models.band_unet import BandUNet
from separation.objectives.base import Objective
from separation.objectives.confusable import confusable, unlike
from separation.objectives.ranks import per_rank

INACTIVE_DB, ACTIVE_DB = -45.0, -30.0  # a frame's level under the source's loudest frame


class BandSupervised(Objective):
    """Trains a band-mask model with conditions from a joint audio-text space.

    Args:
        model: the separator that is trained.
        encoder: gives the conditions; frozen.
        audio_share: share of the queries that are the target's own sound at the start; falls linearly to
            `audio_share_end` at the last step.
        text_noise: deviation of the noise on sentence vectors, relative to their length.
        absent_from, absent_ramp, absent_weight: step at which the absent term enters, steps until it has full weight.
        absent_near: share of the absent queries that ask for what the network itself takes the mixture for, see
            `confusable.py`.
        tagging_weight: weight of the presence term.
        common: see `Objective`.
    """

    model: BandUNet
    encoder: JointEncoder

    def __init__(
        self,
        model: BandUNet,
        encoder: JointEncoder,
        audio_share: float = 0.15,
        audio_share_end: float = 0.0,
        text_noise: float = 0.2,
        absent_from: int = 1500,
        absent_ramp: int = 1000,
        absent_weight: float = 0.15,
        absent_near: float = 0.0,
        tagging_weight: float = 5.0,
        **common: Any,
    ) -> None:
        super().__init__(model, encoder, **common)
        self.audio_share, self.audio_share_end, self.text_noise = audio_share, audio_share_end, text_noise
        self.absent_from, self.absent_ramp, self.absent_weight = absent_from, absent_ramp, absent_weight
        self.absent_near, self.tagging_weight = absent_near, tagging_weight

    def noisy(self, sentences: Tensor) -> Tensor:
        """Sentence vectors with noise: wordings nobody wrote down."""
        noise = torch.randn_like(sentences) * self.text_noise / sentences.shape[-1] ** 0.5
        return F.normalize(sentences + noise, dim=-1)

    @torch.no_grad()
    def conditions(self, batch: Batch) -> Tensor:
        """Condition of every query (batch, slots, dim): its text's, or for sounding sources at times their sound's."""
        text = self.encoder.embed_sentences(self.noisy(batch.sentences))
        share = self.audio_share + (self.audio_share_end - self.audio_share) * self.progress()
        by_audio = (torch.rand(text.shape[:2], device=text.device) < share) & sounding(batch)
        conditions = text.clone()
        if by_audio.any():
            conditions[by_audio] = self.encoder.embed_log_mel(self.encoder.log_mel(batch.sources[by_audio]))
        return conditions

    def nearer(self, batch: Batch, conditions: Tensor, bank: Tensor, logits: Tensor) -> Tensor:
        """Conditions (batch, slots, dim), a share of the absent ones for what could be taken for what sounds."""
        if self.absent_near == 0:
            return conditions
        sounds = sounding(batch)
        labels = confusable(logits, unlike(bank, batch.labels, sounds), sounds.shape[1])
        chosen = ~sounds & (labels >= 0) & (torch.rand(sounds.shape, device=sounds.device) < self.absent_near)
        return torch.where(chosen[..., None], bank[labels.clamp_min(0)].to(conditions.dtype), conditions)

    def training_step(self, batch: Batch, index: int) -> Tensor | None:
        conditions = self.conditions(batch)
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            spectra = self.model.stft(batch.sources)  # (batch, slots, bins, frames)
            mixture = spectra.sum(1)
            features = self.model.features(mixture[:, None])
            error = MaskError(mixture, spectra, self.model.to_bins)
            bank = self.encoder.embed_sentences(self.noisy(batch.bank))
        analysis = self.model.analyse(features)
        logits = self.model.presence(analysis, bank[None].expand(len(mixture), -1, -1)).float()
        conditions = self.nearer(batch, conditions, bank, logits.detach())
        self.remember(batch.sources.sum(1, keepdim=True), conditions)
        mask = self.model.mask(analysis, conditions)
        losses = self.losses(batch, error, mask)
        losses["tagging"] = tagging_loss(logits, batch, spectra)
        ramp = min(1.0, max(0.0, (self.global_step - self.absent_from) / self.absent_ramp))
        total = losses["snr"] + self.absent_weight * ramp * losses["absent"] + self.tagging_weight * losses["tagging"]
        for name, value in losses.items():
            self.log(f"train/{name}", value, prog_bar=name == "snr", sync_dist=True)
        return self.usable(total)

    def losses(self, batch: Batch, error: MaskError, mask: Tensor) -> dict[str, Tensor]:
        """Mean SNR loss of the queries that sound, mean absent loss of the others, dB."""
        sounds = sounding(batch) & (error.energy > 0)  # a clip may have been cut in one of its pauses
        energy = error.energy[sounds]
        snr = 10 * torch.log10((error.error_energy(mask)[sounds] + 1e-3 * energy) / energy)
        before = 10 * torch.log10(error.untouched_energy()[sounds] / energy)
        silence = absent_loss(error.mixture_energy.expand_as(error.energy), error.output_energy(mask).clamp_min(0))[
            ~sounding(batch)
        ]
        return {
            "snr": snr.sum() / per_rank(sounds.sum()),
            "sdri": ((before - snr).sum() / per_rank(sounds.sum())).detach(),
            "absent": silence.sum() / per_rank((~sounding(batch)).sum()).clamp_min(1e-3),
        }


def sounding(batch: Batch) -> Tensor:
    """Which slots hold a source, (batch, slots)."""
    slots = batch.sources.shape[1]
    return torch.arange(slots, device=batch.used.device) < batch.used[:, None]


def tagging_loss(logits: Tensor, batch: Batch, spectra: Tensor) -> Tensor:
    """Which class sounds when: weighted cross-entropy of presence logits (batch, labels, frames / 8).

    A frame counts as active down to 30 dB under the source's loudest, as inactive below 45 dB; between, it is left out.
    A class that sounds has, over the batch, the same weight as all that do not.
    """
    frames = logits.shape[-1]
    level = spectra.abs().square().sum(2).unflatten(-1, (frames, -1)).sum(-1)  # (batch, slots, frames / 8)
    level = 10 * torch.log10(level / level.amax(-1, keepdim=True).clamp_min(1e-10) + 1e-10)
    sounds = sounding(batch)[..., None]
    active, unsure = sounds & (level > ACTIVE_DB), sounds & (level > INACTIVE_DB) & (level <= ACTIVE_DB)
    index = batch.labels[..., None].expand(-1, -1, frames)
    target = torch.zeros_like(logits).scatter_add_(1, index, active.to(logits.dtype)).clamp_(max=1)
    ignore = torch.zeros_like(logits).scatter_add_(1, index, unsure.to(logits.dtype)).clamp_(max=1)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    count = per_rank(target.sum()).clamp_min(1)
    hits = (loss * target).sum() / count
    misses = (loss * (1 - target) * (1 - ignore)).sum() / count
    return 0.1 * (hits + 0.3 * misses)
