"""What all tests share: no network, two threads, and the recordings where somebody has named their folder."""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# Subprocesses inherit these; the blocked sockets below are this process's only.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", MPLBACKEND="agg", ORT_DISABLE_TELEMETRY="1")
if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as processors
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # on a busy machine, threads that spin take most of the time
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))

from separation.compat import import_torchmetrics, make_importable

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell starts what runs in its background so
    signal.signal(signal.SIGINT, signal.default_int_handler)

make_importable()  # tests import Lightning and other packages by themselves
if find_spec("torchmetrics"):
    import_torchmetrics()  # as a training does: without torchvision, whose import takes as long as torch's

if TYPE_CHECKING:
    from separation import Separator

THREADS = 2
# Workers that share the tests begin with these files, so that none of them is left to one worker at the end.
DEAREST = (
    "test_collections.py", "test_page_api.py", "test_page_browser.py", "test_page_app.py", "test_ddp.py", "test_fit.py",
    "test_recipes.py", "test_benchmarks.py", "test_process.py", "test_clipsep.py", "test_resume.py", "test_batch.py",
    "test_live.py", "test_onnx.py", "test_package.py", "test_frozen_separator.py", "test_training.py", "test_docs.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files, whose order is drawn, for workers; see DEAREST."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: [*DEAREST, item.path.name].index(item.path.name))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give both files that use one server to one worker: its start takes as long as half of their tests."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return super()._split_scope(nodeid.replace("/test_page_browser.py", "/test_page_api.py"))

    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_finish() -> None:
    """Keep what was imported out of every later search for garbage: it is most of what there is."""
    gc.collect()
    gc.freeze()


def guarded(function: Any) -> Any:
    """A socket's connect, connect_ex, or a getaddrinfo that refuses every other machine."""

    def call(first: Any, *arguments: Any, **options: Any) -> Any:
        remote = isinstance(first, socket.socket) and first.family in (socket.AF_INET, socket.AF_INET6)
        host = (arguments[0][0] if remote else "localhost") if isinstance(first, socket.socket) else first
        name = host.decode() if isinstance(host, bytes) else str(host or "localhost")
        if name not in ("localhost", "::1") and not name.startswith("127."):
            raise AssertionError(f"A test wanted to reach {name}; tests are offline.")
        return function(first, *arguments, **options)

    return call


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Sockets reach this machine only."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
        patch.setattr(socket, "getaddrinfo", guarded(socket.getaddrinfo))
        yield


@pytest.fixture(scope="session", autouse=True)
def two_threads() -> None:
    """No more threads than the smallest machine has cores; fewer where OMP_NUM_THREADS says so."""
    import torch

    torch.set_num_threads(min(THREADS, torch.get_num_threads()))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real recordings with manifest.csv and validation_mixtures.csv, named by SEPARATION_DATA."""
    name = os.environ.get("SEPARATION_DATA")
    if not name:
        pytest.skip("needs real recordings: SEPARATION_DATA=FOLDER names the folder that holds manifest.csv")
    if not (Path(name) / "manifest.csv").is_file():
        pytest.fail(f"SEPARATION_DATA names {name}, where there is no manifest.csv.")
    return Path(name)


@pytest.fixture(scope="session")
def default() -> Separator:
    """The embedded default, loaded once."""
    from separation import Separator

    return Separator.from_pretrained(device="cpu", precision="float32")


@pytest.fixture(scope="session")
def stems() -> dict[str, Any]:
    """The sounds of the demonstration mixture, rendered once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "demos"))
        from make_mix import stems

        return stems()


@pytest.fixture
def no_sentence_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random vector for each sentence: the sentence encoder's 91 MB stay on the disk."""
    from tiny import vectors

    from separation.encoders.sentence import SentenceEncoder

    monkeypatch.setattr(SentenceEncoder, "_embed", lambda self, texts: vectors(texts, 384))


@pytest.fixture
def few_sounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three procedural sounds in place of all, which take seconds to compute."""
    from separation.data import foley

    monkeypatch.setattr(foley, "SOUNDS", {name: foley.SOUNDS[name] for name in ("rain", "wind", "door knock")})


@pytest.fixture
def hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], Path]:
    """An empty Hugging Face cache, and a function that puts an empty file of a repository into it."""
    folder = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))

    def put(repository: str, filename: str) -> Path:
        file = folder / f"models--{repository.replace('/', '--')}" / "snapshots" / "0" / filename
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        return file

    return put


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder to work in, with a separator that multiplies by a gain in place of every model."""
    from gains import GainSeparator

    from separation import Separator

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Separator, "from_pretrained", lambda *_, **__: GainSeparator())
    return tmp_path
