"""A frame-wise tagger from clip-level labels: cross-entropy of the clips' probabilities with what they are labelled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn import functional as F

from separation.data.fixed_mixtures import LeftOut, Rendered
from separation.data.tagged import TaggedBatch
from separation.encoders.taggers import FrameTagger
from separation.objectives.base import RANDOM
from separation.objectives.optimisers import AdamW, adamw_cosine
from separation.objectives.seeds import seed_step
from separation.objectives.start import load_encoder

SURE = 1e-6


class Tagging(lightning.LightningModule):
    """Trains a `FrameTagger`. Nothing but the clips' labels is used: the network itself finds out where they sound.

    Args:
        encoder: what is trained.
        optimiser: rate, decay and warm-up.
        mixup: how often a clip is mixed with the next one; it then has the labels of both.
        encoder_weights: safetensors file to go on from; "random", as none, begins anew.
    """

    def __init__(
        self,
        encoder: FrameTagger,
        optimiser: AdamW | None = None,
        mixup: float = 0.5,
        encoder_weights: str | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if encoder_weights not in (None, RANDOM):
            load_encoder(self.encoder, Path(str(encoder_weights)))
        self.optimiser, self.mixup = optimiser or AdamW(lr=2e-3, weight_decay=0.02, warmup=50), mixup

    def mixed(self, batch: TaggedBatch) -> tuple[Tensor, Tensor]:
        """Waveforms (batch, time) and tags (batch, classes), some of them of two clips."""
        chosen = (torch.rand(len(batch.tags), 1, device=batch.tags.device) < self.mixup).float()
        waveforms = batch.waveforms + chosen * batch.waveforms.roll(1, 0)
        return waveforms, torch.maximum(batch.tags, chosen * batch.tags.roll(1, 0))

    def on_train_batch_start(self, batch: TaggedBatch, index: int) -> None:
        seed_step(self)

    def training_step(self, batch: TaggedBatch, index: int) -> Tensor:
        waveforms, tags = self.mixed(batch)
        probabilities = self.encoder(waveforms).clipwise.float().clamp(SURE, 1 - SURE)
        with torch.autocast(self.device.type, enabled=False):
            loss = F.binary_cross_entropy(probabilities, tags, reduction="none").sum(1).mean()
        self.log("train/loss", loss, prog_bar=True)
        hit = tags.gather(1, probabilities.argmax(1, keepdim=True))
        self.log("train/top1", hit.mean(), prog_bar=True)
        return loss

    def validation_step(self, rendered: Rendered | LeftOut, index: int) -> None:
        """Whether the class asked for is among the two that are surest in a mixture of two sounds."""
        if isinstance(rendered, LeftOut) or rendered.row["kind"] == "absent":
            return
        mixture = torch.from_numpy(rendered.mixture).float()[None]
        probabilities = self.encoder.probabilities(mixture, rendered.sample_rate)[0]
        surer = (probabilities > probabilities[self.encoder.names.index(rendered.row["query"])]).sum()
        self.log("val/top2", (surer < 2).float(), prog_bar=True, on_epoch=True, sync_dist=True, batch_size=1)

    def configure_optimizers(self) -> Any:
        return adamw_cosine(self, self.optimiser, int(self.trainer.estimated_stepping_batches))
