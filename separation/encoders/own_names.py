"""Names of a user's own sounds: texts that name one have its learned condition."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SAME_NAME = 0.8
"""Cosine of sentence vectors from which a text names a sound ("a saxophone playing": 0.89 or more), unless it is nearer
to the name of a known sound ("guitar" is not "electric guitar", with 0.86)."""


class OwnNames(nn.Module):
    """Replaces the conditions of texts that name one of some new sounds.

    Args:
        names: sentence vectors of the sounds' names (sounds, forms, sentence dim).
        rivals: those of known sounds with similar names (rivals, forms, sentence dim).
        vectors: conditions of the sounds (sounds, dim).
    """

    names: Tensor
    rivals: Tensor

    def __init__(self, names: Tensor, rivals: Tensor, vectors: Tensor) -> None:
        super().__init__()
        self.register_buffer("names", names)
        self.register_buffer("rivals", rivals)
        self.vectors = nn.Parameter(vectors)

    def unit_vectors(self) -> Tensor:
        """Conditions of the sounds, of unit length (sounds, dim)."""
        return F.normalize(self.vectors, dim=-1)

    def find(self, sentences: Tensor) -> tuple[Tensor, Tensor]:
        """Which unit sentence vectors (..., sentence dim) name a sound, and the number of the nearest one (...)."""
        cosines = sentences @ self.names.flatten(0, 1).T
        nearest, number = cosines.unflatten(-1, self.names.shape[:2]).amax(-1).max(-1)
        rival = (sentences @ self.rivals.flatten(0, 1).T).amax(-1)
        return (nearest >= SAME_NAME) & (nearest >= rival), number

    def forward(self, sentences: Tensor, conditions: Tensor) -> Tensor:
        """Unit sentence vectors (..., sentence dim) and their conditions (..., dim) to conditions (..., dim)."""
        named, number = self.find(sentences)
        return torch.where(named[..., None], self.unit_vectors()[number].to(conditions.dtype), conditions)
