"""Supervised training of any separator with any query encoder on mixtures of known sources.

AudioSep (Liu et al., 2023): captions, loss of waveforms. CLIPSep and its variants (Dong et al., 2023): images, texts,
both in turn, or labels; loss of masks. PIT: no queries; the better order of the outputs counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from separation.data.fixed_mixtures import Rendered
from separation.data.pictures import VectorStore
from separation.data.queried import QueriedBatch, QueriedData
from separation.encoders.base import QueryEncoder
from separation.encoders.table import LabelEncoder
from separation.errors import DataError
from separation.evaluate.scoring import Score, score_mixture
from separation.models.base import ConditionedModel
from separation.training import losses
from separation.training.objectives.base import EmbeddingCache, Objective

Loss = Literal["l1", "si_sdr", "snr", "binary_mask", "ratio_mask"]
Form = Literal["text", "image", "label", "none"]

OUTPUT = "output"  # column with the number of an output that belongs to no query
MASK_METHODS = ("stft", "features", "rows", "masks", "frame_multiple")


class Supervised(Objective):
    """Trains a separator on mixtures whose sources are known.

    Args:
        model: the separator to train.
        encoder: computes the conditions; frozen unless `learn_encoder`.
        loss: of waveforms: "l1" (AudioSep), "si_sdr", "snr"; of masks, for models with masks on a log-frequency axis:
            "binary_mask" (CLIPSep), "ratio_mask".
        queries: forms of query; with several, the steps take them in turn. "none" is for models with one output per
            source in no order.
        audio_share: share of the queries that are replaced by the target's own sound.
        learn_encoder: train the encoder as well, for a table of labels (LabelSep).
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
        self.vectors, self.pictures = EmbeddingCache(), EmbeddingCache()
        self.encoder.requires_grad_(learn_encoder)
        network, name = type(model).__name__, type(self.encoder).__name__
        if not self.queries or ("none" in self.queries and (len(self.queries) > 1 or loss in losses.WAVEFORM_LOSSES)):
            raise ValueError('queries names one form or more; "none" stands alone, with a loss of masks')
        if self.encoder.embedding_dim != model.condition_dim:
            raise ValueError(
                f"{name} gives conditions of {self.encoder.embedding_dim} numbers, "
                f"{network} takes {model.condition_dim}"
            )
        forms = set(self.queries) - {"none"} | ({"audio"} if audio_share else set())
        if not forms <= self.encoder.modalities:
            raise ValueError(f"{name} takes no {min(forms - self.encoder.modalities)} queries")
        if loss not in losses.WAVEFORM_LOSSES and not all(hasattr(model, method) for method in MASK_METHODS):
            raise ValueError(f"{network} has no masks on a log-frequency axis; choose a loss of waveforms")

    def on_fit_start(self) -> None:
        """Check that the clips can be queried, before the first step.

        Raises:
            DataError: queries are images, and the data has none.
            EncoderError: queries are labels, and the encoder does not know the label of a clip.
        """
        super().on_fit_start()
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, QueriedData):
            return
        if "image" in self.queries and not data.has_pictures:
            raise DataError("model.queries asks by image, and the data has no pictures; set data.frames.")
        if "image" in self.queries and data.vectors and (encoder := self.encoder.fingerprint("image")):
            data.pictures.store = self.pictures.store = VectorStore(data.vectors, encoder)
        if "label" in self.queries and isinstance(self.encoder, LabelEncoder):
            for label in getattr(data, "labels", ()):  # unknown beforehand where clips are streamed
                self.encoder.index(label)

    def trainable(self) -> torch.nn.Module:
        return torch.nn.ModuleList([self.model, self.encoder]) if self.learn_encoder else self.model

    def conditions(self, batch: QueriedBatch) -> Tensor:
        """Conditions of all queries (batch, asked, dim); a share of them may be of the target's own sound."""
        form, count = self.queries[self.global_step % len(self.queries)], batch.sources.shape[0]
        if form == "none":
            return torch.eye(self.model.condition_dim, device=self.device).expand(count, -1, -1)
        forms: dict[str, list[list[Any]]] = {"text": batch.texts, "label": batch.labels, "image": batch.pictures}
        queries = [query for row in forms[form] for query in row]
        if not queries:
            raise ValueError("Queries by image need pictures; the data has none (see data.frames).")
        encode: Callable[[list[Any]], Tensor] = getattr(self.encoder, f"encode_{form}")
        if self.learn_encoder:
            vectors = encode(queries)
        else:
            vectors = self.encode_pictures(queries) if form == "image" else self.vectors(queries, encode)
        conditions = vectors.to(self.device, torch.float32).unflatten(0, (count, -1))
        if self.audio_share:
            chosen = torch.rand(conditions.shape[:2], device=self.device) < self.audio_share
            if chosen.any():
                with torch.no_grad():
                    examples = batch.sources[:, : batch.asked][chosen]
                    audio = self.encoder.encode_audio(examples, self.model.sample_rate)
                conditions = conditions.clone()
                conditions[chosen] = audio.to(conditions)
        return conditions

    def encode_pictures(self, queries: list[list[Any]]) -> Tensor:
        """Mean vectors (queries, dim) of the pictures of each query, some of which are vectors (dim,) already."""
        pictures = list(chain(*queries))
        known = [isinstance(picture, np.ndarray) and picture.ndim == 1 for picture in pictures]
        new = [picture for picture, found in zip(pictures, known, strict=True) if not found]
        with torch.autocast(self.device.type, enabled=False):  # what is kept serves any precision
            encoded: Iterator[Any] = iter(self.pictures(new, self.encoder.encode_image) if new else ())
        rows = [torch.tensor(each) if found else next(encoded) for each, found in zip(pictures, known, strict=True)]
        parts = torch.split(torch.stack(rows), [len(query) for query in queries])
        return torch.stack([part.mean(0) for part in parts])

    def training_step(self, batch: QueriedBatch, index: int) -> Tensor | None:
        conditions = self.conditions(batch)
        self.keep_batch(batch.sources.sum(1, keepdim=True), conditions)
        loss = self.mean_loss(batch.sources, conditions)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True)
        return self.skip_invalid(loss)

    def mean_loss(self, sources: Tensor, conditions: Tensor) -> Tensor:
        """Mean loss over the queries of mixtures. Losses in dB leave silent targets out.

        Args:
            sources: (batch, sources, time).
            conditions: (batch, asked, dim).
        """
        if self.loss not in losses.WAVEFORM_LOSSES:
            return self.mask_loss(sources, conditions)
        estimates = self.model.separate(sources.sum(1, keepdim=True), conditions).targets
        targets = sources[:, : conditions.shape[1]]
        values = losses.WAVEFORM_LOSSES[self.loss](targets, estimates[:, :, 0].float())
        if self.loss not in losses.DECIBEL_LOSSES:
            return values.mean()
        audible = targets.square().sum(-1) > 0
        return values[audible].sum() / self.mean_count(audible.sum()).clamp_min(1e-3)

    def mask_loss(self, sources: Tensor, conditions: Tensor) -> Tensor:
        """Mean over the mixtures of the cross-entropy of their masks."""
        features, truth, weight = self.mask_targets(sources)
        masks = self.predict_masks(self.model.masks, features, conditions)
        with torch.autocast(self.device.type, enabled=False):
            return self.compare_masks(masks[0], truth, weight).mean()

    @torch.no_grad()
    def mask_targets(self, sources: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs of the network and true masks of mixtures of `sources` (batch, sources, time).

        Returns:
            Features (batch, 1, rows, frames), masks (batch, sources, rows, frames), weights (batch, rows, frames).
        """
        model: Any = self.model
        with torch.autocast(self.device.type, enabled=False):
            spectra = model.stft(sources)
            magnitude = spectra.sum(1).abs()
            parts, mixture = model.rows(spectra.abs()), model.rows(magnitude[:, None])[:, 0]
            if self.loss == "binary_mask":  # may be one for both of two sources
                truth = (parts > 0.5 * mixture[:, None]).to(parts.dtype)
            else:  # the published code divides by the sum over the batch; this follows its paper
                truth = (parts / parts.sum(1, keepdim=True).clamp_min(losses.EPSILON)).clamp(0, 1)
            return model.features(magnitude), truth, losses.loudness_weight(mixture)

    def predict_masks(self, masks: Callable[..., Any], features: Tensor, conditions: Tensor) -> list[Tensor]:
        """Masks (one kind or several) in single precision, computed on the frames that the network's grid needs."""
        frames = features.shape[-1]
        multiple: Any = self.model.frame_multiple
        found = masks(torch.nn.functional.pad(features, (0, -frames % multiple)), conditions)
        return [mask[..., :frames].float() for mask in (found if isinstance(found, tuple) else (found,))]

    def compare_masks(self, masks: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        """Loss of each mixture's masks (batch,): mean over the queries, in the better order if there are none."""
        if self.queries == ["none"]:
            return losses.best_order(losses.weighted_bce(masks[:, :, None], truth[:, None], weight[:, None, None]))
        return losses.weighted_bce(masks, truth[:, : masks.shape[1]], weight[:, None]).mean(1)

    def score(self, rendered: Rendered) -> Score:
        """Score of one mixture; of outputs in no order the better one counts, as published."""
        if self.queries != ["none"]:
            return super().score(rendered)
        separator = self.separator()
        rows = [rendered.row | {OUTPUT: str(number + 1)} for number in range(self.model.condition_dim)]
        scores = [
            score_mixture(separator, replace(rendered, row=row), replace(self.plan, column=OUTPUT)) for row in rows
        ]
        return replace(max(scores, key=lambda found: found.value), query=rendered.row["query"])
