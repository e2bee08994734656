"""What describes a model: the card that people read, and the class path with arguments that it is built from."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from separation.errors import ModelError as ModelError
from separation.moved import resolve


@dataclass(frozen=True)
class Card:
    """What `separate --list-models` shows of a model."""

    name: str
    description: str
    queries: tuple[str, ...]
    sample_rate: int
    size: str
    licence: str
    scores: str
    directory: Path

    @property
    def verified(self) -> bool:
        """Whether its weights are held to a checksum that their publisher gives; those of this package are its own."""
        return True

    @property
    def on_disk(self) -> bool:
        """Whether the weights are there."""
        return (self.directory / "model.safetensors").is_file()


def build(description: dict[str, Any]) -> Any:
    """The object that a `class_path` with `init_args` describes; classes of this package only."""
    from torch import nn

    path = str(description.get("class_path", "")) if isinstance(description, dict) else str(description)
    module, _, name = resolve(path).rpartition(".")
    if not module.startswith(("separation.models.", "separation.encoders.")):
        raise ModelError(f"The model's config names the class {path!r}, which is not one of this package's.")
    try:
        kind = getattr(importlib.import_module(module), name)
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise TypeError("it is not a network")
        return kind(**(description.get("init_args") or {}))
    except Exception as error:  # a constructor given nonsense may raise anything
        reason = str(error).partition("\n")[0]
        raise ModelError(f"The model's config cannot be built: {path}: {reason}.") from None
