"""What every query encoder offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from torch import Tensor, nn

from separation.description import ModelError


class EncoderError(ModelError):
    """An encoder's files or packages are missing or not the ones expected; the message says what to do."""


class UnsupportedQueryError(EncoderError, NotImplementedError):
    """The encoder does not take such a query; the message says which ones it takes."""


class QueryEncoder(nn.Module):
    """Turns queries into condition vectors (batch, embedding_dim).

    A subclass names the query forms it takes in `modalities` and overrides the methods for those. Its vectors have unit
    length unless `unit_length` is False. Plain embeddings are taken by every encoder.
    """

    embedding_dim: int
    modalities: frozenset[str] = frozenset()
    unit_length: bool = True

    def refuse(self, form: str) -> NoReturn:
        """Say that queries of this form are not taken, and which are.

        Raises:
            UnsupportedQueryError: always.
        """
        forms = ", ".join(sorted(self.modalities)) or "only plain embeddings"
        raise UnsupportedQueryError(f"{type(self).__name__} takes no {form}; it takes {forms}.")

    def encode_text(self, texts: list[str]) -> Tensor:
        """Sentences to (batch, embedding_dim)."""
        self.refuse("text")

    def encode_audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Example recordings (batch, time) to (batch, embedding_dim)."""
        self.refuse("audio")

    def encode_label(self, labels: Sequence[Any]) -> Tensor:
        """Class names, ids or numbers to (batch, embedding_dim)."""
        self.refuse("label")

    def encode_image(self, images: Sequence[Any]) -> Tensor:
        """Pictures (files or arrays) to (batch, embedding_dim)."""
        self.refuse("image")

    def encode_embedding(self, vectors: Tensor) -> Tensor:
        """Condition vectors, (embedding_dim,) or (batch, embedding_dim), as they are.

        Raises:
            EncoderError: they have another size.
        """
        if vectors.ndim not in (1, 2) or vectors.shape[-1] != self.embedding_dim:
            shape = tuple(vectors.shape)
            raise EncoderError(f"An embedding for {type(self).__name__} has {self.embedding_dim} numbers, not {shape}.")
        return vectors.reshape(-1, self.embedding_dim).float()
