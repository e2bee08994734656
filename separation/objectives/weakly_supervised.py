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
from separation.encoders.tagger import TaggerEncoder
from separation.losses import snr_loss
from separation.losses.waveform import l1_loss
from separation.models.base import ConditionedModel
from separation.objectives.base import Objective
from separation.objectives.staircase import Staircase, adam_staircase

ANCHORS = ("mined", "random")
LOSSES = {"l1": l1_loss, "snr": snr_loss}


class WeaklySupervised(Objective):
    """Trains any separator from clips with labels.

    Args:
        model: the separator that is trained.
        encoder: the query net; what it says about a clean anchor is the condition. Frozen.
        detector: gives probabilities by frame (`encoders.panns.Cnn14DecisionLevelMax`); the encoder itself by default,
            where it does (`FrameTagger`). Frozen.
        anchors: "mined" where the class is most probable, or "random" for comparison.
        seconds: of an anchor.
        sources: anchors a mixture.
        loss: "l1" of waveforms (published) or "snr".
        own_level: bring every mixture to the level at which the separator is used; published training did not.
        faithful: random anchors begin in the clip's first seconds, as the published code has it.
        tagger_weights: a published file for the encoder, for example `Cnn14_mAP=0.431.pth`.
        detector_weights: a published file for the detector, for example `Cnn14_DecisionLevelMax_mAP=0.385.pth`.
        staircase: published schedule instead of `optimiser`.
        common: see `Objective`.

    Raises:
        ValueError: an option has no such value, or separator, encoder and detector work at different rates.
    """

    encoder: TaggerEncoder

    def __init__(
        self,
        model: ConditionedModel,
        encoder: TaggerEncoder,
        detector: nn.Module | None = None,
        anchors: str = "mined",
        seconds: float = 2.0,
        sources: int = 2,
        loss: str = "l1",
        own_level: bool = False,
        faithful: bool = False,
        tagger_weights: str | None = None,
        detector_weights: str | None = None,
        staircase: Staircase | None = None,
        **common: Any,
    ) -> None:
        for value, known in ((anchors, ANCHORS), (loss, tuple(LOSSES))):
            if value not in known:
                raise ValueError(f"one of {', '.join(known)} is expected, not {value!r}")
        super().__init__(model, encoder, **common)
        self.detector = detector.eval().requires_grad_(False) if detector is not None else None
        rates = {int(part.sample_rate) for part in (model, encoder, self.hears())}
        if len(rates) > 1:
            raise ValueError(f"separator, encoder and detector work at one rate, not at {sorted(rates)} Hz")
        self.anchors, self.loss, self.faithful = anchors, LOSSES[loss], faithful
        self.length, self.sources, self.own_level = round(seconds * model.sample_rate), sources, own_level
        self.staircase = staircase
        self.untrained = tagger_weights is None and common.get("encoder_weights") is None
        load_published(encoder, tagger_weights, self.detector, detector_weights)

    def hears(self) -> Any:
        """What gives probabilities by frame."""
        return self.detector if self.detector is not None else self.encoder

    def train(self, mode: bool = True) -> WeaklySupervised:
        """The detector stays in inference mode, too."""
        super().train(mode)
        if getattr(self, "detector", None) is not None:
            self.detector.eval()  # type: ignore[union-attr]
        return self

    def on_fit_start(self) -> None:
        if self.untrained:
            self.print("No weights were given for the tagger: it is used as it is, which teaches nothing if it is new.")

    @torch.no_grad()
    def segments(self, batch: TaggedBatch) -> Tensor:
        """The anchors (batch, time) of the drawn classes."""
        hop = int(self.hears().hop)
        reach = self.length // (2 * hop)
        if self.anchors == "random":
            frames = batch.waveforms.shape[-1] // hop + 1
            starts = random_starts(len(batch.drawn), frames, reach, self.faithful).to(batch.drawn.device)
        else:
            framewise = self.hears()(batch.waveforms).framewise.float()  # (batch, frames, classes)
            starts = mined(framewise[torch.arange(len(batch.drawn)), :, batch.drawn], reach)
        return cut(batch.waveforms, starts * hop, self.length)

    @torch.no_grad()
    def mixtures(self, batch: TaggedBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mixtures and targets (batch, time), conditions (batch, dim), and which items can be used (batch,)."""
        targets = self.segments(batch)
        partner, fits = partners(batch.drawn, batch.tags, self.sources - 1)
        mixtures = mixed(targets, partner)
        conditions = self.encoder.encode_audio(targets, self.encoder.sample_rate)
        fits &= energy(targets)[:, 0] > 0
        if self.own_level:
            gain = self.model.input_level / energy(mixtures).sqrt().clamp_min(1e-5)
            mixtures, targets = gain * mixtures, gain * targets
        return mixtures[fits], targets[fits], conditions[fits], fits

    def training_step(self, batch: TaggedBatch, index: int) -> Tensor | None:
        mixtures, targets, conditions, fits = self.mixtures(batch)
        self.log("train/without_partner", 1 - fits.float().mean())
        if not fits.any():
            return None
        observe = getattr(self.encoder, "observe", None)
        if observe is not None:
            observe(batch.drawn[fits], conditions)
        self.remember(mixtures[:, None], conditions[:, None])
        estimates = self.model(mixtures[:, None], conditions)[:, 0].float()
        loss = self.loss(targets, estimates).mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss if torch.isfinite(loss) else None

    def configure_optimizers(self) -> Any:
        if self.staircase is not None:
            return adam_staircase(self.trained(), self.staircase)
        return super().configure_optimizers()


def load_published(
    encoder: Any, tagger_weights: str | None, detector: nn.Module | None, detector_weights: str | None
) -> None:
    """Fills PANNs from their published files.

    Raises:
        EncoderError: a file is missing or holds another network.
    """
    from separation.encoders.files import read_tensors
    from separation.encoders.panns import DETECTOR_PREFIXES, PREFIXES, load_cnn14

    if tagger_weights is not None:
        load_cnn14(encoder.network, read_tensors(tagger_weights), PREFIXES, tagger_weights)
    if detector_weights is not None:
        load_cnn14(detector, read_tensors(detector_weights), DETECTOR_PREFIXES, detector_weights)  # type: ignore[arg-type]
