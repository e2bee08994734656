"""Weak supervision from text.

Mahmud et al., "Weakly-supervised Audio Separation via Bi-modal Semantic Similarity", 2024.

Training clips are mixtures with a caption; nobody has their sources. Two clips are mixed. Each is asked for by its
caption (that is known), and each of its phrases is asked for as well: nobody knows what that should give, but together
the phrases' parts are the clip, and a frozen joint audio-text encoder hears whether a part is what its phrase says.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from separation.data.captioned import CaptionedBatch
from separation.encoders.base import QueryEncoder
from separation.losses.bimodal import consistency_loss, contrastive_loss, reconstruction_loss, same_phrase
from separation.models.base import ConditionedModel
from separation.objectives.base import Objective
from separation.objectives.gathering import first_row, gathered_rows, gathered_texts
from separation.objectives.remembered import Remembered
from separation.objectives.spectra import Ears, view_of

MOST_NUMBERS = 50_000_000  # of conditions that are remembered, 200 MB


class BiModal(Objective):
    """Trains a separator from captioned mixtures: mix-and-separate, weak, semi-supervised, supervised.

    - *weak*: all three terms;
    - *mix-and-separate*: `consistency` and `contrast` zero, then phrases are not even asked for;
    - *supervised*: the same, with data whose clips are isolated recordings (`CaptionedData(sources=1)`);
    - *semi-supervised*: weak, with data that has `isolated` mixtures beside the others.

    Args:
        model: the separator that is trained, `BandUNet` or `BiModalUNet`.
        encoder: gives the conditions, and the joint space in which CNT compares (`JointEncoder`, CLAP). Frozen.
        reconstruction: weight of URL, of the clips by their captions and of the isolated clips by their names.
        consistency: weight of CRL.
        contrast: weight of CNT.
        mixtures_weight, isolated_weight: of the weak loss and of the isolated clips' URL in semi-supervised training.
        scale: inverse temperature of the joint space in CNT.
        own_level: bring every mixture to the level at which the separator is used.
        faithful: count equal phrases of other items as negatives, as the published code does.
        common: see `Objective`.
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
        faithful: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(model, encoder, **common)
        self.view, self.ears = view_of(self.model), Ears(self.encoder)
        self.reconstruction, self.consistency, self.contrast = reconstruction, consistency, contrast
        self.mixtures_weight, self.isolated_weight = mixtures_weight, isolated_weight
        self.known = Remembered(MOST_NUMBERS // encoder.embedding_dim)
        self.scale, self.own_level, self.faithful = scale, own_level, faithful

    def conditions(self, texts: list[str], *shape: int) -> Tensor:
        """Conditions (*shape, dim) of texts."""
        return self.known(texts, self.encoder.encode_text).to(self.device).unflatten(0, shape)

    def levelled(self, clips: Tensor) -> Tensor:
        """Clips (batch, clips, time) with their mixture at the separator's level."""
        if not self.own_level:
            return clips
        mixture = clips.sum(1).square().mean(-1).sqrt()
        return clips * (self.model.input_level / mixture.clamp_min(1e-5))[:, None, None]

    def reconstructed(self, clips: Tensor, texts: list[str]) -> Tensor:
        """URL of clips (batch, clips, time) by their texts."""
        estimates, clips = self.asked(clips, self.conditions(texts, *clips.shape[:2]))
        return reconstruction_loss(estimates, self.view.compared(clips), self.view.compared(clips.sum(1)))

    def asked(self, clips: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Estimates (batch, queries, bins, frames) of the clips' mixture, and the clips at its level."""
        clips = self.levelled(clips)
        self.remember(clips.sum(1)[:, None], conditions)
        return self.view.estimates(clips.sum(1), conditions), clips

    def weak(self, batch: CaptionedBatch) -> dict[str, Tensor]:
        """URL, CRL and CNT of the batch's mixtures; the latter two only where they have a weight."""
        size, count, slots = batch.shares.shape
        captions = self.conditions(batch.captions, size, count)
        if not self.consistency and not self.contrast:
            estimates, clips = self.asked(batch.clips, captions)
            return {"url": reconstruction_loss(estimates, *self.truths(clips))}
        phrases = self.conditions(batch.phrases, size, count * slots)
        estimates, clips = self.asked(batch.clips, torch.cat([captions, phrases], dim=1))
        whole, parts = estimates[:, :count], estimates[:, count:]
        spectra, mixture = self.truths(clips)
        return {
            "url": reconstruction_loss(whole, spectra, mixture),
            "crl": consistency_loss(parts.unflatten(1, (count, slots)), batch.shares, spectra),
            "cnt": self.heard(parts, clips.sum(1), batch),
        }

    def truths(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """What estimates of clips (batch, clips, time) are compared with: the clips, and the mixture for weights."""
        return self.view.compared(clips), self.view.compared(clips.sum(1))

    def heard(self, parts: Tensor, mixture: Tensor, batch: CaptionedBatch) -> Tensor:
        """CNT: sum over the clips' places of what all phrases there cost, each against those of the whole batch.

        Args:
            parts: estimates by the phrases (batch, clips * slots, bins, frames).
            mixture: (batch, time).
            batch: gives the phrases.
        """
        size, count, slots = batch.shares.shape
        with torch.autocast(self.device.type, enabled=False):
            waves = self.view.waveforms(parts, mixture).unflatten(1, (count, slots))
            total = parts.real.new_zeros(())
            for clip in range(count):
                audio = self.ears.audio(waves[:, clip].flatten(0, 1), self.model.sample_rate)
                own = [
                    phrase
                    for item in range(size)
                    for phrase in batch.phrases[(item * count + clip) * slots : (item * count + clip + 1) * slots]
                ]
                total = total + self.matched(audio, own)
        return total

    def matched(self, audio: Tensor, own: list[str]) -> Tensor:
        """Cross-entropy of sounds (items, dim) with their phrases among those of all devices."""
        text = gathered_rows(self.ears.text(own).to(audio.device))
        same = same_phrase(own, gathered_texts(own), audio.device)
        if self.faithful:
            same = torch.zeros_like(same)
            same[torch.arange(len(own)), first_row(len(own)) + torch.arange(len(own))] = 1
        return contrastive_loss(audio, text, same, self.scale)

    def training_step(self, batch: CaptionedBatch, index: int) -> Tensor | None:
        terms = self.weak(batch)
        weights = {"url": self.reconstruction, "crl": self.consistency, "cnt": self.contrast}
        total = self.mixtures_weight * torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        if len(batch.isolated):
            terms["isolated"] = self.reconstructed(batch.isolated, batch.names)
            total = total + self.isolated_weight * self.reconstruction * terms["isolated"]
        for name, term in terms.items():
            self.log(f"train/{name}", term, prog_bar=name == "url")
        return self.usable(total)
