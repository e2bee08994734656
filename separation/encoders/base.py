"""What every query encoder offers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.description import ModelError

if TYPE_CHECKING:
    from separation.encoders.examples import Example


class EncoderError(ModelError):
    """An encoder's files or packages are missing or not the ones expected; the message says what to do."""


class UnsupportedQueryError(EncoderError, NotImplementedError):
    """The encoder does not take such a query; the message says which ones it takes."""


class QueryEncoder(nn.Module):
    """Turns queries into condition vectors (batch, embedding_dim).

    A subclass names the query forms it takes in `modalities` and overrides the methods for those. Its vectors have unit
    length unless `unit_length` is False. Plain embeddings are taken by every encoder. One that takes recordings has a
    `sample_rate`, Hz, at which it hears them.
    """

    embedding_dim: int
    modalities: frozenset[str] = frozenset()
    unit_length: bool = True
    sample_rate: int

    def refuse(self, form: str) -> NoReturn:
        """Say that queries of this form are not taken, and which are.

        Raises:
            UnsupportedQueryError: always.
        """
        forms = ", ".join([*sorted(self.modalities, reverse=True), "embedding"])
        raise UnsupportedQueryError(f"{type(self).__name__} takes no {form}; it takes {forms}.")

    def encode_text(self, texts: list[str]) -> Tensor:
        """Sentences to (batch, embedding_dim)."""
        self.refuse("text")

    def encode_audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Example recordings (batch, time) to (batch, embedding_dim)."""
        self.refuse("audio")

    def encode_label(self, labels: Sequence[Any]) -> Tensor:
        """Class names, ids or numbers to (batch, embedding_dim); a list within the list is one query for all of it."""
        self.refuse("label")

    def encode_image(self, images: Sequence[Any]) -> Tensor:
        """Pictures (files or arrays) to (batch, embedding_dim); a list within the list is one query, their mean."""
        self.refuse("image")

    def encode_examples(self, examples: Example | Iterable[Example]) -> Tensor:
        """Example recordings to one condition (1, embedding_dim), their mean: each recording counts alike.

        Args:
            examples: a file, a folder of them, a waveform with its sample rate, or several of these.

        Raises:
            EncoderError: there is none, or one is silent all through.
            AudioError: a file cannot be read.
        """
        from separation.encoders.examples import called, each_example, load_mono

        if "audio" not in self.modalities:
            self.refuse("audio")
        found = each_example(examples)
        if not found:
            raise EncoderError(f"{examples} holds no example recording (.wav, .flac, .ogg, .mp3).")
        vectors = []
        for example in found:
            waveform = self.audible(load_mono(example, self.sample_rate))
            if not waveform.any():
                raise EncoderError(f"{called(example)} is silent, so it shows no sound to look for.")
            vectors.append(self.encode_example(waveform))
        return self.mean(torch.cat(vectors))

    def audible(self, waveform: Tensor) -> Tensor:
        """What counts of an example (time,) at the encoder's rate."""
        return waveform

    def encode_example(self, waveform: Tensor) -> Tensor:
        """One example (time,) at the encoder's rate to (1, embedding_dim)."""
        return self.encode_audio(waveform[None], self.sample_rate)

    def mean(self, vectors: Tensor, weights: Tensor | None = None) -> Tensor:
        """Weighted mean (1, embedding_dim) of conditions (n, embedding_dim), of unit length where the encoder's are."""
        weights = vectors.new_ones(len(vectors)) if weights is None else weights.to(vectors)
        mean = (weights / weights.sum()) @ vectors
        return F.normalize(mean, dim=-1)[None] if self.unit_length else mean[None]

    def encode_embedding(self, vectors: Tensor) -> Tensor:
        """Condition vectors, (embedding_dim,) or (batch, embedding_dim), as they are.

        Raises:
            EncoderError: they have another size.
        """
        if vectors.ndim not in (1, 2) or vectors.shape[-1] != self.embedding_dim:
            shape = tuple(vectors.shape)
            raise EncoderError(f"An embedding for {type(self).__name__} has {self.embedding_dim} numbers, not {shape}.")
        return vectors.reshape(-1, self.embedding_dim).float()
