"""Weak supervision from clip-level labels: "Universal Source Separation with Weakly Labelled Data" (Kong et al., 2023).

A tagger finds the segment of a clip, the anchor, in which the drawn class is most probable on average over 2 s. Anchors
of different classes are mixed at 0 dB. The condition is the tagger's output for the clean anchor, which is the target.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.data.tagged import TaggedBatch
from separation.encoders.base import QueryEncoder
from separation.models.base import ConditionedModel
from separation.training.losses import WAVEFORM_LOSSES
from separation.training.objectives.base import RANDOM, Objective

ANCHORS, LOSSES = ("mined", "random"), ("l1", "snr")
LEAST, MOST = 0.02, 50.0  # bounds of the gain of an interference
ENERGY_FLOOR = 1e-10
PUBLISHED_RANDOM = 200  # the published code draws random centres from the first 2 s only


class WeaklySupervised(Objective):
    """Trains any separator on clips with labels.

    Args:
        model: the separator to train.
        encoder: the query network, whose output for a clean anchor is the condition. Frozen.
        detector: gives probabilities by frame (`encoders.panns.ReleasedDetector`); by default the encoder, which
            then has to be a `FrameTagger`. Frozen.
        anchors: "mined" where the class is most probable, or "random" for comparison.
        seconds: length of an anchor.
        sources: anchors per mixture.
        loss: "l1" of waveforms (published) or "snr".
        own_level: scale every mixture to the input level of the separator; the published training did not.
        faithful: draw random anchors from the first seconds of a clip only, like the published code.
        reference_queries: query held-out mixtures by their clean targets, as the published validation does, instead of
            by label.
        common: see `Objective`; with `encoder_weights` "random", anchors are random as well.

    Raises:
        ValueError: an option has an unknown value, or separator and detector have different sample rates.
    """

    def __init__(
        self,
        model: ConditionedModel,
        encoder: QueryEncoder,
        detector: nn.Module | None = None,
        anchors: str = "mined",
        seconds: float = 2.0,
        sources: int = 2,
        loss: str = "l1",
        own_level: bool = False,
        faithful: bool = False,
        reference_queries: bool = False,
        **common: Any,
    ) -> None:
        for value, known in ((anchors, ANCHORS), (loss, LOSSES)):
            if value not in known:
                raise ValueError(f"one of {', '.join(known)} is expected, not {value!r}")
        super().__init__(model, encoder, **common)
        self.detector = detector.eval().requires_grad_(False) if detector is not None else None
        self.hop, rate = int(self.frame_detector.hop), int(self.frame_detector.sample_rate)
        if model.sample_rate != rate:
            raise ValueError(f"the separator works at {model.sample_rate} Hz and the detector at {rate} Hz")
        self.anchors = "random" if common.get("encoder_weights") == RANDOM else anchors
        self.loss, self.faithful, self.own_level = WAVEFORM_LOSSES[loss], faithful, own_level
        self.length, self.sources = round(seconds * model.sample_rate), sources
        self.reference_queries = reference_queries

    @property
    def frame_detector(self) -> Any:
        """The network that gives probabilities by frame."""
        return self.detector if self.detector is not None else self.encoder

    def train(self, mode: bool = True) -> WeaklySupervised:
        """Set the training mode of the separator; the detector stays in inference mode, too."""
        super().train(mode)
        if getattr(self, "detector", None) is not None:
            self.detector.eval()  # type: ignore[union-attr]
        return self

    @torch.no_grad()
    def segments(self, batch: TaggedBatch) -> Tensor:
        """Anchors (batch, time) of the drawn classes; a clip that is shorter than an anchor is used whole."""
        length = min(self.length, batch.waveforms.shape[-1])
        reach = length // (2 * self.hop)
        if self.anchors == "random":
            frames = batch.waveforms.shape[-1] // self.hop + 1
            starts = random_anchors(len(batch.drawn_class), frames, reach, self.faithful).to(batch.drawn_class.device)
        else:
            framewise = self.frame_detector(batch.waveforms).framewise.float()  # (batch, frames, classes)
            starts = find_anchors(framewise[torch.arange(len(batch.drawn_class)), :, batch.drawn_class], reach)
        samples = torch.arange(2 * reach * self.hop, device=batch.waveforms.device)
        return batch.waveforms.gather(1, starts[:, None] * self.hop + samples)

    @torch.no_grad()
    def mixtures(self, batch: TaggedBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mix the anchors of a batch.

        Returns:
            Mixtures and targets (items, time), conditions (items, dim), and which clips have an item (batch,): those
            that are not silent and found enough partners of other classes.
        """
        targets = self.segments(batch)
        partner, usable = choose_partners(batch.drawn_class, batch.tags, self.sources - 1)
        mixtures = mix_segments(targets, partner)
        conditions = self.encoder.encode_audio(targets, self.model.sample_rate).to(targets)
        usable &= mean_square(targets)[:, 0] > 0
        if self.own_level:
            gain = self.model.input_level / mean_square(mixtures).sqrt().clamp_min(1e-5)
            mixtures, targets = gain * mixtures, gain * targets
        return mixtures[usable], targets[usable], conditions[usable], usable

    def training_step(self, batch: TaggedBatch, index: int) -> Tensor | None:
        mixtures, targets, conditions, usable = self.mixtures(batch)
        self.log("train/without_partner", 1 - usable.float().mean())
        count = self.mean_count(usable.sum())  # all devices take part, also those without any item
        if not usable.any():
            return self.skip_invalid(None)
        observe = getattr(self.encoder, "observe", None)
        if observe is not None:
            observe(batch.drawn_class[usable], conditions)
        self.keep_batch(mixtures[:, None], conditions[:, None])
        estimates = self.model(mixtures[:, None], conditions)[:, 0].float()
        loss = self.loss(targets, estimates).sum() / count
        self.log("train/loss", loss, prog_bar=True)
        return self.skip_invalid(loss)


# Anchors, and how they are mixed


def smooth(probabilities: Tensor, reach: int) -> Tensor:
    """Moving average of (batch, frames) over 2 * reach + 1 frames; the first and last frame are repeated."""
    padded = F.pad(probabilities[:, None], (reach, reach), mode="replicate")
    return F.avg_pool1d(padded, 2 * reach + 1, 1)[:, 0]


def find_anchors(probabilities: Tensor, reach: int) -> Tensor:
    """First frames (batch,) of the segments of 2 * reach frames in which a class is most probable on average.

    Its probabilities (batch, frames) have one frame more than the clip has whole hops.
    """
    return _starts(smooth(probabilities, reach).argmax(1), probabilities.shape[1], reach)


def random_anchors(count: int, frames: int, reach: int, faithful: bool = False) -> Tensor:
    """First frames (count,) of random segments in clips of `frames` frames.

    With `faithful`, centres are drawn from the first 201 frames only, as in the published code.
    """
    if faithful:
        return _starts(torch.randint(PUBLISHED_RANDOM + 1, (count,)), frames, reach)
    return torch.randint(max(1, frames - 2 * reach), (count,))


def _starts(centres: Tensor, frames: int, reach: int) -> Tensor:
    """First frames of segments around `centres`, moved into the clip if they exceed it."""
    if frames - 1 < 2 * reach:
        raise ValueError(f"a clip of {frames - 1} frames holds no segment of {2 * reach}")
    return centres.clamp(reach, frames - 1 - reach) - reach


def choose_partners(drawn: Tensor, tags: Tensor, count: int = 1) -> tuple[Tensor, Tensor]:
    """Choose the segments that each one is mixed with: the next `count` in the batch whose clips lack its label.

    Args:
        drawn: (batch,), class of each segment.
        tags: (batch, classes), all classes of each clip as ones and zeros.
        count: partners per segment.

    Returns:
        indices (batch, count), and whether a segment has so many partners (batch,).
    """
    size = len(drawn)
    if size <= count:
        raise ValueError(f"a batch of {size} has no {count} partners for each segment")
    follower = (torch.arange(size)[:, None] + torch.arange(1, size)).to(drawn.device) % size  # (batch, size - 1)
    fits = tags[follower, drawn[:, None]] == 0
    order = torch.argsort((~fits).to(torch.uint8), dim=1, stable=True)[:, :count]
    return follower.gather(1, order), fits.sum(1) >= count


def mean_square(waveforms: Tensor) -> Tensor:
    """Mean square (..., 1) of waveforms (..., time)."""
    return waveforms.square().mean(-1, keepdim=True)


def mix_segments(segments: Tensor, partner: Tensor) -> Tensor:
    """Mix segments (batch, time) with their partners (batch, count), each at the segment's energy: (batch, time)."""
    others = segments[partner]  # (batch, count, time)
    gains = (mean_square(segments)[:, None] / mean_square(others).clamp_min(ENERGY_FLOOR)).sqrt().clamp(LEAST, MOST)
    return segments + (gains * others).sum(1)
