"""Downloads of published files: complete, checked, once."""

import hashlib
import io
import json
import os
from email.message import Message

import huggingface_hub
import pytest
from media import save_media, tone

from separation import cli
from separation.encoders.base import EncoderError, find_weights
from separation.errors import ModelError
from separation.storage import download
from separation.storage.download import NoConnectionError, RemoteFile, fetch, write_json
from separation.storage.folders import cache_folder, hub_cache

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
REMOTE = RemoteFile("https://models.example/a.ckpt", "a.ckpt")
HUB = RemoteFile("https://huggingface.co/spaces/some/where/resolve/main/x%2Cy/a.ckpt", "a.ckpt")


class Response(io.BytesIO):
    def __init__(self, content, length, url):
        super().__init__(content)
        self.headers, self.url = Message(), url
        self.headers["Content-Length"] = str(length)


class Server:
    """Answers every address with `content`, cut after `cut` bytes, from `url` after a redirection."""

    def __init__(self):
        self.content, self.cut, self.url, self.requests = CONTENT, None, None, 0

    def __call__(self, url, timeout):
        self.requests += 1
        return Response(self.content[: self.cut], len(self.content), self.url or url)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SEPARATION_CACHE", str(tmp_path / "new" / "cache"))
    return tmp_path / "new" / "cache"


@pytest.fixture
def server(monkeypatch, cache):
    answers = Server()
    monkeypatch.setattr("urllib.request.urlopen", answers)
    return answers


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_downloaded_once_and_recorded(server, cache, capsys):
    path = fetch(REMOTE, offline=False)
    assert path == cache / "a.ckpt" and path.read_bytes() == CONTENT
    assert names(cache) == ["a.ckpt", "a.ckpt.json"]
    record = json.loads((cache / "a.ckpt.json").read_text())
    assert (record["sha256"], record["verified"]) == (SHA256, False)
    assert f"a.ckpt is unverified: no checksum is published; recorded sha256 {SHA256}." in capsys.readouterr().err
    assert fetch(REMOTE, offline=True) == path
    assert server.requests == 1
    assert "unverified" not in capsys.readouterr().err


def test_an_interrupted_download_leaves_nothing(server, cache):
    server.cut = 3000
    with pytest.raises(
        NoConnectionError, match=r"a\.ckpt could not be downloaded \(.* ended after 3000 of 10240 bytes"
    ):
        fetch(REMOTE, offline=False)
    server.cut, server.url = None, "http://models.example/b"
    with pytest.raises(ModelError, match="only https is"):  # a redirection
        fetch(REMOTE, offline=False)
    assert names(cache) == []
    server.url = None
    assert fetch(REMOTE, offline=False).read_bytes() == CONTENT


def test_only_the_published_file_is_verified_and_used(server, cache):
    for expected, message in (
        ({"sha256": "0" * 64}, "checksum is not the one published"),
        ({"size": 7}, "has 10240 bytes instead of 7"),
    ):
        with pytest.raises(ModelError, match=message):
            fetch(RemoteFile(REMOTE.url, "wrong", **expected), offline=False)
    assert names(cache) == []
    fetch(RemoteFile(REMOTE.url, "right", len(CONTENT), SHA256), offline=False)
    assert json.loads((cache / "right.json").read_text())["verified"] is True


def test_later_copies_must_match_the_first_download(server, cache):
    path = fetch(REMOTE, offline=False)
    path.unlink()
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(ModelError, match="recorded at its first download"):
        fetch(REMOTE, offline=False)
    assert names(cache) == ["a.ckpt.json"]
    path.write_bytes(server.content)
    os.utime(path, ns=(1, 1))
    with pytest.raises(ModelError, match="was not used"):
        fetch(REMOTE, offline=False)


@pytest.mark.parametrize("variable", ["SEPARATION_OFFLINE", "HF_HUB_OFFLINE", None])
def test_offline(server, cache, monkeypatch, variable):
    for name in download.OFFLINE:
        monkeypatch.setenv(name, "1" if name == variable else "0")
    with pytest.raises(NoConnectionError, match="offline"):
        fetch(REMOTE, offline=None if variable else True)
    monkeypatch.setenv(variable or "SEPARATION_OFFLINE", "0")
    assert fetch(REMOTE).is_file()


def test_files_of_the_hub_are_downloaded_by_its_client_and_checked(cache, monkeypatch, tmp_path):
    calls = []

    def hub(repository, **options):
        calls.append((repository, options))
        (tmp_path / "a.ckpt").write_bytes(CONTENT)
        return str(tmp_path / "a.ckpt")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    assert fetch(HUB, offline=False) == tmp_path / "a.ckpt"
    place = {"filename": "x,y/a.ckpt", "repo_type": "space", "revision": "main", "cache_dir": hub_cache()}
    assert calls == [("some/where", place)]
    with pytest.raises(ModelError, match="instead of 7"):
        fetch(RemoteFile(HUB.url, "b.ckpt", size=7), offline=False)


def test_without_network_the_client_of_the_hub_gives_one_sentence_at_once(cache, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_media(tmp_path / "a.wav", [tone(440, 0.1, 8000)], 8000)
    for name in ("SEPARATION_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    there = "https://127.0.0.1:9"  # these are read from the environment when they are imported
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", there)
    template = there + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    assert cli.main(["--query", "rain", "--model", "audiosep", "a.wav"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "could not be downloaded ([Errno " in err


def test_the_cache_of_the_hub_is_searched_by_repository(cache, hub_cache):
    home = "https://huggingface.co/some/where"
    with pytest.raises(EncoderError, match=f"The weights of X are missing: get a.pt from {home} and put it into "):
        find_weights("a.pt", "X", home)
    found = hub_cache("some/where", "a.pt")
    assert find_weights("a.pt", "X", home) == found
    with pytest.raises(EncoderError):
        find_weights("a.pt", "X", "https://huggingface.co/some/where-else")
    cache.mkdir(parents=True)
    (cache / "a.pt").touch()
    assert find_weights("a.pt", "X", home) == cache / "a.pt"


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SEPARATION_CACHE", raising=False)
    assert cache_folder() == tmp_path / "separation"
    monkeypatch.setenv("SEPARATION_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_json_keeps_names_that_are_no_text(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"path": "b\udcffé.wav"})
    text = (tmp_path / "new" / "a.json").read_text(encoding="utf-8")
    assert "é" in text and json.loads(text) == {"path": "b\udcffé.wav"}
