"""Weak supervision from clip-level labels: "Universal Source Separation with Weakly Labelled Data" (Kong et al., 2023).

A tagger says where in a clip the drawn class sounds; these anchors are mixed, always with other classes; what it says
about the clean anchor is the condition; the anchor is the target.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from separation.data.anchors import cut, energy, mined, mixed, partners, random_starts
from separation.data.tagged import TaggedBatch
from separation.encoders.base import QueryEncoder
from separation.losses import snr_loss
from separation.losses.waveform import l1_loss
from separation.models.base import ConditionedModel
from separation.objectives.base import RANDOM, Objective
from separation.objectives.ranks import per_rank

ANCHORS = ("mined", "random")
LOSSES = {"l1": l1_loss, "snr": snr_loss}


class WeaklySupervised(Objective):
    """Trains any separator from clips with labels.

    Args:
        model: the separator that is trained.
        encoder: the query net; what it says about a clean anchor is the condition. Frozen.
        detector: gives probabilities by frame (`encoders.panns.ReleasedDetector`); the encoder itself by default,
            which must then be a `FrameTagger`. Frozen.
        anchors: "mined" where the class is most probable, or "random" for comparison.
        seconds: of an anchor.
        sources: anchors a mixture.
        loss: "l1" of waveforms (published) or "snr".
        own_level: bring every mixture to the level at which the separator is used; published training did not.
        faithful: random anchors begin in the clip's first seconds, as the published code has it.
        common: see `Objective`; with `encoder_weights` "random" anchors are random as well.

    Raises:
        ValueError: an option has no such value, or separator and detector work at different rates.
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
        **common: Any,
    ) -> None:
        for value, known in ((anchors, ANCHORS), (loss, tuple(LOSSES))):
            if value not in known:
                raise ValueError(f"one of {', '.join(known)} is expected, not {value!r}")
        super().__init__(model, encoder, **common)
        self.detector = detector.eval().requires_grad_(False) if detector is not None else None
        self.hop, rate = int(self.hears().hop), int(self.hears().sample_rate)
        if model.sample_rate != rate:
            raise ValueError(f"the separator works at {model.sample_rate} Hz and the detector at {rate} Hz")
        self.anchors = "random" if common.get("encoder_weights") == RANDOM else anchors
        self.loss, self.faithful, self.own_level = LOSSES[loss], faithful, own_level
        self.length, self.sources = round(seconds * model.sample_rate), sources

    def hears(self) -> Any:
        """What gives probabilities by frame."""
        return self.detector if self.detector is not None else self.encoder

    def train(self, mode: bool = True) -> WeaklySupervised:
        """The detector stays in inference mode, too."""
        super().train(mode)
        if getattr(self, "detector", None) is not None:
            self.detector.eval()  # type: ignore[union-attr]
        return self

    @torch.no_grad()
    def segments(self, batch: TaggedBatch) -> Tensor:
        """The anchors (batch, time) of the drawn classes; a shorter clip is its own."""
        length = min(self.length, batch.waveforms.shape[-1])
        reach = length // (2 * self.hop)
        if self.anchors == "random":
            frames = batch.waveforms.shape[-1] // self.hop + 1
            starts = random_starts(len(batch.drawn), frames, reach, self.faithful).to(batch.drawn.device)
        else:
            framewise = self.hears()(batch.waveforms).framewise.float()  # (batch, frames, classes)
            starts = mined(framewise[torch.arange(len(batch.drawn)), :, batch.drawn], reach)
        return cut(batch.waveforms, starts * self.hop, 2 * reach * self.hop)

    @torch.no_grad()
    def mixtures(self, batch: TaggedBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mixtures and targets (batch, time), conditions (batch, dim), and which items can be used (batch,)."""
        targets = self.segments(batch)
        partner, fits = partners(batch.drawn, batch.tags, self.sources - 1)
        mixtures = mixed(targets, partner)
        conditions = self.encoder.encode_audio(targets, self.model.sample_rate).to(targets)
        fits &= energy(targets)[:, 0] > 0
        if self.own_level:
            gain = self.model.input_level / energy(mixtures).sqrt().clamp_min(1e-5)
            mixtures, targets = gain * mixtures, gain * targets
        return mixtures[fits], targets[fits], conditions[fits], fits

    def training_step(self, batch: TaggedBatch, index: int) -> Tensor | None:
        mixtures, targets, conditions, fits = self.mixtures(batch)
        self.log("train/without_partner", 1 - fits.float().mean())
        count = per_rank(fits.sum())  # asked on every rank, also by one that has nothing to learn from
        if not fits.any():
            return self.usable(None)
        observe = getattr(self.encoder, "observe", None)
        if observe is not None:
            observe(batch.drawn[fits], conditions)
        self.remember(mixtures[:, None], conditions[:, None])
        estimates = self.model(mixtures[:, None], conditions)[:, 0].float()
        loss = self.loss(targets, estimates).sum() / count
        self.log("train/loss", loss, prog_bar=True)
        return self.usable(loss)
