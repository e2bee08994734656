"""Where fetched files lie, and whether the network may be used."""

from __future__ import annotations

import os
import sys
from pathlib import Path

OFFLINE = ("SEPARATION_OFFLINE", "HF_HUB_OFFLINE")
YES = {"1", "true", "yes", "on"}


def cache_folder() -> Path:
    """Where fetched files lie: SEPARATION_CACHE, or `separation` in the system's folder for caches."""
    if os.environ.get("SEPARATION_CACHE"):
        return Path(os.environ["SEPARATION_CACHE"]).expanduser()
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]).expanduser() / "separation"
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "separation"
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "separation"


def is_offline() -> bool:
    """Whether the environment forbids the network: SEPARATION_OFFLINE or HF_HUB_OFFLINE."""
    return any(os.environ.get(name, "").strip().lower() in YES for name in OFFLINE)


def hub_snapshots(repository: str) -> list[Path]:
    """Folders of the local Hugging Face cache with a version of a repository ("owner/name"); nothing is downloaded."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    return sorted(hub.glob(f"models--{repository.replace('/', '--')}/snapshots/*"))
