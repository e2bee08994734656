"""`separate-batch`: equal to `separate`, killed workers and jobs, sources and tables, one Ray cluster for all tests."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import yaml
from tiny import noise, write_model

from separation import batch, cli, ray_processes
from separation.collection import Store, find_sources, number_names, write_journal, write_results
from separation.console.options import parse

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="processes and signals as on Linux"),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='needs "separation[ray]"'),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of Ray's own code, through pickled settings
]
QUERIES = ("--query", "dog barking", "--remove", "rain")

# Loaded by the workers: a file system "disk://", recordings that kill their worker, and a list of what is opened.
CUSTOMIZE = """
    import os, sys
    import fsspec
    fsspec.register_implementation("disk", "disk_store.Disk", clobber=True)
    here = os.path.dirname(__file__)
    def watch(name, arguments):
        if name == "os.rename" and "once." in str(arguments[1]) and not os.path.exists(f"{here}/killed"):
            open(f"{here}/killed", "x").close()  # after the computation, before the outputs appear
            os.kill(os.getpid(), 9)
    sys.addaudithook(watch)
    """
DISK = """
    import os
    from fsspec.implementations.local import LocalFileSystem
    from fsspec.spec import AbstractFileSystem
    class Disk(AbstractFileSystem):
        '''An object store in a folder.'''
        protocol, local = "disk", LocalFileSystem(auto_mkdir=True)
        def __getattribute__(self, name):
            names = ("find", "cat_file", "pipe_file", "put_file", "get_file", "rm_file")
            owner = object.__getattribute__(self, "local") if name in names else super()
            return owner.__getattribute__(name)
        @classmethod
        def _strip_protocol(cls, path):
            return "/" + path.removeprefix("disk://").strip("/")
        def unstrip_protocol(self, path):
            return "disk:/" + path
    """


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A local cluster of two processors, to which runs in this process connect."""
    tools = tmp_path_factory.mktemp("tools")
    (tools / "sitecustomize.py").write_text(textwrap.dedent(CUSTOMIZE))
    (tools / "disk_store.py").write_text(textwrap.dedent(DISK))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tools)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(tools), os.environ["PYTHONPATH"]]))
        for name, value in {**ray_processes.SETTINGS, **ray_processes.LOOPBACK}.items():
            patch.setenv(name, value)
        import fsspec
        import ray

        fsspec.register_implementation("disk", "disk_store.Disk", clobber=True)
        temporary = Path(tempfile.mkdtemp(prefix="r"))  # sockets need a short path
        how = {
            "num_cpus": 2,
            "_temp_dir": str(temporary),
            "include_dashboard": False,
            "object_store_memory": ray_processes.STORE_BYTES,
        }
        try:
            ray_processes.connect(address="local", **how)
        except Exception as error:  # its processes give up if they start slowly
            shutil.rmtree(temporary, ignore_errors=True)
            pytest.skip(f"Ray does not start on this machine: {error}")
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()
        shutil.rmtree(temporary, ignore_errors=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model that finds two sounds in every recording."""
    directory = write_model(tmp_path_factory.mktemp("model") / "tiny")
    config = yaml.safe_load((directory / "config.yaml").read_text())
    config |= {"listing": {"slope": 0.0, "bias": 9.0, "sounds": ["rain", "siren"]}, "presence": {"bias": 9.0}}
    (directory / "config.yaml").write_text(yaml.safe_dump(config))
    return directory


@pytest.fixture
def here(tmp_path, monkeypatch, model):
    """A folder to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODEL", str(model))
    return tmp_path


def save(name, seconds=1.0, seed=0):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(name, noise(seconds, 16000, 2, seed).T.numpy(), 16000)


def run(*arguments, queries=QUERIES):
    return batch.main([*queries, "--model", os.environ["MODEL"], *map(str, arguments)])


def separate(*arguments, queries=QUERIES):
    assert cli.main([*queries, "--model", os.environ["MODEL"], "--threads", "1", "-q", *map(str, arguments)]) == 0


def outputs(folder):
    """The samples of each output; the header of a wav file holds the time."""
    paths = [path for path in Path(folder).rglob("*.*") if path.suffix in (".wav", ".flac")]
    return {
        path.relative_to(folder).as_posix(): soundfile.read(path, dtype="float64")[0].tobytes()
        for path in paths
        if ".separate-batch" not in path.parts
    }


def table(folder):
    import pyarrow.parquet as pq

    return {row["path"]: row for row in pq.read_table(Path(folder, "results.parquet")).to_pylist()}


def states(folder):
    return {name: os.stat(Path(folder, name))[1:9] for name in outputs(folder)}


def test_two_workers_of_which_some_are_killed_give_what_separate_gives(cluster, here, capsys):
    names = ["a/x.wav", "b/once.wav", "b/x.flac", "b/x.wav", "b/\u202ey.flac"]
    for number, name in enumerate(names):
        save(f"in/{name}", seed=number)
    separate("in", "-r", "-o", "plain", "--format", "wav")
    Path("in/text.wav").write_text("text " * 99)
    assert run("in", "out", "--workers", "2", "--format", "wav") == 1
    lines = capsys.readouterr().err.splitlines()
    damaged = "text.wav is damaged or not audio: it cannot be read as .wav (Format not recognised)."
    assert lines[0] == f"separate-batch: {damaged}"
    assert lines[1].endswith(": 5 done, 1 failed.")
    found = outputs("out")
    assert found == outputs("plain")
    assert "b/x.dog_barking.2.wav" in found
    assert not list(Path("out").rglob("*.part"))

    rows = table("out")
    assert list(rows) == sorted([*names, "text.wav"])
    assert {name: row["error"] for name, row in rows.items() if row["error"]} == {
        "text.wav": damaged,
    }
    assert {name for row in rows.values() for name in row["outputs"]} == set(found)
    assert rows["b/once.wav"]["attempts"] == 2
    row = rows["a/x.wav"]
    assert (row["duration"], row["heard"]) == (1.0, None)
    assert row["attempts"] in (1, 2)  # the worker that is killed may have been given this recording as well
    assert [(each["query"], each["target"], each["residual"]) for each in row["sounds"]] == [
        ("dog barking", "a/x.dog_barking.wav", None),
        ("rain", None, "a/x.not_rain.wav"),
    ]
    wave = soundfile.read("out/a/x.dog_barking.wav")[0]
    assert row["sounds"][0]["level"] == pytest.approx(10 * np.log10((wave**2).sum(1).mean()), abs=0.02)
    assert row["level"] == pytest.approx(-20, abs=8)
    assert all(0 <= each["presence"] <= 1 and each["verdict"] for each in row["sounds"])

    assert run("in", "out") == 2
    assert "out holds a run with other options" in capsys.readouterr().err
    assert run("in", "plain") == 2
    assert "plain is not empty" in capsys.readouterr().err


def test_lists_and_object_stores(cluster, here, capsys):
    for number, name in enumerate(["set/a/x.wav", "set/b/x.wav"]):
        save(name, seed=number)
    Path("set/list.csv").write_text("path,split\na/x.wav,train\nb/x.wav,train\ngone.wav,test\n")
    command = f"disk://{here}/set/list.csv", f"disk://{here}/store/out", "--workers", "1"
    assert run(*command) == 1
    assert f"disk://{here}/set/gone.wav cannot be read" in capsys.readouterr().err
    separate("-r", "set", "-o", "plain")
    assert outputs("store/out") == outputs("plain")
    Path("set/list.csv").write_text("path\na/x.wav\nb/x.wav\n")
    before = states("store/out")
    assert run(*command) == 0
    assert capsys.readouterr().err.endswith(": 0 done, 2 skipped because their outputs exist.\n")
    assert states("store/out") == before
    assert not list(Path("store/out").rglob("journal-*"))
    found = find_sources(f"disk://{here}/set", Store("out"), here, print)
    assert {path: each["folder"] for path, each in found.items()} == {"a/x.wav": "a", "b/x.wav": "b"}


def work(source, attempts=0, queries=QUERIES):
    """The row that a worker makes of a recording, in this process."""
    words = [*queries, "--model", os.environ["MODEL"], source, "out"]
    options, requests = parse(words, batch.build_batch_parser())
    options.device, store = "cpu", Store("out")
    sources = find_sources(source, store, Path(), print)
    number_names(sources.values(), [], ["sounds"])
    path, each = next(iter(sources.items()))
    write_journal(store, "journal", {path: {"path": path, "attempts": attempts, "row": None}})
    worker = batch.Worker(options, requests, os.path.abspath("out"), Path("staging").absolute(), os.getcwd())
    rows = [worker({"journal": ["journal"], "files": [json.dumps([each])]}) for _ in range(2)]
    assert rows[0] == rows[1]  # what is finished is not done again
    row = json.loads(rows[0]["row"][0])
    write_results(store, [row], {})
    assert row.items() <= {**table("out")[path], "sounds": row["sounds"], "heard": row["heard"]}.items()
    return table("out")[path]


@pytest.mark.parametrize(
    ("queries", "names"),
    [
        (["--list"], ""),
        (["--all"], "rain rest"),
        (["--gain", "rain=-6", "--gain", "siren=3"], "remix"),
        (["--remove", "rain", "--remove", "siren"], "without"),
        (["--query", "rain", "--residual", "--from", "1"], "not_rain rain"),
    ],
)
def test_files_and_rows_are_those_of_separate(here, capsys, queries, names):
    save("in/x.wav", 3)
    row = work("in", queries=queries)
    separate("in/x.wav", "--json", *["-o", "plain"] * bool(names), queries=queries)
    record = json.loads(capsys.readouterr().out.replace("plain/", ""))
    found = outputs("out")
    assert sorted(found) == [f"x.{name}.wav" for name in names.split()]
    assert found == outputs("plain")
    same = ("outputs", "remix", "rest", "duration", "level", "sounding", "warnings", "error")
    assert {name: row[name] for name in same} == {name: record[name] for name in same}
    sounds = {each["query"]: each for each in row["sounds"]}
    assert row["rest_level"] == record["levels"].pop("remix" if record["remix"] else "rest", None)
    assert (row["rest_level"] is None) == (names in ("", "not_rain rain"))
    for one, many in [("presence", "presence"), ("verdict", "verdict"), ("level", "levels"), ("target", "targets")]:
        assert {name: each[one] for name, each in sounds.items() if each[one] is not None} == record[many]
    heard = [
        [(each["label"], each["probability"], [(span["from"], span["to"]) for span in each["spans"]]) for each in found]
        for found in (row["heard"] or (), record["heard"] or ())
    ]
    assert heard[0] == heard[1]
    where = [each["direction"] and each["direction"].items() for each in row["heard"] or ()]
    assert all(
        not each or each <= other["direction"].items() for each, other in zip(where, record["heard"] or (), strict=True)
    )
    assert bool(heard[0]) == (queries[0] in ("--list", "--all"))


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (["--query-class", "Dog"], "takes no --query-class; it takes --query"),
        (["--query-audio", "none.wav"], "none.wav"),
        (["--query", "rain", "--faithful"], "leave faithful out"),
    ],
)
def test_what_is_refused_is_refused_before_ray_starts(asked, sentence, here, capsys, monkeypatch):
    save("in/x.wav")
    assert cli.main([*asked, "--model", os.environ["MODEL"], "in/x.wav"]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    monkeypatch.setattr(batch, "start_ray", lambda *_: pytest.fail("Ray was started"))
    assert run("in", "out", queries=asked) == 2
    assert capsys.readouterr().err == said.replace("separate:", "separate-batch:")


def test_a_recording_that_ends_its_worker_again_and_again_is_left_out(here):
    save("in/x.wav")
    assert work("in", attempts=2)["error"] is None
    row = work("in", attempts=3)
    assert row["error"] == "x.wav ended its worker 3 times (a crash, or no memory), so it is left out."
    assert row["outputs"] == []


def test_ray_ends_with_a_run_that_is_killed():
    code = """if True:
        from argparse import Namespace
        from contextlib import ExitStack
        from separation.ray_processes import start_ray
        start_ray(Namespace(address=None, workers="1", threads=1, gpus=0.0), 1, ExitStack())
        print("started", flush=True)
        input()
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True, **pipes) as process:
        if process.stdout.readline() != b"started\n":
            pytest.skip("Ray does not start on this machine.")
        processes = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert len(processes) > 3
    assert not psutil.wait_procs(processes, timeout=30)[1]  # without help, its agents live for minutes


def start(*arguments):
    """A run in a process of its own."""
    code = "import sys; from separation.commands import separate_batch; sys.exit(separate_batch())"
    command = [sys.executable, "-c", code, *QUERIES, "--model", os.environ["MODEL"], *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def test_a_killed_job_goes_on_where_it_was(cluster, here, capsys):
    for number in range(10):
        save(f"in/{number}.wav", 8, seed=number)
    done = {}
    for number, status, more in [(signal.SIGKILL, -9, 5), (signal.SIGTERM, 143, 1)]:
        wanted = len(list(Path("out").glob("*.wav"))) + more
        process = start("in", "out", "--workers", "1", "--address", cluster)
        while len(list(Path("out").glob("*.wav"))) < wanted and process.poll() is None:
            time.sleep(0.05)
        if number == signal.SIGKILL:
            process.send_signal(signal.SIGSTOP)
            assert run("in", "out") == 2
            busy = "separate-batch: Another run writes to out; wait, or name another folder.\n"
            assert capsys.readouterr().err == busy
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == status, err
        assert out == ""
        assert err in ("", "separate-batch: ended by SIGTERM; no incomplete files are left.\n")
        assert {name: state for name, state in states("out").items() if name in done} == done
        journals = [journal.read_text() for journal in Path("out/.separate-batch").glob("journal-*")]
        rows = [json.loads(line)["row"] for journal in journals for line in journal.splitlines()]
        now = states("out")
        done = {name: now[name] for row in rows if row for name in row["outputs"]}
        assert done
    finished = {Path(name).name[:1] for name in done}
    save("in/new/0.wav")
    changed, lost = sorted(finished)[:2]
    save(f"in/{changed}.wav", 1.5, seed=9)
    Path(f"out/{lost}.not_rain.wav").unlink()
    assert run("in", "out", "--workers", "1") == 0
    same = {name: state for name, state in done.items() if name[0] not in (changed, lost)}
    assert {name: state for name, state in states("out").items() if name in same} == same
    left = f", {len(finished) - 2} skipped because their outputs exist" if len(finished) > 2 else ""
    assert capsys.readouterr().err.endswith(f": {13 - len(finished)} done{left}.\n")
    assert list(table("out")) == [*(f"{number}.wav" for number in range(10)), "new/0.wav"]
    separate("in", "-r", "-o", "plain")
    assert outputs("out") == outputs("plain")
    assert not list(Path("out").rglob("*.part"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("in",), "Name SOURCE and OUT, not 1 paths."),
        (("in", "out", "--workers", "none"), "--workers is auto or a number from 1, not none."),
        (("in", "out", "--overwrite"), "--overwrite has no meaning for separate-batch."),
        (("in", "out", "--model", "unknown"), "Unknown model"),
        (("in", "nothing://out"), "nothing://out cannot be opened: Protocol not known: nothing."),
        (("gone", "out"), "gone does not exist."),
        (("empty", "out"), "empty contains no audio files."),
    ],
)
def test_wrong_usage(here, capsys, arguments, sentence):
    Path("empty").mkdir()
    save("in/x.wav")
    assert batch.main(["--query", "rain", *arguments]) in (1, 2)
    assert capsys.readouterr().err.startswith(f"separate-batch: {sentence}")
    assert not Path("out").exists()


def test_without_ray(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run("in", "out") == 2
    assert capsys.readouterr().err == (
        'separate-batch: separate-batch needs Ray, which is not installed: pip install "separation[ray]".\n'
    )


def test_help(capsys):
    with pytest.raises(SystemExit):
        batch.main(["--help"])
    out = capsys.readouterr().out
    assert "results.parquet" in out
    assert "--workers" in out
    assert "--overwrite" not in out
