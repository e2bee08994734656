"""Makes torchvision and torchaudio importable beside a CPU build of torch.

Their usual wheels are CUDA builds. Beside torch without CUDA their libraries do not load: torchvision then fails at
import with a RuntimeError (`operator torchvision::nms does not exist`), torchaudio with an OSError, and both take
transformers, open_clip and lightning down with them. Neither library is needed for what those packages do here, so two
operators are declared without an implementation and one module is stood in for. Where torch has CUDA, or the libraries
load, nothing is done.

Call `make_importable()` before the first import of such a package.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[Any] = []  # a torch.library.Library forgets its operators when it is collected


def _folder(package: str) -> Path | None:
    """Where an installed package lies; it is not imported."""
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def _loads(libraries: list[Path]) -> bool:
    """Whether all these shared libraries load into this process; True for none."""
    import torch

    try:
        for library in libraries:
            torch.ops.load_library(library)
    except (OSError, RuntimeError):
        return False
    return True


def declare_vision_operators() -> None:
    """Declare torchvision's two operators, so that its own registrations find them; calling one raises."""
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in OPERATORS:
        library.define(schema)
    _declared.append(library)


def audio_extension() -> ModuleType:
    """A stand-in for `torchaudio._extension` that says: no extension."""

    def unavailable(function: Callable[..., Any]) -> Callable[..., NoReturn]:
        def fail(*_: Any, **__: Any) -> NoReturn:
            raise RuntimeError(
                f"{function.__name__} needs torchaudio's own library, which does not load beside this torch."
            )

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


@cache
def make_importable() -> tuple[str, ...]:
    """Repair what needs it, once a process; the names of the packages that were stood in for."""
    import torch

    if torch.version.cuda is not None:
        return ()
    repaired = []
    vision, audio = _folder("torchvision"), _folder("torchaudio")
    if vision and "torchvision" not in sys.modules and not _loads(sorted(vision.glob("_C.*"))):
        declare_vision_operators()
        repaired.append("torchvision")
    if audio and "torchaudio" not in sys.modules and not _loads(sorted(audio.glob("lib/*torchaudio.*"))):
        sys.modules["torchaudio._extension"] = audio_extension()
        repaired.append("torchaudio")
    return tuple(repaired)
