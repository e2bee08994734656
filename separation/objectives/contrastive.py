"""The joint audio-text space: recordings and sentences of one class attract, of others repel.

Symmetric cross-entropy over similarities as in CLIP (Radford et al., 2021), with every same-class pair counted as a
match (Khosla et al., "Supervised contrastive learning", 2020), and a third term that picks the class among all classes.
On several devices each item is compared with all devices' items.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.data.mixing import Batch
from separation.encoders.joint import JointEncoder
from separation.objectives.base import RANDOM
from separation.objectives.gathering import gathered_rows
from separation.objectives.optimisers import AdamW, adamw_cosine
from separation.objectives.seeds import seed_step
from separation.objectives.start import load_encoder


def matching_loss(similarity: Tensor, same: Tensor) -> Tensor:
    """Cross-entropy of each row of `similarity` (rows, columns) with its matches in `same` as the targets."""
    target = same / same.sum(1, keepdim=True)
    return -(target * F.log_softmax(similarity, dim=1)).sum(1).mean()


class Contrastive(lightning.LightningModule):
    """Trains a `JointEncoder`.

    Args:
        encoder: what is trained.
        optimiser: rate, decay and warm-up.
        text_noise: deviation of the noise on sentence vectors, relative to their length.
        mask: share of mels and of frames that is blanked (SpecAugment).
        encoder_weights: safetensors file to go on from; "random", as none, begins anew.
    """

    def __init__(
        self,
        encoder: JointEncoder,
        optimiser: AdamW | None = None,
        text_noise: float = 0.3,
        mask: float = 0.2,
        encoder_weights: str | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if encoder_weights not in (None, RANDOM):
            load_encoder(self.encoder, Path(str(encoder_weights)))
        self.optimiser = optimiser or AdamW(lr=2e-3, weight_decay=0.05, warmup=100)
        self.text_noise, self.mask = text_noise, mask
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    def noisy(self, sentences: Tensor) -> Tensor:
        """Sentence vectors with noise, so that wordings nobody wrote down are met in training too."""
        noise = torch.randn_like(sentences) * self.text_noise / sentences.shape[-1] ** 0.5
        return F.normalize(sentences + noise, dim=-1)

    def masked(self, log_mel: Tensor) -> Tensor:
        """Log-mel with one band of mels and one stretch of frames blanked."""
        log_mel = log_mel.clone()
        for axis in (2, 3):
            size = log_mel.shape[axis]
            width = int(torch.randint(0, max(1, int(size * self.mask)), ()))
            start = int(torch.randint(0, size - width, ()))
            log_mel.narrow(axis, start, width).zero_()
        return log_mel

    def on_train_batch_start(self, batch: Batch, index: int) -> None:
        seed_step(self)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        labels = batch.labels[:, 0]
        audio = self.encoder.embed_log_mel(self.masked(self.encoder.log_mel(batch.sources[:, 0])))
        text = self.encoder.embed_sentences(self.noisy(batch.sentences[:, 0]))
        bank = self.encoder.embed_sentences(self.noisy(batch.bank))
        scale = self.log_scale.exp().clamp(max=50)
        same = (labels[:, None] == gathered_rows(labels)).float()
        by_sound = scale * audio @ gathered_rows(text).T
        by_text = scale * text @ gathered_rows(audio).T
        pick = scale * audio @ bank.T
        named = scale * text @ bank.T
        loss = (
            matching_loss(by_sound, same)
            + matching_loss(by_text, same)
            + 2 * F.cross_entropy(pick, labels, label_smoothing=0.05)
            + F.cross_entropy(named, labels, label_smoothing=0.05)
        )
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/top1", (pick.argmax(1) == labels).float().mean(), prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        return adamw_cosine(self, self.optimiser, int(self.trainer.estimated_stepping_batches))
