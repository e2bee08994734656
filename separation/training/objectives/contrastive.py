"""Training of the joint audio-text space: clips and sentences of one label attract, those of others repel each other.

The loss is a symmetric cross-entropy of similarities as in CLIP, in which every pair of one label is a match, and a
third term that classifies clips and sentences among all labels. With several devices, each item is compared with the
items of all devices.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.data.mixing import Batch
from separation.encoders.joint import JointEncoder
from separation.training.losses import matching_loss
from separation.training.objectives.base import TrainingModule, start_encoder
from separation.training.optimiser import AdamW
from separation.training.teacher import Teacher, add_noise, check_tagger


class Contrastive(TrainingModule):
    """Trains a `JointEncoder`.

    Args:
        encoder: the encoder to train.
        optimiser: learning rate, weight decay and warm-up.
        text_noise: deviation of the noise on sentence vectors, relative to their length.
        mask: largest share of the mels, and of the frames, that SpecAugment sets to zero; not with a tagger.
        teacher_weight: weight of a cross-entropy among the names of AudioSet's classes, see `Teacher.name_loss`.
        encoder_weights: safetensors file to continue from; None and "random" start anew.

    Raises:
        ModelError: a tensor of `encoder_weights` is missing, superfluous or of another shape.
    """

    def __init__(
        self,
        encoder: JointEncoder,
        optimiser: AdamW | None = None,
        text_noise: float = 0.3,
        mask: float = 0.2,
        teacher_weight: float = 0.0,
        encoder_weights: str | None = None,
    ) -> None:
        super().__init__(optimiser or AdamW(lr=2e-3, weight_decay=0.05, warmup=100))
        self.encoder = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        start_encoder(self.encoder, encoder_weights)
        check_tagger(self.encoder, {"teacher_weight": teacher_weight})
        self.text_noise, self.mask, self.teacher_weight = text_noise, mask, teacher_weight
        self.teacher: Teacher | None = None
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    def on_fit_start(self) -> None:
        if self.teacher_weight:
            self.teacher = Teacher(self.encoder, self.trainer.datamodule.corpus, rivals=True)  # type: ignore[attr-defined]

    def spec_augment(self, log_mel: Tensor) -> Tensor:
        """Log-mel (batch, 1, mels, frames) with one band of mels and one stretch of frames set to zero."""
        from torchaudio.functional import mask_along_axis

        for axis in (2, 3):
            log_mel = mask_along_axis(log_mel, int(log_mel.shape[axis] * self.mask), 0.0, axis)
        return log_mel

    def training_step(self, batch: Batch, index: int) -> Tensor:
        labels = batch.labels[:, 0]
        spectrogram = self.encoder.spectrogram(batch.sources[:, 0])
        if self.encoder.tagger is None:
            spectrogram = self.spec_augment(spectrogram)
        audio = self.encoder.embed_spectrogram(spectrogram)
        text = self.encoder.embed_sentences(add_noise(batch.sentences[:, 0], self.text_noise))
        bank = self.encoder.embed_sentences(add_noise(batch.bank, self.text_noise))
        scale = self.log_scale.exp().clamp(max=50)
        same = (labels[:, None] == self.gather(labels).flatten()).float()
        by_audio = scale * audio @ bank.T
        loss = (
            matching_loss(scale * audio @ self.gather(text).flatten(0, 1).T, same)
            + matching_loss(scale * text @ self.gather(audio).flatten(0, 1).T, same)
            + 2 * F.cross_entropy(by_audio, labels, label_smoothing=0.05)
            + F.cross_entropy(scale * text @ bank.T, labels, label_smoothing=0.05)
        )
        if self.teacher is not None:
            named = self.teacher.name_loss(self.encoder, scale * audio, batch, self.text_noise)
            loss = loss + self.teacher_weight * named
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/top1", (by_audio.argmax(1) == labels).float().mean(), prog_bar=True)
        return loss
