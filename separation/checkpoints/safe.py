"""Reads tensors out of checkpoint files without running anything that lies in them.

`.ckpt`, `.pt` and `.pth` files are pickles: programs that build objects. They are read by PyTorch's restricted reader
(`weights_only=True`), which builds tensors and plain containers. Beyond those, numbers of NumPy are admitted, which the
training state of some published files (LAION's CLAP) holds. A file that asks for anything else is refused.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from separation.description import ModelError

SUFFIXES = (".ckpt", ".pt", ".pth", ".tar", ".bin", ".safetensors")
NESTED = ("state_dict", "model", "model_state_dict")
KINDS = "?bBhHiIlLqQefd"  # booleans, integers and floats; no objects, no texts
UNSUPPORTED = re.compile(r"GLOBAL ([\w.]+)")


def plain_number(dtype: np.dtype[Any], data: bytes = b"") -> Any:
    """A NumPy number from its bytes; stands in for NumPy's own function, which would also take objects."""
    if not isinstance(dtype, np.dtype) or dtype.char not in KINDS or not isinstance(data, bytes):
        raise pickle.UnpicklingError("GLOBAL numpy.object is no plain number")
    return np.frombuffer(data, dtype, count=1)[0]


def admitted() -> list[Any]:
    """What the restricted reader may use beyond PyTorch's own list; all of it is plain data."""
    pairs: list[tuple[Callable[..., Any], str]] = [
        (plain_number, "numpy.core.multiarray.scalar"),
        (plain_number, "numpy._core.multiarray.scalar"),
    ]
    return [*pairs, np.dtype, *{type(np.dtype(kind)) for kind in KINDS}]


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name: of a training checkpoint, those of the network.

    Raises:
        ModelError: the file is missing or damaged, holds code, or holds no tensors; one plain sentence.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ModelError(f"{path} is not there.")
    content = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    for key in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    found = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not found:
        raise ModelError(f"{path} holds no tensors with names, so it is no checkpoint of a model.")
    return found


def _safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged: {' '.join(str(error).split())}.") from None


def _pickled(path: Path) -> Any:
    # Files in the newer, zipped form are mapped, so that an optimizer's state in them takes no memory.
    mapped = zipfile.is_zipfile(path)
    try:
        with torch.serialization.safe_globals(admitted()):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise ModelError(_refusal(path, str(error))) from None
    except Exception as error:  # a damaged file may raise anything on the way
        raise ModelError(f"{path} is damaged or no checkpoint: {type(error).__name__}.") from None


def _refusal(path: Path, reason: str) -> str:
    """Why the restricted reader stopped, in one sentence."""
    asked = UNSUPPORTED.search(reason)
    if asked:
        return (
            f"{path} holds code ({asked[1].rstrip('.')}) beside its tensors, so it was not opened; "
            "ask whoever made it for a safetensors file."
        )
    return f"{path} is damaged or no checkpoint: it is not made of tensors and plain values alone."
