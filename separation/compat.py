"""Imports of torchvision and torchaudio next to a CPU build of torch.

Their usual wheels are CUDA builds, whose libraries do not load next to torch without CUDA. Importing torchvision then
raises RuntimeError (`operator torchvision::nms does not exist`) and importing torchaudio OSError, and so does every
package that imports them: transformers, open_clip, lightning. None of these needs the libraries for what is used here.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache, wraps
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

OF_METRICS = ("matplotlib", "scipy", "torchvision", "transformers")
_OPERATORS: list[Any] = []  # torch forgets operators whose library object is deleted


@cache
def make_importable() -> tuple[str, ...]:
    """Make torchvision and torchaudio importable if their libraries do not load; return the names of those repaired.

    Call it before the first import of such a package. It declares two operators of torchvision without an
    implementation, and replaces `torchaudio._extension` by a module that reports that there is no extension. Nothing is
    done next to torch with CUDA, or if the libraries load.
    """
    import torch

    if torch.version.cuda is not None:
        return ()
    repaired = []
    if not _libraries_load("torchvision", "_C.*"):
        _OPERATORS.append(torch.library.Library("torchvision", "FRAGMENT"))
        for name in ("nms", "qnms"):
            _OPERATORS[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        repaired.append("torchvision")
    if not _libraries_load("torchaudio", "lib/*torchaudio.*"):
        sys.modules["torchaudio._extension"] = audio_extension()
        repaired.append("torchaudio")
    return tuple(repaired)


def import_torchmetrics() -> None:
    """Import torchmetrics, as Lightning does, without `OF_METRICS`, which take a third of a command's start.

    Metrics that need them do not exist in this process from then on. Nothing is done if torchmetrics is imported.
    """
    if "torchmetrics" in sys.modules:
        return
    imports: Any = importlib.import_module("lightning_utilities.core.imports")
    of_requirement, of_package = imports.RequirementCache.__bool__, imports.package_available
    imports.RequirementCache.__bool__ = lambda self: (
        not str(self.requirement).startswith(OF_METRICS) and of_requirement(self)
    )
    imports.package_available = lambda name: name not in OF_METRICS and of_package(name)
    try:
        importlib.import_module("torchmetrics")
    finally:
        imports.RequirementCache.__bool__, imports.package_available = of_requirement, of_package


def _libraries_load(package: str, pattern: str) -> bool:
    """Return whether all shared libraries of a package load; True if it is not installed or already imported."""
    import torch

    spec = importlib.util.find_spec(package) if package not in sys.modules else None
    folders = list(spec.submodule_search_locations or []) if spec else []
    try:
        for library in sorted(Path(folders[0]).glob(pattern)) if folders else []:
            torch.ops.load_library(library)
    except (OSError, RuntimeError):
        return False
    return True


def audio_extension() -> ModuleType:
    """Return a replacement of `torchaudio._extension` without a library; functions that need one raise RuntimeError."""

    def unavailable(function: Any) -> Any:
        @wraps(function)
        def fail(*_: Any, **__: Any) -> NoReturn:
            raise RuntimeError(f"{function.__name__} needs torchaudio's library, which does not load with this torch.")

        return fail

    module = ModuleType("torchaudio._extension")
    module.__dict__.update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        _check_cuda_version=lambda: None,
        _load_lib=lambda name: False,
        fail_if_no_align=unavailable,
    )
    return module
