"""Supervised mix-and-separate for any separator and any query encoder; what a clip is asked for by is a setting.

AudioSep (Liu et al., 2023): captions, waveforms compared. CLIPSep and its relatives (Dong et al., 2023): pictures,
texts, both in turn, or labels; masks compared. PIT: nothing is asked for, and the better order of the outputs counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from separation.data.fixed_mixtures import Rendered
from separation.data.manifest import DataError
from separation.data.queried import Queried, QueriedData
from separation.encoders.base import QueryEncoder
from separation.encoders.table import LabelEncoder
from separation.evaluate import Score, score_mixture
from separation.losses.levels import snr_loss
from separation.losses.masks import best_order, binary_masks, loudness_weight, ratio_masks, weighted_bce
from separation.losses.waveform import l1_loss, si_sdr_loss
from separation.models.base import ConditionedModel
from separation.objectives.base import Objective
from separation.objectives.ranks import per_rank
from separation.objectives.remembered import Remembered

Loss = Literal["l1", "si_sdr", "snr", "binary_mask", "ratio_mask"]
Form = Literal["text", "image", "label", "none"]

WAVEFORM: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": l1_loss, "si_sdr": si_sdr_loss, "snr": snr_loss}
IN_DECIBELS = ("si_sdr", "snr")  # which say nothing of a target that is silent
OUTPUT = "output"  # the number of an output that answers to no query
ON_MASKS = ("stft", "features", "rows", "masks", "frame_multiple")


class Supervised(Objective):
    """Trains a separator on mixtures whose sources are known.

    Args:
        model: the separator that is trained.
        encoder: gives the conditions; frozen but for `learn_encoder`.
        loss: of waveforms: "l1" (AudioSep), "si_sdr", "snr"; of masks, for models that have them on a log-frequency
            axis: "binary_mask" (CLIPSep), "ratio_mask".
        queries: what a source is asked for by; of several, each step takes the next. "none" is for models with one
            output a source in no order.
        audio_share: share of the queries that are replaced by the target's own sound.
        learn_encoder: train the encoder along: for a table of labels (LabelSep).
        common: see `Objective`.

    Raises:
        ValueError: the settings contradict each other, or model and encoder do not fit.
    """

    def __init__(
        self,
        model: ConditionedModel,
        encoder: QueryEncoder,
        loss: Loss = "l1",
        queries: Sequence[Form] = ("text",),
        audio_share: float = 0.0,
        learn_encoder: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(model, encoder, **common)
        self.loss, self.queries, self.audio_share, self.learn_encoder = loss, list(queries), audio_share, learn_encoder
        self.remembered = Remembered()
        self.encoder.requires_grad_(learn_encoder)
        self.check()

    def check(self) -> None:
        """Refuses what could not be trained.

        Raises:
            ValueError: says why.
        """
        model, encoder = type(self.model).__name__, type(self.encoder).__name__
        unordered = "none" in self.queries
        if not self.queries or (unordered and (len(self.queries) > 1 or self.loss in WAVEFORM)):
            raise ValueError('queries names one form or more; "none" stands alone, with a loss of masks')
        if self.encoder.embedding_dim != self.model.condition_dim:
            raise ValueError(
                f"{encoder} gives conditions of {self.encoder.embedding_dim} numbers, "
                f"{model} takes {self.model.condition_dim}"
            )
        forms = set(self.queries) - {"none"} | ({"audio"} if self.audio_share else set())
        if not forms <= self.encoder.modalities:
            raise ValueError(f"{encoder} takes no {min(forms - self.encoder.modalities)} queries")
        if self.loss not in WAVEFORM and not all(hasattr(self.model, name) for name in ON_MASKS):
            raise ValueError(f"{model} has no masks on a log-frequency axis; choose a loss of waveforms")

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.check_data(getattr(self.trainer, "datamodule", None))

    def check_data(self, data: Any) -> None:
        """Sees that the clips can be asked for, before the first step.

        Raises:
            DataError: by image, and the data has no pictures.
            EncoderError: by label, and a clip's is none of the encoder's.
        """
        if "image" in self.queries and isinstance(data, QueriedData) and not data.has_pictures:
            raise DataError("model.queries asks by image, and the data has no pictures; set data.frames.")
        if "label" in self.queries and isinstance(self.encoder, LabelEncoder):
            # Clips that stream in are not known beforehand.
            for label in getattr(data, "labels", ()) if isinstance(data, QueriedData) else ():
                self.encoder.index(label)

    def trained(self) -> torch.nn.Module:
        """The separator, and the encoder where it learns."""
        return torch.nn.ModuleList([self.model, self.encoder]) if self.learn_encoder else self.model

    # Conditions

    def form(self) -> Form:
        """What this step's queries are."""
        return self.queries[self.global_step % len(self.queries)]

    def conditions(self, batch: Queried) -> Tensor:
        """Condition of every query (batch, asked, dim)."""
        form, count = self.form(), batch.sources.shape[0]
        if form == "none":
            return torch.eye(self.model.condition_dim, device=self.device).expand(count, -1, -1)
        encoded = self.encoded(form, batch).to(self.device, torch.float32).unflatten(0, (count, -1))
        return self.by_sound(encoded, batch) if self.audio_share else encoded

    def encoded(self, form: Form, batch: Queried) -> Tensor:
        """Vectors of all queries of a batch, one row after another (batch * asked, dim)."""
        forms: dict[str, list[Any]] = {"text": batch.texts, "label": batch.labels, "image": batch.pictures}
        given = forms[form]
        if not given:
            raise ValueError("Queries by image need pictures; the data has none (see data/pictured.py).")
        flat = [query for row in given for query in row]
        encode: Callable[[list[Any]], Tensor] = getattr(self.encoder, f"encode_{form}")
        return encode(flat) if self.learn_encoder else self.remembered(flat, encode)

    @torch.no_grad()
    def by_sound(self, conditions: Tensor, batch: Queried) -> Tensor:
        """The same, a share of them replaced by the vectors of the targets' own sound."""
        chosen = torch.rand(conditions.shape[:2], device=self.device) < self.audio_share
        if chosen.any():
            examples = batch.sources[:, : batch.asked][chosen]
            conditions = conditions.clone()
            vectors = self.encoder.encode_audio(examples, self.model.sample_rate)
            conditions[chosen] = vectors.to(conditions)
        return conditions

    # Losses

    def training_step(self, batch: Queried, index: int) -> Tensor | None:
        conditions = self.conditions(batch)
        self.remember(batch.sources.sum(1, keepdim=True), conditions)
        loss = self.loss_of(batch.sources, conditions)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True)
        return self.usable(loss)

    def loss_of(self, sources: Tensor, conditions: Tensor) -> Tensor:
        """Mean loss of mixtures, given by sources (batch, sources, time), and conditions (batch, asked, dim)."""
        return self.of_waveforms(sources, conditions) if self.loss in WAVEFORM else self.of_masks(sources, conditions)

    def of_waveforms(self, sources: Tensor, conditions: Tensor) -> Tensor:
        """Mean over the queries; losses in dB leave silent targets out."""
        estimates, _ = self.model.separate(sources.sum(1, keepdim=True), conditions)
        targets = sources[:, : conditions.shape[1]]
        values = WAVEFORM[self.loss](targets, estimates[:, :, 0].float())
        if self.loss not in IN_DECIBELS:
            return values.mean()
        sounding = targets.square().sum(-1) > 0
        return values[sounding].sum() / per_rank(sounding.sum()).clamp_min(1e-3)

    def of_masks(self, sources: Tensor, conditions: Tensor) -> Tensor:
        """Mean over the mixtures of the cross-entropy of their masks."""
        features, truth, weight = self.views(sources)
        masks = self.on_frames(self.model.masks, features, conditions)
        with torch.autocast(self.device.type, enabled=False):
            return self.compared(masks[0], truth, weight).mean()

    def compared(self, masks: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        """Loss of each mixture's masks (batch,): mean over its queries, in the better order where there is none."""
        if self.queries == ["none"]:
            pairs = (*masks.shape[:2], truth.shape[1], *masks.shape[2:])
            values = weighted_bce(masks[:, :, None].expand(pairs), truth[:, None].expand(pairs), weight[:, None, None])
            return best_order(values)
        return weighted_bce(masks, truth[:, : masks.shape[1]], weight[:, None]).mean(1)

    @torch.no_grad()
    def views(self, sources: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the network sees of mixtures, the sources' true masks and the points' weight.

        Args:
            sources: (batch, sources, time).

        Returns:
            features (batch, 1, rows, frames), true masks (batch, sources, rows, frames), weight (batch, rows, frames).
        """
        model: Any = self.model
        with torch.autocast(self.device.type, enabled=False):
            spectra = model.stft(sources)
            magnitude = spectra.sum(1).abs()
            parts, mixture = model.rows(spectra.abs()), model.rows(magnitude[:, None])[:, 0]
            truth = binary_masks(parts, mixture) if self.loss == "binary_mask" else ratio_masks(parts)
            return model.features(magnitude), truth, loudness_weight(mixture)

    def on_frames(self, masks: Callable[..., Any], features: Tensor, conditions: Tensor) -> list[Tensor]:
        """Masks (one kind, or several) in single precision, of as many frames as the network's grid needs, cut back."""
        frames = features.shape[-1]
        multiple: Any = self.model.frame_multiple
        padded = torch.nn.functional.pad(features, (0, -frames % multiple))
        found = masks(padded, conditions)
        return [mask[..., :frames].float() for mask in (found if isinstance(found, tuple) else (found,))]

    # Scores

    def scored(self, rendered: Rendered) -> Score:
        """As in `Objective`; where outputs have no order, the better one counts, as published."""
        if self.queries != ["none"]:
            return super().scored(rendered)
        separator = self.separator()
        rows = [rendered.row | {OUTPUT: str(number + 1)} for number in range(self.model.condition_dim)]
        scores = [
            score_mixture(separator, replace(rendered, row=row), replace(self.plan, column=OUTPUT)) for row in rows
        ]
        return replace(max(scores, key=lambda found: found.value), query=rendered.row["query"])
