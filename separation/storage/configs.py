"""Reading, checking and building configurations of models, which may come from untrusted sources.

Before anything is built, the size of a configuration, its keys, and types and ranges (`BOUNDS`) of its arguments are
checked. Only classes of this package and of packages that the user trusts are built; arguments of the latter are not
checked.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from separation.errors import ModelError, reason
from separation.storage.moved import resolve

BUILT = ("separation.models.", "separation.encoders.", "separation.released.")  # packages whose classes are built
MAX_BYTES, MAX_NODES, MAX_DEPTH, MAX_TEXT = 1 << 19, 200_000, 32, 1 << 14  # of a YAML file
MAX_ITEMS = 64  # of a list of numbers
BOUNDS: dict[str, tuple[float, float]] = {
    "sample_rate": (1000, 384_000),
    "n_fft": (16, 16384),
    "hop": (1, 16384),
    "bands": (16, 1024),
    "linear_bands": (1, 1024),
    "channels": (1, 8192),
    "width": (1, 8192),
    "stream_dim": (1, 8192),
    "condition_dim": (1, 65536),
    "embedding_dim": (1, 65536),
    "hidden": (1, 65536),
    "segment": (1000, 1 << 24),
    "noise_heads": (0, 16),
    "dropout": (0, 1),
    "high_pass": (0, 1000),
    # Numbers of layers of published encoders
    **dict.fromkeys(("layers", "depths", "num_hidden_layers"), (1, 48)),
}
"""Smallest and largest value of arguments of networks and encoders by name; 0 and `MAX_NUMBER` for all others."""
MAX_NUMBER = 100_000

Settings = TypeVar("Settings")


# Reading


def read_yaml(path: Path, error: type[Exception] = ModelError) -> Any:
    """Read a YAML file of plain values.

    Raises:
        ModelError, or another `error`: the file cannot be read, is not YAML, is larger than 512 KiB, has more than 32
            levels, or more than 200,000 values after its aliases are expanded.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a file")
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES >> 10} KiB")
        text = path.read_bytes().decode()
        check_size(text, loader)
        return yaml.load(text, loader)
    except OSError as fault:
        raise error(f"{path} cannot be read: {reason(fault)}.") from None
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        where = f"in line {mark.line + 1}, " if mark else ""
        problem = getattr(fault, "problem", None) or str(fault).partition("\n")[0]
        raise error(f"{path} cannot be read: {where}{problem}.") from None
    except (ValueError, OverflowError) as fault:  # also for values such as the date 2001-99-99
        why = "it is not UTF-8 text" if isinstance(fault, UnicodeError) else str(fault).partition(";")[0]
        raise error(f"{path} cannot be read: {why}.") from None


def check_size(text: str, loader: Any) -> None:
    """Raise ValueError if a YAML text has too many levels, or too many values after its aliases are expanded."""
    import yaml

    sizes: dict[str, int] = {}  # number of values under each anchor
    opened = [("", 0)]  # anchor and number of values of each open collection
    for event in yaml.parse(text, loader):
        anchor, size = getattr(event, "anchor", None) or "", 1
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((anchor, 1))
            if len(opened) > MAX_DEPTH:
                raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
            continue
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(anchor, MAX_NODES + 1)  # an alias within its own anchor is infinite
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = opened.pop()
        elif not isinstance(event, yaml.ScalarEvent):
            continue
        elif len(event.value) > MAX_TEXT:
            raise ValueError(f"a text has more than {MAX_TEXT} characters")
        sizes[anchor] = size
        outer, total = opened[-1]
        opened[-1] = (outer, total + size)
        if total + size > MAX_NODES:
            raise ValueError(f"it has more than {MAX_NODES} values after its aliases are expanded")


def check_keys(given: Any, known: tuple[str, ...], where: str) -> None:
    """Raise ModelError unless `given` is a mapping with known keys only."""
    if not isinstance(given, dict):
        raise ModelError(f"{where} is not a mapping of {', '.join(known)}.")
    if unknown := [str(key) for key in given if key not in known]:
        raise ModelError(f"{where} has an unknown key, {unknown[0][:60]}; it may have {', '.join(known)}.")


# Building


def build(description: Any, trust: Sequence[str] = ()) -> Any:
    """Build a network or encoder from its `class_path` and `init_args`.

    Raises ModelError if the class is not a network or encoder of this package or of a package to `trust`, or cannot be
    built.
    """
    from torch import nn

    path = str(description.get("class_path", "")) if isinstance(description, dict) else str(description)
    module, _, name = resolve(path).rpartition(".")
    trusted = any(f"{module}.".startswith(f"{package}.") for package in trust)
    if not trusted and not module.startswith(BUILT):
        name = path.partition(".")[0][:60]
        hint = f' If you trust its code, use trust=["{name}"] or --trust {name}.' if name.isidentifier() else ""
        raise ModelError(f"The model's config names the class {path[:200]!r}, which is not one of this package.{hint}")
    try:
        kind = getattr(importlib.import_module(module), name)
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise TypeError("not a network")
        check_keys(description, ("class_path", "init_args"), "its description")
        arguments = description.get("init_args")
        if not trusted:
            check_arguments(kind, {} if arguments is None else arguments)
        return kind(**(arguments or {}))
    except Exception as error:  # a constructor may raise anything for invalid arguments
        why = str(error).partition("\n")[0].rstrip(".")
        raise ModelError(f"The model's config cannot be built: {path[:200]}: {why[:200]}.") from None


def check_arguments(kind: type, arguments: Any) -> None:
    """Raise ValueError if arguments of a class have unknown names, wrong types or values out of range."""
    hints = get_type_hints(kind.__init__)  # type: ignore[misc]
    names = tuple(name for name in hints if name != "return")
    check_keys(arguments, names, "init_args")
    for name, value in arguments.items():
        if not fits(value, hints[name]):
            wanted = hints[name].__name__ if isinstance(hints[name], type) else hints[name]
            raise ValueError(f"{name} is {shorten(value)}, not {wanted}")
        for number in numbers_in(value):
            check_number(name, number)
        for inner, more in value.items() if isinstance(value, dict) else ():
            for number in numbers_in(more):
                check_number(inner, number)


def check_number(name: str, number: float) -> None:
    """Raise ValueError if a value of the argument `name` is out of range."""
    low, high = BOUNDS.get(name, (0, MAX_NUMBER))
    if not low <= number <= high:
        raise ValueError(f"{name} is {shorten(number)}, not between {low:g} and {high:g}")


def fits(value: Any, hint: Any) -> bool:
    """Return whether a plain value has the type of an argument; mappings may hold numbers and lists of numbers only.

    Texts in the settings of a published encoder could name code or weights for its library to download.
    """
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return any(fits(value, each) for each in inner)
    if kind in (bool, str, NoneType):
        return isinstance(value, kind)
    if kind in (int, float):
        number = isinstance(value, int | kind) and not isinstance(value, bool)
        return number and -math.inf < value < math.inf
    if kind is dict:
        plain = bool | int | float
        return isinstance(value, dict) and all(
            isinstance(name, str) and (fits(each, plain) or fits(each, list[plain])) for name, each in value.items()
        )
    if not isinstance(value, list | tuple) or not inner:  # configurations cannot contain objects
        return False
    if kind is tuple and Ellipsis not in inner:
        return len(value) == len(inner) and all(map(fits, value, inner))
    return (inner[0] is str or len(value) <= MAX_ITEMS) and all(fits(each, inner[0]) for each in value)


def numbers_in(value: Any) -> list[float]:
    """Return the numbers in a value or list."""
    items = value if isinstance(value, list | tuple) else [value]
    return [each for each in items if isinstance(each, int | float) and not isinstance(each, bool)]


def make_settings(given: Any, kind: type[Settings], where: str) -> Settings:
    """Make a dataclass of numbers and lists from a section of a config; raise ModelError if it is not valid."""
    names = tuple(vars(kind()))
    if given is None:
        return kind()
    if not isinstance(given, dict) or any(name not in names for name in given):
        strange = f", not {next(str(n) for n in given if n not in names)[:60]}" if isinstance(given, dict) else ""
        raise ModelError(f"{where} must give {', '.join(names)}{strange}.")
    hints = get_type_hints(kind)
    for name, value in given.items():
        items = get_args(hints[name])
        values = value if items and isinstance(value, list | tuple) else () if items else [value]
        valid = all(fits(each, items[0] if items else float) for each in values) and (bool(values) or value == [])
        texts = [each for each in values if isinstance(each, str)]
        if not valid or not all(map(str.strip, texts)) or any(abs(n) > MAX_NUMBER for n in numbers_in(values)):
            raise ModelError(f"{where} must give {', '.join(names)}; {name} is not valid: {shorten(value)}.")
    return kind(**{n: tuple(v) if isinstance(v, list | tuple) else float(v) for n, v in given.items()})


def shorten(value: Any) -> str:
    """Return the first characters of a value, for a message."""
    try:
        return str(value)[:60]
    except ValueError:  # Python does not print numbers of thousands of digits
        return "a number of more digits than Python prints"
