"""Vectors of a frozen query encoder, each computed once and kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MOST = 100_000  # vectors kept; 512 numbers each are 200 MB


class Remembered:
    """Asks the encoder for what it has not been asked for lately.

    Args:
        most: vectors that are kept, the last ones used.
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.kept: OrderedDict[Hashable, Tensor] = OrderedDict()

    def __call__(self, queries: Sequence[Any], encode: Callable[[list[Any]], Tensor]) -> Tensor:
        """Queries (texts, labels, pictures) to vectors (queries, dim) on the CPU; what has no name is not kept."""
        names = [name_of(query) for query in queries]
        new = {name: query for name, query in zip(names, queries, strict=True) if name not in self.kept}
        if new:
            with torch.no_grad():
                self.kept.update(zip(new, encode(list(new.values())).detach().float().cpu(), strict=True))
        vectors = torch.stack([self.kept[name] for name in names])
        for name in names:
            if isinstance(name, Unnamed):
                self.kept.pop(name, None)
            else:
                self.kept.move_to_end(name)
        while len(self.kept) > self.most:
            self.kept.popitem(last=False)
        return vectors


class Unnamed:
    """Stands for a query that is itself and no other."""


def name_of(query: Any) -> Hashable:
    """What a query is kept under: a text or path itself, a list by its parts; pixels have no name."""
    if isinstance(query, list | tuple):
        names = tuple(name_of(part) for part in query)
        return Unnamed() if any(isinstance(name, Unnamed) for name in names) else names
    return query if isinstance(query, str | int | Path) else Unnamed()
