"""Every command in README.md and docs/: run with generated files where that is quick, otherwise given to its parser.

Commands are the indented lines that begin with a program of this package, python, make or pip.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from gains import GainSeparator
from layouts import LAYOUTS

from separation import Separator, cli, mcp_server
from separation.batch import build_batch_parser
from separation.console.options import parse
from separation.datasets import command as data_command

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
PROGRAMS = r"separate-batch|separate-mcp|separate|separation-data|separation-train|separation-convert|python|make|pip"
AUDIO = re.compile(r"[\w./-]+\.(?:wav|flac|ogg)")
PATTERN = re.compile(r"(?:^|\s)\.\.\.(?:\s|$)|\[-")  # "..." or optional words: a description of the form
RUN_DATA = ("list", "show", "prepare folder", "prepare esc50", "prepare hive", "join", "check")


def commands(page):
    """The commands of a page, without comments and with continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
    for line in re.findall(rf"^    (?:ffmpeg .*\| )?((?:{PROGRAMS}) (?!note|Did).*)$", text, re.MULTILINE):
        words = re.sub(r"\s{2,}(?:#|\(|and |or ).*|\s#\s.*", "", line).strip()
        if not re.match(r"(?:separate|python): ", words) and " = " not in words:
            yield words


ALL = [(page.name, words) for page in PAGES for words in commands(page)]


def kind(words):
    """How a command is checked."""
    program, _, rest = words.partition(" ")
    if PATTERN.search(words):
        return "form"
    if program == "separate":
        return "parsed" if "- >" in words or "--live" in words else "run"
    if program == "separation-data":
        return "run" if rest.startswith(RUN_DATA) else "parsed"
    return "parsed"


class Parsed(Exception):
    """The words of a command were accepted."""


@contextlib.contextmanager
def only_parse(monkeypatch):
    """Every argparse parser ends the program once it has accepted its words."""
    original = argparse.ArgumentParser.parse_known_args

    def accept(self, *words, **named):
        _, rest = original(self, *words, **named)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        raise Parsed

    def accept_known(self, *words, **named):
        original(self, *words, **named)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", accept)
        patch.setattr(argparse.ArgumentParser, "parse_known_args", accept_known)
        with pytest.raises(Parsed):
            yield


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the recipes of the repository."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    return tmp_path


def write_wave(path, seconds=1.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(round(8000 * seconds)), 8000)


def make_inputs(words):
    """The recordings and folders that a command names."""
    given = shlex.split(words)
    outputs = {given[number + 1] for number, word in enumerate(given[:-1]) if word in ("-o", "--output")}
    for word in given:
        if AUDIO.fullmatch(word) and word not in outputs and not Path(word).exists():
            write_wave(Path(word), 70 if "--to" in given else 1.5)
        elif word.endswith("/") and word not in outputs:
            write_wave(Path(word) / "a.wav")
        elif word.endswith(".mp4") or word.endswith(".mkv"):
            from media import save_media, tone

            tracks = 2 if "--track" in given else 1
            save_media(Path(word), [tone(440, 1.0, 8000)] * tracks, 8000, "aac", seconds_of_pictures=1.0)
    if "*.wav" in words:
        write_wave(Path("a.wav"))
    for picture in (word for word in given if word.endswith(".jpg")):
        Path(picture).write_bytes(b"picture")
    for checkpoint in (word for word in given if word.endswith(".ckpt")):
        Path(checkpoint).touch()
    for vector in (word for word in given if word.endswith(".npy")):
        np.save(vector, np.ones(4, np.float32))


def test_pages_have_commands_and_each_is_checked():
    kinds = [kind(words) for _, words in ALL]
    counts = {name: kinds.count(name) for name in ("run", "parsed", "form")}
    print(counts)
    assert counts["run"] >= 30 and counts["parsed"] >= 25 and counts["form"] <= 8, counts


@pytest.mark.parametrize("words", dict.fromkeys(words for _, words in ALL if words.startswith("separate ")))
def test_separate(words, folder, monkeypatch, capsys):
    """Runs with a stand-in for the network, whatever the model."""
    if kind(words) != "run":
        parse(shlex.split(words.partition(" > ")[0])[1:])
        return
    make_inputs(words)
    monkeypatch.setattr(Separator, "from_pretrained", lambda *_, **__: GainSeparator())
    needs_file = re.search(r"\.(?:mkv|mp4)\b", words)
    status = cli.main(shlex.split(words)[1:])
    said = capsys.readouterr()
    assert status == 0 or (needs_file and "track" in said.err), said.err


@pytest.mark.parametrize("words", dict.fromkeys(words for _, words in ALL if words.startswith("separate-mcp ")))
def test_separate_mcp(words):
    assert mcp_server.build_parser().parse_args(shlex.split(words)[1:]).folders


@pytest.mark.parametrize("words", dict.fromkeys(words for _, words in ALL if words.startswith("separate-batch ")))
def test_separate_batch(words, folder):
    options, _ = parse(shlex.split(words)[1:], build_batch_parser())
    assert len(options.files) == 2


@pytest.mark.parametrize("words", dict.fromkeys(words for _, words in ALL if words.startswith("separation-data ")))
def test_separation_data(words, folder, monkeypatch, capsys):
    given = shlex.split(words)[1:]
    if kind(words) == "form":
        return
    if kind(words) == "parsed":
        with only_parse(monkeypatch):
            data_command.main(given)
        return
    monkeypatch.setenv("HOME", str(folder))
    given = [word.replace("~", str(folder)) for word in given]
    LAYOUTS["esc50"](folder / "ESC-50-master")
    LAYOUTS["hive"](folder / "HIVE")
    for label in ("robot siren", "rain"):
        for number in range(2):
            write_wave(folder / "my_sounds" / label / f"{number}.wav", 0.2)
            write_wave(folder / "clips" / f"{number}.wav", 0.2)
    (folder / "clips.csv").write_text("file,label\n0.wav,rain\n1.wav,rain\n")
    rendered = ("FOLDER/manifest_all", "instruments/manifest", "speech/manifest")
    for name in ("esc50", "fsd50k", "both", *rendered):
        (folder / name).parent.mkdir(exist_ok=True)
        arguments = ["prepare", "esc50", "--root", str(folder / "ESC-50-master"), "-o", str(folder / f"{name}.csv")]
        assert data_command.main(arguments) == 0
    assert data_command.main(given) == 0, capsys.readouterr().err


@pytest.mark.parametrize("words", dict.fromkeys(words for _, words in ALL if words.startswith("separation-train ")))
def test_separation_train(words, folder, monkeypatch):
    """Every key is accepted; objects are not built."""
    pytest.importorskip("lightning", reason="needs the extra [train]")
    if kind(words) == "form":
        return
    from separation.training import cli as train

    class Parser(train.CLI):
        def instantiate_classes(self):
            raise Parsed

    (folder / "mine.yaml").write_text("{}")
    subcommand, *rest = shlex.split(words)[1:]
    if "--ckpt_path" in rest:
        at = rest.index("--ckpt_path")
        del rest[at : at + 2]
    assert subcommand in train.SUBCOMMANDS
    if "mine.yaml" in rest:  # tests/test_extending.py trains it
        return
    monkeypatch.setattr(sys, "argv", ["separation-train"])
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    with pytest.raises(Parsed):
        Parser(run=False, args=[word for word in rest if word != "--print_config"])


@pytest.mark.parametrize("words", dict.fromkeys(words for _, words in ALL if re.match("python|separation-conv", words)))
def test_python(words, folder, monkeypatch):
    given = shlex.split(words)
    for place in ("benchmarks", "benchmarks/studies"):
        monkeypatch.syspath_prepend(str(ROOT / place))
    name = "separation.convert" if given[0] == "separation-convert" else given[2] if given[1] == "-m" else given[1]
    rest = given[1:] if given[0] == "separation-convert" else given[3:] if given[1] == "-m" else given[2:]
    monkeypatch.setattr(sys, "argv", [name, *rest])
    if name.startswith("demos/"):
        pytest.importorskip("gradio", reason="needs the extra [demo]")
    saved = set(sys.modules)
    with only_parse(monkeypatch):
        if name.endswith(".py"):
            runpy.run_path(str(ROOT / name), run_name="__main__")
        else:
            __import__(name if name != "separation.evaluate" else "separation.evaluate.command")
            sys.modules[name if name != "separation.evaluate" else "separation.evaluate.command"].main()
    for added in set(sys.modules) - saved:
        if added in ("common", "study"):
            del sys.modules[added]


@pytest.mark.parametrize("words", dict.fromkeys(words for _, words in ALL if re.match("make|pip", words)))
def test_make_and_pip(words):
    program, first, *_ = shlex.split(words)
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert first in targets
        return
    extras = re.findall(r"\[(.*?)\]", words)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(re.search(rf"^{name} = ", project, re.MULTILINE) for each in extras for name in each.split(","))
