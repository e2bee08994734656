"""What every preparer is: where a dataset comes from, what lies in its folder, and how that becomes clips."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from separation.data.manifest import DataError, Entry
from separation.errors import reason


@dataclass(frozen=True)
class Preparer:
    """A dataset and the function that reads its folder.

    Attributes:
        name: what it is called on the command line.
        title: what its authors call it.
        home: its official page.
        get: how to get it, a sentence or two.
        licence: of the whole; clips may have their own.
        splits: which splits there are and whose they are.
        needs: what has to lie in the folder, relative to it; a `*` stands for anything.
        clips: the folder as (split, clip) pairs, paths relative to the folder. A clip whose file is missing is yielded
            too: who calls it looks for the files.
        complete: whether the dataset comes with its audio. Where everybody fetches it on their own (videos), any number
            of files may be missing.
        counts: clips of each split in the whole release, to say when a folder holds less.
        before: something to be done first, such as taking stems out of a container.
    """

    name: str
    title: str
    home: str
    get: str
    licence: str
    splits: str
    needs: tuple[str, ...]
    clips: Callable[[Path], Iterator[Entry]]
    complete: bool = True
    counts: dict[str, int] = field(default_factory=dict)
    before: Callable[[Path], None] = lambda root: None

    def missing(self, root: Path) -> list[str]:
        """What of `needs` is not in the folder."""
        return [pattern for pattern in self.needs if not any(root.glob(pattern))]


def rows(path: Path, columns: Sequence[str], encoding: str = "utf-8") -> Iterator[dict[str, str]]:
    """The rows of a published CSV file with a header line.

    Raises:
        DataError: the file cannot be read, its header lacks one of the columns, or a row some of the cells.
    """
    return (row for _, row in numbered(path, columns, encoding))


def numbered(path: Path, columns: Sequence[str], encoding: str = "utf-8") -> Iterator[tuple[int, dict[str, str]]]:
    """As `rows`, each with its number (the header is row 1)."""
    with opened(path, encoding) as file:
        reader = csv.DictReader(text_of(path, file))
        missing = [column for column in columns if column not in (reader.fieldnames or [])]
        if missing:
            raise DataError(f"{path}: its header lacks {missing[0]}; it reads {','.join(reader.fieldnames or [])}.")
        for number, row in enumerate(of_csv(path, reader), 2):
            if any(row[column] is None for column in columns):
                raise DataError(f"{path}, row {number}: it has not as many cells as the header.")
            yield number, row


def cells(path: Path, **how: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows of a published CSV file without a header line, each with its number from 1.

    Args:
        path: the file.
        how: for `csv.reader`.

    Raises:
        DataError: the file cannot be read.
    """
    with opened(path) as file:
        yield from enumerate(of_csv(path, csv.reader(text_of(path, file), **how)), 1)


def text_of(path: Path, file: Iterable[str]) -> Iterator[str]:
    """A file's lines.

    Raises:
        DataError: it has another encoding.
    """
    try:
        yield from file
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: it is not {error.encoding.upper()} text.") from None


def of_csv(path: Path, reader: Any) -> Iterator[Any]:
    """What a reader of CSV gives.

    Raises:
        DataError: something is no CSV, such as a cell that does not end.
    """
    try:
        yield from reader
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from None


def seconds_of(path: Path, number: int, column: str, cell: str) -> float:
    """A time in a published list.

    Raises:
        DataError: it is no number, or none that can be a time.
    """
    try:
        value = float(cell)
    except ValueError:
        raise DataError(f"{path}, row {number}: its {column} “{cell}” is no number.") from None
    if not (math.isfinite(value) and value >= 0):
        raise DataError(f"{path}, row {number}: its {column} “{cell}” is no time.")
    return value


def opened(path: Path, encoding: str = "utf-8") -> Any:
    """A published text file, open for reading.

    Raises:
        DataError: it cannot be opened.
    """
    try:
        return path.open(newline="", encoding=encoding)
    except OSError as error:
        raise DataError(f"{path}: it cannot be read ({reason(error)}).") from None


def parsed(path: Path) -> Any:
    """A published JSON file.

    Raises:
        DataError: it cannot be opened, is not UTF-8 or no JSON.
    """
    with opened(path) as file:
        try:
            return json.load(file)
        except UnicodeDecodeError:
            raise DataError(f"{path}: it is not UTF-8 text.") from None
        except json.JSONDecodeError as error:
            raise DataError(f"{path}: it is no JSON ({error.msg}).") from None


def plain(text: str) -> str:
    """A published label or caption as the manifest can hold it: its separators replaced, white space single."""
    return " ".join(text.replace(";", ",").replace("|", ",").split())


def words(label: str) -> str:
    """A label such as `Acoustic_guitar` as words: "acoustic guitar"."""
    return plain(label.replace("_", " ")).lower()


def first_folder(root: Path, *names: str) -> Path:
    """The first of several folders that is there, else the first: what it should hold is then reported as missing."""
    return next((root / name for name in names if (root / name).is_dir()), root / names[0])


def at(start: float) -> str:
    """A start in a file name: six digits of seconds."""
    return f"{int(start):06d}"


def unique(values: Iterable[str]) -> tuple[str, ...]:
    """Values in order, each once, none empty."""
    return tuple(dict.fromkeys(value for value in values if value))
