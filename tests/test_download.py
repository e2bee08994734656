"""Fetching a published file from a server on this machine."""

import http.server
import os
import threading
import urllib.error
import urllib.request

import pytest

from separation.cache import OFFLINE, cache_folder
from separation.checkpoints import download
from separation.checkpoints.download import HttpsOnly, NoConnectionError, RemoteFile, fetch, sha256_of
from separation.description import ModelError

HOME = "https://models.example/"
CONTENT = bytes(range(256)) * 40


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `content`, in parts where asked; may stop early."""

    content, tag, cut, ranges, requests = CONTENT, '"one"', None, True, []

    def do_GET(self):
        start, kind = 0, type(self)
        kind.requests.append(dict(self.headers))
        wanted = self.headers.get("Range")
        if kind.ranges and wanted and self.headers.get("If-Range") == kind.tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(kind.content) - 1}/{len(kind.content)}")
        self.send_header("Content-Length", str(len(kind.content) - start))
        self.send_header("ETag", kind.tag)
        self.end_headers()
        self.wfile.write(kind.content[start : kind.cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    """A server, its behaviour, and an opener that reaches it under the public address."""
    kind = type("Own", (Handler,), {"requests": []})
    running = http.server.HTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    local = f"http://127.0.0.1:{running.server_port}/"

    def opener(request):
        url = request.full_url.replace(HOME, local)
        return urllib.request.urlopen(urllib.request.Request(url, headers=dict(request.headers)), timeout=5)

    kind.opener = staticmethod(opener)
    yield kind
    running.shutdown()
    running.server_close()
    thread.join()


REMOTE = RemoteFile(HOME + "a.ckpt", "a.ckpt")


def get(server, folder, remote=REMOTE):
    return fetch(remote, folder, offline=False, opener=server.opener)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_fetched_once_and_recorded(server, tmp_path, capsys):
    folder = tmp_path / "new" / "cache"
    path = get(server, folder)
    assert path.read_bytes() == CONTENT
    assert names(folder) == ["a.ckpt", "a.ckpt.json"]
    record = download.read_record(folder / "a.ckpt.json")
    assert record["sha256"] == sha256_of(path)
    assert record["verified"] is False
    assert fetch(REMOTE, folder, offline=True, opener=None) == path  # no connection any more
    assert len(server.requests) == 1
    said = capsys.readouterr().err
    assert said.startswith("a.ckpt is unverified: no checksum of it is published; its own, sha256 ")
    assert said.count("\n") == 1  # once, at the first download


def test_interrupted_and_resumed(server, tmp_path):
    server.cut = 3000
    with pytest.raises(NoConnectionError, match="ended after 3000 of 10240 bytes"):
        get(server, tmp_path)
    assert names(tmp_path) == ["a.ckpt.part", "a.ckpt.part.tag"]  # nothing under the file's own name
    server.cut = None
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.requests[1]["Range"] == "bytes=3000-"
    assert names(tmp_path) == ["a.ckpt", "a.ckpt.json"]


@pytest.mark.parametrize("change", [{"tag": '"two"', "content": CONTENT[::-1]}, {"ranges": False}])
def test_another_version_is_never_appended(server, tmp_path, change):
    server.cut = 3000
    with pytest.raises(NoConnectionError):
        get(server, tmp_path)
    for name, value in {"cut": None, **change}.items():
        setattr(server, name, value)
    assert get(server, tmp_path).read_bytes() == server.content


def test_published_checksum(server, tmp_path):
    right = RemoteFile(REMOTE.url, "right", sha256=sha256_of(get(server, tmp_path)))
    assert get(server, tmp_path, right).read_bytes() == CONTENT
    assert download.read_record(tmp_path / "right.json")["verified"] is True
    with pytest.raises(ModelError, match="not the one published"):
        get(server, tmp_path, RemoteFile(REMOTE.url, "wrong", sha256="0" * 64))
    assert not [name for name in names(tmp_path) if name.startswith("wrong")]


def test_size(server, tmp_path):
    with pytest.raises(ModelError, match="10240 bytes instead of 7"):
        get(server, tmp_path, RemoteFile(REMOTE.url, "a", size=7))
    assert names(tmp_path) == []


def test_held_to_the_first_download(server, tmp_path):
    path = get(server, tmp_path)
    path.unlink()
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(ModelError, match="recorded at its first download"):
        get(server, tmp_path)
    assert names(tmp_path) == ["a.ckpt.json"]
    server.content = CONTENT
    assert get(server, tmp_path) == path


def test_a_file_that_changed_in_the_cache_is_not_used(server, tmp_path):
    path = get(server, tmp_path)
    path.write_bytes(CONTENT[:-1] + b"!")
    os.utime(path, ns=(1, 1))
    with pytest.raises(ModelError, match="was not used"):
        get(server, tmp_path)


def test_offline(server, tmp_path, monkeypatch):
    with pytest.raises(NoConnectionError, match="offline"):
        fetch(REMOTE, tmp_path, offline=True, opener=server.opener)
    for name in OFFLINE:
        for other in OFFLINE:
            monkeypatch.setenv(other, "1" if other == name else "0")
        with pytest.raises(NoConnectionError, match="offline"):
            fetch(REMOTE, tmp_path, opener=server.opener)
    monkeypatch.setenv("SEPARATION_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert fetch(REMOTE, tmp_path, opener=server.opener).is_file()


def test_only_https(server, tmp_path):
    with pytest.raises(ModelError, match="only https"):
        get(server, tmp_path, RemoteFile("http://models.example/a", "a"))
    request = urllib.request.Request(REMOTE.url)
    with pytest.raises(urllib.error.URLError, match="without encryption"):
        HttpsOnly().redirect_request(request, None, 302, "", None, "http://models.example/b")
    assert HttpsOnly().redirect_request(request, None, 302, "", {}, HOME + "b").full_url == HOME + "b"


def test_server_errors_are_one_sentence(tmp_path):
    def failing(request):
        raise urllib.error.HTTPError(request.full_url, 404, "gone", None, None)

    with pytest.raises(NoConnectionError, match=r"could not be fetched \(the server answers 404\)"):
        fetch(REMOTE, tmp_path, offline=False, opener=failing)
    assert names(tmp_path) == []


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SEPARATION_CACHE", raising=False)
    assert cache_folder() == tmp_path / "separation"
    monkeypatch.setenv("SEPARATION_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
