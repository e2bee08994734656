"""Texts for the bi-modal network as they should have been: what pads a short text is not attended to."""

from __future__ import annotations

import torch
from torch import Tensor

from separation.encoders.base import find_weights
from separation.encoders.clap import ClapEncoder
from separation.encoders.released import BIMODAL_CLAP_FILE, ReleasedEncoder

EMBEDDING, TOKENS, WIDTH = 512, 77, 768


class StatesEncoder(ReleasedEncoder):
    """Sentences to CLAP's embedding and hidden states in one vector, with states of zero for padding.

    The released encoder gives padding states of its own, as the published weights need it. This one is for new
    trainings; it has both towers of CLAP, because these compare recordings with texts.

    Args:
        weights: CLAP's file; by default it is looked for in the cache, at the first query.
        clap: a CLAP that is there already.

    Raises:
        EncoderError: at the first query, where there is no such file.
    """

    def __init__(self, weights: str | None = None, clap: ClapEncoder | None = None) -> None:
        super().__init__("bimodal", EMBEDDING + TOKENS * WIDTH)
        self.modalities = frozenset({"text", "audio"})
        self.weights = weights
        if clap is not None:
            self.keep("clap", clap)

    @property
    def clap(self) -> ClapEncoder:
        """CLAP, read at first use."""
        if "clap" not in self.parts:
            home = "https://huggingface.co/lukewys/laion_clap"
            path = self.weights or find_weights(BIMODAL_CLAP_FILE, "the encoder CLAP", home)
            self.keep("clap", ClapEncoder.from_file(path))
        return self.parts["clap"]  # type: ignore[return-value]

    def encode_text(self, texts: list[str]) -> Tensor:
        """Sentences to (batch, 59648)."""
        return self.packed(*self.clap.tokenize(texts, TOKENS))

    def packed(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Token numbers and their mask (batch, 77) to (batch, 59648)."""
        hidden, embedding = self.clap.encode_tokens(tokens, mask)
        return torch.cat([embedding, (hidden * mask.to(hidden)[..., None]).flatten(1)], dim=-1)
