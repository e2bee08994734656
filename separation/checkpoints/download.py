"""Fetches a published file once, checks it, and keeps it in the user's cache.

A file that is being fetched has the ending `.part`; an interrupted one is resumed. Under its own name there is only
ever a whole one. Where its publisher gives a checksum it must have that; otherwise its checksum is recorded at the
first download as unverified, and every later copy must have the same. Records outlive the files they speak of.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from separation.cache import cache_folder, is_offline
from separation.description import ModelError
from separation.progress import Progress

BLOCK = 1 << 20
TIMEOUT = 30.0

Opener = Callable[[urllib.request.Request], Any]


@dataclass(frozen=True)
class RemoteFile:
    """A file in its public home.

    Attributes:
        url: https only.
        filename: in the cache.
        size: bytes, where known.
        sha256: as its publisher gives it; None where none is published.
    """

    url: str
    filename: str
    size: int | None = None
    sha256: str | None = None


class NoConnectionError(ModelError):
    """The network may not be used or does not answer."""


class HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirections to https alone."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        """The request to follow with.

        Raises:
            URLError: it would leave https.
        """
        if not newurl.startswith("https://"):
            raise urllib.error.URLError("it redirects to an address without encryption")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def open_https(request: urllib.request.Request) -> Any:
    """The response to a request, over https only."""
    return urllib.request.build_opener(HttpsOnly).open(request, timeout=TIMEOUT)


def fetch(
    remote: RemoteFile,
    folder: Path | None = None,
    offline: bool | None = None,
    opener: Opener = open_https,
) -> Path:
    """The file in the cache, fetched if it is not there yet.

    Args:
        remote: what to fetch.
        folder: instead of `cache_folder()`.
        offline: forbid the network; by default the environment decides.
        opener: makes the connection (tests give their own).

    Raises:
        NoConnectionError: it is not there and cannot be fetched.
        ModelError: what came is not the published file, or not the one recorded before.
    """
    folder = cache_folder() if folder is None else folder
    path = folder / remote.filename
    if path.is_file():
        check(path, remote)
        return path
    if is_offline() if offline is None else offline:
        raise NoConnectionError("the network may not be used (offline)")
    if not remote.url.startswith("https://"):
        raise ModelError(f"{remote.url} is not fetched: only https is.")
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        receive(remote, part, opener)
    except (OSError, EOFError, http.client.HTTPException) as error:  # URLError is an OSError
        if getattr(error, "code", None) == 416:  # nothing lies where the earlier attempt stopped
            part.unlink(missing_ok=True)
        raise NoConnectionError(f"{remote.url} could not be fetched ({reason_of(error)})") from None
    try:
        check(part, remote, record_of(path))
    except ModelError:
        part.unlink(missing_ok=True)
        raise
    os.replace(part, path)
    if remote.sha256 is None:
        known = read_record(record_of(path))["sha256"]
        print(
            f"{remote.filename} is unverified: no checksum of it is published; its own, sha256 {known}, was recorded.",
            file=sys.stderr,
        )
    return path


def reason_of(error: BaseException) -> str:
    """An error's reason in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code}"
    return " ".join(str(getattr(error, "reason", error)).split())[:120] or type(error).__name__


def receive(remote: RemoteFile, part: Path, opener: Opener) -> None:
    """Fetches into `part`, going on where an earlier attempt stopped.

    Raises:
        OSError, EOFError: the connection failed or ended early; what came so far stays in `part`.
    """
    tag = part.with_name(part.name + ".tag")
    request = urllib.request.Request(remote.url, headers={"User-Agent": "separation", "Accept-Encoding": "identity"})
    known = tag.read_text(encoding="utf-8") if tag.is_file() and part.is_file() else ""
    if known and part.stat().st_size:
        request.add_header("Range", f"bytes={part.stat().st_size}-")
        request.add_header("If-Range", known)
    with opener(request) as response:
        start, total = span_of(response)
        if start:
            start = start if start == part.stat().st_size else _refuse(part)
        write_tag(tag, response)
        done = start
        bar = Progress(f"fetching {remote.filename}", total, sys.stderr)
        with open(part, "r+b" if start else "wb") as file:
            file.seek(start)
            while block := response.read(BLOCK):
                file.write(block)
                done += len(block)
                bar.update(done)
            file.flush()
            os.fsync(file.fileno())
        bar.close()
    if total is not None and done != total:
        raise EOFError(f"the connection ended after {done} of {total} bytes")
    tag.unlink(missing_ok=True)


def _refuse(part: Path) -> int:
    part.unlink(missing_ok=True)
    raise EOFError("the server went on at another place than asked; try again")


def span_of(response: Any) -> tuple[int, int | None]:
    """Where a response begins in the file, and the file's size where it is said."""
    if response.status == 206:
        span, _, size = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        begin = span.partition("-")[0]
        return (int(begin) if begin.isdecimal() else -1), (int(size) if size.isdecimal() else None)
    length = response.headers.get("Content-Length") or ""
    return 0, (int(length) if length.isdecimal() else None)


def write_tag(tag: Path, response: Any) -> None:
    """Remembers which version of the file this is, so that another one is never appended to it."""
    version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    if version and not version.startswith("W/"):
        tag.write_text(version, encoding="utf-8")
    else:
        tag.unlink(missing_ok=True)


def record_of(path: Path) -> Path:
    """Where a file's checksum is recorded."""
    return path.with_name(path.name + ".json")


def read_record(file: Path) -> dict[str, Any]:
    """A record, or nothing when there is none."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def sha256_of(path: Path) -> str:
    """A file's checksum."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def check(path: Path, remote: RemoteFile, record_file: Path | None = None) -> None:
    """Holds a file to its published checksum, or to the one recorded at its first download.

    Unchanged files (size and time as recorded) are not read again.

    Raises:
        ModelError: it is another file.
    """
    record_file = record_file or record_of(path)
    record, stat = read_record(record_file), path.stat()
    if record.get("size") == stat.st_size and record.get("mtime_ns") == stat.st_mtime_ns:
        return
    if remote.size is not None and stat.st_size != remote.size:
        raise ModelError(f"{path} has {stat.st_size} bytes instead of {remote.size}; it was not used: remove it.")
    found, expected = sha256_of(path), remote.sha256 or record.get("sha256")
    if expected and found != expected:
        kind = "published" if remote.sha256 else "recorded at its first download"
        raise ModelError(f"{path} was not used: its checksum is not the one {kind} (sha256 {expected}).")
    new = {"url": remote.url, "sha256": found, "verified": bool(remote.sha256)}
    new |= {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    record_file.write_text(json.dumps(new, indent=1) + "\n", encoding="utf-8")
