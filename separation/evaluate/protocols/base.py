"""Protocols: named, versioned lists of mixtures with a hash, over recordings that the user has."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from separation.data.fixed_mixtures import ALL_CLIPS, CLIPS, VALIDATION, Mixing, Row, locate_files, row_error
from separation.errors import expand_home
from separation.storage.download import sha256_of

LISTS_VARIABLE = "SEPARATION_LISTS"
OPTIONAL = tuple(f"{name}_seconds" for name in CLIPS) + tuple(f"{name}_gain" for name in ALL_CLIPS)
OPTIONAL += tuple(f"{n}{suffix}" for n in ALL_CLIPS[len(CLIPS) :] for suffix in ("", "_start", "_offset", "_seconds"))
KIND_OF = ("pair", "pair", "three", "four", "five")  # by number of interferences
COLUMNS = (
    *("id", "kind", "query", "phrase", "label", "snr_db"),
    *(f"{name}{suffix}" for name in CLIPS for suffix in ("", "_start", "_offset")),
    "mixture",
)


class ProtocolError(ValueError):
    """An unknown protocol, or lists that are missing or not the published ones; the text is one sentence."""


@dataclass(frozen=True)
class ListFile:
    """A list that a protocol is built from: possible paths below the folder of lists or recordings, and its sha256."""

    names: tuple[str, ...]
    sha256: str | None = None


@dataclass(frozen=True)
class Protocol:
    """A named list of mixtures.

    Args:
        name: family/set.
        version: increases whenever rows or mixing change.
        about: one-line description.
        source: where the definition comes from.
        root: environment variable that names the folder of the recordings.
        build: builds the rows from the folder of the recordings and the paths of the lists.
        mixing: how rows become audio.
        lists: what the protocol is built from.
        folders: folders below the root in which the recordings may be.
        sha256: of rows and mixing; None if they depend on files that were not available.
        count: number of rows; None likewise.
        aggregate: how rows become one value: `mean` of the rows; `class mean`, mean of the means of the classes;
            `class median`, mean of their medians.
        metrics: default metrics.
        window: seconds of BSS Eval's windows, of which a row's value is the median; None: one window.
    """

    name: str
    version: int
    about: str
    source: str
    root: str
    build: Callable[..., list[Row]]
    mixing: Mixing
    lists: tuple[ListFile, ...] = ()
    folders: tuple[str, ...] = ("",)
    sha256: str | None = None
    count: int | None = None
    aggregate: str = "mean"
    metrics: tuple[str, ...] = ("sdr", "sdri", "si_sdr")
    window: float | None = None

    def rows(self, root: Path | None, lists: Path | None = None) -> list[Row]:
        """Build all rows, whether their recordings exist or not, from the folders of recordings and lists.

        None is what the protocol's environment variable or SEPARATION_LISTS names. Raises ProtocolError without one,
        if a list is missing or not the published one, or without valid rows; DataError as `build`.
        """
        root = self.recordings(root)
        folders = [folder for folder in (lists or folder_from_environment(LISTS_VARIABLE), root) if folder]
        rows = self.build(root, *(self.find_list(each, folders) for each in self.lists))
        if not rows:
            raise ProtocolError(f"{self.name}: {root} holds none of its recordings.")
        for row in rows:
            if why := row_error(row):
                raise ProtocolError(f"{self.name}, row {row['id']}: {why}.")
        found = fingerprint(rows, self.mixing)
        if self.sha256 and found != self.sha256:
            raise ProtocolError(f"{self.name}: the rows have the hash {found}, not that of version {self.version}.")
        return rows

    def recordings(self, root: Path | None) -> Path:
        """Return the folder of the recordings; raise ProtocolError if none is named or it does not exist."""
        root = root or folder_from_environment(self.root)
        if root is None:
            raise ProtocolError(f"{self.name} needs its recordings: name their folder with --root or {self.root}.")
        if not root.is_dir():
            raise ProtocolError(f"{self.name}: {root} is not a folder.")
        return root

    def find_list(self, wanted: ListFile, folders: Sequence[Path]) -> Path:
        """Find a list in one of the folders; raise ProtocolError if it is missing or not the published one."""
        found = next((path for folder in folders for name in wanted.names if (path := folder / name).is_file()), None)
        if found is None:
            raise ProtocolError(
                f"{self.name} is built from the list {' or '.join(wanted.names)}, which is missing: name the folder "
                f"that holds it with --lists or {LISTS_VARIABLE}. {self.source}"
            )
        digest = sha256_of(found)
        if wanted.sha256 and digest != wanted.sha256:
            raise ProtocolError(f"{found} is not the published list: its sha256 is {digest}, not {wanted.sha256}.")
        return found

    def locate(self, row: Row, root: Path) -> Path | str:
        """Return the folder that contains all recordings of a row, or the first missing path."""
        return locate_files(row, root, self.folders)


def folder_from_environment(variable: str) -> Path | None:
    """Return the folder that an environment variable names."""
    value = os.environ.get(variable)
    return expand_home(value) if value else None


def fingerprint(rows: Iterable[Row], mixing: Mixing) -> str:
    """Hash everything that determines audio and queries: the rows, column by column, and the mixing.

    Settings count only where they differ from the defaults, so that a new setting does not change known hashes.
    """
    special = {name: value for name, value in asdict(mixing).items() if value != getattr(VALIDATION, name)}
    digest = hashlib.sha256(json.dumps(special, sort_keys=True).encode())
    for row in rows:
        cells = [row.get(column) or "" for column in COLUMNS] + [f"{c}={row[c]}" for c in OPTIONAL if row.get(c)]
        digest.update(json.dumps(cells, ensure_ascii=False).encode())
    return digest.hexdigest()


def make_row(number: int | str, query: str, target: str, interferences: Sequence[str] = (), **more: str) -> Row:
    """Make a row with one to four interferences, or with a `mixture`; other columns are empty."""
    row = dict.fromkeys(COLUMNS, "") | {"id": str(number), "query": query, "label": query, "target": target}
    row |= {f"interference{place}": path for place, path in enumerate(interferences, 1)}
    row["kind"] = KIND_OF[len(interferences)]
    return row | more


@cache
def all_protocols() -> dict[str, Protocol]:
    """Return every protocol by name, sorted: those in `PROTOCOLS` of each file of this folder."""
    package = import_module(__name__.rpartition(".")[0])
    modules = [import_module(f"{package.__name__}.{each.name}") for each in iter_modules(package.__path__)]
    found: dict[str, Protocol] = {each.name: each for module in modules for each in getattr(module, "PROTOCOLS", ())}
    return dict(sorted(found.items()))


def find_protocol(name: str) -> Protocol:
    """Return a protocol by name; for an unknown one, ProtocolError suggests similar names."""
    known = all_protocols()
    if name in known:
        return known[name]
    close = get_close_matches(name, known, n=3, cutoff=0.4) or list(known)
    raise ProtocolError(f'Unknown protocol "{name}"; did you mean {", ".join(close)}? See --list-protocols.')
