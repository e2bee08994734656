"""What the parity tests share: the fixtures' folder, their weights, checkpoint files with the released prefixes."""

import importlib.util
import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

PARITY = os.environ.get("SEPARATION_PARITY")
ROOT = Path(PARITY or ".")
needs_fixtures = pytest.mark.skipif(not PARITY, reason="SEPARATION_PARITY is not set: no fixtures to compare with")


def rules(part: str):
    """`fill_weights.py` of one part of the fixtures ("uss" or "clipsep")."""
    spec = importlib.util.spec_from_file_location(f"fill_weights_{part}", ROOT / part / "fill_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shapes(part: str, name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a released file's tensors."""
    table = json.loads((ROOT / part / f"state_dicts/{name}.json").read_text())["tensors"]
    return {key: tuple(entry["shape"]) for key, entry in table.items()}


def resunet_state(name: str, seed: int) -> dict[str, torch.Tensor]:
    """A ResUNet30's tensors under their bare names; zeros for the kernels, which must not be read."""
    fill = rules("uss").fill
    filled = {key: fill(key, shape, seed) for key, shape in shapes("uss", name).items()}
    sizes = shapes("uss", name)
    return {k: torch.zeros(sizes[k]) if v is None else torch.from_numpy(np.asarray(v)) for k, v in filled.items()}


@cache
def clipsep_state(name: str) -> dict[str, torch.Tensor]:
    """A CLIPSep relative's tensors under their released names; without CLAP in bimodal's, zeros for its kernels."""
    fill = rules("clipsep").tensor_for
    sizes = {k: v for k, v in shapes("clipsep", name).items() if "net_clap.model" not in k}
    filled = {key: None if "stft." in key else fill(key, shape) for key, shape in sizes.items()}
    return {k: torch.zeros(sizes[k]) if v is None else torch.from_numpy(np.asarray(v)) for k, v in filled.items()}


def arrays(part: str, name: str) -> dict[str, torch.Tensor]:
    """A fixture's arrays of numbers."""
    with np.load(ROOT / part / f"fixtures/{name}.npz") as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file if file[key].dtype.kind not in "UO"}


def meta(part: str, name: str) -> dict:
    """What a fixture says of itself."""
    with np.load(ROOT / part / f"fixtures/{name}.npz") as file:
        return json.loads(str(file["meta"]))


def fixtures(part: str, stem: str) -> list[str]:
    """Names of all cases of a fixture that are there (A, B)."""
    return sorted(path.stem for path in (ROOT / part / "fixtures").glob(f"{stem}_[A-Z].npz")) if PARITY else []


def largest(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest absolute difference."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max())
