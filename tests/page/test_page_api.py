"""The HTTP API of the page, through Gradio's client and plain HTTP."""

import contextlib
import json
import re
import resource
import runpy
import socket
import struct
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
from media import save_media, tone
from page.limits import NO_SPACE

gradio_client = pytest.importorskip("gradio_client", reason="gradio is not installed: pip install -e '.[demo]'")
file = gradio_client.handle_file
ROOT = Path(__file__).resolve().parents[2]
MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}
JSON = {"Content-Type": "application/json"}
PART = b'--x\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n'
END = b"\r\n--x--\r\n"
# A float wav file of 0.5 s at 8 kHz whose samples are NaN.
NAN = b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<IHHIIHH", 16, 3, 1, 8000, 32000, 4, 32)
NAN += b"data" + struct.pack("<I4000f", 16000, *[float("nan")] * 4000)
pytestmark = pytest.mark.filterwarnings("ignore")  # of Gradio and its client


def separate(client, path, queries, **options):
    return client.predict(file(str(path)), queries, **options, api_name="/separate")


def samples(path):
    return soundfile.read(path, dtype="float32")[0]


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
    status, answer = fetch(f"{server.url}/gradio_api/upload", PART % name.encode() + content + END, MULTIPART)
    return status, json.loads(answer)


def begin(server, name, data):
    """The address of the events of a call."""
    url = f"{server.url}/gradio_api/call/{name}"
    return f"{url}/{json.loads(fetch(url, json.dumps({'data': data}).encode(), JSON)[1])['event_id']}"


def error_of(server, path, queries=("half",)):
    """The error of a separation of `path`, which contains no path of the server."""
    recording = {"path": path, "meta": {"_type": "gradio.FileData"}}
    text = fetch(begin(server, "separate", [recording, list(queries), "", "", False, "", ""]))[1].decode()
    assert str(server.temporary) not in text
    assert "root:" not in text
    return json.loads(re.search(r"event: error\ndata: (.*)\n", text).group(1))["error"]


def folders(server):
    """The tokens in the temporary folder of the server."""
    (root,) = Path(server.temporary).glob("separation-page-*")
    return sorted(path.name for path in root.iterdir() if re.fullmatch("[0-9a-f]{32}", path.name))


def test_a_browser_is_named_if_it_was_opened_and_models_are_loaded_afterwards(fake):
    """Proxies, which cannot be reached, change nothing."""
    fake.wait("It was opened in your browser", 300)
    fake.wait("load double", 300)
    starts = [line.split()[0] for line in fake.lines if line.startswith(("The page is at", "load"))]
    assert starts[:2] == ["The", "load"]
    assert fake.count("It was opened") == fake.count(f"asked for {fake.url}") == 1


def test_models_sounds_and_functions_are_described(client):
    first, second = client.predict(api_name="/models")
    assert (first["name"], second["name"]) == ("double", "other")
    assert (first["licence"], first["size"], first["queries"]) == ("MIT", "20 MB", ["text", "audio"])
    assert "rain" in client.predict(api_name="/sounds")
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    names = {"/models", "/sounds", "/inspect", "/listen", "/separate", "/remix", "/picture", "/archive"}
    assert set(endpoints) == names
    parameters = [entry["parameter_name"] for entry in endpoints["/separate"]["parameters"]]
    assert parameters == ["recording", "queries", "model", "without", "remove", "start", "end"]


def test_a_separation_with_all_its_results(client, recording):
    path, mixture = recording
    found = client.predict(file(str(path)), api_name="/listen")
    assert found["seconds"] == 3.0
    assert found["sounds"][0] == {"label": "rain", "probability": 0.9, "times": [[0.0, 2.0]]}
    result = separate(client, path, ["half", "nothing"])
    assert (result["state"], result["seconds"]) == ("done", 3.0)
    hint = "The model probably does not know “nothing”. Nearest sounds: rain (0.50)."
    assert (result["hints"], result["warning"]) == ([hint], None)
    assert [(sound["query"], sound["heard"]) for sound in result["sounds"]] == [("half", True), ("nothing", False)]
    for sound, gain in zip(result["sounds"], (0.5, 0.0), strict=True):
        target = samples(sound["target"])
        assert np.array_equal(target, np.float32(gain) * mixture)
        assert np.abs(target + samples(sound["residual"]) - mixture).max() < 1e-7
    assert result["sounds"][0]["names"]["residual"] == "noise & bmore.not_half.wav"
    assert (result["sounding"], result["sounds"][1]["verdict"]) == (["rain", "door knock"], "absent")
    for gains, factor in (([1.0, 4.0], 1.0), ([0.0, 1.0], 0.5), ([2.5, 0.0], 1.75)):
        mixed = samples(client.predict(result["job"], gains, api_name="/remix"))
        assert np.abs(mixed - factor * mixture).max() < 1e-6
    with zipfile.ZipFile(client.predict(result["job"], api_name="/archive")) as archive:
        stem = "noise & bmore"  # Gradio's client leaves out some characters
        assert {f"{stem}.wav", f"{stem}.half.wav", f"{stem}.not_half.wav"} <= set(archive.namelist())
    assert Path(client.predict(result["job"], 0, api_name="/picture")).read_bytes().startswith(b"\x89PNG")


def test_an_example_recording_and_a_sound_to_exclude(client, recording, tmp_path):
    soundfile.write(tmp_path / "example.wav", np.full(800, 0.25), 8000, subtype="FLOAT")
    queries = [{"audio": file(str(tmp_path / "example.wav")), "name": "like this"}, "half"]
    result = separate(client, recording[0], queries, without="rain")
    assert [sound["query"] for sound in result["sounds"]] == ["like this without rain", "half without rain"]
    for sound, gain in zip(result["sounds"], (0.25, 0.5), strict=True):
        assert np.array_equal(samples(sound["target"]), np.float32(gain) * recording[1])
    with pytest.raises(Exception, match="The model other takes no example recordings"):
        separate(client, recording[0], queries, model="other")


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3", "aiff", "w64"])
def test_formats_of_the_command_are_accepted(client, tmp_path, suffix):
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, 0.1 * np.sin(np.arange(48000) / 20), 48000, format="W64" if suffix == "w64" else None)
    result = separate(client, path, "half")
    assert result["seconds"] == pytest.approx(1.0, abs=0.05)
    assert result["sounds"][0]["presence"] == 1.0


@pytest.mark.parametrize("suffix", ["mp4", "m4a", "mkv"])
def test_of_a_video_its_sound_is_used(client, tmp_path, suffix):
    """As with --sound-only; the file's name would be harmful in a page or a shell."""
    path, pictures = tmp_path / f"<i>$(x); 'film'.{suffix}", 0.0 if suffix == "m4a" else 1.0
    save_media(path, [tone(440, 1, 44100, 2)], codec="aac", seconds_of_pictures=pictures)
    assert client.predict(file(str(path)), api_name="/inspect")["video"] == bool(pictures)
    [sound] = separate(client, path, "half, quarter", remove=True, start="0:00.5")["sounds"]
    assert sound["names"]["residual"].endswith("film'.without.wav")
    cleaned, mixture = samples(sound["residual"]), samples(sound["residual"]) + samples(sound["target"])
    assert np.abs(cleaned[:22050] - mixture[:22050]).max() == 0
    assert np.abs(cleaned[24000:] - 0.25 * mixture[24000:]).max() < 1e-6
    assert 0.2 < np.abs(mixture).max() < 0.4


def test_progress_is_reported_and_cancelling_ends_the_job(client, fake, long_recording):
    before, blocks = folders(fake), fake.count("block")
    job = client.submit(file(str(long_recording[0])), ["slow"], api_name="/separate")
    while not (job.outputs() and job.outputs()[-1]["stage"] == "separating" and job.outputs()[-1]["left"]):
        time.sleep(0.05)
    job.cancel()
    deadline = time.monotonic() + 300
    while len(folders(fake)) > len(before) + 1:  # the upload stays, the result is removed
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert fake.count("block") - blocks < 6  # of six


def test_the_stop_route_ends_a_job(fake, long_recording):
    _, (path,) = upload(fake, "long.wav", long_recording[0].read_bytes())
    events = begin(
        fake, "separate", [{"path": path, "meta": {"_type": "gradio.FileData"}}, ["slow"], "", "", False, "", ""]
    )
    with urllib.request.urlopen(events, timeout=300) as stream:
        token = next(re.findall(rb'"job": ?"([0-9a-f]+)"', line)[0] for line in stream if b'"job"' in line).decode()
        assert json.loads(fetch(f"{fake.url}/stop/{token}", b"")[1]) == {"stopped": True}
        assert "Cancelled." in stream.read().decode()
    assert json.loads(fetch(f"{fake.url}/stop/{token}", b"")[1]) == {"stopped": False}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.wav", b"", "is empty"),
        ("a.wav", b"RIFF nonsense" * 50, "This file"),
        ("a.wav", b"RIFF\x24\0\0\0WAVEfmt ", "This file"),
        ("a.mp3", bytes(range(256)) * 40, "This file"),
        ("a.m3u8", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "no audio that can be read"),
        ("a.wav", b"ffconcat version 1.0\nfile /etc/passwd\n", "This file"),
        ("a.txt", b"hello", "This file"),
        ("a.wav", NAN, "a sample that is NaN"),
    ],
)
def test_files_without_audio_are_refused_with_one_sentence(fake, name, content, reason):
    status, (path,) = upload(fake, name, content)
    assert status == 200
    assert reason in error_of(fake, path)


@pytest.mark.parametrize("path", ["/etc/passwd", f"{ROOT}/demos/mix.wav", "http://127.0.0.1:1/a.wav"])
def test_a_path_that_was_not_uploaded_is_not_read(fake, path):
    error_of(fake, path)  # Gradio gives no reason


def test_the_server_continues_after_an_unexpected_error(client, fake, recording):
    with pytest.raises(Exception, match="Something went wrong on the server; the page itself goes on"):
        separate(client, recording[0], "broken")
    fake.wait("nobody foresaw this", 300)
    assert separate(client, recording[0], "half")["state"] == "done"


@pytest.mark.parametrize(
    ("queries", "model", "reason"),
    [
        (" , ", "", "Say which sounds"),
        (list("abcdefghi"), "", "These are 9 sounds"),
        (["half"], "/etc", "There is no model of this name"),
        ({"a": 1}, "", "Queries must be texts"),
    ],
)
def test_invalid_requests_are_refused(client, recording, queries, model, reason):
    with pytest.raises(Exception, match=reason):
        separate(client, recording[0], queries, model=model)


def test_recordings_that_are_too_long_or_too_large_are_refused(client, fake, tmp_path):
    soundfile.write(tmp_path / "long.flac", np.zeros(8000 * 61), 8000)
    with pytest.raises(Exception, match="too long: this page takes up to 1 minutes"):
        separate(client, tmp_path / "long.flac", "half")
    answer = {"detail": "This file is too large: this page takes up to 12 MB."}
    assert upload(fake, "large.wav", bytes(13_000_000)) == (413, answer)


def test_a_refused_or_interrupted_upload_leaves_nothing_behind(fake):
    def files():
        return {path for path in Path(fake.temporary).rglob("*") if "gradio" not in path.parts}

    url, before = f"{fake.url}/gradio_api/upload", files()
    parts = iter([PART % b"a.wav", bytes(3_000_000), END])  # urllib sends an iterator in chunks, without its length
    status, answer = fetch(url, parts, MULTIPART)
    assert (status, json.loads(answer)) == (411, {"detail": "An upload must declare its Content-Length."})
    assert upload(fake, "a.wav", bytes(13_000_000))[0] == 413
    host, port = fake.url.removeprefix("http://").split(":")
    headers = MULTIPART | {"Host": f"{host}:{port}", "Content-Length": "9000000"}
    lines = [*(": ".join(pair) for pair in headers.items()), "", ""]
    with socket.create_connection((host, int(port))) as connection:  # closed after 3 of 9 MB
        connection.sendall(b"POST /gradio_api/upload HTTP/1.1\r\n" + "\r\n".join(lines).encode() + PART % b"a.wav")
        connection.sendall(bytes(3_000_000))
    assert fetch(url, b"x", {"Content-Type": "text/plain"})[0] == 400
    assert fetch(url, b"no parts", MULTIPART)[0] in (200, 400)
    assert files() == before


def test_a_full_queue_is_refused_and_the_others_are_served(client, long_recording, recording):
    """Four are processed, four wait; the ninth is refused."""
    jobs = [client.submit(file(str(long_recording[0])), ["slow"], api_name="/separate") for _ in range(8)]
    while not all(job.outputs() for job in jobs):
        time.sleep(0.05)
    assert max(job.outputs()[-1]["ahead"] for job in jobs) >= 1
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
    pytest.fail("the queue did not empty")


def test_several_users_at_once_get_their_own_results(client, recording, tmp_path):
    mixtures = [np.float32(0.1 * number) * recording[1] for number in range(1, 5)]
    for number, mixture in enumerate(mixtures):
        soundfile.write(tmp_path / f"{number}.wav", mixture, 44100, subtype="FLOAT")
    jobs = [client.submit(file(str(tmp_path / f"{n}.wav")), ["half"], api_name="/separate") for n in range(4)]
    for mixture, job in zip(mixtures, jobs, strict=True):
        target = samples(job.result(timeout=600)["sounds"][0]["target"])
        assert np.array_equal(target, np.float32(0.5) * mixture)


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        f"/gradio_api/file={ROOT}/demos/app.py",
        "/gradio_api/file=../../../../etc/passwd",
        "/gradio_api/file=http://127.0.0.1:1/x",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/gradio_api/vibe-edit",
        "/gradio_api/stream/a/b/0/playlist.m3u8",
        "/files/..%2f..%2fetc/passwd",
        "/files/" + "0" * 32 + "/mixture.wav",
        "/files/" + "0" * 32 + "/stems.zip",
        "/page/..%2fapp.py",
        "/page/example/99",
        "/docs",
        "/monitoring",
    ],
)
def test_nothing_else_is_served(fake, path):
    status, body = fetch(fake.url + path)
    assert status in (403, 404)
    assert b"root:" not in body
    assert b"import" not in body


def test_pages_of_other_sites_are_refused(fake):
    assert fetch(f"{fake.url}/", headers={"Host": "evil.example"})[0] == 421
    assert fetch(f"{fake.url}/", headers={"Host": "[::1"})[0] == 400
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        assert fetch(f"{fake.url}/page/main.js", headers={"Sec-Fetch-Site": site})[0] == status
    assert fetch(f"{fake.url}/", headers={"Sec-Fetch-Site": "cross-site"})[0] == 200  # somebody followed a link
    body = json.dumps({"data": []}).encode()
    url = f"{fake.url}/gradio_api/call/models"
    for origin, status in (("http://evil.example", 403), ("null", 403), ("http://[::1", 400)):
        assert fetch(url, body, JSON | {"Origin": origin})[0] == status
    assert fetch(url, body, JSON | {"Origin": fake.url})[0] == 200


@pytest.mark.parametrize(("function", "body"), [("models", b"1e999"), ("nothing", b'{"data": []}')])
def test_a_request_without_sense_is_status_400(fake, function, body):
    assert fetch(f"{fake.url}/gradio_api/call/{function}", body, JSON)[0] == 400
    assert fetch(f"{fake.url}/gradio_api/call/models", b'{"data": []}', JSON)[0] == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused(fake, chunked):
    body = b'{"data": ["' + bytes(3_000_000) + b'"]}'
    url = f"{fake.url}/gradio_api/call/models"
    assert fetch(url, iter([body[:1_000_000], body[1_000_000:]]) if chunked else body, JSON)[0] == 413
    assert fetch(f"{fake.url}/forget", bytes(3_000_000))[0] == 413
    assert fetch(url, b'{"data": []}', JSON)[0] == 200


def test_too_many_uploads_at_once_are_refused(fake, recording):
    host, port = fake.url.removeprefix("http://").split(":")
    headers = MULTIPART | {"Host": f"{host}:{port}", "Content-Length": "9000"}
    lines = [*(": ".join(pair) for pair in headers.items()), "", ""]
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            connection = stack.enter_context(socket.create_connection((host, int(port))))
            connection.sendall(b"POST /gradio_api/upload HTTP/1.1\r\n" + "\r\n".join(lines).encode() + PART % b"a.wav")
        deadline = time.monotonic() + 60
        while (status := upload(fake, "a.wav", b"x")[0]) == 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert status == 503
    while (status := upload(fake, "a.wav", b"x")[0]) == 503 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert status == 200


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of Linux")
def test_a_full_disk_is_one_sentence_and_passes(fake, client, recording, tmp_path):
    """No file may be larger than 6 MB for a while, as if the disk were full."""
    for name, times in (("short.wav", 3), ("long.wav", 7)):  # 3.2 and 7.4 MB in 32 bits
        soundfile.write(tmp_path / name, np.tile(recording[1], (times, 1)), 44100, subtype="PCM_16")
    pid, before = fake.process.pid, folders(fake)
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (6_000_000, limits[1]))
    try:
        status, answer = upload(fake, "a.wav", bytes(7_000_000))
        assert (status, answer["detail"]) == (507, NO_SPACE)
        assert folders(fake) == before
        with pytest.raises(Exception, match="There is not enough free disk space"):
            separate(client, tmp_path / "long.wav", "half")
        result = separate(client, tmp_path / "short.wav", "half")
        assert fetch(f"{fake.url}/files/{result['job']}/stems.zip")[0] == 507
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    assert separate(client, tmp_path / "long.wav", "half")["state"] == "done"
    assert fetch(f"{fake.url}/files/{result['job']}/stems.zip")[0] == 200
    assert not [path for path in Path(fake.temporary).rglob("*.part")]


def test_a_client_that_leaves_ends_its_job(fake, long_recording):
    _, (path,) = upload(fake, "long.wav", long_recording[0].read_bytes())
    before, blocks = folders(fake), fake.count("block")
    events = begin(
        fake, "separate", [{"path": path, "meta": {"_type": "gradio.FileData"}}, ["slow"], "", "", False, "", ""]
    )
    with urllib.request.urlopen(events, timeout=300) as stream:
        next(line for line in stream if b'"job"' in line)
    deadline = time.monotonic() + 60
    while len(folders(fake)) > len(before):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert fake.count("block") - blocks < 6  # of six


def test_paths_contain_no_text_of_a_user(fake, client, recording):
    for name in ("../../secret.wav", "..\\secret.wav", "/etc/secret.wav", "secret\x1b[2J.wav", "secret.wav\0"):
        status, (path,) = upload(fake, name, b"x")
        assert (status, Path(path).parent.parent.parent) == (200, Path(fake.temporary))
    _, (path,) = upload(fake, "secret plan; rm -rf ~.wav", recording[0].read_bytes())
    separate(client, recording[0], ["unheard-of words"])
    names = " ".join(str(entry) for entry in Path(fake.temporary).rglob("*"))
    assert not any(word in names for word in ("secret", "unheard", "noise"))
    token = Path(path).parent.name
    assert token in folders(fake)
    assert fetch(f"{fake.url}/forget", token.encode())[0] == 204
    assert token not in folders(fake)


def test_other_interfaces_do_not_answer(fake):
    """Asked from another process, because the tests themselves may connect to this computer only."""
    code = (
        "import socket, sys\n"
        "address = socket.gethostbyname(socket.gethostname())\n"
        "if address.startswith('127.'): sys.exit(3)\n"
        f"try: socket.create_connection((address, {fake.url.rsplit(':', 1)[1]}), 2)\n"
        "except OSError: sys.exit(0)\n"
        "sys.exit(1)\n"
    )
    status = subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, timeout=300).returncode
    if status == 3:
        pytest.skip("this computer has no other address")
    assert status == 0


def run_client(monkeypatch, *arguments):
    """Run the example program in this process."""
    monkeypatch.setattr(sys, "argv", ["api_client.py", *map(str, arguments)])
    runpy.run_path(str(ROOT / "demos" / "api_client.py"), run_name="__main__")


def test_the_example_program_without_a_page(recording, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"^http://127\.0\.0\.1:1 .* cannot be used: [^\n]+$"):
        run_client(monkeypatch, "http://127.0.0.1:1", recording[0], "half")
    assert capsys.readouterr().out == ""


def test_the_example_program_uses_the_api(fake, recording, tmp_path, monkeypatch, capsys):
    run_client(monkeypatch, fake.url, recording[0], "half, nothing", "-o", tmp_path)
    assert capsys.readouterr().out.splitlines() == ["half: presence 1.0 - present", "nothing: presence 0.02 - absent"]
    assert np.array_equal(samples(tmp_path / "noise & bmore.half.wav"), np.float32(0.5) * recording[1])
