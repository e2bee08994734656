"""The page's HTTP API, as Gradio's client and as strangers use it."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.filterwarnings("ignore")  # of Gradio's and its client's own


def separate(client, path, queries, **options):
    from gradio_client import handle_file

    return client.predict(handle_file(str(path)), queries, **options, api_name="/separate")


def fetch(url, data=None, headers=None):
    """(status, body) of a plain HTTP request."""
    request = urllib.request.Request(url, data, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def upload(server, name, content):
    """(status, answer) of an upload."""
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    status, answer = fetch(f"{server.url}/gradio_api/upload", body, headers)
    return status, json.loads(answer)


def call(server, name, data):
    """The events of a call over plain HTTP."""
    headers = {"Content-Type": "application/json"}
    body = json.dumps({"data": data}).encode()
    event = json.loads(fetch(f"{server.url}/gradio_api/call/{name}", body, headers)[1])["event_id"]
    text = fetch(f"{server.url}/gradio_api/call/{name}/{event}")[1].decode()
    return [(kind, json.loads(value)) for kind, value in re.findall(r"event: (.*)\ndata: (.*)\n", text)]


def folders(server):
    """What lies in the server's temporary folder."""
    (root,) = Path(server.temporary).glob("separation-page-*")
    return sorted(path.name for path in root.iterdir() if re.fullmatch("[0-9a-f]{32}", path.name))


def test_models_and_sounds_are_listed(client):
    first, second = client.predict(api_name="/models")
    assert first["name"] == "double"
    assert (first["licence"], first["size"], first["queries"]) == ("MIT", "20 MB", ["text", "audio"])
    assert second["name"] == "other"
    assert "rain" in client.predict(api_name="/sounds")


def test_the_api_is_documented(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert set(endpoints) == {
        "/models",
        "/sounds",
        "/inspect",
        "/listen",
        "/separate",
        "/remix",
        "/picture",
        "/archive",
    }
    names = [entry["parameter_name"] for entry in endpoints["/separate"]["parameters"]]
    assert names == ["recording", "queries", "model", "without"]


def test_a_separation_comes_back_whole(client, recording, tmp_path):
    path, samples = recording
    result = separate(client, path, ["half", "nothing"])
    assert result["state"] == "done"
    assert result["seconds"] == 3.0
    assert [(sound["query"], sound["heard"]) for sound in result["sounds"]] == [("half", True), ("nothing", False)]
    for sound, gain in zip(result["sounds"], (0.5, 0.0), strict=True):
        target = soundfile.read(sound["target"], dtype="float32")[0]
        residual = soundfile.read(sound["residual"], dtype="float32")[0]
        assert np.array_equal(target, np.float32(gain) * samples)
        assert np.abs(target + residual - samples).max() < 1e-7
    mixed = soundfile.read(client.predict(result["job"], [0.0, 1.0], api_name="/remix"), dtype="float32")[0]
    assert np.abs(mixed - 0.5 * samples).max() < 1e-6
    with zipfile.ZipFile(client.predict(result["job"], api_name="/archive")) as file:
        assert {"mixture.wav", "half.wav", "not_half.wav", "separation.json"} <= set(file.namelist())
    assert Path(client.predict(result["job"], 0, api_name="/picture")).read_bytes().startswith(b"\x89PNG")


def test_what_may_be_heard_is_listed(client, recording):
    from gradio_client import handle_file

    found = client.predict(handle_file(str(recording[0])), api_name="/listen")
    assert found["seconds"] == 3.0
    assert found["sounds"][0] == {"label": "rain", "probability": 0.9, "times": [[0.0, 2.0]]}


def test_an_example_and_something_to_keep_out(client, recording, tmp_path):
    from gradio_client import handle_file

    soundfile.write(tmp_path / "example.wav", np.full(800, 0.25), 8000, subtype="FLOAT")
    queries = [{"audio": handle_file(str(tmp_path / "example.wav")), "name": "like this"}, "half"]
    result = separate(client, recording[0], queries, without="rain")
    assert [sound["query"] for sound in result["sounds"]] == ["half without rain", "like this without rain"]
    for sound, gain in zip(result["sounds"], (0.5, 0.25), strict=True):
        assert np.array_equal(soundfile.read(sound["target"], dtype="float32")[0], np.float32(gain) * recording[1])
    with pytest.raises(Exception, match="The model other takes no example recordings"):
        separate(client, recording[0], queries, model="other")


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3", "aiff", "w64"])
def test_formats_that_the_command_reads_are_taken(client, tmp_path, suffix):
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, 0.1 * np.sin(np.arange(48000) / 20), 48000, format="W64" if suffix == "w64" else None)
    result = separate(client, path, "half")
    assert result["seconds"] == pytest.approx(1.0, abs=0.05)
    assert result["sounds"][0]["presence"] == 1.0


def test_progress_is_reported_and_cancelling_stops_the_work(client, fake, long_recording):
    from gradio_client import handle_file

    before, blocks = folders(fake), fake.count("block")
    job = client.submit(handle_file(str(long_recording[0])), ["slow"], api_name="/separate")
    while not (job.outputs() and job.outputs()[-1]["stage"] == "separating" and job.outputs()[-1]["left"]):
        time.sleep(0.05)
    job.cancel()
    deadline = time.monotonic() + 300
    while len(folders(fake)) > len(before) + 1:  # the upload stays, what was begun goes when the work has ended
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert fake.count("block") - blocks < 6  # of six


def test_the_stop_route_stops_and_says_so(fake, long_recording):
    _, (path,) = upload(fake, "long.wav", long_recording[0].read_bytes())
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    headers = {"Content-Type": "application/json"}
    body = json.dumps({"data": [file, ["slow"], "", ""]}).encode()
    event = json.loads(fetch(f"{fake.url}/gradio_api/call/separate", body, headers)[1])["event_id"]
    with urllib.request.urlopen(f"{fake.url}/gradio_api/call/separate/{event}", timeout=300) as stream:
        for line in stream:
            if b'"job"' in line:
                token = re.search(rb'"job": ?"([0-9a-f]+)"', line).group(1).decode()
                break
        assert json.loads(fetch(f"{fake.url}/stop/{token}", b"")[1]) == {"stopped": True}
        rest = stream.read().decode()
    assert "Cancelled." in rest
    assert json.loads(fetch(f"{fake.url}/stop/{token}", b"")[1]) == {"stopped": False}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.wav", b"", "is empty"),
        ("a.wav", b"RIFF nonsense" * 50, "This file"),
        ("a.mp3", bytes(range(256)) * 40, "This file"),
        ("a.m3u8", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "no audio that can be read"),
        ("a.txt", b"hello", "This file"),
    ],
)
def test_bad_files_get_one_sentence(fake, name, content, reason):
    status, (path,) = upload(fake, name, content)
    assert status == 200
    kind, message = call(fake, "separate", [{"path": path, "meta": {"_type": "gradio.FileData"}}, ["half"], "", ""])[-1]
    assert kind == "error"
    assert reason in message["error"]
    assert str(fake.temporary) not in json.dumps(message)


def test_the_server_stays_up_when_something_nobody_foresaw_happens(client, fake, recording):
    with pytest.raises(Exception, match="Something went wrong on the server; the page itself goes on"):
        separate(client, recording[0], "broken")
    fake.wait("nobody foresaw this", 300)
    assert separate(client, recording[0], "half")["state"] == "done"


@pytest.mark.parametrize(
    ("queries", "model", "reason"),
    [
        (" , ", "", "Say what to extract"),
        (list("abcdefghi"), "", "These are 9 sounds"),
        (["half"], "/etc", "There is no model of this name"),
        ({"a": 1}, "", "Queries must be texts"),
    ],
)
def test_unusable_questions_are_refused(client, recording, queries, model, reason):
    with pytest.raises(Exception, match=reason):
        separate(client, recording[0], queries, model=model)


def test_limits_are_kept(client, fake, tmp_path):
    long = tmp_path / "long.flac"
    soundfile.write(long, np.zeros(8000 * 61), 8000)
    with pytest.raises(Exception, match="too long: this page takes up to 1 minutes"):
        separate(client, long, "half")
    status, answer = upload(fake, "large.wav", bytes(13_000_000))
    assert status == 413
    assert answer == {"detail": "This file is too large: this page takes up to 12 MB."}


def test_a_refused_or_interrupted_upload_leaves_nothing_behind(fake):
    def files():
        return {path for path in Path(fake.temporary).rglob("*") if "gradio" not in path.parts}

    before = files()
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n'
    parts = iter([head, bytes(3_000_000), b"\r\n--x--\r\n"])  # urllib sends an iterator in chunks, without its length
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    status, body = fetch(f"{fake.url}/gradio_api/upload", parts, headers)
    assert (status, json.loads(body)) == (411, {"detail": "An upload must declare its Content-Length."})
    assert upload(fake, "a.wav", bytes(13_000_000))[0] == 413
    host, port = fake.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:  # closed after 3 of 9 MB
        lines = (f"Host: {host}:{port}", f"Content-Type: {headers['Content-Type']}", "Content-Length: 9000000", "", "")
        connection.sendall(b"POST /gradio_api/upload HTTP/1.1\r\n" + "\r\n".join(lines).encode() + head)
        connection.sendall(bytes(3_000_000))
    assert fetch(f"{fake.url}/gradio_api/upload", b"x", {"Content-Type": "text/plain"})[0] == 400
    assert fetch(f"{fake.url}/gradio_api/upload", b"no parts", headers)[0] in (200, 400)
    assert files() == before


def test_a_full_line_is_refused_and_the_others_are_served(client, fake, long_recording, recording):
    """Four are worked on, four wait; the ninth is told so."""
    from gradio_client import handle_file

    jobs = [client.submit(handle_file(str(long_recording[0])), ["slow"], api_name="/separate") for _ in range(8)]
    while not all(job.outputs() for job in jobs):
        time.sleep(0.05)
    states = [job.outputs()[-1] for job in jobs]
    assert sorted(state["ahead"] for state in states)[-1] >= 1
    with pytest.raises(Exception, match="8 recordings are waiting already"):
        separate(client, recording[0], "half")
    for job in jobs:
        job.cancel()
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            assert separate(client, recording[0], "half")["state"] == "done"
            return
        except Exception as error:
            assert "waiting already" in str(error)
    pytest.fail("the line did not empty")


def test_several_users_at_once_get_their_own(client, recording, tmp_path):
    from gradio_client import handle_file

    paths = []
    for number in range(4):
        paths.append(tmp_path / f"{number}.wav")
        soundfile.write(paths[-1], np.float32(0.1 * (number + 1)) * recording[1], 44100, subtype="FLOAT")
    jobs = [client.submit(handle_file(str(path)), ["half"], api_name="/separate") for path in paths]
    for number, job in enumerate(jobs):
        target = soundfile.read(job.result(timeout=600)["sounds"][0]["target"], dtype="float32")[0]
        assert np.array_equal(target, np.float32(0.5) * (np.float32(0.1 * (number + 1)) * recording[1]))


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        f"/gradio_api/file={ROOT}/demos/app.py",
        "/gradio_api/file=../../../../etc/passwd",
        "/gradio_api/file=http://127.0.0.1:1/x",
        "/files/..%2f..%2fetc/passwd",
        "/files/" + "0" * 32 + "/mixture.wav",
        "/page/..%2fapp.py",
        "/page/example/99",
        "/files/" + "0" * 32 + "/stems.zip",
        "/docs",
        "/monitoring",
        "/gradio_api/proxy=http://127.0.0.1:1/",
    ],
)
def test_nothing_else_is_served(fake, path):
    status, body = fetch(fake.url + path)
    assert status in (403, 404)
    assert b"root:" not in body
    assert b"import" not in body


@pytest.mark.parametrize("path", ["/etc/passwd", f"{ROOT}/demos/mix.wav", "http://127.0.0.1:1/a.wav"])
def test_a_path_that_was_not_uploaded_is_not_read(fake, path):
    kind, message = call(fake, "separate", [{"path": path, "meta": {"_type": "gradio.FileData"}}, ["half"], "", ""])[-1]
    assert kind == "error"
    assert "root:" not in json.dumps(message)


def test_pages_of_other_sites_are_kept_out(fake):
    assert fetch(f"{fake.url}/", headers={"Host": "evil.example"})[0] == 421
    body = json.dumps({"data": []}).encode()
    headers = {"Origin": "http://evil.example", "Content-Type": "application/json"}
    assert fetch(f"{fake.url}/gradio_api/call/models", body, headers)[0] == 403


def test_no_word_of_a_person_stands_in_a_path(fake, client, recording):
    _, (path,) = upload(fake, "secret plan; rm -rf ~.wav", recording[0].read_bytes())
    separate(client, recording[0], ["unheard-of words"])
    names = " ".join(str(entry) for entry in Path(fake.temporary).rglob("*"))
    assert "secret" not in names
    assert "unheard" not in names
    assert "noise" not in names
    token = Path(path).parent.name
    assert token in folders(fake)
    assert fetch(f"{fake.url}/forget", token.encode())[0] == 204
    assert token not in folders(fake)


def test_other_interfaces_do_not_answer(fake):
    """Asked from a process of its own, for the tests themselves may not connect anywhere but here."""
    port = int(fake.url.rsplit(":", 1)[1])
    code = (
        "import socket, sys\n"
        "address = socket.gethostbyname(socket.gethostname())\n"
        "if address.startswith('127.'): sys.exit(3)\n"
        f"try: socket.create_connection((address, {port}), 2)\n"
        "except OSError: sys.exit(0)\n"
        "sys.exit(1)\n"
    )
    status = subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, timeout=300).returncode
    if status not in (0, 3):
        pytest.fail("the page answers at another address than this computer's own")
    if status == 3:
        pytest.skip("this computer has no other address")


def test_the_program_in_demos_uses_the_api(fake, recording, tmp_path):
    command = [sys.executable, str(ROOT / "demos" / "api_client.py"), fake.url, str(recording[0]), "half, nothing"]
    output = subprocess.run([*command, "-o", str(tmp_path)], capture_output=True, text=True, timeout=600)
    assert output.returncode == 0, output.stderr
    assert "not heard in this recording" in output.stdout
    target = soundfile.read(tmp_path / "half.wav", dtype="float32")[0]
    assert np.array_equal(target, np.float32(0.5) * recording[1])
