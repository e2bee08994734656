"""Models on the Hugging Face Hub: loaded, pinned, saved and uploaded, against a local stand-in of its HTTP API."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import yaml
from media import tone
from tiny import write_model

from separation import ModelError, Separator, write
from separation.cli import main
from separation.pretrained import find_model
from separation.storage.download import OFFLINE

REPOSITORY = "someone/rain-model"


class Hub(ThreadingHTTPServer):
    """One repository: `commits` maps commit names to files, the last is that of `main`; `requests` are recorded."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.commits, self.requests, self.large = {}, [], {}
        self.address = f"http://127.0.0.1:{self.server_port}"

    def commit(self, files):
        name = hashlib.sha1(str(len(self.commits)).encode()).hexdigest()
        self.commits[name] = files
        return name


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, content=b"", status=200, **headers):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def missing(self, code):
        self.answer({"error": "missing"}, 404, X_Error_Code=code)

    def do_GET(self):
        path, hub = self.path.partition("?")[0], self.server
        hub.requests.append((self.command, path))
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            if "/".join(parts[2:4]) != REPOSITORY or not hub.commits:
                return self.missing("RepoNotFound")
            commit = parts[5] if len(parts) > 5 and parts[5] in hub.commits else list(hub.commits)[-1]
            files = hub.commits[commit]
            if parts[4:5] == ["tree"]:
                tree = [
                    {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                    for n, c in files.items()
                ]
                return self.answer(tree, Content_Type="application/json")
            siblings = [self.sibling(name, content) for name, content in files.items()]
            return self.answer({"id": REPOSITORY, "sha": commit, "siblings": siblings}, Content_Type="application/json")
        if "/".join(parts[:2]) != REPOSITORY or len(parts) < 5 or not hub.commits:
            return self.missing("RepoNotFound")
        commit = parts[3] if parts[3] in hub.commits else list(hub.commits)[-1]
        content = hub.commits[commit].get("/".join(parts[4:]))
        if content is None:
            return self.missing("EntryNotFound")
        return self.answer(content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=commit)

    do_HEAD = do_GET

    @staticmethod
    def sibling(name, content):
        entry = {"rfilename": name, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
        if name.endswith(".safetensors"):
            entry["lfs"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 100}
        return entry

    def do_POST(self):
        hub = self.server
        hub.requests.append((self.command, self.path))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/repos/create":
            return self.answer({"url": f"{self.server.address}/{REPOSITORY}", "name": REPOSITORY})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = ["lfs" if f["path"].endswith(".safetensors") else "regular" for f in files]
            return self.answer(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": mode, "shouldIgnore": False}
                        for f, mode in zip(files, modes, strict=True)
                    ]
                }
            )
        if self.path.endswith("/objects/batch"):
            address = f"{self.server.address}/upload/"
            return self.answer(
                {
                    "transfer": "basic",
                    "objects": [
                        {**each, "actions": {"upload": {"href": address + each["oid"]}}}
                        for each in json.loads(body)["objects"]
                    ],
                },
                Content_Type="application/vnd.git-lfs+json",
            )
        if "/commit/" in self.path:
            files = {}
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.large[value["oid"]]
            commit = hub.commit(files)
            return self.answer({"commitUrl": f"{hub.address}/{REPOSITORY}/commit/{commit}", "commitOid": commit})
        return self.missing("EntryNotFound")

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.large[self.path.split("/")[-1]] = body
        self.answer()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = Hub()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # a protocol of its own for large files
    for name in OFFLINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub cache"))
    monkeypatch.setenv("SEPARATION_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def published(hub, tmp_path):
    """The address of a repository with a tiny model, and the separator of its directory."""
    folder = write_model(tmp_path / "model", description="rain only", queries=["text"])
    hub.commit({path.name: path.read_bytes() for path in folder.iterdir()})
    return Separator.from_pretrained(folder)


def weights_of(separator):
    return {name: value.clone() for name, value in separator.model.state_dict().items()}


def assert_same_weights(one, other):
    theirs = weights_of(other)
    for name, value in weights_of(one).items():
        torch.testing.assert_close(theirs[name], value, rtol=0, atol=0)


def test_a_repository_is_downloaded_once_and_its_commit_stays(hub, published, tmp_path):
    first = Separator.from_pretrained(REPOSITORY)
    assert first.name == REPOSITORY
    assert_same_weights(first, published)
    hub.requests.clear()
    newer = write_model(tmp_path / "newer", description="newer")
    newest = hub.commit({path.name: path.read_bytes() for path in newer.iterdir()} | {"run.py": b"print()"})
    again = Separator.from_pretrained(REPOSITORY, offline=True)
    assert hub.requests == [] and "rain only" in (again.source / "config.yaml").read_text()
    latest = Separator.from_pretrained(f"{REPOSITORY}@{newest}")
    assert "newer" in (latest.source / "config.yaml").read_text()
    assert not (latest.source / "run.py").exists()


def test_weights_that_differ_from_the_first_download_are_refused(hub, published):
    folder = Separator.from_pretrained(REPOSITORY).source
    weights = (folder / "model.safetensors").resolve()
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(ModelError, match="its checksum is not the one"):
        Separator.from_pretrained(REPOSITORY)


@pytest.mark.parametrize("change", [{"sha256": ...}, {"files": 3}, {"revision": "../.."}, {"files": ["run.py"]}])
def test_a_damaged_record_is_made_anew(hub, published, tmp_path, change):
    Separator.from_pretrained(REPOSITORY)
    [file] = (tmp_path / "cache" / "hub").glob("*.json")
    record = {**json.loads(file.read_text()), **change}
    file.write_text(json.dumps({name: value for name, value in record.items() if value is not ...}))
    assert_same_weights(Separator.from_pretrained(REPOSITORY), published)
    assert set(json.loads(file.read_text())) == {"revision", "files", "sha256"}


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        (REPOSITORY, {"config.yaml": b"{}"}, "holds no model of this package: model.safetensors missing"),
        (REPOSITORY, None, f'There is no folder "{REPOSITORY}", and no model of this name could be downloaded from'),
        ("someone/else", {}, 'There is no folder "someone/else", and no model'),
        ("a/b/c", {}, 'Unknown model "a/b/c"'),
        ("tests/no model", {}, 'Unknown model "tests/no model"'),
    ],
)
def test_what_is_no_model_costs_one_sentence(hub, capsys, tmp_path, name, files, message):
    if files is not None:
        hub.commit(files)
    write(tmp_path / "mix.wav", torch.from_numpy(tone(440.0, 1, 16000)), 16000)
    assert main(["--model", name, "--query", "rain", str(tmp_path / "mix.wav")]) == 2
    printed = capsys.readouterr().err
    assert message in printed and "Traceback" not in printed


def test_offline_names_what_is_missing(hub, published):
    with pytest.raises(ModelError, match=f"offline.*config.yaml and model.safetensors of .*{REPOSITORY} are missing"):
        Separator.from_pretrained(REPOSITORY, offline=True)
    assert hub.requests == []


def test_a_saved_model_equals_the_loaded_one_and_states_no_licence_of_its_own(published, tmp_path):
    published.save_pretrained(tmp_path / "mine")
    assert_same_weights(Separator.from_pretrained(tmp_path / "mine"), published)
    readme = (tmp_path / "mine" / "README.md").read_text()
    assert "licence of the weights | not stated yet" in readme and "license:" not in readme
    assert 'from_pretrained("mine")' in readme and "rain only" in readme
    with pytest.raises(ModelError, match="mine already holds a model"):
        published.save_pretrained(tmp_path / "mine")
    published.save_pretrained(tmp_path / "free", licence="CC BY 4.0", description="all rain")
    config = yaml.safe_load((tmp_path / "free" / "config.yaml").read_text())
    assert config["card"] == {"description": "all rain", "queries": ["text"], "licence": "CC BY 4.0"}
    assert "license: cc-by-4.0" in (tmp_path / "free" / "README.md").read_text()


def test_the_embedded_model_keeps_its_attribution(tmp_path):
    Separator.from_pretrained("small").save_pretrained(tmp_path / "copy")
    original = find_model("small")
    for file in original.glob("*.safetensors"):
        assert (tmp_path / "copy" / file.name).read_bytes() == file.read_bytes()
    assert (tmp_path / "copy" / "ATTRIBUTION.md").read_text() == (original / "ATTRIBUTION.md").read_text()
    assert "license: cc-by-4.0" in (tmp_path / "copy" / "README.md").read_text()


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the hub's client
def test_a_pushed_model_can_be_loaded(hub, published):
    with pytest.raises(ValueError, match="licence of the weights is not stated"):
        published.push_to_hub(REPOSITORY, token="hf_x")
    assert hub.requests == []
    address = published.push_to_hub(REPOSITORY, licence="MIT", token="hf_x")
    assert address.endswith(list(hub.commits)[-1])
    assert sorted(hub.commits[address.split("/")[-1]]) == ["README.md", "config.yaml", "model.safetensors"]
    assert_same_weights(Separator.from_pretrained(REPOSITORY), published)
