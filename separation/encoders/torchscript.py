"""Reads the tensors of a TorchScript archive, such as OpenAI's `ViT-B-32.pt`, without running its code.

The file is a zip with code, storages and a pickle of the module tree. The code is ignored, every module becomes an
inert holder of its attributes, and the pickle can call nothing but the construction of tensors and plain containers.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from separation.encoders.base import EncoderError

STORAGES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Holder:
    """The attributes of a module of any class."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Yield all tensors below this module with their dotted names."""
        for name, value in self.__dict__.items():
            if isinstance(value, Tensor):
                yield prefix + name, value
            elif isinstance(value, Holder):
                yield from value.tensors(f"{prefix}{name}.")


class InertUnpickler(pickle.Unpickler):
    """Builds holders, tensors and plain containers, and refuses everything else."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}data.pkl"))
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return Holder
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: torch.as_strided(storage, size, stride, offset)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        typed_lists = [f"build_{kind}list" for kind in ("int", "double", "bool", "tensor")]
        if module == "torch.jit._pickle" and name in (*typed_lists, "restore_type_tag"):
            return lambda data, *_: data
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, *_ = pid
        content = bytearray(self.archive.read(f"{self.root}data/{key}"))
        return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def read_archive(path: str | Path) -> dict[str, Tensor] | None:
    """Read all tensors of a TorchScript archive by their dotted names; None if the file is not such an archive."""
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            root = next((n.removesuffix("constants.pkl") for n in names if n.endswith("constants.pkl")), None)
            if root is None or f"{root}data.pkl" not in names:
                return None
            return dict(InertUnpickler(archive, root).load().tensors())
    except pickle.UnpicklingError as error:
        raise EncoderError(f"{path} asks for more than modules and tensors ({error}) and is not read.") from None
    except Exception as error:  # a damaged file may raise anything
        raise EncoderError(f"{path} cannot be read: it is damaged ({type(error).__name__}).") from None
