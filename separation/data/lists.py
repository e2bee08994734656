"""Readers of published lists: CSV with or without a header, JSON."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from separation.errors import DataError, reason

MAX_COLUMNS = 1000


@contextmanager
def open_list(path: Path, encoding: str = "utf-8", what: str = "") -> Iterator[IO[str]]:
    """Open a published text file, in messages `what`; raise DataError if it is missing or has another encoding."""
    try:
        with path.open(newline="", encoding=encoding) as file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: {what and what + ' '}cannot be read ({reason(error)}).") from None
    except UnicodeDecodeError as error:
        content, line, name = path.read_bytes(), 1, error.encoding
        try:
            content.decode(name)  # the error of a part of the file does not tell the line
        except UnicodeDecodeError as whole:
            line += content.count(b"\n", 0, whole.start)
        raise DataError(f"{path}, line {line}: {what and what + ' is '}not {name.upper()} text.") from None


def read_csv(path: Path, file: Iterable[str], **options: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield (row number from 1, cells) of an open CSV file; raise DataError for NUL bytes and quotes that stay open."""
    reader = csv.reader(file, strict=True, **options)
    try:
        for number, cells in enumerate(reader, 1):
            if len(cells) > MAX_COLUMNS:
                raise DataError(f"{path}, line {reader.line_num}: {len(cells)} cells, more than {MAX_COLUMNS}.")
            if any("\0" in cell for cell in cells):
                raise DataError(f"{path}, line {reader.line_num}: it contains NUL bytes, so it is not text.")
            yield number, cells
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from None


def parse_json(text: str | bytes, where: str) -> Any:
    """Parse JSON; raise DataError, whose message begins with `where`, if it is not valid or nested too deeply."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if error.lineno > 1 else ""
        raise DataError(f"{where}{line}: invalid JSON ({error.msg}).") from None
    except (ValueError, RecursionError) as error:  # another encoding, a number of thousands of digits, deep nesting
        raise DataError(f"{where}: invalid JSON ({str(error).partition(';')[0]}).") from None


def read_cells(
    path: Path, least: int = 0, encoding: str = "utf-8", what: str = "", **options: Any
) -> Iterator[tuple[int, list[str]]]:
    """Yield (row number from 1, cells) of a CSV file, without empty lines; `options` are those of `csv.reader`.

    Raises DataError if the file cannot be read or is not CSV, or a row has fewer than `least` cells; if that is
    positive, also if there is no row.
    """
    empty = True
    with open_list(path, encoding, what) as file:
        for number, cells in read_csv(path, file, **options):
            if cells and len(cells) < least:
                raise DataError(f"{path}, row {number}: {len(cells)} cells instead of {least}.")
            if cells:
                empty = False
                yield number, cells
    if empty and least:
        raise DataError(f"{path}: the list is empty.")


def read_table(
    path: Path, columns: Sequence[str], encoding: str = "utf-8-sig", what: str = ""
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (row number, row) of a CSV file with a header, which is row 1.

    Raises DataError if the file cannot be read, lacks one of `columns`, or has a row that is too short. In a list of
    our own, `what` in messages, all columns must differ and all rows be complete.
    """
    rows = read_cells(path, encoding=encoding, what=what)
    _, header = next(rows, (1, []))
    if missing := [column for column in columns if column not in header]:
        lacks = f"{what} lacks the" if what else "no"
        raise DataError(f"{path}: {lacks} column {missing[0]} in the header {','.join(header)[:200]}.")
    if twice := [column for column, count in Counter(header).items() if count > 1 and (what or column in columns)]:
        raise DataError(f"{path}: the column {twice[0]} occurs twice in the header.")
    for number, cells in rows:
        row = dict(zip(header, cells, strict=False))
        if what and len(cells) != len(header):
            raise DataError(f"{path}, row {number}: the number of cells differs from the header.")
        if any(column not in row for column in columns):
            raise DataError(f"{path}, row {number}: fewer cells than the header.")
        yield number, row


def read_json(path: Path) -> Any:
    """Read a published JSON file; raise DataError if it cannot be read, or is not UTF-8 or not JSON."""
    with open_list(path) as file:
        return parse_json(file.read(), str(path))


def read_text_lists(path: Path, what: str) -> dict[str, list[str]]:
    """Read a JSON object of lists of texts; raise DataError as `read_json`, or if it is not `what` for each key."""
    table = read_json(path)
    if not isinstance(table, dict) or not all(
        isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in table.values()
    ):
        raise DataError(f"{path}: not a JSON object with {what}.")
    return table
