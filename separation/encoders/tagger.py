"""Audio taggers as query nets: what a tagger says about a clip, or the vector behind it, is the condition."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from separation.encoders.base import EncoderError, QueryEncoder
from separation.encoders.examples import audio_files, read_mono, remove_silence, segments

CONDITIONS = ("probabilities", "embedding")
AT_ONCE = 8
ACTIVE = 0.2

Label = str | int


class Tags(NamedTuple):
    """A tagger's answer: class probabilities (batch, classes) and the vector behind them (batch, dim)."""

    probabilities: Tensor
    embedding: Tensor


class TaggerEncoder(QueryEncoder):
    """Conditions from a tagger of the 527 AudioSet classes, as in "Universal Source Separation" (Kong et al., 2023).

    A recording's condition is the mean over its segments (2 s in USS). With `condition="probabilities"` a label is a
    query as well: a vector with 1 at its class. Nothing is scaled to unit length.

    Args:
        condition: "probabilities" (one number a class) or "embedding" (the tagger's last hidden vector).
    """

    unit_length = False
    classes = 527
    sample_rate: int
    segment_seconds = 2.0

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

    def encode_files(self, query: str | Path | Iterable[str | Path], silence: bool = False) -> Tensor:
        """A file, several, or a folder of them to one condition (1, embedding_dim): every file counts alike.

        Args:
            query: what to read.
            silence: keep silent frames; USS removes them.

        Raises:
            EncoderError: there is no file, or one is silent all through.
            AudioError: a file cannot be read.
        """
        files = audio_files(query)
        if not files:
            raise EncoderError(f"{query} holds no example recording (.wav, .flac).")
        return torch.stack([self._encode_file(file, silence) for file in files]).mean(0)

    def _encode_file(self, file: Path, silence: bool) -> Tensor:
        waveform = read_mono(file, self.sample_rate)
        waveform = waveform if silence else remove_silence(waveform, self.sample_rate)
        if not len(waveform):
            raise EncoderError(f"{file} is silent, so it shows no sound to look for.")
        return self.encode_audio(waveform[None].to(self._device()), self.sample_rate)

    def encode_label(self, labels: Sequence[Label | Sequence[Label]]) -> Tensor:
        """AudioSet classes to (batch, 527) of zeros and ones; a list within the list is one query for all its classes.

        Raises:
            OntologyError: a class is unknown.
            UnsupportedQueryError: the condition is the embedding, whose dimensions are no classes.
        """
        if "label" not in self.modalities:
            self.refuse(f"label, because its {self.embedding_dim} condition numbers are no classes")
        from separation.ontology import class_index

        conditions = torch.zeros(len(labels), self.classes, device=self._device())
        for row, entry in zip(conditions, labels, strict=True):
            several = [entry] if isinstance(entry, str | int) else list(entry)
            row[[class_index(label) for label in several]] = 1
        return conditions

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
