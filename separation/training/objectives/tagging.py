"""Training of a tagger from the labels of whole clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from separation.data.fixed_mixtures import LeftOut, Rendered
from separation.data.tagged import TaggedBatch
from separation.encoders.taggers import TaggerEncoder
from separation.training.objectives.base import RANDOM, TrainingModule
from separation.training.optimiser import AdamW

EPSILON = 1e-6


@dataclass
class SpecAugment:
    """Stripes of a clip's log-mel spectrogram that are set to zero in training (Park et al., 2019); as in PANNs.

    Attributes:
        frames: largest width along time.
        mels: largest width along frequency.
        stripes: number of stripes along each.
    """

    frames: int = 64
    mels: int = 8
    stripes: int = 2

    def __call__(self, spectrogram: Tensor) -> Tensor:
        """Spectrogram (batch, patches, frames, mels) with stripes of its own for each patch."""
        from torchaudio.functional import mask_along_axis_iid

        for _ in range(self.stripes):
            for axis, width in ((2, self.frames), (3, self.mels)):
                spectrogram = mask_along_axis_iid(spectrogram, min(width, spectrogram.shape[axis]), 0.0, axis)
        return spectrogram


class Tagging(TrainingModule):
    """Trains a tagger with the cross-entropy of clip-level probabilities; no position of a sound is given.

    Args:
        encoder: the tagger to train; all of it, or what its `trained_parts` name.
        optimiser: learning rate, weight decay and warm-up.
        mixup: share of the clips that are mixed with another clip; they then have the labels of both.
        mixup_alpha: instead, spectrograms and labels of two clips are mixed with weights w and 1 - w, w drawn from
            Beta(alpha, alpha), as in PANNs (Zhang et al., "mixup", 2018); 0 does not.
        masks: stripes of the spectrograms that are set to zero; None = none.
        encoder_weights: what `encoder.start` loads: a file to continue from, "embedded" for a `PatchTagger`, the folder
            or repository of the published network for AST; None and "random" start anew.

    Raises:
        ModelError: a tensor of `encoder_weights` is missing, superfluous or of another shape.
    """

    def __init__(
        self,
        encoder: TaggerEncoder,
        optimiser: AdamW | None = None,
        mixup: float = 0.5,
        mixup_alpha: float = 0.0,
        masks: SpecAugment | None = None,
        encoder_weights: str | None = None,
    ) -> None:
        super().__init__(optimiser or AdamW(lr=2e-3, weight_decay=0.02, warmup=50))
        self.encoder = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for part in encoder.trained_parts():
            part.requires_grad_(True)
        self.encoder_weights = encoder_weights
        self.mixup, self.mixup_alpha, self.masks = mixup, mixup_alpha, masks
        self.weights: Tensor | None = None  # of the clips of this step, (batch,)
        encoder.spectrogram.register_forward_hook(self.change_spectrogram)
        self.scored: list[tuple[Tensor, Tensor]] = []  # probabilities and tags of validation clips

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.encoder_weights not in (None, RANDOM):
            self.encoder.start(str(self.encoder_weights))

    def train(self, mode: bool = True) -> Tagging:
        """Set the training mode; parts of the tagger that are not trained stay in inference mode."""
        super().train(mode)
        self.encoder.eval()
        for part in self.encoder.trained_parts():
            part.train(mode)
        return self

    def change_spectrogram(self, module: Any, inputs: Any, spectrogram: Tensor) -> Tensor | None:
        """Mask and mix spectrograms (batch, patches, frames, mels) of a training step."""
        if not self.training:
            return None
        if self.masks is not None:
            spectrogram = self.masks(spectrogram)
        if self.weights is not None:
            weights = self.weights[:, None, None, None].to(spectrogram)
            spectrogram = weights * spectrogram + (1 - weights) * spectrogram.roll(1, 0)
        return spectrogram

    def mix_clips(self, batch: TaggedBatch) -> tuple[Tensor, Tensor]:
        """Waveforms (batch, time) and tags (batch, classes), some of them of two clips.

        With `mixup_alpha`, only the tags are mixed here; the spectrograms follow with the same weights.
        """
        tags = batch.tags
        if self.mixup_alpha:
            alpha = torch.full((len(tags),), self.mixup_alpha, device=tags.device)
            self.weights = torch.distributions.Beta(alpha, alpha).sample()
            return batch.waveforms, self.weights[:, None] * tags + (1 - self.weights[:, None]) * tags.roll(1, 0)
        chosen = (torch.rand(len(tags), 1, device=tags.device) < self.mixup).float()
        waveforms = batch.waveforms + chosen * batch.waveforms.roll(1, 0)
        return waveforms, torch.maximum(tags, chosen * tags.roll(1, 0))

    def training_step(self, batch: TaggedBatch, index: int) -> Tensor:
        waveforms, tags = self.mix_clips(batch)
        probabilities = self.encoder.tag(waveforms).probabilities.float().clamp(EPSILON, 1 - EPSILON)
        with torch.autocast(self.device.type, enabled=False):
            loss = F.binary_cross_entropy(probabilities, tags, reduction="none").sum(1).mean()
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/top1", tags.gather(1, probabilities.argmax(1, keepdim=True)).mean(), prog_bar=True)
        return loss

    def validation_step(self, item: Rendered | LeftOut | TaggedBatch, index: int) -> None:
        """Tag clips for the mean average precision, or log whether a mixture's query is among its two first classes."""
        if isinstance(item, TaggedBatch):
            self.scored.append((self.encoder.tag(item.waveforms).probabilities.float().cpu(), item.tags.cpu()))
            return
        if isinstance(item, LeftOut) or item.row["kind"] == "absent":
            return
        mixture = torch.from_numpy(item.mixture).float()[None]
        probabilities = self.encoder.probabilities(mixture, item.sample_rate)[0]
        higher = (probabilities > probabilities[self.encoder.class_number(item.row["query"])]).sum()
        self.log("val/top2", (higher < 2).float(), prog_bar=True, on_epoch=True, sync_dist=True, batch_size=1)

    def on_validation_epoch_end(self) -> None:
        """Log the mean average precision over the classes that occur in the clips of all devices."""
        scored, self.scored = self.gather_objects(self.scored), []
        if scored:
            probabilities, tags = (torch.cat(part) for part in zip(*scored, strict=True))
            self.log("val/map", mean_average_precision(probabilities, tags), prog_bar=True, rank_zero_only=True)


def mean_average_precision(probabilities: Tensor, tags: Tensor) -> Tensor:
    """Mean over classes of the average precision of (clips, classes); classes without a clip do not count."""
    from torchmetrics.functional.classification import multilabel_average_precision

    occurs = tags.sum(0) > 0
    found, tags = probabilities[:, occurs], tags[:, occurs].long()
    if tags.shape[1] == 1:  # torchmetrics wants two labels or more
        found, tags = found.repeat(1, 2), tags.repeat(1, 2)
    return multilabel_average_precision(found, tags, tags.shape[1], average="macro")
