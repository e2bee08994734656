"""What every query encoder offers."""

from __future__ import annotations

from torch import Tensor, nn


class QueryEncoder(nn.Module):
    """Turns queries into condition vectors (batch, embedding_dim) of unit length.

    A subclass names the query forms it takes in `modalities` and overrides the methods for those.
    """

    embedding_dim: int
    modalities: frozenset[str] = frozenset()

    def encode_text(self, texts: list[str]) -> Tensor:
        """Sentences to (batch, embedding_dim)."""
        raise NotImplementedError(f"{type(self).__name__} takes no text; it takes {sorted(self.modalities)}.")

    def encode_audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Example recordings (batch, time) to (batch, embedding_dim)."""
        raise NotImplementedError(f"{type(self).__name__} takes no audio; it takes {sorted(self.modalities)}.")
