"""Supervised training of the default separator on its bands.

Every source of a mixture is queried by text or by an audio example. The part of the network that does not depend on the
query runs once for all queries. The loss has three terms: the SNR of every source; silence for absent queries, from
`absent_from` on (a network that is rewarded for silence from the start learns nothing else); and the presence of all
labels over time, which teaches the shared part to tell sounds apart long before the masks can. A network with a tagger
has two more: the classes that the encoder's tagger, the teacher, finds in the single sources, and how far the network's
own tagger is from it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.data.mixing import Batch
from separation.encoders.joint import JointEncoder
from separation.models.band_unet import Analysis, BandUNet
from separation.models.live_unet import LiveUNet
from separation.models.tagger import CLASSES
from separation.training.losses import MaskError, absent_loss
from separation.training.objectives.base import Objective
from separation.training.teacher import ACTIVE_DB, Teacher, add_noise, check_tagger, sounding_frames

INACTIVE_DB = -45.0  # level of a frame relative to the source's loudest frame
HARD_NEGATIVES = 12  # one of the likeliest labels is drawn; the very likeliest may sound, though it is not labelled
SAME_SOUND_COSINE = 0.6  # labels with closer conditions may name the same sound ("traffic", "highway")


class BandSupervised(Objective):
    """Trains a band mask network with conditions from a joint audio-text space.

    Args:
        model: the separator to train.
        encoder: computes the conditions; frozen.
        audio_share: share of the queries that are the target's own sound at the start; changes linearly to
            `audio_share_end` at the last step.
        audio_share_end: see `audio_share`.
        text_noise: deviation of the noise on sentence vectors, relative to their length.
        absent_from: step at which the absent term enters.
        absent_ramp: steps until the absent term has its full weight.
        absent_weight: weight of the absent term.
        absent_near: share of the absent queries that are replaced by hard negatives, see `hard_negatives`.
        tagging_weight: weight of the presence term.
        teacher_weight: weight of the teacher's classes, see `Teacher.frame_loss`.
        keep_weight: weight of the difference between the network's tagger and the encoder's.
        vocabulary: share of the queries that are replaced by names of classes, see `Teacher.rename`.
        common: see `Objective`.
    """

    model: BandUNet | LiveUNet
    encoder: JointEncoder

    def __init__(
        self,
        model: BandUNet | LiveUNet,
        encoder: JointEncoder,
        audio_share: float = 0.15,
        audio_share_end: float = 0.0,
        text_noise: float = 0.2,
        absent_from: int = 1500,
        absent_ramp: int = 1000,
        absent_weight: float = 0.15,
        absent_near: float = 0.0,
        tagging_weight: float = 5.0,
        teacher_weight: float = 0.0,
        keep_weight: float = 0.0,
        vocabulary: float = 0.0,
        **common: Any,
    ) -> None:
        super().__init__(model, encoder, **common)
        wanted = {"teacher_weight": teacher_weight, "keep_weight": keep_weight, "vocabulary": vocabulary}
        check_tagger(self.encoder, wanted)
        taggers = [part.tagger for part in (*self.model.modules(), *self.average.modules()) if hasattr(part, "tagger")]
        if self.encoder.tagger is not None and not common.get("start_from"):
            for tagger in taggers:  # that of a live model has no classes
                tagger.load_state_dict(self.encoder.tagger.state_dict(), strict=hasattr(tagger, "classify"))
        if self.model.branch is not None:
            self.model.branch.tagger.classify.requires_grad_(False)
        self.teacher_weight, self.keep_weight, self.vocabulary = teacher_weight, keep_weight, vocabulary
        self.teach = nn.Conv1d(self.model.detect.out_features, CLASSES, 1) if teacher_weight else None
        if self.teach is not None:
            nn.init.zeros_(self.teach.weight)
            nn.init.constant_(self.teach.bias, -4.0)  # type: ignore[arg-type]
        self.teacher: Teacher | None = None
        self.audio_share, self.audio_share_end, self.text_noise = audio_share, audio_share_end, text_noise
        self.absent_from, self.absent_ramp, self.absent_weight = absent_from, absent_ramp, absent_weight
        self.absent_near, self.tagging_weight = absent_near, tagging_weight

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.teacher_weight or self.vocabulary:
            self.teacher = Teacher(self.encoder, self.trainer.datamodule.corpus)  # type: ignore[attr-defined]

    def trainable(self) -> nn.Module:
        return self.model if self.teach is None else nn.ModuleList([self.model, self.teach])

    @torch.no_grad()
    def conditions(self, batch: Batch) -> Tensor:
        """Conditions (batch, slots, dim) of the texts; a share of those for one source are of its own sound."""
        sentences = self.teacher.rename(batch, self.vocabulary) if self.teacher else batch.sentences
        conditions = self.encoder.embed_sentences(add_noise(sentences, self.text_noise))
        asks = batch.asked_sources()
        share = self.audio_share + (self.audio_share_end - self.audio_share) * self.progress()
        by_audio = (torch.rand(conditions.shape[:2], device=conditions.device) < share) & (asks.sum(-1) == 1)
        if by_audio.any():
            row, source = by_audio.nonzero()[:, 0], asks[by_audio].argmax(-1)
            conditions = conditions.clone()
            conditions[by_audio] = self.encoder.embed_audio(batch.sources[row, source])
        return conditions

    @torch.no_grad()
    def label_conditions(self, batch: Batch) -> Tensor:
        """Conditions (labels, dim) of all labels."""
        with torch.autocast(self.device.type, enabled=False):
            return self.encoder.embed_sentences(add_noise(batch.bank, self.text_noise))

    def with_hard_negatives(self, batch: Batch, conditions: Tensor, bank: Tensor, logits: Tensor) -> Tensor:
        """Conditions (batch, slots, dim) with a share of the absent queries replaced by hard negatives.

        `bank` (labels, dim) are the conditions of all labels, `logits` (batch, labels, frames) is their presence.
        """
        if self.absent_near == 0:
            return conditions
        present = batch.has_source()
        labels = hard_negatives(logits, bank, batch.labels, present)
        chosen = ~batch.asked() & (labels >= 0) & (torch.rand(present.shape, device=present.device) < self.absent_near)
        return torch.where(chosen[..., None], bank[labels.clamp_min(0)].to(conditions.dtype), conditions)

    def training_step(self, batch: Batch, index: int) -> Tensor | None:
        conditions = self.conditions(batch)
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            spectra = self.model.stft(batch.sources)  # (batch, slots, bins, frames)
            mixture = spectra.sum(1)
            features = self.model.features(mixture[:, None])
            targets = spectra
            if batch.asks is not None:
                targets = torch.einsum("bqs,bsft->bqft", batch.asked_sources().to(spectra.dtype), spectra)
            error = MaskError(mixture, targets, self.model.to_bins)
        bank = self.label_conditions(batch)
        wave = batch.sources.sum(1, keepdim=True)
        analysis = self.model.analyse(features, wave)
        logits = self.model.presence(analysis, bank[None].expand(len(mixture), -1, -1)).float()
        conditions = self.with_hard_negatives(batch, conditions, bank, logits.detach())
        self.keep_batch(wave, conditions)
        terms = self.mask_terms(batch, error, self.model.mask(analysis, conditions))
        terms["tagging"] = self.presence_term(logits, batch, spectra)
        if self.teach is not None and self.teacher is not None:
            terms["teacher"] = self.teacher.frame_loss(self.teach(analysis.frames[:, :, 0]), batch, spectra)
        if self.keep_weight:
            terms["kept"] = self.tagger_term(analysis, wave)
        ramp = min(1.0, max(0.0, (self.global_step - self.absent_from) / self.absent_ramp))
        weights = {"snr": 1.0, "absent": self.absent_weight * ramp, "tagging": self.tagging_weight}
        weights |= {"teacher": self.teacher_weight, "kept": self.keep_weight}
        total = torch.stack([weight * terms[name] for name, weight in weights.items() if name in terms]).sum()
        for name, value in terms.items():
            self.log(f"train/{name}", value, prog_bar=name == "snr", sync_dist=True)
        return self.skip_invalid(total)

    def mask_terms(self, batch: Batch, error: MaskError, mask: Tensor) -> dict[str, Tensor]:
        """SNR loss and SDRi of the queries with a source and absent loss of the others, means over all devices, in dB.

        `error` is that of the targets, the mask is (batch, slots, 2, bands, frames).
        """
        absent = ~batch.asked()
        present = ~absent & (error.energy > 0)  # an excerpt may lie in a pause of its clip
        energy, count = error.energy[present], self.mean_count(present.sum())
        snr = 10 * torch.log10((error.error_energy(mask)[present] + 1e-3 * energy) / energy)
        before = 10 * torch.log10(error.untouched_energy()[present] / energy)
        silence = absent_loss(error.mixture_energy.expand_as(error.energy), error.output_energy(mask).clamp_min(0))
        return {
            "snr": snr.sum() / count,
            "sdri": ((before - snr).sum() / count).detach(),
            "absent": silence[absent].sum() / self.mean_count(absent.sum()).clamp_min(1e-3),
        }

    def tagger_term(self, analysis: Analysis, mixture: Tensor) -> Tensor:
        """How far the network's tagger is from the encoder's on a mixture (batch, 1, time).

        Relative squared error of the late features, and ten times the cross-entropy of the classes.
        """
        branch, teacher = self.model.branch, self.encoder.tagger
        assert branch and teacher and analysis.late is not None and analysis.tags is not None
        with torch.no_grad():
            late = teacher(branch.patches(mixture, analysis.late.shape[1]))[1].float()
            classes = torch.sigmoid(teacher.classify(late).float())
        error = (analysis.late.float() - late).square().mean() / late.square().mean()
        return error + 10 * F.binary_cross_entropy_with_logits(analysis.tags.float(), classes)

    def presence_term(self, logits: Tensor, batch: Batch, spectra: Tensor) -> Tensor:
        """Weighted cross-entropy of presence logits (batch, labels, frames / 8), mean over all devices.

        A frame is active down to 30 dB below the source's loudest frame and inactive from 45 dB below; frames in
        between are ignored. Over the batch, active labels weigh as much as 0.3 times all others.
        """
        frames = logits.shape[-1]
        level = sounding_frames(spectra, frames)
        present = batch.has_source()[..., None]
        active, unsure = present & (level > ACTIVE_DB), present & (level > INACTIVE_DB) & (level <= ACTIVE_DB)
        index = batch.labels[..., None].expand(-1, -1, frames)
        target = torch.zeros_like(logits).scatter_add_(1, index, active.to(logits.dtype)).clamp_(max=1)
        ignore = torch.zeros_like(logits).scatter_add_(1, index, unsure.to(logits.dtype)).clamp_(max=1)
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        count = self.mean_count(target.sum()).clamp_min(1)
        hits = (loss * target).sum() / count
        misses = (loss * (1 - target) * (1 - ignore)).sum() / count
        return 0.1 * (hits + 0.3 * misses)


def hard_negatives(
    logits: Tensor, bank: Tensor, labels: Tensor, present: Tensor, nearest: int = HARD_NEGATIVES
) -> Tensor:
    """Draw labels that are absent from a mixture but that the network takes to be present.

    Labels drawn at random are mostly unlike everything in the mixture ("violin" for a dog in the rain), and silence for
    them is learnt soon. People ask for similar sounds ("cat meow" where a baby cries). Shrivastava et al., "Training
    region-based object detectors with online hard example mining", 2016.

    Args:
        logits: presence of every label over time (batch, labels, frames).
        bank: unit conditions of all labels (labels, dim).
        labels: label indices (batch, slots).
        present: whether a slot's label sounds (batch, slots).
        nearest: number of likeliest labels that one is drawn from.

    Returns:
        Label indices (batch, slots), drawn with repetition; -1 in rows without any candidate.
    """
    alike = bank[labels] @ bank.T >= SAME_SOUND_COSINE  # (batch, slots, labels)
    candidates = ~(alike & present[..., None]).any(1)
    peak = logits.float().amax(-1).masked_fill(~candidates, -torch.inf)
    likeliest = peak.topk(min(nearest, peak.shape[-1])).indices
    weight = candidates.gather(1, likeliest).float()
    found = weight.any(1, keepdim=True)
    drawn = torch.multinomial(torch.where(found, weight, 1.0), labels.shape[1], replacement=True)
    return torch.where(found, likeliest.gather(1, drawn), -1)
