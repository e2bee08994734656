"""Sentence vectors of every label's texts, computed once and drawn from during training."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from separation.data.corpus import Corpus
from separation.data.wordings import texts_of
from separation.encoders.sentence import SentenceEncoder


class Texts:
    """The texts of each label as sentence vectors.

    Args:
        corpus: gives the labels, and the captions of each.
        cache: folder to keep the vectors in; some 5,000 sentences take a minute.
    """

    def __init__(self, corpus: Corpus, cache: Path | None = None) -> None:
        captions: dict[str, set[str]] = {label: set() for label in corpus.labels}
        for clip in corpus.clips:
            captions[clip.label].add(clip.caption)
        self.texts = [texts_of(label, tuple(sorted(captions[label]))) for label in corpus.labels]
        flat = [text for texts in self.texts for text in texts]
        key = hashlib.sha256("\n".join(flat).encode()).hexdigest()[:16]
        file = cache / f"texts_{key}.npy" if cache else None
        if file is not None and file.exists():
            vectors = torch.from_numpy(np.load(file, allow_pickle=False))
        else:
            vectors = SentenceEncoder().encode_text(flat)
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                partial = file.with_name(f"partial_{os.getpid()}_{file.name}")
                np.save(partial, vectors.numpy())
                partial.replace(file)
        self.vectors: list[Tensor] = list(vectors.split([len(texts) for texts in self.texts]))

    def draw(self, label: int, rng: np.random.Generator) -> Tensor:
        """A random text's vector (dim,): the plain label a quarter of the time, any of its texts otherwise."""
        vectors = self.vectors[label]
        return vectors[0 if rng.random() < 0.25 else int(rng.integers(len(vectors)))]
