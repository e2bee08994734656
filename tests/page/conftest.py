"""Servers, clients and a browser for the tests of the page; what is not installed is skipped."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "demos"))
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
]  # fmt: skip
# A busy machine, where Gradio's own look at its address takes longer than the 3 s that it allows; a browser's stand-in.
BUSY = """
import httpx, os, webbrowser
def head(*_, **__): raise httpx.ReadTimeout("busy")
def open(url, *_):
    print("asked for", url, flush=True)
    return bool(os.environ.get("BROWSER_OPENS"))
httpx.head, webbrowser.open = head, open
"""
PROXIES = {f"{scheme}_proxy": "http://127.0.0.1:1" for scheme in ("http", "https", "all", "HTTP", "HTTPS", "ALL")}


class Server:
    """A page in a process of its own; `lines` is what it has printed."""

    def __init__(self, command, **environment):
        self.lines = []
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        line = self.wait(r"The page is at (\S+)", 900)
        self.url = line.group(1).rstrip("/")

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)

    def wait(self, pattern, seconds):
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            for line in list(self.lines):
                if found := re.search(pattern, line):
                    return found
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        pytest.fail(f"the server did not print {pattern}:\n{''.join(self.lines)}")

    def count(self, word):
        return sum(line.startswith(word) for line in list(self.lines))

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self.thread.join(10)
            self.process.stdout.close()


@pytest.fixture(scope="session")
def serve():
    """Starts servers, given a command and variables of its environment."""
    if find_spec("gradio") is None:
        pytest.skip("gradio is not installed: pip install -e '.[demo]'")
    servers = []

    def start(command, **environment):
        servers.append(Server(command, **environment))
        return servers[-1]

    yield start
    for server in servers:
        with contextlib.suppress(ProcessLookupError):
            server.close()


@pytest.fixture(scope="session")
def busy(tmp_path_factory):
    """Variables of a busy machine whose proxies cannot be reached."""
    folder = tmp_path_factory.mktemp("busy")
    (folder / "sitecustomize.py").write_text(BUSY, encoding="utf-8")
    return {"PYTHONPATH": f"{folder}:{ROOT}", **PROXIES}


@pytest.fixture(scope="session")
def fake(serve, busy, tmp_path_factory):
    """The page with a double in the place of the model; a minute and 12 MB at most. Its end leaves no file."""
    script = str(Path(__file__).with_name("fake_server.py"))
    temporary = tmp_path_factory.mktemp("server")
    if os.environ.get("PAGE_MODEL"):  # for pictures of what people see: PAGE_MODEL=default
        script = str(ROOT / "demos" / "app.py")
    command = [sys.executable, script, "--open", "--max-minutes", "1", "--max-megabytes", "12"]
    server = serve(command, TMPDIR=str(temporary), BROWSER_OPENS="1", **busy)
    server.temporary = temporary
    yield server
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10) == 0
    assert not list(temporary.iterdir())


@pytest.fixture(scope="session")
def client(fake, tmp_path_factory):
    """Gradio's client, talking to the fake server."""
    from gradio_client import Client

    return Client(fake.url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium."""
    if find_spec("playwright") is None:
        pytest.skip("playwright is not installed: pip install playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium is installed, so no browser drove the page: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def recording(tmp_path_factory):
    """Three seconds of stereo noise at 44.1 kHz: (path, samples (time, channels))."""
    samples = (0.1 * np.random.default_rng(0).standard_normal((132300, 2))).astype(np.float32)
    path = tmp_path_factory.mktemp("sounds") / "noise & <b>more.wav"
    soundfile.write(path, samples, 44100, subtype="FLOAT")
    return path, samples


@pytest.fixture(scope="session")
def long_recording(tmp_path_factory):
    """Fifty-five seconds, six blocks: (path, samples)."""
    samples = (0.1 * np.random.default_rng(1).standard_normal((55 * 8000, 1))).astype(np.float32)
    path = tmp_path_factory.mktemp("sounds") / "long.wav"
    soundfile.write(path, samples, 8000, subtype="PCM_16")
    return path, samples
