"""Names for an encoder that takes sounds alone: each stands for a recording that was shown."""

from __future__ import annotations

import torch
from torch import Tensor

from separation.encoders.base import QueryEncoder


class Shown(QueryEncoder):
    """A text is the condition of the recording that was last shown under this name.

    It serves the validation of separators that take neither texts nor labels (USS by embedding); people ask those by
    sound.

    Args:
        embedding_dim: of the conditions.
        unit_length: whether they have unit length.
    """

    modalities = frozenset({"text"})

    def __init__(self, embedding_dim: int, unit_length: bool) -> None:
        super().__init__()
        self.embedding_dim, self.unit_length = embedding_dim, unit_length
        self.vectors: dict[str, Tensor] = {}

    def show(self, name: str, condition: Tensor) -> None:
        """From now on a name stands for this condition (embedding_dim,)."""
        self.vectors[" ".join(name.split())] = condition

    def encode_text(self, texts: list[str]) -> Tensor:
        """Names to (batch, embedding_dim); one under which nothing was shown is zeros."""
        return torch.stack([self.vectors.get(text, torch.zeros(self.embedding_dim)).cpu() for text in texts])
