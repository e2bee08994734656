"""Training of a frame-wise tagger from the labels of whole clips."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from separation.data.fixed_mixtures import LeftOut, Rendered
from separation.data.tagged import TaggedBatch
from separation.encoders.taggers import FrameTagger
from separation.training.objectives.base import TrainingModule, start_encoder
from separation.training.optimiser import AdamW

EPSILON = 1e-6


class Tagging(TrainingModule):
    """Trains a `FrameTagger` with the cross-entropy of clip-level probabilities; no position of a sound is given.

    Args:
        encoder: the tagger to train.
        optimiser: learning rate, weight decay and warm-up.
        mixup: share of the clips that are mixed with another clip; they then have the labels of both.
        encoder_weights: safetensors file to continue from; None and "random" start anew.

    Raises:
        ModelError: a tensor of `encoder_weights` is missing, superfluous or of another shape.
    """

    def __init__(
        self,
        encoder: FrameTagger,
        optimiser: AdamW | None = None,
        mixup: float = 0.5,
        encoder_weights: str | None = None,
    ) -> None:
        super().__init__(optimiser or AdamW(lr=2e-3, weight_decay=0.02, warmup=50))
        self.encoder = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        start_encoder(self.encoder, encoder_weights)
        self.mixup = mixup

    def mix_clips(self, batch: TaggedBatch) -> tuple[Tensor, Tensor]:
        """Waveforms (batch, time) and tags (batch, classes), some of them of two clips."""
        chosen = (torch.rand(len(batch.tags), 1, device=batch.tags.device) < self.mixup).float()
        waveforms = batch.waveforms + chosen * batch.waveforms.roll(1, 0)
        return waveforms, torch.maximum(batch.tags, chosen * batch.tags.roll(1, 0))

    def training_step(self, batch: TaggedBatch, index: int) -> Tensor:
        waveforms, tags = self.mix_clips(batch)
        probabilities = self.encoder(waveforms).clipwise.float().clamp(EPSILON, 1 - EPSILON)
        with torch.autocast(self.device.type, enabled=False):
            loss = F.binary_cross_entropy(probabilities, tags, reduction="none").sum(1).mean()
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/top1", tags.gather(1, probabilities.argmax(1, keepdim=True)).mean(), prog_bar=True)
        return loss

    def validation_step(self, rendered: Rendered | LeftOut, index: int) -> None:
        """Log whether the queried class is among the two most probable ones of a mixture of two sounds."""
        if isinstance(rendered, LeftOut) or rendered.row["kind"] == "absent":
            return
        mixture = torch.from_numpy(rendered.mixture).float()[None]
        probabilities = self.encoder.probabilities(mixture, rendered.sample_rate)[0]
        higher = (probabilities > probabilities[self.encoder.names.index(rendered.row["query"])]).sum()
        self.log("val/top2", (higher < 2).float(), prog_bar=True, on_epoch=True, sync_dist=True, batch_size=1)
