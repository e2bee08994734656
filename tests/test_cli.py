"""`separate` from its arguments to its files, with a Separator that multiplies in the place of a model.

The table of command lines in test_command_lines.py holds names, messages and JSON records, test_process.py streams and
signals; here are the samples and the failures of disks.
"""

import errno
import io
import json
import math
import os
import re
import shlex
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from gains import GainSeparator, GainStream

from separation import Query, Separator, cli
from separation.console import progress

ROOT = str(Path(cli.__file__).parent.parent)


@pytest.fixture
def separator(monkeypatch):
    double = GainSeparator()
    monkeypatch.setattr(Separator, "from_pretrained", lambda *_, **__: double)
    return double


@pytest.fixture
def folder(tmp_path, monkeypatch, separator):
    """An empty folder to work in, with the double in place."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def noise(frames=30000, channels=2, seed=0, level=0.1):
    random = np.random.default_rng(seed)
    return (level * random.standard_normal((frames, channels))).astype(np.float32)


def save(name, samples=None, sample_rate=44100, **options):
    samples = noise() if samples is None else samples
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    if str(name).endswith(".wav"):
        options.setdefault("subtype", "FLOAT")
    soundfile.write(name, samples, sample_rate, **options)
    return samples


def load(name):
    return soundfile.read(name, dtype="float32", always_2d=True)[0]


def everything():
    return sorted(path.as_posix() for path in Path().rglob("*") if path.is_file())


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


class Terminal(io.StringIO):
    def isatty(self):
        return True


class FakeExamples(GainSeparator):
    """An example, a picture or a vector stands for the name of its file."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def encode(self, query):
        if isinstance(query, str):
            return query
        self.asked.append(query)
        return query.name.split(" without ")[0]


@pytest.fixture
def examples(folder, monkeypatch):
    """A folder with a separator that takes every form of query, and some files to use as queries."""
    double = FakeExamples()
    monkeypatch.setattr(Separator, "from_pretrained", lambda *_, **__: double)
    for name in ("half.wav", "other/half.wav", "quarter.wav"):
        save(f"sounds/{name}")
    Path("sounds/quarter.npy").touch()
    Path("sounds/double.png").touch()
    save("mix.wav")
    save("mix2.wav")
    return double


def outputs():
    return [name for name in everything() if name.startswith("mix")]


# Samples and formats


@pytest.mark.parametrize("frames", [1, 2, 4710, 4711, 4712, 100_000])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_length_and_channels_and_target_plus_residual_is_the_input(folder, frames, channels):
    samples = save("mix.wav", noise(frames, channels), 8000)
    assert run("--query", "quarter", "--residual", "mix.wav") == 0
    total = load("mix.quarter.wav") + load("mix.not_quarter.wav")
    assert total.shape == samples.shape
    assert np.abs(total - samples).max() < 1e-7


def test_several_queries_share_one_pass(folder, separator, capsys):
    samples = save("mix.wav")
    assert run("--query", "half", "--query", "all", "--residual", "mix.wav", "-o", "out/deep") == 0
    assert [stream[0] for stream in separator.streams] == [("half", "all")]
    assert np.abs(load("out/deep/mix.not_half.wav") - 0.5 * samples).max() < 1e-7
    assert np.abs(load("out/deep/mix.not_all.wav")).max() == 0
    parts = ("half.wav  presence 0.50 - uncertain", "not_half.wav", "all.wav  presence 1.00 - present", "not_all.wav")
    assert capsys.readouterr().out.splitlines() == [f"out/deep/mix.{part}" for part in parts]


def test_the_level_is_measured_over_the_whole_file(folder, separator):
    samples = noise(50000)
    samples[49999, 1] = -0.75
    save("mix.wav", samples)
    assert run("--query", "half", "mix.wav") == 0
    assert separator.streams[0] == (("half",), 44100, 2, 0.75)


@pytest.mark.parametrize(
    ("name", "options", "output", "kind"),
    [
        ("a.wav", {"subtype": "PCM_16"}, "a.half.wav", ("WAV", "FLOAT")),
        ("a.wav --format flac --subtype 16", {}, "a.half.flac", ("FLAC", "PCM_16")),
        ("a.wav --subtype pcm_24", {}, "a.half.wav", ("WAV", "PCM_24")),
        ("a.wav --subtype ''", {}, "a.half.wav", ("WAV", "FLOAT")),
        ("a.flac", {"subtype": "PCM_16"}, "a.half.flac", ("FLAC", "PCM_24")),
        ("a.ogg", {}, "a.half.ogg", ("OGG", "VORBIS")),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}, "a.half.opus", ("OGG", "OPUS")),
        ("a.mp3", {}, "a.half.mp3", ("MP3", "MPEG_LAYER_III")),
        ("a.aif", {"format": "AIFF"}, "a.half.aiff", ("AIFF", "FLOAT")),
        ("no.wav", {"format": "FLAC", "subtype": "PCM_16"}, "no.half.flac", ("FLAC", "PCM_24")),
    ],
)
def test_outputs_are_what_the_input_is_or_what_was_asked_for(folder, name, options, output, kind):
    save(name.split()[0], sample_rate=48000, **options)
    assert run("--query", "half", *shlex.split(name)) == 0
    info = soundfile.info(output)
    assert (info.format, info.subtype) == kind
    assert (info.samplerate, info.channels, info.frames) == (48000, 2, 30000)


@pytest.mark.parametrize(("suffix", "tolerance"), [("flac", 1e-6), ("wav", 1e-4)])
def test_over_full_scale_both_are_turned_down_by_one_factor(folder, capsys, suffix, tolerance):
    save(f"mix.{suffix}", noise(level=0.1) + 0.4)
    samples = load(f"mix.{suffix}")
    peak = 2.0 * np.abs(samples).max()
    assert peak > 1.2
    options = ["--subtype", "PCM_16"] if suffix == "wav" else []
    assert run("--query", "double", "--residual", *options, f"mix.{suffix}", "--json") == 0
    target, residual = load(f"mix.double.{suffix}"), load(f"mix.not_double.{suffix}")
    assert np.abs(target * peak - 2 * samples).max() < 2 * tolerance
    assert np.abs((target + residual) * peak - samples).max() < 2 * tolerance
    out, err = capsys.readouterr()
    assert json.loads(out)["scale"]["double"] == pytest.approx(1 / peak, rel=1e-4)
    assert f"turned down by {20 * math.log10(peak):.2f} dB" in err


def test_float_wav_is_never_turned_down(folder):
    samples = save("mix.wav", noise(level=1.0))
    assert run("--query", "double", "mix.wav") == 0
    assert np.array_equal(load("mix.double.wav"), 2 * samples)


# Names and inputs


def test_an_existing_output_is_kept_without_overwrite(folder, separator):
    save("mix.wav")
    Path("mix.half.wav").write_text("mine")
    assert run("--query", "all", "--query", "half", "mix.wav") == 1
    assert Path("mix.half.wav").read_text() == "mine"
    assert everything() == ["mix.half.wav", "mix.wav"]
    assert separator.streams == []  # said before the work, not after it
    assert run("--query", "all", "--query", "half", "--overwrite", "mix.wav") == 0
    assert load("mix.half.wav").shape == (30000, 2)


def test_an_input_is_never_written_over(examples, capsys):
    other = save("mix.half.wav", noise(seed=5))
    for arguments in (["--query", "half", "mix.half.wav"], ["--query-audio", "mix.half.wav"]):  # an example is one too
        assert run(*arguments, "--query-audio", "sounds/half.wav", "--overwrite", "mix.wav") == 1
        assert np.array_equal(load("mix.half.wav"), other)
        assert "mix.half.wav would be overwritten, but it is one of the inputs." in capsys.readouterr().err


def test_standard_input_to_standard_output(folder, monkeypatch, capfdbinary):
    samples = save("mix.flac")
    data = Path("mix.flac").read_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    assert run("--query", "half", "-") == 0
    out, err = capfdbinary.readouterr()
    back, rate = soundfile.read(io.BytesIO(out), dtype="float32")
    assert out[:4] == b"RIFF"
    assert rate == 44100
    assert np.abs(back - 0.5 * samples).max() < 1e-4
    assert "presence 0.50" in err.decode()
    assert everything() == ["mix.flac"]


# Errors: one sentence each, the other files are done


def test_every_invalid_file_is_reported_and_the_others_are_processed(folder, capsys):
    names = ["text.wav", "empty.wav", "zero.wav", "nan.wav", "channels.wav", "film.mp4", "folder", "no*.wav"]
    names += [f"{rate}.wav" for rate in (1, 2_000_000)]
    Path("text.wav").write_text("hello\n" * 99)
    Path("empty.wav").touch()
    save("zero.wav", noise(0))
    bad = noise()
    bad[22050, 0] = np.nan
    save("nan.wav", bad)
    save("channels.wav", subtype="PCM_16")
    data = bytearray(Path("channels.wav").read_bytes())
    data[22:24] = b"\0\0"
    Path("channels.wav").write_bytes(data)
    Path("film.mp4").write_bytes(b"\0\0\0\x18ftypmp42" * 9)
    Path("folder").mkdir()
    for rate in (1, 2_000_000):
        save(f"{rate}.wav", sample_rate=rate)
    save("good.wav")
    before = everything()
    assert run("--query", "half", "--residual", "--plot", *names, "good.wav") == 1
    out, err = capsys.readouterr()
    *lines, summary = err.splitlines()
    assert summary.partition(": ")[2].startswith("11 files in 0:")
    assert summary.endswith(": 1 done, 10 failed.")
    for line, name in zip(lines, names, strict=True):
        assert line.startswith(f"separate: {name} ")
        assert line.endswith(".")
    assert everything() == sorted([*before, "good.half.png", "good.half.wav", "good.not_half.wav"])
    assert out.splitlines()[0] == "good.half.wav  presence 0.50 - uncertain"


def test_a_truncated_file_is_separated_as_far_as_it_goes_with_a_warning(folder, capsys):
    samples = save("mix.wav", noise(80000))
    data = Path("mix.wav").read_bytes()
    Path("mix.wav").write_bytes(data[: len(data) // 2])
    assert run("--query", "all", "mix.wav") == 0
    back = load("mix.all.wav")
    assert 39000 < len(back) < 40001
    assert np.array_equal(back, samples[: len(back)])
    assert capsys.readouterr().err.startswith("separate: warning: mix.wav is cut short or damaged")


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_a_full_disk(folder, capsys, suffix):
    import resource

    save(f"mix.{suffix}", noise(600_000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        assert run("--query", "half", "--query", "all", f"mix.{suffix}") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f".{suffix} cannot be written: the file would be larger than is allowed here.")
    assert everything() == [f"mix.{suffix}"]


def test_all_outputs_of_a_file_or_none(folder, monkeypatch, capsys):
    save("mix.wav")
    Path("mix.half.wav").write_text("old")
    replace = os.replace

    def fails_for_the_last(source, destination):
        if str(destination) == "mix.not_half.wav":
            raise OSError(errno.EIO, "Input/output error")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", fails_for_the_last)
    assert run("--query", "half", "--residual", "--overwrite", "mix.wav") == 1
    assert "mix.not_half.wav cannot be written: the disk reported an error." in (capsys.readouterr().err)
    assert everything() == ["mix.half.wav", "mix.wav"]
    assert Path("mix.half.wav").read_text() == "old"


CHANGED = "changed while it was being read."


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: save(path, noise(29000)), CHANGED),
        (lambda path: save(path, noise(30000, 1)), CHANGED),
        (lambda path: save(path, noise(30000), 8000), CHANGED),
        (lambda path: path.write_text("hello"), "cannot be read: "),
        (lambda path: path.write_bytes(b""), "cannot be read: "),
        (lambda path: path.unlink(), "cannot be read: it is not there any more."),
    ],
)
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_file_that_changes_meanwhile(folder, separator, monkeypatch, capsys, change, words, suffix):
    path = Path(f"mix.{suffix}")
    save(path, noise(30000))

    def level(blocks, sample_rate):
        list(blocks)
        change(path)
        return 0.1

    monkeypatch.setattr(separator, "level", level)
    assert run("--query", "half", path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"separate: {path} {words}") and line.endswith(".")
    assert everything() == [path.name] * path.exists()


def test_an_unforeseen_error_is_one_sentence_too(folder, separator, monkeypatch, capsys):
    save("a.wav")
    save("b.wav")
    stream, count = separator.stream, []

    def fails_once(*arguments):
        count.append(1)
        if len(count) == 1:
            raise RuntimeError("out of\nmemory.")
        return stream(*arguments)

    monkeypatch.setattr(separator, "stream", fails_once)
    assert run("--query", "half", "a.wav", "b.wav") == 1
    assert capsys.readouterr().err.startswith(
        "separate: a.wav could not be separated: RuntimeError: out of memory (-v shows where).\nseparate: 2 files in "
    )
    assert everything() == ["a.wav", "b.half.wav", "b.wav"]
    count.clear()
    assert run("--query", "all", "a.wav", "-v") == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_separator_that_loses_samples_is_noticed(folder, monkeypatch, capsys):
    save("mix.wav")
    monkeypatch.setattr(GainStream, "flush", lambda self: self.gains * self.tail[:, :5])
    assert run("--query", "half", "mix.wav") == 1
    assert "the separator returned" in capsys.readouterr().err
    assert everything() == ["mix.wav"]


# Wrong usage


def test_audio_is_not_for_a_terminal(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert run("--query", "a", "-") == 2
    assert "Audio cannot go to a terminal" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "nonsense"], "nonsense"),
        (["--device", "cuda"], "--device cuda: cuda is not available here; torch was built for"),
        (["--device", "mps"], "--device mps: mps is not available here"),
        (["--plot"], "--plot needs matplotlib, which is not installed"),
    ],
)
def test_what_is_not_there_is_said_before_any_file_is_opened(folder, monkeypatch, capsys, options, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    save("mix.wav")
    assert run("--query", "half", *options, "gone.wav", "mix.wav") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert everything() == ["mix.wav"]


def test_model_device_and_threads_reach_their_places(folder, monkeypatch):
    save("mix.wav")
    calls, threads = [], []
    monkeypatch.setattr(Separator, "from_pretrained", lambda *a, **k: calls.append((a, k)) or GainSeparator())
    assert run("--query", "half", "gone.wav") == 1  # no file can be read: no model is loaded
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    assert run("--query", "half", "mix.wav", "--threads", "2", "-q") == 0
    options = ["--device", "cpu", "--faithful", "--offline", "--precision", "bfloat16", "--threads", "99999", "-q"]
    assert run("--query", "all", "mix.wav", *options) == 0
    assert calls == [
        (("default",), {"device": None, "faithful": False, "offline": None, "precision": "auto", "trust": []}),
        (("default",), {"device": "cpu", "faithful": True, "offline": True, "precision": "bfloat16", "trust": []}),
    ]
    assert threads == [2, 4 * os.cpu_count()]


# Queries of other forms


def test_every_form_names_its_output_and_is_encoded_once_for_all_files(examples, capsys):
    forms = ("--query-audio", "sounds/half.wav", "--query", "all", "--query-class", "/m/0bt9lr", "--query-class", "3")
    more = ("--query-image", "sounds/double.png", "--query-embedding", "sounds/quarter.npy")
    assert run(*forms, *more, "mix.wav", "mix2.wav") == 0
    parts = ["half", "all", "dog", "class_3", "double", "quarter"]
    written = [f"{stem}.{part}.wav" for stem in ("mix", "mix2") for part in parts]
    assert outputs() == sorted(["mix.wav", "mix2.wav", *written])
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == written
    forms = [list(query.forms()) for query in examples.asked]  # once each; the text is not one of them
    assert forms == [["audio"], ["label"], ["label"], ["image"], ["embedding"]]
    assert examples.streams[0][0] == examples.streams[1][0] == ("half", "all", "Dog", "class 3", "double", "quarter")


def test_examples_of_one_name_are_two_queries(examples, capsys):
    assert run("--query-audio", "sounds/half.wav", "--query-audio", "sounds/other/half.wav", "mix.wav", "--json") == 0
    assert json.loads(capsys.readouterr().out)["targets"] == {"half": "mix.half.wav", "half 2": "mix.half_2.wav"}
    assert run("--query-audio", "sounds/half.wav", "--query-audio", "./sounds/half.wav", "mix2.wav") == 0
    assert "mix2.half_2.wav" not in everything()


def test_negatives_apply_to_every_query(examples):
    asked = ("--query", "half", "--query-audio", "sounds/quarter.wav", "--remove", "all")
    assert run(*asked, "--not", "rain", "--not", "wind", "mix.wav") == 0
    assert [query.negatives() for query in examples.asked] == [["rain", "wind"]] * 3
    parts = ["half", "not_all", "quarter"]
    assert outputs() == [*(f"mix.{part}_without_rain_and_wind.wav" for part in parts), "mix.wav", "mix2.wav"]


def test_an_example_through_a_real_separator(folder, monkeypatch, capsys):
    from tiny import tiny_model

    from separation.encoders.joint import JointEncoder

    torch.manual_seed(0)
    real = Separator(tiny_model(), JointEncoder(8000, 16, (4, 8), 16), "tiny", "cpu")
    monkeypatch.setattr(Separator, "from_pretrained", lambda *_, **__: real)
    samples = save("mix.wav")
    save("bark.wav", noise(9000, 1, 3), 16000)
    np.save("vector.npy", real.conditions([Query(audio="bark.wav")])[0].numpy())
    assert run("--query-audio", "bark.wav", "--query-embedding", "vector.npy", "--residual", "mix.wav") == 0
    assert np.abs(load("mix.bark.wav") - load("mix.vector.wav")).max() < 1e-6
    assert np.abs(load("mix.bark.wav") + load("mix.not_bark.wav") - samples).max() < 1e-6
    assert np.abs(load("mix.bark.wav")).max() > 1e-4
    assert run("--query-image", "mix.wav", "mix.wav") == 2
    assert capsys.readouterr().err == (
        "separate: The model tiny takes no --query-image; it takes --query, --query-audio, --query-embedding.\n"
    )


# Printing


@pytest.mark.skipif(os.name != "posix", reason="bytes in names")
def test_names_that_no_encoding_has(folder, capsys):
    name = os.fsdecode(b"b\xffd.wav")
    save("ok.wav")
    os.rename("ok.wav", name)
    assert run("--query", "half", name) == 0
    assert "b\\udcffd.half.wav  presence" in capsys.readouterr().out
    assert run("--query", "all", name, "--json") == 0
    assert json.loads(capsys.readouterr().out)["input"] == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9.wav", r"caf\udce9"),
        (b"red\x1b[31m.wav", r"red\x1b[31m"),
        (b"two\nlines\r.wav", r"two\nlines\r"),
        ("\u202efdp\x9b1m.wav".encode(), r"\u202efdp\x9b1m"),
        ("日本\u3000語.wav".encode(), "日本\u3000語"),
    ],
)
def test_names_are_printed_without_control_characters(folder, capsys, monkeypatch, name, shown):
    """In results, notes, warnings, errors, progress and pictures; JSON has the name itself."""
    name = os.fsdecode(name)
    save("ok.wav")
    data = Path("ok.wav").read_bytes()
    Path(name).write_bytes(data[: len(data) - 100])
    assert run("--query", "half", "--plot", "--json", name) == 0
    assert json.loads(capsys.readouterr().out)["input"] == name
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "PROGRESS_DELAY", 0.0)
    assert run("--query", "half", "--overwrite", name) == 0
    assert run("--query", "half", name, name[:-1]) == 1
    out, said = capsys.readouterr().out, terminal.getvalue()
    assert f"{shown}.half.wav  presence" in out
    assert f"warning: {shown}.wav is cut short" in said
    assert f"{shown}.half.wav already exists." in said
    assert f"{shown}.wa does not exist." in said or f"{shown}.wa matches no file." in said
    assert f"measuring {shown}.wav" in said
    assert not set("\x07\x1b\x9b\u202e") & set(out + said.replace("\x1b[A", ""))


def test_file_names_may_begin_with_a_dash(folder, capsys):
    for name in ("-x.wav", "--query", "a.wav"):
        save(f"./{name}", format="WAV")
    assert run("a.wav", "--query", "half", "-o", "out", "--", "-x.wav", "--query") == 0
    assert sorted(path.name for path in Path("out").glob("[!.]*")) == ["--query.half.wav", "-x.half.wav", "a.half.wav"]
    assert run("--query", "half", "-x.wav") == 2
    assert capsys.readouterr().err.endswith(
        "Unrecognized arguments: -x.wav. Write -- in front of names that begin with -.\n"
    )


@pytest.mark.parametrize("option", ["--query-audio", "--query-embedding", "--model"])
def test_a_home_that_is_not_known_is_no_home(folder, capsys, monkeypatch, option):
    save("a.wav")
    monkeypatch.undo()
    assert run("--query", "half", option, "~nobody_of_this_name/x.npy", str(folder / "a.wav")) == 2
    assert "~nobody_of_this_name/x.npy" in capsys.readouterr().err


@pytest.mark.parametrize(("stream", "seen"), [(Terminal(), True), (io.StringIO(), False)])
def test_progress_is_shown_on_a_terminal_only_and_goes_away(folder, monkeypatch, stream, seen):
    monkeypatch.setattr(progress, "PROGRESS_DELAY", 0.0)
    monkeypatch.setattr(sys, "stderr", stream)
    save("mix.wav")
    assert run("--query", "half", "mix.wav") == 0
    assert ("left  separating mix.wav" in stream.getvalue()) == seen
    assert stream.getvalue().endswith("\r") == seen
    stream.truncate(0)
    assert run("--query", "all", "mix.wav", "-q") == 0
    monkeypatch.setattr(progress, "PROGRESS_DELAY", 1.0)
    assert run("--query", "none", "mix.wav") == 0  # short work
    assert stream.getvalue() == ""


# Memory, start


def test_memory_does_not_grow_with_the_length(folder):
    """The peak of what Python and numpy hold, for 4 and 16 blocks of audio."""
    peaks = []
    for blocks in (4, 16):
        name = f"mix{blocks}.flac"
        save(name, noise(blocks * 80_000), 8000)
        run("--query", "half", "--residual", "-q", name)  # imports are not counted
        tracemalloc.start()
        assert run("--query", "double", "--residual", "-q", name) == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] + 200_000


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    text = capsys.readouterr().out
    options = (
        "query query-audio query-class query-image query-embedding not subclasses remove list all recursive output"
    )
    options += " residual format subtype plot overwrite model faithful offline list-models device threads json quiet"
    for option in [*options.split(), "verbose", "version"]:
        assert f"--{option}" in text
    assert 'examples:\n  separate --query "dog barking" mix.wav' in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_short_help_fits_on_a_screen_and_names_options_that_exist(capsys):
    texts = []
    for option in ("-h", "--help"):
        with pytest.raises(SystemExit) as stop:
            run(option)
        assert stop.value.code == 0
        texts.append(capsys.readouterr().out)
    short, long = texts
    assert len(short.splitlines()) <= 23
    assert max(map(len, short.splitlines())) <= 100
    assert set(re.findall(r"--[a-z-]+", short)) <= set(re.findall(r"--[a-z-]+", long))
    assert len(re.findall("^  separate ", short, re.MULTILINE)) == 5


def test_sounds_that_are_near_no_word(no_sentence_weights, capsys):
    assert run("--sounds", "qwrtzpsdfg") == 0
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "no known sound is near “qwrtzpsdfg”" in err


def test_a_recording_without_known_sounds(folder, separator, monkeypatch, capsys):
    monkeypatch.setattr(separator, "list_sounds_in_blocks", lambda blocks, *_, **__: [] if list(blocks) else None)
    save("mix.wav")
    assert run("--list", "mix.wav") == 0
    assert capsys.readouterr().out == "mix.wav  no known sound found\n"
    assert everything() == ["mix.wav"]


# Everything that is listed


def test_all_writes_what_is_listed_and_the_rest_and_they_add_up_to_the_input(folder, separator, monkeypatch, capsys):
    monkeypatch.setattr("gains.GAINS", {"rain": 0.25, "door knock": 0.5})
    mixture = save("mix.flac", noise(level=0.2), subtype="PCM_24")
    assert run("--all", "mix.flac") == 0
    assert everything() == ["mix.door_knock.flac", "mix.flac", "mix.rain.flac", "mix.rest.flac"]
    stems = [load(name) for name in ("mix.rain.flac", "mix.door_knock.flac", "mix.rest.flac")]
    assert np.abs(stems[0] - 0.25 * mixture).max() < 1e-6
    assert np.abs(sum(stems) - mixture).max() < 4 / 2**23  # each is rounded to 24 bits
    assert capsys.readouterr().out.splitlines() == [
        "mix.rain.flac  presence 0.25 - absent", "mix.door_knock.flac  presence 0.50 - uncertain",
        "mix.rest.flac",
    ]  # fmt: skip
    assert run("--all", "--json", "--overwrite", "-r", ".") == 0  # stems of an earlier run are left alone
    record, *passed = map(json.loads, capsys.readouterr().out.splitlines())
    assert {each["passed_over"] for each in passed} == {"an output of an earlier run"}
    assert [each.keys() for each in passed] == [record.keys()] * 3
    assert record["rest"] == "mix.rest.flac"
    assert record["targets"] == {"rain": "mix.rain.flac", "door knock": "mix.door_knock.flac"}
    spans = [(span["from"], span["to"]) for span in record["heard"][1]["spans"]]
    assert spans == [(1.0, 2.0), (3.0, 4.0)]
    assert separator.shared == [True, True]


def test_stems_that_exceed_full_scale_are_turned_down_together(folder, separator, monkeypatch):
    monkeypatch.setattr("gains.GAINS", {"rain": 2.0, "door knock": 0.5})
    mixture = save("mix.flac", 0.9 * np.sign(noise()), subtype="PCM_24")
    assert run("--all", "-q", "mix.flac") == 0
    stems = [load(name) for name in ("mix.rain.flac", "mix.door_knock.flac", "mix.rest.flac")]
    assert np.abs(sum(stems) * 1.8 - mixture).max() < 1e-5
    assert np.abs(stems[0]).max() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("options", [("--query", "half"), ("--remove", "half"), ("--residual",), ("--not", "half")])
def test_all_takes_no_queries(folder, capsys, options):
    save("mix.wav")
    assert run("--all", *options, "mix.wav") == 2
    assert f"cannot be combined with {options[0]}" in capsys.readouterr().err
    assert everything() == ["mix.wav"]


def test_a_timeline_of_the_listed_sounds_is_drawn(folder, capsys):
    pytest.importorskip("matplotlib")
    save("mix.wav")
    assert run("--list", "--plot", "mix.wav", "-o", "out") == 0
    assert Path("out/mix.sounds.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.splitlines() == [
        "mix.wav  0.90  rain        unclear  0-2 s",
        "mix.wav  0.60  door knock  unclear  1-2 s, 3-4 s",
        "out/mix.sounds.png",
    ]
    assert run("--list", "--plot", "mix.wav", "-o", "out") == 1  # nothing is overwritten
    assert "already exists" in capsys.readouterr().err
