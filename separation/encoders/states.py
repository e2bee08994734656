"""Texts for the bi-modal network as they should have been: what pads a short text is not attended to."""

from __future__ import annotations

from torch import Tensor

from separation.encoders.clap import ClapEncoder
from separation.encoders.released import BiModalEncoder
from separation.encoders.roberta import tokenize

TOKENS = 77


class StatesEncoder(BiModalEncoder):
    """Sentences to CLAP's embedding and hidden states in one vector, with states of zero for padding.

    `BiModalEncoder` gives padding states of its own, as the published weights need it. This one is for new trainings.
    """

    clap: ClapEncoder

    def __init__(self, clap: ClapEncoder) -> None:
        super().__init__(clap)

    def encode_text(self, texts: list[str]) -> Tensor:
        """Sentences to (batch, 59648)."""
        tokens, mask = tokenize(texts, self.clap.vocabulary, TOKENS, TOKENS)
        return self.packed(tokens, mask)

    def packed(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Token numbers and their mask (batch, 77) to (batch, 59648)."""
        import torch

        hidden, embedding = self.clap.encode_tokens(tokens, mask)
        hidden = hidden * mask.to(hidden)[..., None]
        return torch.cat([embedding, hidden.flatten(1)], dim=-1)
