"""Reading tensors from files without running code in them, and loading them into networks strictly.

`.ckpt`, `.pt` and `.pth` files are pickles, which can run code. They are read by PyTorch's restricted reader
(`weights_only=True`), which builds tensors and plain containers only. NumPy numbers and arrays are allowed in addition,
because some published files (LAION's CLAP, PANNs) hold them in their training state. Any other file is refused.
"""

from __future__ import annotations

import os
import pickle
import re
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from separation.errors import ModelError, expand_home, reason
from separation.storage.download import replace_when_complete

Tensors = Mapping[str, Tensor]

NESTED_KEYS = ("state_dict", "model", "model_state_dict")
NUMPY_KINDS = "?bBhHiIlLqQefd"  # booleans, integers and floats; no objects, no texts
UNSUPPORTED = re.compile(r"GLOBAL ([\w.]+)")
LISTED_NAMES = 4  # in an error
MAX_HEADER = 1 << 23  # bytes in a safetensors file: of some 60,000 tensors
MAX_PICKLE = 1 << 26  # bytes of a checkpoint beside its tensors


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
    path = expand_home(path)
    if not path.is_file():
        raise ModelError(f"{path} is missing.")
    if path.suffix != ".safetensors":
        return tensors_of(read_pickle(path), path)
    try:
        with path.open("rb") as file:
            if int.from_bytes(file.read(8), "little") > MAX_HEADER:
                raise ModelError(f"{path} is damaged: it says that its header has more than {MAX_HEADER >> 20} MiB.")
        return tensors_of(load_file(path), path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged: {' '.join(str(error).split())}.") from None


def write_tensors(file: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> None:
    """Write a .safetensors file, which appears when it is complete; raise ModelError if it cannot be written."""
    plain = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    try:
        with replace_when_complete(file) as part:
            save_file(plain, part, metadata)
            part.chmod(0o644)  # save_file lets only the owner read
    except SafetensorError as error:  # also of the system
        number = re.search(r"os error (\d+)", str(error))
        why = reason(OSError(int(number[1]), os.strerror(int(number[1])))) if number else " ".join(str(error).split())
        raise ModelError(f"{file} cannot be written: {why}.") from None


def tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file's content, or of the checkpoint in it; raise ModelError if there are none."""
    for key in NESTED_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    found = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not found:
        raise ModelError(f"{path} holds no named tensors, so it is not a model checkpoint.")
    for name, value in found.items():
        plain = value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
        # A view may repeat a few values in its file to any size.
        if not plain or value.nbytes > value.untyped_storage().nbytes():
            raise ModelError(f"{path}: the tensor {name[:100]} is not stored as plain numbers.")
    return found


def check_archive(path: Path) -> bool:
    """Return whether a file is a zip archive; raise ModelError if it expands to much more than its own size."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        unfolded = sum(max(0, entry.file_size - entry.compress_size) for entry in archive.infolist())
    if unfolded > MAX_PICKLE:
        raise ModelError(f"{path} was not opened: its contents are {unfolded >> 20} MiB larger than the file.")
    return True


def read_pickle(path: Path) -> Any:
    """Return what `torch.save` or pickle wrote; raise ModelError unless it is tensors and plain values."""
    rebuild: Any = np.empty(0).__reduce__()[0]
    allowed: list[Any] = [np.ndarray, np.dtype, *{type(np.dtype(kind)) for kind in NUMPY_KINDS}]
    for core in ("core", "_core"):  # depends on the version of NumPy
        allowed.append((numpy_number, f"numpy.{core}.multiarray.scalar"))
        allowed.append((rebuild, f"numpy.{core}.multiarray._reconstruct"))
    try:
        mapped = check_archive(path)  # then an optimizer's state in the file takes no memory
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except ModelError:
        raise
    except pickle.UnpicklingError as error:
        asked = UNSUPPORTED.search(str(error))
        if asked is None:
            raise ModelError(f"{path} is damaged or is not made of tensors and plain values alone.") from None
        raise ModelError(
            f"{path} holds code ({asked[1].rstrip('.')}) in addition to tensors, so it was not opened; "
            "ask its author for a safetensors file."
        ) from None
    except Exception:  # a damaged file may raise anything
        raise ModelError(f"{path} is damaged or not a checkpoint.") from None


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


def begin_child() -> None:
    """Prepare a forked process. It lacks its parent's threads, for which PyTorch would wait forever."""
    torch.set_num_threads(1)
    CallerDefaults.lock, CallerDefaults.calls = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=begin_child)


class Outline(TorchFunctionMode):
    """Context that builds networks without allocating or initialising their weights.

    Parameters are on the meta device until `load_strictly` replaces them; tensors that constructors compute are not.
    """

    ALLOCATIONS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(function, "__name__", ""), dict(kwargs or {})
        changes = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"  # a tensor in place
        changed = args[0] if args else kwargs.get("tensor")  # torch.nn.init hands on its arguments by name
        if changes and getattr(changed, "is_meta", False):
            return changed
        if function in self.ALLOCATIONS and (kwargs.get("dtype") or torch.float32).is_floating_point:
            kwargs["device"] = kwargs.get("device") or "meta"
        return function(*args, **kwargs)


class CallerDefaults:
    """The caller's default data type, saved while this package computes in single precision."""

    lock = threading.Lock()
    dtype = torch.float32
    calls = 0  # in progress, in all threads


@contextmanager
def own_defaults() -> Iterator[None]:
    """Context, or decorator, in which a caller's default device, data type and inference mode have no effect.

    PyTorch has one default data type for all threads; the caller's is restored when the last call has ended. Its errors
    of missing memory become MemoryErrors.
    """
    caller, elsewhere = CallerDefaults, torch.get_default_device().type != "cpu"
    with caller.lock:
        if caller.calls == 0:
            caller.dtype = torch.get_default_dtype()
            if caller.dtype != torch.float32:
                torch.set_default_dtype(torch.float32)
        caller.calls += 1
    try:
        with torch.inference_mode(False), torch.device("cpu") if elsewhere else nullcontext():
            yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise MemoryError("There is not enough memory.") from None
        raise
    finally:
        with caller.lock:
            caller.calls -= 1
            if caller.calls == 0 and caller.dtype != torch.float32:
                torch.set_default_dtype(caller.dtype)


def has_outlines(module: nn.Module) -> bool:
    """Return whether a network that was built in `Outline` has tensors that are not loaded yet."""
    return any(value.is_meta for value in (*module.parameters(), *module.buffers()))


def load_strictly(
    module: nn.Module, tensors: Tensors, source: str | Path, ignore: Callable[[str], object] = lambda name: False
) -> None:
    """Load tensors into a network, in single precision; none may be missing, left over or of another shape or kind.

    The batch counters of batch norms may be missing; tensors whose name satisfies `ignore` are left out on both sides.
    Raises ModelError, which names the tensors, also if one holds NaN or infinite numbers.
    """
    module.float()  # whatever torch's default is
    expected = {k: v for k, v in module.state_dict().items() if not ignore(k)}
    given = {k: v for k, v in tensors.items() if not ignore(k)}
    known = {k: v for k, v in given.items() if k in expected}
    misshapen = [k for k, v in known.items() if v.shape != expected[k].shape]
    others = [k for k, v in known.items() if v.is_floating_point() != expected[k].is_floating_point() or v.is_complex()]
    faults = {
        "missing": [k for k in expected if k not in given and not k.endswith("num_batches_tracked")],
        "unexpected": [k for k in given if k not in expected],
        "of another shape": [f"{k} ({tuple(given[k].shape)} instead of {tuple(expected[k].shape)})" for k in misshapen],
        "of another type": [f"{k} ({given[k].dtype})" for k in others],
    }
    found = [f"{len(names)} {fault}: {join_names(names)}" for fault, names in faults.items() if names]
    if found:
        raise ModelError(f"{source} does not fit {type(module).__name__}: tensors {'; '.join(found)}.")
    # Copies, because the file may change while they are used.
    converted = {k: v.to(expected[k].dtype, copy=True) for k, v in given.items()}
    suspect = [k for k, v in converted.items() if not v.sum().isfinite()]  # an eighth of the time of testing each value
    if broken := [k for k in suspect if not torch.isfinite(converted[k]).all()]:
        raise ModelError(f"{source} cannot be used: NaN or infinite numbers in {join_names(broken)}.")
    module.load_state_dict(converted, strict=False, assign=has_outlines(module))


def join_names(names: Iterable[str]) -> str:
    """Join the first few names and the number of the others."""
    names = sorted(names)
    more = f" and {len(names) - LISTED_NAMES} more" if len(names) > LISTED_NAMES else ""
    return ", ".join(names[:LISTED_NAMES]) + more
