"""Collections of recordings for `separate-batch`: where they are, where results go, and which are done.

Sources and results are in folders or in object stores (addresses of fsspec, such as s3://bucket/folder).
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from separation.audio import formats
from separation.console.inputs import Input, InputFinder, inspect_file
from separation.data.lists import open_list, read_table
from separation.data.manifest import JSON_LINES, read_entries
from separation.errors import AudioError, expand_home, one_sentence, reason
from separation.outputs.names import NAME_BYTES, cut_name
from separation.outputs.origins import Origin, fold
from separation.storage.download import replace_when_complete

LISTS = (".csv", JSON_LINES, ".txt")
RESULTS = "results.parquet"
STATE = ".separate-batch"  # folder of the journals, in that of the outputs


def clean(text: str) -> str:
    """Return text that UTF-8 can hold; bytes of a name that are no text become numbers."""
    return text.encode("utf-8", "xmlcharrefreplace").decode()


def open_address(address: str) -> tuple[Any, str]:
    """Return the file system of an address (None: local) and the path in it; raise AudioError if it is unknown."""
    if "://" not in address:
        return None, os.path.abspath(expand_home(address))
    try:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        files, path = url_to_fs(address)
    except Exception as error:  # a protocol or package that is missing, or what its package raises
        raise AudioError(f"{address} cannot be opened: {one_sentence(error).rstrip('.')}.") from None
    return (None, path) if isinstance(files, LocalFileSystem) else (files, path.rstrip("/"))


def fetch(address: str, path: Path) -> None:
    """Copy a file of an object store to `path`; raise AudioError if that fails."""
    try:
        files, name = open_address(address)
        files.get_file(name, str(path))
    except AudioError:
        raise
    except Exception as error:
        text = reason(error) if isinstance(error, OSError) and error.errno else one_sentence(error)
        raise AudioError(f"{address} cannot be read: {text.rstrip('.') or type(error).__name__}.") from None


class Store:
    """The folder or address of the outputs, in which each file appears when it is complete.

    Attributes:
        folder: None: an object store.
    """

    def __init__(self, address: str) -> None:
        self.files, self.root = open_address(address)
        self.folder = None if self.files else Path(self.root)

    def list_names(self) -> set[str]:
        """Return the names of all files, relative to the folder."""
        if self.folder:
            found = (Path(where, name) for where, _, names in os.walk(self.folder) for name in names)
            return {path.relative_to(self.folder).as_posix() for path in found}
        self.files.invalidate_cache()
        return {name.removeprefix(f"{self.root}/") for name in self.files.find(self.root)}

    def read(self, name: str) -> bytes:
        """Return the content of a file; empty if there is none."""
        try:
            content: bytes = (self.folder / name).read_bytes() if self.folder else self.files.cat_file(self.place(name))
        except FileNotFoundError:
            return b""
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, or replace it."""
        if self.folder:
            with replace_when_complete(self.folder / name) as partial:
                partial.write_bytes(content)
        else:
            self.files.pipe_file(self.place(name), content)

    def publish(self, path: Path, name: str) -> None:
        """Move a complete local file to its place, by renaming it if both are on one disk."""
        if self.folder:
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
        else:
            self.files.put_file(str(path), self.place(name))
            path.unlink()

    def remove(self, names: Iterable[str]) -> None:
        """Remove files, and the folder of the journals if it is empty."""
        for name in names:
            (self.folder / name).unlink(missing_ok=True) if self.folder else self.files.rm_file(self.place(name))

    def place(self, name: str) -> str:
        """Return the path of a name in an object store."""
        return f"{self.root}/{name}"


# Sources


def find_sources(source: str, out: Store, scratch: Path, notice: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Return the recordings of a folder, list, file or address by their path in it.

    Each has `path`, the `address` to read it at, a `version` that changes with its content ("": not known), its
    `folder` in the outputs, and an `error` or None. Raises AudioError or DataError if there are none.
    """
    files, root = open_address(source)
    if PurePosixPath(root).suffix.lower() in LISTS:
        local = Path(root)
        if files:
            fetch(source, local := scratch / PurePosixPath(root).name)
        base = source.rpartition("/")[0] if files else str(local.parent)
        found = [describe(clean(path), join(base, path)) for path in read_list(local)]
    elif files:
        found = []
        suffixes = formats.READABLE | formats.FFMPEG_SUFFIXES
        try:
            listed = files.find(root, detail=True)
        except Exception as error:
            raise AudioError(f"{source} cannot be listed: {one_sentence(error).rstrip('.')}.") from None
        for path, entry in sorted(listed.items()):
            name = path.removeprefix(f"{root}/") if path != root else PurePosixPath(path).name
            shown = not any(part.startswith(".") for part in PurePosixPath(name).parts)
            if shown and PurePosixPath(name).suffix.lower().lstrip(".") in suffixes:
                version = f"{entry.get('size')} {entry.get('ETag') or entry.get('mtime') or entry.get('LastModified')}"
                found.append(describe(clean(name), files.unstrip_protocol(path), version))
    else:
        finder = InputFinder(True, output=out.folder, notice=notice)
        inputs = finder.find([root])
        if len(inputs) == 1 and inputs[0].error and inputs[0].path == Path(root):
            raise AudioError(inputs[0].error.replace(root, source, 1))
        base = root if os.path.isdir(root) else os.path.dirname(root)
        found = [describe(clean(os.path.relpath(each.path, base)), str(each.path), checked=each) for each in inputs]
    if not found:
        raise AudioError(f"{source} contains no recordings.")
    return {each["path"]: each for each in found}


def read_list(path: Path) -> Iterator[str]:
    """Yield the paths in a manifest or another CSV file with a column `path`, JSON lines, or a text file of paths."""
    if path.suffix.lower() == ".csv":
        yield from (row["path"] for _, row in read_table(path, ["path"]) if row["path"])
    elif path.suffix.lower() == JSON_LINES:
        yield from (clip.path for _, clip in read_entries(path))
    else:
        with open_list(path, "utf-8-sig") as file:
            yield from filter(None, (line.rstrip("\r\n") for line in file))


def join(base: str, path: str) -> str:
    """Return the path or address of an entry of a list in the folder or address `base`."""
    return path if "://" in path else f"{base}/{path}" if "://" in base else os.path.join(base, path)


def describe(path: str, address: str, version: str = "", checked: Input | None = None) -> dict[str, Any]:
    """Return one entry of `find_sources`; a local file is looked at."""
    error = None
    if open_local := "://" not in address or address.startswith(("file://", "local://")):
        address = open_address(address)[1]
    if open_local:
        each = checked or inspect_file(Path(address))
        origin = Origin.find(each.path)
        version = f"{origin.size} {origin.modified}" if origin else ""
        error = f"{path} is not a file." if each.piped else each.error and each.error.replace(address, path, 1)
    parts = [part for part in PurePosixPath(path.partition("://")[2] or path).parts[:-1] if part not in ("/", "..")]
    return {"path": path, "address": address, "version": version, "folder": "/".join(parts), "error": error}


def number_names(todo: Iterable[dict[str, Any]], rows: Iterable[dict[str, Any]], parts: list[str]) -> None:
    """Set the `number` of the outputs' names, which differs for recordings whose outputs could have one name.

    Args:
        todo: recordings to process.
        rows: results whose numbers are taken.
        parts: of the outputs' names.
    """
    room = NAME_BYTES - max(len(os.fsencode(part)) for part in parts) - len("not_..123456789.flac")
    step = max(parts.count(part) for part in parts)

    def key(folder: str, path: str) -> tuple[str, str]:
        return fold(folder), fold(cut_name(PurePosixPath(path).stem, room))

    taken: dict[tuple[str, str], set[int]] = {}
    for row in rows:
        taken.setdefault(key(row["folder"], row["path"]), set()).add(row["number"])
    for each in todo:
        used = taken.setdefault(key(each["folder"], each["path"]), set())
        each["number"] = next(number for number in range(1, (len(used) + 1) * step + 1, step) if number not in used)
        used.add(each["number"])


# Results


def read_results(store: Store, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the rows of finished recordings by path, from the results and journals among `names`."""
    rows: dict[str, dict[str, Any]] = {}
    if RESULTS in names:
        import pyarrow.parquet as pq

        rows = {row["path"]: row for row in pq.read_table(io.BytesIO(store.read(RESULTS))).to_pylist()}
    for name in sorted(names):
        if name.startswith(f"{STATE}/journal-"):
            rows |= {path: entry["row"] for path, entry in read_journal(store, name).items() if entry["row"]}
    return rows


def read_journal(store: Store, name: str) -> dict[str, dict[str, Any]]:
    """Return the entries of a journal by path: `attempts`, and `row` when it is finished."""
    return {entry["path"]: entry for entry in map(json.loads, store.read(name).splitlines())}


def write_journal(store: Store, name: str, entries: dict[str, dict[str, Any]]) -> None:
    """Write the entries of a journal."""
    store.write(name, "".join(json.dumps(entry) + "\n" for entry in entries.values()).encode())


def write_results(store: Store, rows: Iterable[dict[str, Any]], about: dict[str, str]) -> None:
    """Write the table of results, in the order of the paths."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number = pa.string(), pa.float64()
    span = pa.struct([("from", number), ("to", number)])
    direction = pa.struct([("pan", number), ("azimuth", number), ("elevation", number), ("confidence", number)])
    heard = pa.struct([("label", text), ("probability", number), ("spans", pa.list_(span)), ("direction", direction)])
    kinds = {"query": text, "presence": number, "verdict": text, "level": number, "target": text, "residual": text}
    sound = pa.struct(list(kinds.items()))
    schema = pa.schema(
        [
            ("path", text), ("version", text), ("folder", text), ("number", pa.int64()), ("outputs", pa.list_(text)),
            ("sounds", pa.list_(sound)), ("heard", pa.list_(heard)), ("sounding", pa.list_(text)), ("remix", text),
            ("rest", text), ("rest_level", number), ("duration", number), ("level", number), ("seconds", number),
            ("attempts", pa.int64()), ("warnings", pa.list_(text)), ("error", text),
        ],
        metadata=about,
    )  # fmt: skip
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: row["path"]), schema=schema)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    store.write(RESULTS, sink.getvalue())


def make_row(source: dict[str, Any], record: dict[str, Any], attempts: int) -> dict[str, Any]:
    """Return the row of a recording from its `Record` as a dictionary."""
    same = ("outputs", "heard", "sounding", "remix", "rest", "duration", "level", "seconds", "warnings", "error")
    row = {name: source[name] for name in ("path", "version", "folder", "number")}
    row |= {name: record[name] for name in same} | {"attempts": attempts}
    row["rest_level"] = record["levels"].get("remix" if record["remix"] else "rest") if record["outputs"] else None
    names = dict.fromkeys([*record["presence"], *record["targets"], *record["residuals"]])
    kinds = {name: name for name in ("presence", "verdict")}
    kinds |= {name: f"{name}s" for name in ("level", "target", "residual")}
    row["sounds"] = [{"query": name} | {kind: record[key].get(name) for kind, key in kinds.items()} for name in names]
    return row
