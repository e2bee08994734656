"""All preparers by name: every module of this folder that has a `PREPARER` (or `PREPARERS`)."""

from __future__ import annotations

import pkgutil
from difflib import get_close_matches
from functools import cache
from importlib import import_module

from separation import datasets
from separation.data.manifest import DataError
from separation.datasets.base import Preparer


@cache
def preparers() -> dict[str, Preparer]:
    """Name -> preparer, in the order of the names."""
    found: dict[str, Preparer] = {}
    for module in pkgutil.iter_modules(datasets.__path__):
        loaded = import_module(f"{datasets.__name__}.{module.name}") if module.name != "registry" else None
        several = getattr(loaded, "PREPARERS", ()) or (getattr(loaded, "PREPARER", None),)
        found |= {preparer.name: preparer for preparer in several if preparer is not None}
    return dict(sorted(found.items()))


def preparer(name: str) -> Preparer:
    """The preparer of a name.

    Raises:
        DataError: there is none; the message names the closest.
    """
    known = preparers()
    if name not in known:
        close = get_close_matches(name.lower(), known, 1, 0.5)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise DataError(f"There is no preparer for {name}.{hint} There are: {', '.join(known)}.")
    return known[name]
