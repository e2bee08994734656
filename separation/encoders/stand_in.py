"""An encoder that knows nothing: a fixed random vector for every query, for trying things out without any weights."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from separation.encoders.base import QueryEncoder
from separation.encoders.released import ReleasedEncoder
from separation.encoders.table import LabelEncoder

REPLACED = (ReleasedEncoder, LabelEncoder)  # which look for files at the first query, or know certain labels only


class StandIn(QueryEncoder):
    """Equal queries have equal vectors, of unit length; all others are as far apart as random vectors are.

    Args:
        embedding_dim: of the vectors.
        modalities: forms of query it takes.
    """

    def __init__(
        self, embedding_dim: int = 512, modalities: Iterable[str] = ("text", "label", "image", "audio")
    ) -> None:
        super().__init__()
        self.embedding_dim, self.modalities = embedding_dim, frozenset(modalities)

    def _drawn(self, form: str, contents: list[bytes]) -> Tensor:
        if form not in self.modalities:
            self.refuse(form)
        rows = [np.random.default_rng(zlib.crc32(c)).standard_normal(self.embedding_dim) for c in contents]
        return F.normalize(torch.tensor(np.array(rows).reshape(-1, self.embedding_dim), dtype=torch.float32), dim=-1)

    def encode_text(self, texts: list[str]) -> Tensor:
        """Sentences to (batch, embedding_dim)."""
        return self._drawn("text", [text.encode() for text in texts])

    def encode_label(self, labels: Sequence[Any]) -> Tensor:
        """Labels to (batch, embedding_dim)."""
        return self._drawn("label", [str(label).encode() for label in labels])

    def encode_image(self, images: Sequence[Any]) -> Tensor:
        """Pictures, or lists of them, to (batch, embedding_dim); the same files or pixels give the same vector."""
        return self._drawn("image", [seen(image) for image in images])

    def encode_audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Recordings (batch, time) to (batch, embedding_dim)."""
        return self._drawn("audio", [np.ascontiguousarray(row).tobytes() for row in waveform.detach().cpu().numpy()])


def seen(picture: Any) -> bytes:
    """A picture's path, or its pixels; of a list, all of them."""
    if isinstance(picture, str | Path):
        return str(picture).encode()
    if isinstance(picture, list | tuple):
        return b"".join(seen(part) for part in picture)
    return np.asarray(picture).tobytes()


def without_files(encoder: QueryEncoder) -> QueryEncoder:
    """An encoder that needs no file and takes any label: a stand-in of the same size and forms where this one does."""
    return StandIn(encoder.embedding_dim, encoder.modalities) if isinstance(encoder, REPLACED) else encoder
