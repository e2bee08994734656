"""Keeps what an earlier training left in a folder apart from what a new one writes there."""

from __future__ import annotations

import os
from pathlib import Path

KEPT = ("last*.ckpt", "best*.ckpt")


def goes_on(folder: Path | str, checkpoint: Path | str | None) -> bool:
    """Whether a checkpoint lies in a folder, however both are spelt, and wherever links lead to."""
    if not checkpoint:
        return False
    parents = os.path.dirname(os.path.abspath(checkpoint)), os.path.dirname(os.path.realpath(checkpoint))
    return os.path.realpath(folder) in map(os.path.realpath, parents)


def set_aside(folder: Path, going_on_from: str | None) -> Path | None:
    """Moves an earlier run's checkpoints into `earlier_1`, `earlier_2`, ...: `last.ckpt` is always the latest run's.

    Args:
        folder: the new run's folder.
        going_on_from: the checkpoint that the new run goes on from; one in the folder means that it is the same run.

    Returns:
        The folder they are in now; none where nothing was moved.
    """
    if goes_on(folder, going_on_from):
        return None
    found = [file for name in KEPT for file in sorted(folder.glob(name)) if file.is_file()]
    if not found:
        return None
    number = next(n for n in range(1, 10**6) if not (folder / f"earlier_{n}").exists())
    aside = folder / f"earlier_{number}"
    aside.mkdir()
    for file in found:
        file.rename(aside / file.name)
    return aside
