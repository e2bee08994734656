"""Folders in which downloaded files are kept."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from separation.errors import expand_home


def cache_folder() -> Path:
    """Return the folder for downloaded files: SEPARATION_CACHE, or `separation` in the system's cache folder."""
    if os.environ.get("SEPARATION_CACHE"):
        return expand_home(os.environ["SEPARATION_CACHE"])
    if os.environ.get("XDG_CACHE_HOME"):
        return expand_home(os.environ["XDG_CACHE_HOME"]) / "separation"
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "separation"
    return home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "separation"


def home() -> Path:
    """Return the user's home folder, or one in the temporary folder for a user who has none."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir()) / f"separation-{os.getuid()}"


def hub_cache() -> Path:
    """Return the folder of the local Hugging Face cache."""
    hub_home = Path(os.environ.get("HF_HOME", home() / ".cache" / "huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE", hub_home / "hub"))
