"""Audio taggers as query nets: what a tagger says about a clip, or the vector behind it, is the condition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from separation.encoders.base import QueryEncoder
from separation.encoders.examples import remove_silence, segments

CONDITIONS = ("probabilities", "embedding")
AT_ONCE = 8
ACTIVE = 0.2

Label = str | int


class Tags(NamedTuple):
    """A tagger's answer: class probabilities (batch, classes) and the vector behind them (batch, dim)."""

    probabilities: Tensor
    embedding: Tensor


def ones_at(labels: Sequence[Label | Sequence[Label]]) -> Tensor:
    """AudioSet classes to (batch, 527) of zeros and ones; a list within the list is one row for all its classes.

    Raises:
        OntologyError: a class is unknown.
    """
    from separation.ontology import class_index, classes

    rows = torch.zeros(len(labels), len(classes()))
    for row, entry in zip(rows, labels, strict=True):
        several = [entry] if isinstance(entry, str | int) else list(entry)
        row[[class_index(label) for label in several]] = 1
    return rows


class TaggerEncoder(QueryEncoder):
    """Conditions from a tagger of the 527 AudioSet classes, as in "Universal Source Separation" (Kong et al., 2023).

    A recording's condition is the mean over its segments (2 s in USS). With `condition="probabilities"` a label is a
    query as well: a vector with 1 at its class. Nothing is scaled to unit length.

    Args:
        condition: "probabilities" (one number a class) or "embedding" (the tagger's last hidden vector).

    Attributes:
        keep_silence: whether silent frames of example recordings count; USS removes them.
    """

    unit_length = False
    classes = 527
    sample_rate: int
    segment_seconds = 2.0
    keep_silence = False

    def __init__(self, condition: str, hidden: int) -> None:
        super().__init__()
        if condition not in CONDITIONS:
            raise ValueError(f"condition is one of {', '.join(CONDITIONS)}, not {condition!r}")
        self.condition = condition
        by_label = condition == "probabilities"
        self.embedding_dim = self.classes if by_label else hidden
        self.modalities = frozenset({"audio", "label"} if by_label else {"audio"})

    def tag(self, waveform: Tensor) -> Tags:
        """Tags of waveforms (batch, time) at `self.sample_rate`."""
        raise NotImplementedError

    @torch.no_grad()
    def probabilities(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Class probabilities (batch, classes) of whole waveforms (batch, time)."""
        return self.tag(self._at_own_rate(waveform, sample_rate)).probabilities

    @torch.no_grad()
    def encode_audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Example recordings (batch, time) to (batch, embedding_dim): the mean over segments."""
        cut = segments(self._at_own_rate(waveform, sample_rate), round(self.segment_seconds * self.sample_rate))
        parts = [getattr(self.tag(part), self.condition) for part in torch.split(cut.flatten(0, 1), AT_ONCE)]
        return torch.cat(parts).reshape(*cut.shape[:2], self.embedding_dim).mean(1)

    def audible(self, waveform: Tensor) -> Tensor:
        """What is left of an example (time,) without its silent frames, as USS has it."""
        return waveform if self.keep_silence else remove_silence(waveform, self.sample_rate)

    def encode_label(self, labels: Sequence[Label | Sequence[Label]]) -> Tensor:
        """AudioSet classes to (batch, 527) of zeros and ones; a list within the list is one query for all its classes.

        Raises:
            OntologyError: a class is unknown.
            UnsupportedQueryError: the condition is the embedding, whose dimensions are no classes.
        """
        if "label" not in self.modalities:
            self.refuse(f"label, because its {self.embedding_dim} condition numbers are no classes")
        return ones_at(labels).to(self._device())

    def _at_own_rate(self, waveform: Tensor, sample_rate: int) -> Tensor:
        from separation.audio import resample

        return resample(waveform, sample_rate, self.sample_rate).to(self._device())

    def _device(self) -> torch.device:
        return next(self.parameters()).device


def class_conditions(probabilities: Tensor, indexes: Sequence[int], threshold: float = ACTIVE) -> tuple[Tensor, Tensor]:
    """How USS asks for classes: a mixture segment's own probabilities, all other classes set to zero.

    Args:
        probabilities: of the mixture's segments (batch, classes).
        indexes: the classes asked for.
        threshold: a segment is active when one of them reaches it.

    Returns:
        conditions (batch, classes), and which segments are active (batch,).
    """
    wanted = torch.zeros_like(probabilities[0])
    wanted[list(indexes)] = 1
    conditions = probabilities * wanted
    return conditions, conditions.amax(1) >= threshold
