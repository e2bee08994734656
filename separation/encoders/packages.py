"""Optional packages, imported when an encoder needs them."""

from __future__ import annotations

import importlib
from typing import Any

from separation.encoders.base import EncoderError


def optional(package: str, user: str, install: str | None = None) -> Any:
    """A package, also beside torchaudio and torchvision that do not load.

    Args:
        package: what is imported.
        user: who needs it, for the message.
        install: what pip calls it, where that differs.

    Raises:
        EncoderError: it is not installed.
    """
    from separation.compat import make_importable

    make_importable()
    try:
        return importlib.import_module(package)
    except ImportError:
        how = f"pip install {install or package}"
        raise EncoderError(f"{user} needs the package {package}; install it with: {how}") from None
