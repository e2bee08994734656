"""Reading tensors from files without running code in them, and loading them into networks strictly.

`.ckpt`, `.pt` and `.pth` files are pickles, which can run code. They are read by PyTorch's restricted reader
(`weights_only=True`), which builds tensors and plain containers only. NumPy numbers and arrays are allowed in addition,
because some published files (LAION's CLAP, PANNs) hold them in their training state. Any other file is refused.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from separation.errors import ModelError

Tensors = Mapping[str, Tensor]

NESTED_KEYS = ("state_dict", "model", "model_state_dict")
NUMPY_KINDS = "?bBhHiIlLqQefd"  # booleans, integers and floats; no objects, no texts
UNSUPPORTED = re.compile(r"GLOBAL ([\w.]+)")
LISTED_NAMES = 4  # in an error


@dataclass(frozen=True)
class StoredModel:
    """A model as it is stored: class paths and arguments under "model" and "encoder", tensors named `model.*` and
    `encoder.*`, and the name of the published system, or "".
    """

    description: dict[str, Any]
    tensors: dict[str, Tensor]
    system: str = ""


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Return all tensors of a .safetensors, .ckpt, .pt or .pth file by name; of a training checkpoint, the network's.

    Raises:
        ModelError: the file is missing or damaged, holds code, or holds no tensors.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ModelError(f"{path} is missing.")
    if path.suffix != ".safetensors":
        return tensors_of(read_pickle(path), path)
    try:
        return tensors_of(load_file(path), path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged: {' '.join(str(error).split())}.") from None


def tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file's content, or of the checkpoint in it; raise ModelError if there are none."""
    for key in NESTED_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    found = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not found:
        raise ModelError(f"{path} holds no named tensors, so it is not a model checkpoint.")
    return found


def read_pickle(path: Path) -> Any:
    """Return what `torch.save` or pickle wrote; raise ModelError unless it is tensors and plain values."""
    mapped = zipfile.is_zipfile(path)  # then an optimizer's state in the file takes no memory
    rebuild: Any = np.empty(0).__reduce__()[0]
    allowed: list[Any] = [np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in NUMPY_KINDS}]
    for core in ("core", "_core"):  # depends on the version of NumPy
        allowed.append((numpy_number, f"numpy.{core}.multiarray.scalar"))
        allowed.append((rebuild, f"numpy.{core}.multiarray._reconstruct"))
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        asked = UNSUPPORTED.search(str(error))
        if asked is None:
            raise ModelError(f"{path} is damaged or is not made of tensors and plain values alone.") from None
        raise ModelError(
            f"{path} holds code ({asked[1].rstrip('.')}) in addition to tensors, so it was not opened; "
            "ask its author for a safetensors file."
        ) from None
    except Exception as error:  # a damaged file may raise anything
        raise ModelError(f"{path} is damaged or not a checkpoint: {type(error).__name__}.") from None


def numpy_number(dtype: np.dtype[Any], data: bytes = b"") -> Any:
    """Return a NumPy number from its bytes; replaces NumPy's own function, which would also build objects."""
    if not isinstance(dtype, np.dtype) or dtype.char not in NUMPY_KINDS or not isinstance(data, bytes):
        raise pickle.UnpicklingError("GLOBAL numpy.object is not a number")
    return np.frombuffer(data, dtype, count=1)[0]


def select(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without it."""
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def select_first(tensors: Tensors, prefixes: tuple[str, ...], sign: str) -> dict[str, Tensor]:
    """Return the tensors under the first prefix that has one called `sign`, without the prefix; {} for none."""
    return next((select(tensors, prefix) for prefix in prefixes if f"{prefix}{sign}" in tensors), {})


def load_strictly(
    module: nn.Module, tensors: Tensors, source: str | Path, ignore: Callable[[str], object] = lambda name: False
) -> None:
    """Load tensors into a network, converted to its data types; none may be missing, left over or of another shape.

    The batch counters of batch norms may be missing; tensors whose name satisfies `ignore` are left out on both sides.
    Raises ModelError, which names the tensors.
    """
    expected = {k: v for k, v in module.state_dict().items() if not ignore(k)}
    given = {k: v for k, v in tensors.items() if not ignore(k)}
    misshapen = [k for k, v in given.items() if k in expected and v.shape != expected[k].shape]
    faults = {
        "missing": [k for k in expected if k not in given and not k.endswith("num_batches_tracked")],
        "unexpected": [k for k in given if k not in expected],
        "of another shape": [f"{k} ({tuple(given[k].shape)} instead of {tuple(expected[k].shape)})" for k in misshapen],
    }
    found = [f"{len(names)} {fault}: {join_names(names)}" for fault, names in faults.items() if names]
    if found:
        raise ModelError(f"{source} does not fit {type(module).__name__}: tensors {'; '.join(found)}.")
    module.load_state_dict({k: v.to(expected[k].dtype) for k, v in given.items()}, strict=False)


def join_names(names: Iterable[str]) -> str:
    """Join the first few names, and tell how many more there are."""
    names = sorted(names)
    more = f" and {len(names) - LISTED_NAMES} more" if len(names) > LISTED_NAMES else ""
    return ", ".join(names[:LISTED_NAMES]) + more
