"""Tensors of published encoder files: read without unpickling code, and loaded into a network strictly."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from separation.encoders.base import EncoderError

Tensors = Mapping[str, Tensor]

NUMBERS = "?bBhHiIlLqQefd"  # numpy's booleans, integers and floats

# In the messages of torch.load(weights_only=True) for a global, a call or a class that it does not allow.
SIGNS_OF_CODE = ("GLOBAL", "reduce", "unsupported class", "TorchScript")


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors, .pt, .pth or .ckpt file; of a checkpoint, those under "state_dict" or "model".

    Raises:
        EncoderError: the file is missing, broken, holds code, or holds no tensors.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise EncoderError(f"{path} is not there.")
    content = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    found = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not found:
        raise EncoderError(f"{path} holds no tensors.")
    return found


def _safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise EncoderError(f"{path} cannot be read: {error}.") from None


def plain_number(dtype: Any, data: bytes = b"") -> Any:
    """A numpy number from its bytes, in place of numpy's own function, which would take objects as well."""
    import numpy as np

    if not isinstance(dtype, np.dtype) or dtype.char not in NUMBERS or not isinstance(data, bytes):
        raise pickle.UnpicklingError("GLOBAL: no plain number")
    return np.frombuffer(data, dtype, 1)[0]


def numpy_globals() -> list[Any]:
    """What training states of published files (epoch counters, samplers) need of numpy; all of it is plain data."""
    import numpy as np

    rebuild = np.empty(0).__reduce__()[0]  # lies in numpy.core or numpy._core, by version
    places = [f"numpy.{core}.multiarray" for core in ("core", "_core")]
    named = [
        pair for place in places for pair in ((plain_number, f"{place}.scalar"), (rebuild, f"{place}._reconstruct"))
    ]
    return [*named, np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in NUMBERS}]


def _pickled(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(numpy_globals()):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        if any(sign in str(error) for sign in SIGNS_OF_CODE):
            raise EncoderError(
                f"{path} holds code beside its tensors and is not read; ask for a safetensors file."
            ) from None
        raise EncoderError(
            f"{path} cannot be read: it is damaged, or no checkpoint ({type(error).__name__})."
        ) from None


def under(tensors: Tensors, prefixes: tuple[str, ...], sign: str) -> dict[str, Tensor]:
    """The tensors under the first prefix that has one called `sign` under it, without the prefix; {} for none."""
    for prefix in prefixes:
        if f"{prefix}{sign}" in tensors:
            return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
    return {}


def load_strictly(module: nn.Module, tensors: Tensors, ignore: Callable[[str], bool], source: str) -> None:
    """Fill a network; every tensor but ignored ones must be there, once, in its shape, and nothing else.

    Raises:
        EncoderError: names a tensor that is missing, unknown or of another shape.
    """
    wanted = {k: v for k, v in module.state_dict().items() if not ignore(k)}
    given = {k: v for k, v in tensors.items() if not ignore(k)}
    for name in sorted(wanted.keys() - given.keys()):
        raise EncoderError(f"{source}: tensor {name} is missing.")
    for name in sorted(given.keys() - wanted.keys()):
        raise EncoderError(f"{source}: tensor {name} does not belong to this network.")
    for name, tensor in given.items():
        if tensor.shape != wanted[name].shape:
            shapes = f"{tuple(tensor.shape)}, not {tuple(wanted[name].shape)}"
            raise EncoderError(f"{source}: tensor {name} has shape {shapes}.")
    module.load_state_dict(given, strict=False)
