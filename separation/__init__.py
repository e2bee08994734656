"""Text-queried source separation: name a sound, get it out of a recording.

    from separation import Separator

    separator = Separator.from_pretrained()
    result = separator(mixture, "dog barking", sample_rate=44100)
    result.target, result.residual

Importing this package loads nothing else. Each public name is loaded from its module when it is first used.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # `typing` takes longer than all else here, and so long a signal would print a traceback
if TYPE_CHECKING:
    from typing import Any

    from separation.audio import read, write
    from separation.errors import ModelError
    from separation.pretrained import list_models
    from separation.query import Query
    from separation.separator import Separation, Separator

__version__ = "0.1.0"
__all__ = ["ModelError", "Query", "Separation", "Separator", "__version__", "list_models", "read", "write"]

_MODULES = {
    "ModelError": "separation.errors",
    "Query": "separation.query",
    "Separation": "separation.separator",
    "Separator": "separation.separator",
    "list_models": "separation.pretrained",
    "read": "separation.audio",
    "write": "separation.audio",
}

if sys.argv[:1] == ["-m"] and (_module := sys.orig_argv[sys.orig_argv.index("-m") + 1]).startswith("separation."):
    # As `python -m separation.evaluate` does; before the module's own imports.
    from separation.commands import handle_signals_early

    handle_signals_early()
    from separation.process import begin

    begin(_module)


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in _MODULES:
        raise AttributeError(f"module 'separation' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
