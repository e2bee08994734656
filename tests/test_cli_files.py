"""Names of outputs, and the inputs that arguments name."""

import io
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from separation.audio import AudioError
from separation.console import inputs
from separation.console.inputs import InputFinder, copy_pipe
from separation.outputs.names import Namer, output_name, slug


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ("dog barking", "dog_barking"),
        ("  Dog   BARKING! ", "dog_barking"),
        ("a dog's bark", "a_dog_s_bark"),
        ("chien qui aboie, très fort", "chien_qui_aboie_très_fort"),
        ("собака лает", "собака_лает"),
        ("犬の鳴き声", "犬の鳴き声"),
        ("कुत्ता भौंकना", "कुत्ता_भौंकना"),
        ("../../etc/passwd", "etc_passwd"),
        ('a\\b:c*d?e"f<g>h|i\x00j\nk', "a_b_c_d_e_f_g_h_i_j_k"),
        ("mix_down 3.5 kHz", "mix_down_3_5_khz"),
        ("?!…", "query"),
        ("🐕", "query"),
        ("...", "query"),
        ("cafe\u0301", "caf\u00e9"),  # two ways to write an accent
    ],
)
def test_slugs(query, part):
    assert slug(query) == part


def test_long_queries_are_cut_at_a_word():
    part = slug("a dog that barks " * 50)
    assert len(part.encode()) <= 100
    assert part.endswith(("a", "dog", "that", "barks"))
    assert len(slug("ы" * 500).encode()) <= 100


@pytest.mark.parametrize("stem", ["m", "x" * 250, "ы" * 125, "犬" * 83])
@pytest.mark.parametrize("number", [1, 2, 12345])
def test_names_fit_into_255_bytes(stem, number, tmp_path):
    name = output_name(stem, "not_" + slug("犬" * 300), ".flac", number)
    assert len(name.encode()) <= 255
    (tmp_path / name).touch()


def test_colliding_names_get_a_number_and_a_note(tmp_path):
    said = []
    namer = Namer(notice=said.append)
    first = namer.claim(tmp_path, "mix", "dog", ".wav")
    second = namer.claim(tmp_path, "mix", "dog", ".wav")
    third = namer.claim(tmp_path, "MIX", "dog", ".wav")
    assert [path.name for path in (first, second, third)] == ["mix.dog.wav", "mix.dog.2.wav", "MIX.dog.3.wav"]
    assert said[0] == ("mix.dog.wav is already the name of another output, so this one is called mix.dog.2.wav.")
    assert namer.claim(tmp_path / "other", "mix", "dog", ".wav").name == "mix.dog.wav"
    assert len(said) == 2


def test_inputs_are_recognised_through_links(tmp_path):
    (tmp_path / "a.wav").touch()
    (tmp_path / "link.wav").symlink_to(tmp_path / "a.wav")
    namer = Namer([tmp_path / "a.wav"], overwrite=True)
    with pytest.raises(AudioError, match="it is one of the inputs"):
        namer.check_destination(tmp_path / "link.wav")
    namer.check_destination(tmp_path / "b.wav")


def test_a_folder_whose_name_is_too_long_is_refused(tmp_path):
    with pytest.raises(AudioError, match="cannot be created: "):
        Namer([]).check_destination(tmp_path / ("y" * 400) / "a.wav")


def test_earlier_results_are_recognised(tmp_path):
    for name in ("mix.wav", "mix.dog.wav", "mix.dog.2.wav", "mix.rain.wav", "lone.dog.wav"):
        (tmp_path / name).touch()
    finder = InputFinder(True, {"dog"})
    assert [entry.path.name for entry in finder.find([str(tmp_path)])] == ["lone.dog.wav", "mix.rain.wav", "mix.wav"]
    passed = {str(tmp_path / f"mix.{part}.wav"): "an output of an earlier run" for part in ("dog", "dog.2")}
    assert finder.passed == passed


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in ("b.wav", "a.flac", "notes.txt", "[1].wav", "sub/c.MP3", "sub/.hidden.wav"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.wav").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(found):
    return [entry.label for entry in found]


def test_files_globs_and_folders(tree):
    finder = InputFinder(recursive=True)
    assert names(finder.find(["b.wav"])) == ["b.wav"]
    assert names(finder.find(["*.wav"])) == ["[1].wav", "b.wav"]
    assert names(finder.find(["[1].wav"])) == ["[1].wav"]
    assert names(finder.find(["**/*.MP3"])) == [os.path.join("sub", "c.MP3")]
    assert names(finder.find(["."])) == ["[1].wav", "a.flac", "b.wav", os.path.join("sub", "c.MP3")]


def test_every_file_once(tree):
    assert names(InputFinder().find(["b.wav", "./b.wav", "*.wav", str(tree / "b.wav")])) == ["b.wav", "[1].wav"]


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("gone.wav", "gone.wav does not exist."),
        ("gone*.wav", "gone*.wav matches no file."),
        (
            "https://example.com/a.wav?b=c",
            "https://example.com/a.wav?b=c is an address: download it and name the file.",
        ),
        ("sub", "sub is a folder. Add -r to search it"),
        ("x" * 300 + ".wav", "cannot be read: the name is too long."),
        ("\0.wav", "cannot be read"),
        ("empty", "empty contains no audio files."),
    ],
)
def test_unusable_files_are_reported_with_the_reason(tree, argument, words):
    (tree / "empty").mkdir()
    (entry,) = InputFinder(recursive=argument == "empty").find([argument])
    assert words in entry.error


def test_the_output_folder_and_earlier_results_are_left_out(tree):
    said = []
    (tree / "out").mkdir()
    (tree / "out" / "x.wav").touch()
    (tree / "b.dog.wav").touch()
    for argument, found in ((".", ["[1].wav", "a.flac", "b.wav", os.path.join("sub", "c.MP3")]), ("b*.wav", ["b.wav"])):
        assert names(InputFinder(True, {"dog"}, Path("out"), said.append).find([argument])) == found
    three = "b.dog.wav (an output of an earlier run), notes.txt (unknown suffix)"
    assert said == [
        f"passed over 3: out (the folder of the outputs), {three}.",
        "passed over 1: b.dog.wav (an output of an earlier run).",
    ]


def test_a_pipe_is_kept_in_a_file(tmp_path, monkeypatch):
    source = InputFinder().find(["-"])[0]
    assert (source.stem, source.label, source.piped) == ("stdin", "standard input", True)
    monkeypatch.setattr(inputs.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"bytes")))
    assert copy_pipe(source, tmp_path).read_bytes() == b"bytes"
    monkeypatch.setattr(inputs.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
    with pytest.raises(AudioError, match="standard input is empty"):
        copy_pipe(source, tmp_path)
    with pytest.raises(AudioError, match="standard input cannot be read: no such file"):
        copy_pipe(source, tmp_path / "gone")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes of POSIX")
def test_a_named_pipe_is_recognised(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (entry,) = InputFinder().find([str(tmp_path / "pipe.wav")])
    assert (entry.piped, entry.error) == (True, None)


posix = pytest.mark.skipif(os.name != "posix", reason="pipes, sockets and links of POSIX")


@posix
@pytest.mark.parametrize("argument", [".", "*"])
def test_what_is_passed_over_in_folders_and_patterns_is_named_once(tree, argument):
    """Nothing of it is opened: a pipe without a writer would block."""
    said = []
    (tree / "notes.txt").unlink()
    os.mkfifo(tree / "pipe.wav")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.wav")
        (tree / "zero.wav").symlink_to("/dev/zero")
        found = InputFinder(True, notice=said.append).find([argument])
    assert names(found) == ["[1].wav", "a.flac", "b.wav", os.path.join("sub", "c.MP3")]
    three = ", ".join(f"{name}.wav (a pipe, socket or device)" for name in ("pipe", "socket", "zero"))
    assert said == [f"passed over 3: {three}."]


@posix
def test_links_in_folders_are_used_or_named(tree):
    said = []
    (tree / "out.wav").symlink_to(tree / "b.wav")
    (tree / "sub" / "up").symlink_to(tree)
    (tree / "elsewhere.wav").symlink_to(tree.parent / "outside.wav")
    (tree.parent / "outside.wav").touch()
    (tree / "sub" / "broken.wav").symlink_to("gone")
    (tree / "sub" / "loop.wav").symlink_to("loop.wav")
    for number in range(4):
        (tree / "sub" / f"{number}.doc").touch()
    found = InputFinder(True, notice=said.append).find(["."])
    assert names(found)[:4] == ["[1].wav", "a.flac", "b.wav", "elsewhere.wav"]  # out.wav is b.wav
    assert [entry.error for entry in found if entry.error] == [
        f"{Path('sub', 'broken.wav')} is a link to a file that does not exist.",
        f"{Path('sub', 'loop.wav')} cannot be read: it is a loop of links.",
    ]
    (note,) = said
    assert "passed over 7: notes.txt (unknown suffix), sub/up (a link to a folder)" in note
    assert note.endswith(" and 4 more; -v names all.")


@posix
def test_sockets_and_devices_are_not_recordings(tree):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.wav")
        for name in ("socket.wav", "/dev/zero", "/dev/null"):
            (entry,) = InputFinder().find([name])
            assert entry.error == f"{name} is a socket or device, not a recording."
