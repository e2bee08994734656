"""Optional packages, imported when an encoder needs them."""

from __future__ import annotations

import importlib
from typing import Any

from separation.encoders.base import EncoderError


def optional(package: str, user: str, extra: str) -> Any:
    """A package or module, also beside torchaudio and torchvision that do not load.

    Args:
        package: what is imported; may be a module of it.
        user: who needs it, for the message.
        extra: of this package, which installs it.

    Raises:
        EncoderError: it is not installed.
    """
    from separation.compat import make_importable

    make_importable()
    try:
        return importlib.import_module(package)
    except ImportError:
        name = package.split(".")[0]
        raise EncoderError(
            f'{user} needs the package {name}; install it with: pip install "separation[{extra}]" '
            f'(in this project\'s folder: pip install ".[{extra}]")'
        ) from None
