"""Files from their public homes: found in the caches, downloaded once, checked.

A file lies in the user's cache under its final name only when it is complete. If its publisher gives a checksum, the
file must match it. Otherwise the checksum of the first download is recorded next to it, and later copies must match
that one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from separation.errors import ModelError
from separation.process import remove, temporary_path
from separation.storage.folders import cache_folder, hub_cache

OFFLINE = ("SEPARATION_OFFLINE", "HF_HUB_OFFLINE")
TIMEOUT = 30.0
HUB_FILE = re.compile(r"https://huggingface\.co/(?:(space|dataset)s/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass(frozen=True)
class RemoteFile:
    """A file in its public home: https address, name in the cache, bytes and published checksum if they are known."""

    url: str
    filename: str
    size: int | None = None
    sha256: str | None = None


class NoConnectionError(ModelError):
    """The network must not be used or does not answer."""


def sha256_of(path: Path) -> str:
    """Return the checksum of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):  # half the time of reading the whole into memory
            digest.update(block)
    return digest.hexdigest()


def hub_snapshots(repository: str, kind: str = "model") -> list[Path]:
    """Return the folders in the local Hugging Face cache with a version of a repository ("owner/name")."""
    return sorted(hub_cache().glob(f"{kind}s--{repository.replace('/', '--')}/snapshots/*"))


@contextmanager
def replace_when_complete(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` and rename it to `path` afterwards; after an error `path` is as it was.

    A device, such as /dev/stdout, is written directly.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = temporary_path(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        remove(partial)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, which appears when it is complete."""
    with replace_when_complete(path) as partial:
        text = json.dumps(value, ensure_ascii=False, indent=1) + "\n"
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")  # surrogates of undecodable names


def find_file(remote: RemoteFile) -> Path | None:
    """Return a published file that is in the user's cache or in the Hugging Face cache, or None."""
    places = [cache_folder() / remote.filename]
    if on_hub := HUB_FILE.match(remote.url):
        places += [folder / unquote(on_hub[4]) for folder in hub_snapshots(on_hub[2], on_hub[1] or "model")]
    return next((place for place in places if place.is_file()), None)


def is_offline(offline: bool | None) -> bool:
    """Return whether the network must not be used; None leaves it to the environment."""
    if offline is None:
        return any(os.environ.get(name, "").strip().lower() in {"1", "true", "yes", "on"} for name in OFFLINE)
    return offline


def fetch(remote: RemoteFile, offline: bool | None = None) -> Path:
    """Return a published file, downloaded if it is in no cache; `offline` None leaves the network to the environment.

    Raises:
        NoConnectionError: the file is in no cache and cannot be downloaded.
        ModelError: the file differs from the published one, or from the one recorded at the first download.
    """
    path = find_file(remote)
    if path is not None:
        verify(path, remote)
        return path
    if is_offline(offline):
        raise NoConnectionError("the network must not be used (offline)")
    try:
        if on_hub := HUB_FILE.match(remote.url):
            from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

            kind, repository, revision, name = on_hub.groups()
            place: Any = {"filename": unquote(name), "repo_type": kind, "revision": revision}
            # Without a network this fails at once; the download would try for half a minute and print each attempt.
            get_hf_file_metadata(hf_hub_url(repository, **place))
            path = Path(hf_hub_download(repository, **place, cache_dir=hub_cache()))
        else:
            path = download(remote)
    except ModelError:
        raise
    except Exception as error:  # urllib and the hub's client raise errors of several libraries
        reason = " ".join(str(error).split())[:120].rstrip(". ") or type(error).__name__
        raise NoConnectionError(f"{remote.url} could not be downloaded ({reason})") from None
    verify(path, remote)
    return path


def download(remote: RemoteFile) -> Path:
    """Download a file over https into the user's cache; it gets its name when it is complete and verified."""
    from urllib.request import urlopen

    from tqdm import tqdm

    path = cache_folder() / remote.filename
    with replace_when_complete(path) as part:
        with urlopen(remote.url, timeout=TIMEOUT) as response, part.open("wb") as file:
            if not response.url.startswith("https://"):
                raise ModelError(f"{response.url} is not used: only https is.")
            size = int(response.headers.get("Content-Length") or 0)
            with tqdm.wrapattr(response, "read", total=size or None, desc=remote.filename, disable=None) as stream:
                shutil.copyfileobj(stream, file)
            if size and file.tell() != size:
                raise OSError(f"the connection ended after {file.tell()} of {size} bytes")
        verify(part, remote)
    return path


def verify(path: Path, remote: RemoteFile) -> None:
    """Compare a file with its published checksum, or with that of its first download; raise ModelError if it differs.

    The result is recorded, so that a file whose size and time have not changed is not read again.
    """
    record_file, stat = cache_folder() / f"{remote.filename}.json", path.stat()
    try:
        record = dict(json.loads(record_file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        record = {}
    if record.get("size") == stat.st_size and record.get("mtime_ns") == stat.st_mtime_ns:
        return
    if remote.size is not None and stat.st_size != remote.size:
        raise ModelError(f"{path} has {stat.st_size} bytes instead of {remote.size}; it was not used: remove it.")
    found, expected = sha256_of(path), remote.sha256 or record.get("sha256")
    if expected and found != expected:
        origin = "published" if remote.sha256 else "recorded at its first download"
        raise ModelError(f"{path} was not used: its checksum is not the one {origin} (sha256 {expected}).")
    if not expected:
        print(f"{remote.filename} is unverified: no checksum is published; recorded sha256 {found}.", file=sys.stderr)
    record = {"url": remote.url, "sha256": found, "verified": bool(remote.sha256)}
    record |= {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    write_json(record_file, record)
