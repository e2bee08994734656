"""Tensors of files: read without running anything that lies in them, and put into a network strictly.

`.ckpt`, `.pt` and `.pth` files are pickles: programs that build objects. They are read by PyTorch's restricted reader
(`weights_only=True`), which builds tensors and plain containers. Beyond those, numbers and arrays of NumPy are
admitted, which the training state of some published files (LAION's CLAP, PANNs) holds. A file that asks for anything
else is refused. Encoders and separators are read by this one reader.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from separation.description import ModelError

Tensors = Mapping[str, Tensor]

NESTED = ("state_dict", "model", "model_state_dict")
KINDS = "?bBhHiIlLqQefd"  # booleans, integers and floats; no objects, no texts
UNSUPPORTED = re.compile(r"GLOBAL ([\w.]+)")
COUNTER = "num_batches_tracked"
SHOWN = 4  # names in an error


def plain_number(dtype: np.dtype[Any], data: bytes = b"") -> Any:
    """A NumPy number from its bytes; stands in for NumPy's own function, which would also take objects."""
    if not isinstance(dtype, np.dtype) or dtype.char not in KINDS or not isinstance(data, bytes):
        raise pickle.UnpicklingError("GLOBAL numpy.object is no plain number")
    return np.frombuffer(data, dtype, count=1)[0]


def admitted() -> list[Any]:
    """What the restricted reader may use beyond PyTorch's own list; all of it is plain data."""
    rebuild: Any = np.empty(0).__reduce__()[0]
    named: list[tuple[Callable[..., Any], str]] = [
        pair
        for core in ("core", "_core")  # by NumPy's version
        for pair in (
            (plain_number, f"numpy.{core}.multiarray.scalar"),
            (rebuild, f"numpy.{core}.multiarray._reconstruct"),
        )
    ]
    return [*named, np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in KINDS}]


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a .safetensors, .ckpt, .pt or .pth file by name: of a training checkpoint, those of the network.

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
        with torch.serialization.safe_globals(admitted()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # what it cannot read, it refuses
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


def under(tensors: Tensors, prefixes: tuple[str, ...], sign: str) -> dict[str, Tensor]:
    """The tensors under the first prefix that has one called `sign` under it, without the prefix; {} for none."""
    for prefix in prefixes:
        if f"{prefix}{sign}" in tensors:
            return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
    return {}


def nothing(name: str) -> bool:
    """Leaves no tensor out."""
    return False


def load_strictly(
    module: nn.Module, tensors: Tensors, source: str | Path, ignore: Callable[[str], bool] = nothing
) -> None:
    """Fills a network: every tensor but ignored ones must be there, once, in its shape, and nothing else.

    Batch norms' counters, which only training uses, may be missing.

    Raises:
        ModelError: names the tensors that are missing, left over or of another shape.
    """
    wanted = {k: v for k, v in module.state_dict().items() if not ignore(k)}
    given = {k: v for k, v in tensors.items() if not ignore(k)}
    odd = [k for k, v in given.items() if k in wanted and v.shape != wanted[k].shape]
    faults = {
        "missing": [k for k in wanted if k not in given and not k.endswith(COUNTER)],
        "unexpected": [k for k in given if k not in wanted],
        "of another shape": [f"{k} ({tuple(given[k].shape)} instead of {tuple(wanted[k].shape)})" for k in odd],
    }
    found = [f"{len(names)} {what}: {listed(names)}" for what, names in faults.items() if names]
    if found:
        raise ModelError(f"{source} does not fit {type(module).__name__}: tensors {'; '.join(found)}.")
    module.load_state_dict({k: v.to(wanted[k].dtype) for k, v in given.items()}, strict=False)


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(sorted(names)[:SHOWN]) + more
