"""Tensors out of a TorchScript archive, such as OpenAI's `ViT-B-32.pt`, without running what lies in it.

Such a file is a zip of code, of storages, and of a pickle that puts modules together. Here the code is not looked at,
every module becomes an inert holder of its attributes, and the pickle may call nothing but the rebuilding of a tensor.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from separation.encoders.base import EncoderError

KINDS = {
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
    """A module's attributes, whatever its class was."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """All tensors in it and in what it holds, by their dotted names."""
        for name, value in self.__dict__.items():
            if isinstance(value, Tensor):
                yield prefix + name, value
            elif isinstance(value, Holder):
                yield from value.tensors(f"{prefix}{name}.")


def rebuild(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """A tensor on its storage."""
    return torch.as_strided(storage, size, stride, offset)


def plain(data: Any, *_: Any) -> Any:
    """A typed list or dictionary as an untyped one."""
    return data


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): rebuild,
    ("collections", "OrderedDict"): OrderedDict,
    **{("torch.jit._pickle", f"build_{kind}list"): plain for kind in ("int", "double", "bool", "tensor")},
    ("torch.jit._pickle", "restore_type_tag"): plain,
}


class InertUnpickler(pickle.Unpickler):
    """Builds holders and tensors, and refuses everything else."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}data.pkl"))
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return Holder
        if module == "torch" and name in KINDS:
            return KINDS[name]
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        _, kind, key, *_ = pid
        content = bytearray(self.archive.read(f"{self.root}data/{key}"))
        return torch.frombuffer(content, dtype=kind) if content else torch.empty(0, dtype=kind)


def root_of(archive: zipfile.ZipFile) -> str | None:
    """The folder inside a TorchScript archive; None where the zip is none."""
    names = archive.namelist()
    root = next((n.removesuffix("constants.pkl") for n in names if n.endswith("constants.pkl")), None)
    return root if root is not None and f"{root}data.pkl" in names else None


def is_archive(path: str | Path) -> bool:
    """Whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return root_of(archive) is not None


def read_archive(path: str | Path) -> dict[str, Tensor]:
    """All tensors of a TorchScript archive by their dotted names.

    Raises:
        EncoderError: it is damaged, or asks for more than modules and tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            module = InertUnpickler(archive, root_of(archive) or "").load()
            return dict(module.tensors())
    except pickle.UnpicklingError as error:
        raise EncoderError(f"{path} asks for more than modules and tensors ({error}) and is not read.") from None
    except Exception as error:  # a damaged file may raise anything on the way
        raise EncoderError(f"{path} cannot be read: it is damaged ({type(error).__name__}).") from None
