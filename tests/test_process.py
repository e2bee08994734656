"""How commands begin and end: standard streams that are closed, full or left, signals at any moment, leftovers."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from separation import cli, process, write
from separation.audio.writing import PendingFile

pytestmark = pytest.mark.skipif(os.name != "posix", reason="streams, limits and signals of POSIX")
ROOT = Path(__file__).resolve().parents[1]
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}

# `separate` with a Separator that multiplies and takes `pause` seconds for each block. The audit hook sends the process
# `number` at its event `at`, and counts the events. If `warm`, it runs once for each line of standard input, in a
# process that has torch already, and prints the number of the process and its status.
PROGRAM = """
    import json, os, sys, time
    number, at, pause, events = {number}, {at!r}, 0.0, 0
    def watch(name, arguments):
        global events, number
        events += name != "sys._getframe"
        if number and (events == at or name == at):
            number = os.kill(os.getpid(), number)
    sys.path.insert(0, {tests!r})
    def fork():
        global number, at, pause
        import gc, gains, separation.audio.attaching, separation.console.runner
        gc.collect()
        gc.freeze()  # a search for garbage would copy what is shared
        for line in sys.stdin:
            if pid := os.fork():
                print(pid, flush=True)
                print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
                continue
            sys.argv[1:], number, at, pause, streams, folder, os.environ["TMPDIR"] = json.loads(line)
            os.chdir(folder)
            for descriptor, path in enumerate(streams):
                reader, opened = (None, os.open(path, os.O_RDWR | os.O_CREAT)) if path else os.pipe()
                os.dup2(opened, descriptor)
                reader and os.close(reader)
            if not streams[0]:
                sys.stdin = os.close(0)
            return
        sys.exit()
    {warm} and fork()
    from separation import commands
    def load(*_, **__):
        from gains import GainSeparator, GainStream
        push = GainStream.push
        def slow(self, block):
            print("working", file=sys.stderr, flush=True)
            time.sleep(pause)
            return push(self, block)
        GainStream.push = slow
        return GainSeparator()
    def main():
        from separation import Separator, cli
        Separator.from_pretrained = load
        return cli.main()
    sys.addaudithook(watch)
    sys.modules["program"] = sys.modules["__main__"]
    status = commands.run("separate", "program")
    print(events, file=sys.stderr)
    sys.exit(status)
    """


def start(*arguments, number=0, at=0, warm=False, **options):
    """A process in the current folder whose signals are not ignored, as they are under nohup and in background jobs."""
    settings = {"number": int(number), "at": at, "warm": warm, "tests": str(ROOT / "tests")}
    program = textwrap.dedent(PROGRAM.format(**settings))
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    before = {each: signal.signal(each, signal.SIG_DFL) for each in STATUS}
    try:
        return subprocess.Popen([sys.executable, "-c", program, *arguments], start_new_session=True, **options)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def finish(started):
    """(status, output, messages) of a process."""
    out, err = started.communicate(timeout=120)
    assert "Traceback" not in err
    return started.returncode, out, err


@pytest.fixture(scope="module")
def again():
    """Runs the program in a process that has torch already; gives what `finish` does.

    Streams are paths. None is a closed standard input, or a standard output whose reader has gone. `during` is called
    with the number of the process and the path of its messages while it runs.
    """
    with start(warm=True, stdin=subprocess.PIPE) as parent:

        def run(*arguments, number=0, at=0, pause=0.0, stdin=os.devnull, stdout="", stderr="", during=None):
            place = os.environ["TMPDIR"]
            written = [Path(place).with_name(name) for name in ("stdout", "stderr")]
            for path in written:
                path.write_bytes(b"")
            streams = [stdin, stdout if stdout != "" else str(written[0]), stderr or str(written[1])]
            parent.stdin.write(json.dumps([arguments, number, at, pause, streams, os.getcwd(), place]) + "\n")
            parent.stdin.flush()
            pid = int(parent.stdout.readline())
            try:
                if during:
                    during(pid, written[1])
            finally:
                status = int(parent.stdout.readline())
            out, err = (path.read_text() for path in written)
            assert "Traceback" not in err
            return status, out, err

        yield run
        parent.stdin.close()


def shell(line, **options):
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, **options)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a recording, and an empty one for temporary files."""
    (tmp_path / "work").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    soundfile.write("mix.wav", 0.1 * np.random.default_rng(0).standard_normal(30000), 8000, subtype="FLOAT")
    return tmp_path


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# Standard streams

COMMANDS = {
    "separate": "-m separation.cli --version",
    "separation-data": "-m separation.datasets.command list",
    "separation.evaluate": "-m separation.evaluate --list-protocols",
}


@pytest.mark.parametrize("program", COMMANDS)
def test_output_that_cannot_be_written_is_status_1_and_one_sentence(program):
    command = f"{sys.executable} {COMMANDS[program]}"
    redirections = [">&-", ">/dev/full", "| true", "<&- >&- 2>&-", "2>/dev/full"]
    redirections = redirections[1:2] if program == "separation.evaluate" else redirections  # it imports torch
    line = "; ".join(f"{command} {each}; echo ${{PIPESTATUS[0]}} >&3" for each in redirections)
    _, out, err = shell(f"exec 3>&1; ({line}) >/dev/null")
    assert out.split() == ["1", "1", "1", "1", "0"][: len(redirections)]
    why = ["is closed", "cannot be written: the disk is full"][-min(2, len(redirections)) :]
    assert err.splitlines() == [f"{program}: standard output {each}." for each in why]


def test_no_file_gets_the_number_of_a_closed_stream():
    code = "from separation import process; process.open_streams(); import os; print(os.dup(1)); print(os.dup(1))"
    status, out, err = shell(f'{sys.executable} -c "{code}" <&- 2>&-', cwd=ROOT)
    assert (status, err) == (0, "")
    assert min(map(int, out.split())) > 2


def test_standard_input_that_is_closed(folder, again):
    status, out, err = again("--query", "half", "-", "-o", "out", stdin=None)
    assert (status, out) == (1, "")
    assert err.splitlines()[0] == "separate: standard input is closed."


@pytest.mark.parametrize("arguments", [["mix.wav", "--json"], ["-"]])
def test_a_reader_that_goes_away_ends_quietly(folder, again, arguments):
    status, _, err = again("--query", "half", *arguments, stdin="mix.wav", stdout=None)
    assert status == 1
    assert {line for line in err.splitlines() if not line.isdecimal()} == {"working"}
    assert not files(folder / "temporary")


@pytest.mark.parametrize("arguments", [["mix.wav"], ["-"]])
def test_a_full_standard_output_is_reported(folder, again, arguments):
    status, _, err = again("--query", "half", *arguments, stdout="/dev/full", stdin="mix.wav")
    assert status == 1
    assert "separate: standard output cannot be written: the disk is full." in err.splitlines()


def test_messages_that_cannot_be_written_change_nothing(folder, again):
    status, out, _ = again("--query", "half", "mix.wav", "-v", stderr="/dev/full")
    assert status == 0 and out.startswith("mix.half.wav")


def test_control_characters_are_escaped(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = "a\x1b]2;J\u202e\rb\n.wav"
    assert cli.main(["--query", "x", name]) == 1
    assert capsys.readouterr().err == r"separate: a\x1b]2;J\u202e\rb\n.wav does not exist." + "\n"
    assert process.printable("犬 ü\u3000x\udcff\x9b") == r"犬 ü" + "\u3000" + r"x\udcff\x9b"


# Surroundings


def test_no_home_no_locale_no_writable_folder_for_caches(folder):
    environment = {**os.environ, "HOME": "/proc/none", "PYTHONIOENCODING": "ascii"}
    status, out, err = finish(start("--query", "犬", "mix.wav", "--plot", env=environment))
    assert (status, files(folder / "work")) == (0, ["mix.wav", "mix.犬.png", "mix.犬.wav"])
    assert [line.split("  ")[0] for line in out.splitlines()] == ["mix.\\u72ac.wav", "mix.\\u72ac.png"]
    assert [line for line in err.splitlines() if not line.isdecimal()] == ["working"]


def test_a_query_that_is_not_text_in_the_locale(capsys):
    assert cli.main(["--query", "\udce7\udc8a\udcac", "mix.wav"]) == 2
    assert capsys.readouterr().err == "separate: --query is not text in this locale; LC_ALL=C.UTF-8 may help.\n"


def test_a_user_without_a_home(monkeypatch, capsys):
    def none():
        raise RuntimeError("Could not determine home directory.")

    for name in ("HF_HOME", "HF_HUB_CACHE", "SEPARATION_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", none)
    assert cli.main(["--list-models"]) == 0
    assert "default" in capsys.readouterr().out


def test_no_temporary_folder(folder, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", "/proc/none")
    assert cli.main(["--query", "half", "-"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("separate: No temporary folder can be used: ")
    assert err.count("\n") == 1
    assert cli.main(["--query", "half", "gone.wav"]) == 1  # needs none
    assert capsys.readouterr().err == "separate: gone.wav does not exist.\n"


def test_a_working_folder_that_was_removed(tmp_path):
    line = f"mkdir gone; cd gone; rmdir ../gone; {sys.executable} -m separation.datasets.command list"
    status, out, err = shell(line, cwd=tmp_path)
    assert (status, out, err) == (1, "", "separation-data: the working folder does not exist any more.\n")


# Signals


def test_a_signal_at_any_moment_leaves_all_or_nothing(folder, again):
    """Moments are counted in audit events, such as an import, an opened or renamed file, from start to end."""
    options = ["--query", "half", "--residual", "--overwrite", "mix.wav", "-o", str(folder / "out")]

    status, _, err = again(*options)
    assert status == 0
    finished, total, chance = files(folder / "out"), int(err.split()[-1]), random.Random(0)
    moments = [*(chance.randrange(1, total) for _ in range(8)), "os.rename", "os.remove", "os.link"]
    moments += [(300,), (3000,)]  # in a process that imports torch: before and during that
    for moment, number in zip(moments, itertools.cycle(STATUS), strict=False):
        for old in (folder / "out").glob("[!.]*"):
            old.write_text("old")
        began = time.monotonic()
        if isinstance(moment, tuple):
            status, _, err = finish(start(*options, number=number, at=moment[0]))
        else:
            status, _, err = again(*options, number=number, at=moment)
        assert status == STATUS[number], (moment, err)
        assert err.endswith("; no incomplete files are left.\n")
        assert files(folder / "out") == finished
        assert len({path.read_bytes() == b"old" for path in (folder / "out").glob("[!.]*")}) == 1, moment
        assert not files(folder / "temporary")
        assert time.monotonic() - began < 60


def test_a_signal_during_a_long_call_and_a_second_one(folder, again):
    began = []

    def stop(pid, messages):
        while messages.read_text() != "working\n":
            time.sleep(0.01)
        began.append(time.monotonic())
        os.kill(pid, signal.SIGHUP)
        os.kill(pid, signal.SIGTERM)

    status, *_ = again("--query", "half", "--residual", "--plot", "mix.wav", pause=30.0, during=stop)
    assert status in (129, 143)
    assert time.monotonic() - began[0] < 2.0  # half a second on an idle machine
    assert files(folder / "work") == ["mix.wav"] and not files(folder / "temporary")


def test_an_endless_pipe_is_interrupted_and_its_copy_removed(folder, again):
    def stop(pid, _):
        deadline = time.monotonic() + 60
        while not files(folder / "temporary") and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(pid, signal.SIGTERM)

    os.mkfifo("pipe")
    with subprocess.Popen(["sh", "-c", "exec yes > pipe"]):
        status, *_ = again("--query", "half", "-", stdin="pipe", during=stop)
    assert status == 143
    assert not list((folder / "temporary").iterdir())


def test_a_signal_that_is_ignored_stays_ignored(folder):
    code = (
        "import signal, os, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from separation import process; process.begin('x'); os.kill(os.getpid(), signal.SIGHUP); print('goes on')\n"
        "os.kill(os.getpid(), signal.SIGTERM)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout[:8]) == (143, "goes on\n"[:8] if done.stdout else "")
    assert done.stderr == "x: ended by SIGTERM; no incomplete files are left.\n"


# Leftovers


def test_what_a_killed_process_has_left_is_removed(tmp_path):
    pending = PendingFile(tmp_path / "a.wav")
    name = pending.temporary.name
    pending.discard()
    mine, machine = str(os.getpid()), name.split("-")[1]
    with subprocess.Popen(["true"]) as gone:
        pass
    places = {"gone": name.replace(mine, str(gone.pid)), "alive": name.replace(mine, str(os.getppid()))}
    places["elsewhere"] = places["gone"].replace(machine, "00000000")
    places["visible"] = places["gone"].removeprefix(".")
    (tmp_path / "new").mkdir()
    for each in places.values():
        (tmp_path / "new" / each).touch()
    write(tmp_path / "new" / "b.wav", torch.zeros(1, 10), 8000)
    assert files(tmp_path) == sorted(["b.wav", places["alive"], places["elsewhere"], places["visible"]])
