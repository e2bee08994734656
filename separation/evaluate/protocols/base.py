"""What a protocol is: a named, versioned list of mixtures, with a hash, over recordings that the user has."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from separation.data.fixed_mixtures import CLIPS, VALIDATION, Mixing, Row, row_error, row_files
from separation.errors import reason

LISTS = "SEPARATION_LISTS"
PLACED = tuple(f"{name}{suffix}" for name in CLIPS for suffix in ("", "_start", "_offset"))
PARTS = tuple(f"{name}_seconds" for name in CLIPS)
COLUMNS = ("id", "kind", "query", "phrase", "label", "snr_db", *PLACED, "mixture")


class ProtocolError(ValueError):
    """A protocol is unknown, or what it is built from is missing or another; the message is one plain sentence."""


@dataclass(frozen=True)
class ListFile:
    """A list that a protocol is built from.

    Args:
        names: paths below the folder of lists or that of the recordings; the first is its name here.
        sha256: of the published file; None where none could be had to take it from.
    """

    names: tuple[str, ...]
    sha256: str | None = None


@dataclass(frozen=True)
class Sources:
    """What rows are built from: the recordings' folder and the lists, by their first names."""

    root: Path
    lists: dict[str, Path] = field(default_factory=dict)

    def rows(self, name: str, least: int = 1) -> list[list[str]]:
        """A list's rows, its heading among them.

        Args:
            name: of the list.
            least: how many cells each row must have.

        Raises:
            ProtocolError: the list cannot be read, is empty, or a row has fewer cells.
        """
        path = self.lists[name]
        try:
            with path.open(newline="", encoding="utf-8") as file:
                rows = [(number, row) for number, row in enumerate(csv.reader(file), 1) if row]
        except OSError as error:
            raise ProtocolError(f"{path}: the list cannot be read ({reason(error)}).") from None
        except (UnicodeDecodeError, csv.Error):
            raise ProtocolError(f"{path}: the list is no CSV text.") from None
        if not rows:
            raise ProtocolError(f"{path}: the list is empty.")
        for number, row in rows:
            if len(row) < least:
                raise ProtocolError(f"{path}, row {number}: it has {len(row)} cells, where the list has {least}.")
        return [row for _, row in rows]

    def columns(self, name: str, *wanted: str) -> list[list[str]]:
        """A list's cells of some columns, row by row, without the heading.

        Raises:
            ProtocolError: as `rows`, or the heading lacks a column.
        """
        heading = self.rows(name)[0]
        if missing := [column for column in wanted if column not in heading]:
            raise ProtocolError(f"{self.lists[name]}: its header lacks {missing[0]}; it reads {','.join(heading)}.")
        places = [heading.index(column) for column in wanted]
        return [[row[place] for place in places] for row in self.rows(name, max(places) + 1)[1:]]


@dataclass(frozen=True)
class Protocol:
    """A named list of mixtures.

    Args:
        name: family/set.
        version: counts up whenever rows or mixing change.
        about: what it is, in a line.
        source: where its definition comes from.
        root: environment variable that names the recordings' folder.
        build: makes its rows.
        mixing: how they become audio.
        lists: what it is built from.
        folders: folders below the root in which the recordings may lie.
        sha256: of rows and mixing; None where they depend on files that could not be had.
        count: its rows; None likewise.
        aggregate: how rows become one figure: `mean` of the rows; `class mean`, the mean of the classes' means;
            `class median`, the mean of the classes' medians.
        metrics: what is measured by default.
        window: seconds of BSS Eval's windows, whose median a row's figure is; None: one window.
    """

    name: str
    version: int
    about: str
    source: str
    root: str
    build: Callable[[Sources], list[Row]]
    mixing: Mixing
    lists: tuple[ListFile, ...] = ()
    folders: tuple[str, ...] = ("",)
    sha256: str | None = None
    count: int | None = None
    aggregate: str = "mean"
    metrics: tuple[str, ...] = ("sdr", "sdri", "si_sdr")
    window: float | None = None

    def rows(self, root: Path | None, lists: Path | None = None) -> list[Row]:
        """All rows, their recordings there or not.

        Args:
            root: the recordings' folder; None: what the environment variable says.
            lists: the folder of lists; None: what SEPARATION_LISTS says.

        Raises:
            ProtocolError: no folder is named, a list is missing, not the published one or not like it, or a row cannot
                be a mixture.
        """
        root = self.recordings(root)
        folders = [folder for folder in (lists or named(LISTS), root) if folder]
        rows = self.build(Sources(root, {each.names[0]: self.find_list(each, folders) for each in self.lists}))
        for row in rows:
            if why := row_error(row):
                raise ProtocolError(f"{self.name}, row {row['id']}: {why}.")
        found = fingerprint(rows, self.mixing)
        if self.sha256 and found != self.sha256:
            raise ProtocolError(f"{self.name}: its rows have the hash {found}, but version {self.version} another.")
        return rows

    def recordings(self, root: Path | None) -> Path:
        """The recordings' folder."""
        root = root or named(self.root)
        if root is None:
            raise ProtocolError(f"{self.name} needs its recordings: name their folder with --root or {self.root}.")
        if not root.is_dir():
            raise ProtocolError(f"{self.name}: {root} is no folder.")
        return root

    def find_list(self, wanted: ListFile, folders: Sequence[Path]) -> Path:
        """The published list, wherever it lies."""
        found = next((path for folder in folders for name in wanted.names if (path := folder / name).is_file()), None)
        if found is None:
            raise ProtocolError(
                f"{self.name} is built from the list {' or '.join(wanted.names)}, which is missing: name the folder "
                f"that holds it with --lists or {LISTS}. {self.source}"
            )
        digest = hashlib.sha256(found.read_bytes()).hexdigest()
        if wanted.sha256 and digest != wanted.sha256:
            raise ProtocolError(f"{found} is not the published list: its sha256 is {digest}, not {wanted.sha256}.")
        return found

    def locate(self, row: Row, root: Path) -> Path | str:
        """The folder below the root in which all of a row's recordings are, or the first path that is missing."""
        names = row_files(row)
        for folder in self.folders:
            if all((root / folder / name).is_file() for name in names):
                return root / folder
        absent = next(name for name in names if not any((root / folder / name).is_file() for folder in self.folders))
        return absent


def named(variable: str) -> Path | None:
    """The folder that an environment variable names."""
    value = os.environ.get(variable)
    return Path(value).expanduser() if value else None


def fingerprint(rows: Iterable[Row], mixing: Mixing) -> str:
    """Hash of all that decides on the audio and the queries: the rows, column by column, and the mixing.

    Of the mixing only what is not by default, and of the clips' lengths those that are given, so that a new setting
    leaves known hashes as they are.
    """
    special = {name: value for name, value in asdict(mixing).items() if value != getattr(VALIDATION, name)}
    digest = hashlib.sha256(json.dumps(special, sort_keys=True).encode())
    for row in rows:
        cells = [row.get(column) or "" for column in COLUMNS] + [f"{c}={row[c]}" for c in PARTS if row.get(c)]
        digest.update(json.dumps(cells, ensure_ascii=False).encode())
    return digest.hexdigest()


def pair(number: int | str, query: str, target: str, interferences: Sequence[str] = (), **more: str) -> Row:
    """A row with one interference or two, or with a `mixture`; what is not given is empty."""
    row = dict.fromkeys(COLUMNS, "") | {"id": str(number), "query": query, "label": query, "target": target}
    row |= {f"interference{place}": path for place, path in enumerate(interferences, 1)}
    row["kind"] = "three" if len(interferences) == 2 else "pair"
    return row | more
