"""The real program with a real, tiny model of random weights: no connection leaves, nothing stays behind."""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import app as page_app
import numpy as np
import pytest
import soundfile
import torch
from tiny import write_model

from separation import ModelError, Separator, read
from separation.models.clipsep_unet import CLIPSepUNet

gradio_client = pytest.importorskip("gradio_client", reason="gradio is not installed: pip install -e '.[demo]'")
Client, handle_file = gradio_client.Client, gradio_client.handle_file

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.filterwarnings("ignore")  # of Gradio's client's own

WATCH = """
import os, sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = arguments[1] if event == "socket.connect" else arguments[0]
        host = address[0] if isinstance(address, tuple) else address
        host = host.decode() if isinstance(host, bytes) else host
        with open(os.environ["WATCH_LOG"], "a") as file:
            file.write(f"{event} {host}\\n")
sys.addaudithook(watch)
"""
FORBIDDEN = "192.0.2.1"  # an address for documentation: nobody is there
HERE = {"127.0.0.1", "::1", "localhost", "None", "0.0.0.0"}


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A model directory that `Separator.from_pretrained` takes."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny", queries=["text"], sample_rate=32000, licence="MIT")


@pytest.fixture(scope="module")
def app(serve, tiny_model, tmp_path_factory):
    """`demos/app.py` under watch: every address that it connects to or looks up is written down."""
    folder = tmp_path_factory.mktemp("watch")
    (folder / "sitecustomize.py").write_text(WATCH, encoding="utf-8")
    temporary = tmp_path_factory.mktemp("temporary")
    server = serve(
        [sys.executable, str(ROOT / "demos" / "app.py"), "--model", str(tiny_model)],
        PYTHONPATH=f"{folder}:{ROOT}", WATCH_LOG=str(folder / "log"), TMPDIR=str(temporary),
    )  # fmt: skip
    server.log, server.temporary = folder / "log", temporary
    return server


def test_a_real_model_gives_what_the_package_gives_and_no_connection_leaves(app, recording, tiny_model, tmp_path):
    client = Client(app.url, verbose=False, download_files=str(tmp_path))
    assert client.predict(api_name="/models")[0]["name"] == "tiny"
    assert len(client.predict(api_name="/sounds")) > 200
    result = client.predict(handle_file(str(recording[0])), "dog barking, rain", api_name="/separate")
    assert [sound["query"] for sound in result["sounds"]] == ["dog barking", "rain"]
    waveform, rate = read(recording[0])
    for sound in result["sounds"]:
        target, residual = (soundfile.read(sound[kind], dtype="float32")[0] for kind in ("target", "residual"))
        expected = Separator.from_pretrained(tiny_model)(waveform, sound["query"], rate)
        assert np.abs(target + residual - recording[1]).max() < 1e-6
        assert np.abs(target - expected.target.numpy().T).max() < 1e-5
        assert sound["presence"] == pytest.approx(expected.presence, abs=1e-3)
    # Another test asks the same server for a forbidden address, which is logged before it is refused.
    hosts = {line.split(maxsplit=1)[1] for line in app.log.read_text(encoding="utf-8").splitlines()} - {FORBIDDEN}
    assert hosts
    assert hosts <= HERE


def test_an_address_elsewhere_is_not_requested(app):
    """Gradio would download a file by its address."""
    address = f"http://{FORBIDDEN}/a.wav"
    data = [{"path": address, "url": address, "meta": {"_type": "gradio.FileData"}}]
    url, headers = f"{app.url}/gradio_api/call/inspect", {"Content-Type": "application/json"}
    with urlopen(Request(url, json.dumps({"data": data}).encode(), headers), timeout=300) as answer:
        event = json.loads(answer.read())["event_id"]
    with urlopen(f"{url}/{event}", timeout=300) as answer:
        assert b"event: error" in answer.read()
    connected = [line for line in app.log.read_text(encoding="utf-8").splitlines() if line.startswith("socket.connect")]
    assert {line.split(maxsplit=1)[1] for line in connected} <= HERE


def test_the_process_cannot_connect_elsewhere():
    code = (
        "import socket, sys; sys.path.insert(0, 'demos')\n"
        "from page.guard import forbid_connections; forbid_connections()\n"
        "for call in (lambda: socket.create_connection(('192.0.2.1', 80), 1),\n"
        "             lambda: socket.gethostbyname('a.example'), lambda: socket.getaddrinfo('a.example', 80)):\n"
        "    try: call()\n"
        "    except PermissionError: print('refused')\n"
        "    except OSError as error: print(type(error))\n"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert output.stdout.split() == ["refused"] * 3, output.stdout + output.stderr


def test_the_remix_script_lists_and_mixes(tiny_model, recording, tmp_path, monkeypatch, capsys):
    out = tmp_path / "remix.wav"
    arguments = [str(recording[0]), str(out), "--model", str(tiny_model), "dog barking=0", "rain=off"]
    monkeypatch.setattr(sys, "argv", ["remix.py", *arguments])
    runpy.run_path(str(ROOT / "demos" / "remix.py"), run_name="__main__")
    waveform, rate = read(recording[0])
    separator, printed = Separator.from_pretrained(tiny_model), capsys.readouterr().out
    expected = separator.remix(waveform, {"dog barking": 0, "rain": -np.inf}, rate).waveform
    assert np.abs(soundfile.read(out, dtype="float32")[0].T - expected.numpy()).max() < 1e-5
    listed = [line for line in printed.splitlines() if line.startswith("may be heard: ")]
    assert len(listed) == len(separator.list_sounds(waveform, rate))
    assert "rain: presence " in printed
    monkeypatch.setattr(sys, "argv", ["remix.py", *arguments[:4], "rain=loud"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "demos" / "remix.py"), run_name="__main__")
    assert capsys.readouterr().err.startswith('"loud" is not a number of decibels')


def test_absent_models_are_listed_with_the_command_that_downloads_them(tiny_model):
    engine = page_app.make_engine([str(tiny_model)], "cpu")
    assert engine.default == "tiny"
    absent = {model["name"]: model for model in engine.absent}
    assert not set(absent) & set(engine.cards)
    if "audiosep" in absent:
        assert absent["audiosep"]["command"] == "separate --model audiosep --query rain mix.wav"
        assert (absent["audiosep"]["size"], "MIT" in absent["audiosep"]["licence"]) == ("1.26 GB", True)
    assert absent["clipsep"]["command"] == "python demos/app.py --model best_model.pt"
    assert absent["clipsep"]["home"].startswith("https://")


def test_a_released_checkpoint_file_is_a_model(tmp_path):
    torch.save(CLIPSepUNet().state_dict(), tmp_path / "mine.pt")
    engine = page_app.make_engine([str(tmp_path / "mine.pt")], "cpu")
    assert engine.default == "mine"
    assert engine.card("mine").queries == ("text", "image", "embedding")
    assert engine.card("mine").sample_rate == 16000
    assert engine.separator("mine").name == "mine"
    (tmp_path / "other.ckpt").write_bytes(b"nothing")
    with pytest.raises(ModelError):
        page_app.make_engine([str(tmp_path / "other.ckpt")], "cpu")


@pytest.mark.parametrize("script", ["api_client.py", "remix.py", "separate_file.py"])
def test_scripts_are_short(script):
    assert len((ROOT / "demos" / script).read_text(encoding="utf-8").splitlines()) < 60


# At a port that is taken, and then as asked; Gradio keeps to the first folder for its own files.
TWICE = """
import os, sys, tempfile, fake_server
for tempfile.tempdir, *sys.argv[1:] in [("first", "--port", os.environ["TAKEN"]), (os.environ["TMPDIR"], "--open")]:
    print("status", fake_server.main(), os.listdir("first"), flush=True)
"""


def test_the_page_starts_on_a_busy_machine_and_a_signal_ends_it_at_once(serve, busy, tmp_path, monkeypatch):
    """A signal removes all files, also while a model is loaded; a port that is taken is one sentence."""
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        pytest.skip("the signal is ignored here, as nohup has it")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "first").mkdir(), (temporary := tmp_path / "second").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        variables = {"TMPDIR": str(temporary), "LOAD_SECONDS": "60", "TAKEN": str(port)}
        variables["PYTHONPATH"] = os.pathsep.join([busy["PYTHONPATH"], str(Path(__file__).parent)])
        server = serve([sys.executable, "-c", TWICE], **busy | variables)
    reason = f"port {port} is in use (choose another one with --port)"
    assert server.lines[0].startswith(f"The page could not be started at 127.0.0.1: {reason}, ")
    assert server.lines[1] == "status 1 []\n"
    server.wait("load double", 300)
    server.wait("No browser could be opened", 300)
    assert server.count("It was opened") == 0
    assert urlopen(server.url, timeout=60).status == 200
    assert len(list(temporary.glob("separation-page-*"))) == 1
    server.process.send_signal(signal.SIGHUP)
    assert server.process.wait(10) == 0
    assert not list(temporary.iterdir())
