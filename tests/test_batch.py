"""Runs of `separate` over many files: names that meet, continued and killed runs, work in parallel, the summary."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from gains import GainSeparator
from tiny import noise, tiny_separator

from separation import Separator, cli
from separation.audio import AudioError, writing
from separation.console import progress
from separation.outputs.origins import INDEX

RATE = 8000


def save(name, level=0.1, seconds=0.5, **options):
    """A constant of this level, by which its outputs are told apart."""
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(name, np.full((round(seconds * RATE), 1), level, np.float32), RATE, **options)


def levels(where="out"):
    """The level of each output, which is half of its recording's."""
    paths = sorted(path for path in Path(where).rglob("[!.]*") if path.is_file())
    return {path.relative_to(where).as_posix(): round(float(soundfile.read(path)[0][0]), 3) for path in paths}


def run(*arguments):
    return cli.main(["--query", "half", *map(str, arguments)])


# Recordings of one name


@pytest.mark.parametrize("names", [("a/x.wav", "b/x.wav"), ("a/X.wav", "b/x.wav"), ("a/x.wav", "a/x.flac")])
@pytest.mark.parametrize("options", [("--overwrite",), ("--skip-existing",), ("--skip-existing", "--overwrite"), ()])
def test_later_runs_never_replace_or_take_the_output_of_another_recording(folder, capsys, names, options):
    first, second = names
    save(first, 0.2)
    save(second, 0.4)
    assert run("--format", "wav", first, "-o", "out") == 0
    stem = Path(first).stem
    assert levels() == {f"{stem}.half.wav": 0.1}
    for _ in range(2 if options else 1):
        assert run("--format", "wav", second, "-o", "out", *options) == 0
        assert levels() == {f"{stem}.half.wav": 0.1, f"{Path(second).stem}.half.2.wav": 0.2}
    assert f"was made from another recording, so that of {second} is called" in capsys.readouterr().err


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a"), ("b",), ("a",)])
def test_numbers_stay_with_their_recordings_whatever_is_named_later(folder, capsys, order):
    for number, name in enumerate("ab", 1):
        save(f"{name}/sub/x.wav", 0.2 * number)
    assert run("-r", "a", "b", "-o", "out") == 0
    expected = {"sub/x.half.wav": 0.1, "sub/x.half.2.wav": 0.2}
    assert levels() == expected
    capsys.readouterr()
    assert run("-r", *order, "-o", "out", "--skip-existing", "--json") == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["skipped"] for line in out.splitlines()] == [True] * len(order)
    assert "is called" not in err
    Path("out/sub/x.half.wav").unlink()
    assert run("-r", *order, "-o", "out", "--skip-existing") == 0
    assert levels() == (expected if "a" in order else {"sub/x.half.2.wav": 0.2})


def test_recordings_beside_each_other_that_differ_in_their_suffix(folder):
    save("x.wav", 0.2)
    save("x.flac", 0.4)
    assert run("--format", "ogg", "x.wav") == 0
    assert run("--format", "ogg", "x.flac", "--overwrite") == 0
    assert sorted(path.name for path in Path().glob("*.ogg")) == ["x.half.2.ogg", "x.half.ogg"]
    save("alone/y.wav")
    assert run("alone/y.wav") == 0
    assert not Path("alone", INDEX).exists()  # nothing to tell apart, so nothing is put beside recordings


def test_outputs_that_are_out_of_date_are_named_and_with_overwrite_replaced(folder, capsys):
    for name in ("x", "y"):
        save(f"in/{name}.wav", 0.2)
    command = ("-r", "in", "-o", "out", "--skip-existing")
    assert run(*command) == 0
    save("in/x.wav", 0.6, seconds=0.6)
    assert run(*command) == 1
    err = capsys.readouterr().err
    assert "out/x.half.wav was made before in/x.wav changed. Add --overwrite to replace it." in err
    assert err.endswith(": 0 done, 1 failed, 1 skipped because their outputs exist.\n")
    assert run(*command, "--overwrite") == 0
    assert levels() == {"x.half.wav": 0.3, "y.half.wav": 0.1}
    assert run(*command, "--residual", "-q") == 1  # the residuals are missing, the targets exist
    assert "already exists" in capsys.readouterr().err
    assert run(*command, "--to", "0.4") == 1
    assert "out/y.half.wav was made with other options. Add --overwrite" in capsys.readouterr().err
    assert run(*command, "--to", "0.4", "--overwrite") == 0
    assert run(*command, "--to", "0.4") == 0


def test_a_moved_source_is_the_same_and_a_damaged_or_missing_record_counts_names(folder):
    save("in/x.wav", 0.2)
    assert run("-r", "in", "-o", "out") == 0
    os.rename("in", "moved")
    assert run("-r", "moved", "-o", "out", "--skip-existing", "-q") == 0
    assert list(levels()) == ["x.half.wav"]
    with open(Path("out", INDEX), "a") as index:
        index.write('\n{"output": "x.half.wav", "inp')
    assert run("-r", "moved", "-o", "out", "--skip-existing", "-q") == 0
    Path("out", INDEX).write_bytes(b"\xff\n[]\n{}\n1")
    assert run("-r", "moved", "-o", "out", "--skip-existing", "-q") == 0
    assert list(levels()) == ["x.half.wav"]


def test_python_and_the_command_share_their_guards(folder):
    save("a/x.wav", 0.2)
    save("b/x.wav", 0.4)
    assert run("a/x.wav", "-o", "out") == 0
    file = tiny_separator().separate_file("b/x.wav", gains={"half": 3}, output="out")
    assert file.outputs == [Path("out/x.remix.wav")]
    for _ in range(2):
        file = tiny_separator().separate_file("b/x.wav", "half", output="out", overwrite=True)
        assert file.outputs == [Path("out/x.half.2.wav")]
    with pytest.raises(AudioError, match=r"already exists\. Add overwrite=True"):
        tiny_separator().separate_file("b/x.wav", "half", output="out")
    assert levels()["x.half.wav"] == 0.1


def test_timelines_of_recordings_of_one_name(folder):
    pytest.importorskip("matplotlib")
    save("a/x.wav")
    save("b/x.wav", 0.2)
    for name in ("a/x.wav", "b/x.wav", "b/x.wav"):
        assert cli.main(["--list", "--plot", "--overwrite", "-q", name, "-o", "out"]) == 0
    assert sorted(path.name for path in Path("out").glob("[!.]*")) == ["x.sounds.2.png", "x.sounds.png"]


def test_a_span_behind_the_end_is_a_warning_in_the_record(folder, capsys):
    save("x.wav")
    assert run("--from", "7", "--residual", "--json", "x.wav") == 0
    out, err = capsys.readouterr()
    sentence = "x.wav ends at 0.5 s, before the span begins (7 s), so nothing is changed."
    assert json.loads(out)["warnings"] == [sentence]
    assert err == f"separate: warning: {sentence}\n"


# What is passed over, and the summary


def test_outputs_of_other_queries_are_no_inputs_where_their_recordings_are(folder, capsys):
    save("in/x.wav", 0.2)
    assert run("-r", "in", "-o", "in/out") == 0
    assert cli.main(["--remove", "all", "--remove", "double", "in/x.wav"]) == 0
    capsys.readouterr()
    assert cli.main(["--query", "quarter", "-r", "in", "-o", "new", "--json"]) == 0
    out, err = capsys.readouterr()
    records = [json.loads(line) for line in out.splitlines()]
    passed = {"in/x.without.wav": "an output of an earlier run", "in/out/x.half.wav": "an output of an earlier run"}
    assert [record["input"] for record in records if not record["passed_over"]] == ["in/x.wav"]
    assert {each["input"]: each["passed_over"] for each in records if each["passed_over"]} == passed
    assert err.endswith(": 1 done; 2 passed over.\n")
    assert cli.main(["--query", "quarter", "-r", "in/out", "-o", "second"]) == 0  # a second step, without the recording
    assert list(levels("second")) == ["x.half.quarter.wav"]


def test_thousands_that_are_passed_over_are_short_and_v_and_json_name_all(folder, capsys):
    save("in/x.wav")
    for number in range(3000):
        Path(f"in/{number}.txt").touch()
    assert run("-r", "in", "-o", "out", "-v") == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines[0]) < 300
    assert lines[0].endswith(" and 2997 more; -v names all.")
    assert sum(line.startswith("separate: passed over in/") for line in lines) == 3000
    assert lines[-1].endswith(": 1 done; 3000 passed over.")
    assert run("-r", "in", "-o", "out", "--json", "--overwrite") == 0
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 2
    records = [json.loads(line) for line in out.splitlines()]
    assert len(records) == 3001
    assert len({tuple(record) for record in records}) == 1


@pytest.mark.parametrize("options", [("--query", "half"), ("--list",), ("--all",), ("--remove", "half")])
def test_records_have_the_same_keys_whatever_happens(folder, capsys, options):
    save("x.wav")
    Path("text.wav").write_text("text " * 99)
    assert cli.main([*options, "x.wav", "text.wav", "gone.wav", "--json"]) == 1
    keys = {tuple(json.loads(line)) for line in capsys.readouterr().out.splitlines()}
    assert len(keys) == 1
    assert {"outputs", "heard", "rest", "remix", "skipped", "passed_over", "error"} < set(keys.pop())


def test_one_line_shows_the_whole_run_and_never_mixes_with_results(folder, capsys, monkeypatch):
    class Terminal:
        written = ""

        def write(self, text):
            self.written += text

        def flush(self):
            pass

        def isatty(self):
            return True

    for number in range(3):
        save(f"in/{number}.wav")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "PROGRESS_DELAY", 0.0)
    monkeypatch.setattr(progress, "REDRAW_SECONDS", 0.0)
    assert run("-r", "in", "-o", "out") == 0
    lines = [line for line in terminal.written.replace("\n", "\r").split("\r") if line.strip()]
    assert any("left  file 3 of 3  separating in/2.wav" in line for line in lines)
    assert lines[-1].startswith("separate: 3 files in 0:")
    before = terminal.written[: terminal.written.index("separate: 3 files")]
    assert before.endswith("\r")  # the line was removed first
    assert capsys.readouterr().out.count("\n") == 3


# In parallel


def test_parallel_runs_give_the_same_samples_in_the_same_order(folder, monkeypatch, capsys):
    double = tiny_separator()
    monkeypatch.setattr(Separator, "from_pretrained", lambda *_, **__: double)
    for number, suffix in enumerate(("wav", "flac", "ogg", "wav", "mp3")):
        soundfile.write(f"{number}.{suffix}", noise(1.5, RATE, 1, number).T.numpy(), RATE)
    Path("3.wav").write_text("damaged " * 99)
    names = [path.name for path in sorted(Path().glob("?.*"))]
    found = {}
    for jobs in (1, 2, 4):
        command = ["--query", "dog", "--residual", "--json", "--jobs", jobs, *names, "-o", f"out{jobs}"]
        assert cli.main(list(map(str, command))) == 1
        out, err = capsys.readouterr()
        assert [json.loads(line)["input"] for line in out.splitlines()] == names
        assert "3.wav is damaged or not audio" in err.splitlines()[0]
        assert err.endswith(": 4 done, 1 failed.\n")
        paths = sorted(Path(f"out{jobs}").glob("[!.]*"))
        found[jobs] = {path.name: soundfile.read(path)[0].tobytes() for path in paths}
    assert len(found[1]) == 8
    assert found[1] == found[2] == found[4]


def test_reading_and_writing_run_beside_the_computation(folder, monkeypatch):
    seen = []
    for name in ("a", "b", "c"):
        save(f"{name}.wav", subtype="PCM_16")
    finish, measure = writing.Writer.finish, GainSeparator.measure
    monkeypatch.setattr(writing.Writer, "finish", lambda self: seen.append(threading.current_thread()) or finish(self))
    monkeypatch.setattr(
        GainSeparator, "measure", lambda self, *given: seen.append(threading.current_thread()) or measure(self, *given)
    )
    assert run("a.wav", "b.wav", "c.wav", "--jobs", "1", "-o", "out1", "-q") == 0
    assert set(seen) == {threading.main_thread()}
    seen.clear()
    assert run("a.wav", "b.wav", "c.wav", "-o", "out2", "-q") == 0
    assert len(seen) == 6
    assert seen.count(threading.main_thread()) <= 2  # files that are prepared before the model is loaded
    assert cli.main(["--query", "half", "--jobs", "0", "a.wav"]) == 2


def test_an_error_while_an_output_is_finished_costs_only_that_file(folder, monkeypatch, capsys):
    finish = writing.Writer.finish

    def fail(self):
        if self.path.name.startswith("b"):
            raise AudioError(f"{self.path} cannot be written: the disk is full.")
        finish(self)

    monkeypatch.setattr(writing.Writer, "finish", fail)
    for name in ("a", "b", "c"):
        save(f"in/{name}.wav", 0.2)
    assert run("-r", "in", "-o", "out") == 1
    out, err = capsys.readouterr()
    assert list(levels()) == ["a.half.wav", "c.half.wav"]
    assert "out/b.half.wav cannot be written: the disk is full." in err
    assert [line.split()[0] for line in out.splitlines()] == ["out/a.half.wav", "out/c.half.wav"]
    assert sorted(path.name for path in Path("out").glob(".*")) == [INDEX]


# Killed runs

PROGRAM = """
    import sys, time
    sys.path.insert(0, {tests!r})
    from gains import GainSeparator, GainStream
    from separation import Separator, cli, commands, process
    from separation.audio import writing
    Separator.from_pretrained = lambda *_, **__: GainSeparator()
    close = writing.Writer._close
    def slow(self):
        print("writing " + self.path.name + "\\n", end="", flush=True)  # whole lines, though two threads write them
        time.sleep(0 if self.path.name.startswith("a") else 30)
        close(self)
    writing.Writer._close = slow
    process.begin("separate")
    sys.exit(process.call("separate", cli.main))
    """


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_run_leaves_only_hidden_files_and_the_next_one_removes_them(folder, capsys, number, jobs):
    for name in ("a", "sub/b", "sub/deep/c"):
        save(f"in/{name}.wav", 0.2)
    code = textwrap.dedent(PROGRAM.format(tests=str(Path(__file__).parent)))
    command = ["--query", "half", "--residual", "-r", "in", "-o", "out"]
    arguments = [sys.executable, "-c", code, *command, "--jobs", str(jobs)]
    started = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    while b"writing b" not in started.stdout.readline():
        assert started.poll() is None
    began = time.monotonic()
    started.send_signal(number)
    started.communicate(timeout=60)
    assert time.monotonic() - began < 5.0
    assert levels() == {"a.half.wav": 0.1, "a.not_half.wav": 0.1}
    hidden = [path for path in Path("out").rglob(".separate-*")]
    assert bool(hidden) == (number == signal.SIGKILL)
    if number == signal.SIGINT:
        assert not Path("out/sub/deep").exists()  # no empty folders
    assert cli.main([*command, "--skip-existing"]) == 0
    assert list(levels()) == [
        f"{name}.{part}.wav" for name in ("a", "sub/b", "sub/deep/c") for part in ("half", "not_half")
    ]
    assert not list(Path("out").rglob(".separate-*"))
    assert capsys.readouterr().err.endswith(": 2 done, 1 skipped because their outputs exist.\n")


# Faults of the record and of options


def test_recordings_with_equal_names_sizes_and_times_are_told_apart(folder):
    for number, name in enumerate("ab", 1):
        save(f"{name}/x.wav", 0.2 * number)
        os.utime(f"{name}/x.wav", (1, 1))
    assert run("a/x.wav", "-o", "out") == run("b/x.wav", "-o", "out", "--skip-existing") == 0
    assert run("b/x.wav", "-o", "out", "--overwrite") == 0
    assert levels() == {"x.half.wav": 0.1, "x.half.2.wav": 0.2}


@pytest.mark.parametrize(
    "line",
    ['{"output":"x.half.wav","input":"a\\u0000","size":1,"modified":1,"how":"x"}',
     '{"output":"x.half.wav","input":"\\ud800","size":1,"modified":1,"how":"x"}',
     '{"output":"x.half.wav","input":"a","size":1e999,"modified":1,"how":"x"}', "[" * 100_000],
)  # fmt: skip
def test_a_line_of_the_record_that_cannot_be_is_left_out(folder, line):
    save("x.wav", 0.2)
    Path("out").mkdir()
    Path("out", INDEX).write_text(line, encoding="utf-8")
    assert run("x.wav", "-o", "out") == 0
    assert list(levels()) == ["x.half.wav"]


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_record_that_is_no_file_is_left_alone(folder, kind):
    save("x.wav", 0.2)
    before = Path("x.wav").read_bytes()
    Path("out").mkdir()
    if kind == "link":
        Path("out", INDEX).symlink_to("../x.wav")
    else:
        os.mkfifo(Path("out", INDEX))
    assert run("x.wav", "-o", "out") == 0
    assert Path("x.wav").read_bytes() == before and Path("out/x.half.wav").is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--jobs=--", "x.wav"], "--jobs needs a value, not --."), (["--query=--", "x.wav"], "--query needs a value"),
     (["?.wav", "-o", "-"], "Standard output takes one result of one file")],
)  # fmt: skip
def test_options_that_cannot_be_are_one_sentence(folder, capsys, options, said):
    save("x.wav")
    save("y.wav")
    assert run(*options) == 2
    captured = capsys.readouterr()
    assert said in captured.err and not captured.out
