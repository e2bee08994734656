"""All protocols. Every file of this folder that has PROTOCOLS adds them; no list is kept."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from separation.evaluate import protocols
from separation.evaluate.protocols.base import Protocol, ProtocolError


@cache
def all_protocols() -> dict[str, Protocol]:
    """Every protocol by its name, in the order of names."""
    modules = (import_module(f"{protocols.__name__}.{each.name}") for each in iter_modules(protocols.__path__))
    found: list[Protocol] = [each for module in modules for each in getattr(module, "PROTOCOLS", ())]
    return {each.name: each for each in sorted(found, key=lambda each: each.name)}


def find(name: str) -> Protocol:
    """A protocol by its name.

    Raises:
        ProtocolError: there is none; the message names those that are.
    """
    known = all_protocols()
    if name in known:
        return known[name]
    close = get_close_matches(name, known, n=3, cutoff=0.4) or list(known)
    raise ProtocolError(f'There is no protocol "{name}"; did you mean {", ".join(close)}? See --list-protocols.')
