"""Models that were taught a user's own sounds: a small difference to a base model, which stays where it is.

The directory holds `config.yaml`, which names the base and its checksum, and `model.safetensors` with the differences
of vectors, pairs of small matrices whose products are those of matrices and kernels, and the names and conditions of
the new sounds. `training.objectives.own_sounds` writes it. Queries for the new sounds use the adapted weights, all
others the base as it is.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.errors import ModelError
from separation.models.base import ConditionedModel, Estimate
from separation.storage.tensors import join_names, read_tensors, select

LEFT, RIGHT = ".left", ".right"  # the two factors of the difference of a matrix
SAME_NAME = 0.8
"""Cosine of sentence vectors from which a text names a sound ("a saxophone playing": 0.89 or more), unless it is nearer
to the name of a known sound ("guitar" is not "electric guitar", with 0.86)."""
ROUTED = 0.95
"""Cosine to the condition of a new sound from which the adapted weights are used. A text for it has that very
condition, but for a mean over several forms of a query."""


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


class LowRank(nn.Module):
    """Parametrization of a matrix or kernel: its own value plus the product of two small matrices, zero at first."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        outputs, inputs = weight.flatten(1).shape
        self.left = nn.Parameter(torch.zeros(outputs, rank))
        self.right = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.left @ self.right).view_as(weight)


class OwnSoundsNetwork(ConditionedModel):
    """Two networks of one kind, of which the condition of each query chooses one.

    Args:
        base: for all sounds but the new ones, whose estimates therefore do not change.
        adapted: for the new ones.
        vectors: conditions of the new sounds (sounds, dim), of unit length.
    """

    vectors: Tensor

    def __init__(self, base: ConditionedModel, adapted: ConditionedModel, vectors: Tensor) -> None:
        super().__init__()
        self.base, self.adapted = base, adapted
        self.register_buffer("vectors", vectors)
        for name in set(ConditionedModel.__annotations__) - {"faithful"}:
            setattr(self, name, getattr(base, name))

    def fold_norms(self) -> None:
        self.base.fold_norms()
        self.adapted.fold_norms()

    def separate(self, mixture: Tensor, conditions: Tensor) -> Estimate:
        routed = self.is_routed(conditions)
        if routed.all() or not routed.any():
            return (self.adapted if routed.any() else self.base).separate(mixture, conditions)
        first = self.base.separate(mixture, conditions[:, ~routed])
        second = self.adapted.separate(mixture, conditions[:, routed])
        order = routed.int().argsort(stable=True).argsort()

        def join(*parts: Tensor) -> Tensor:
            return torch.cat(parts, 1)[:, order]

        high = None
        if first.high_gain is not None and second.high_gain is not None:
            high = join(first.high_gain, second.high_gain)
        return Estimate(join(first.targets, second.targets), join(first.logits, second.logits), first.tags, high)

    def score_presence(self, mixture: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor | None]:
        logits, tags = self.base.score_presence(mixture, conditions)
        routed = self.is_routed(conditions)
        if routed.any():
            logits = logits.clone()
            logits[:, routed] = self.adapted.score_presence(mixture, conditions[:, routed])[0]
        return logits, tags

    def is_routed(self, conditions: Tensor) -> Tensor:
        """Which queries of conditions (batch, queries, dim), the same in a batch, are for new sounds (queries,)."""
        return (conditions[0] @ self.vectors.T).amax(-1) >= ROUTED


def apply_difference(directory: Path, model: ConditionedModel, encoder: Any) -> OwnSoundsNetwork:
    """Return the network of a model directory whose base is `model`; the encoder learns the names of the new sounds.

    Raises:
        ModelError: the difference is damaged, or does not fit the base.
    """
    if not hasattr(encoder, "own"):
        raise ModelError(f"{directory}: its base has no joint encoder.")
    file = directory / "model.safetensors"
    tensors = {name: value.float() for name, value in read_tensors(file).items()}
    parts = select(tensors, "encoder.own.")
    names, rivals, vectors = (parts.get(name, torch.zeros(0)) for name in ("names", "rivals", "vectors"))
    fits = names.ndim == 3 and names.shape[1:] == rivals.shape[1:] and names.shape[2] == encoder.sentence.embedding_dim
    if not fits or not names.numel() or not len(rivals) or vectors.shape != (len(names), encoder.embedding_dim):
        raise ModelError(f"{file} has no conditions of sounds that fit its base.")
    encoder.own = OwnNames(names, rivals, vectors).eval().requires_grad_(False)
    adapted = deepcopy(model)
    state, change, strange = adapted.state_dict(), select(tensors, "model."), []
    for name, value in change.items():
        stem = name.removesuffix(LEFT).removesuffix(RIGHT)
        if name.endswith(RIGHT) and stem + LEFT in change:
            continue
        try:
            value = value @ change[stem + RIGHT] if name.endswith(LEFT) else value
            state[stem] += value.reshape(state[stem].shape)
            if not torch.isfinite(value).all():
                strange.append(f"model.{name}")
        except (KeyError, RuntimeError):  # there is no such weight, or it has another size
            strange.append(f"model.{name}")
    if strange:
        raise ModelError(f"{file} does not fit its base: {join_names(strange)}.")
    return OwnSoundsNetwork(model, adapted, encoder.own.unit_vectors())
