"""Live sound: streams of a causal network, and `separate --live` through pipes and a stand-in for the sound card."""

import io
import os
import signal
import struct
import sys
import threading
import time
import types
from itertools import cycle

import numpy as np
import pytest
import soundfile
import torch
from tiny import DIM, TinyEncoder, lively, noise, tiny_separator

from separation import Query, Separator
from separation.cli import main
from separation.encoders.joint import JointEncoder
from separation.inference.stream import Stream
from separation.models.live_unet import LiveUNet
from separation.pretrained import save_model

SIZES = {"n_fft": 400, "hop": 125, "tail": 375, "bands": 32, "linear_bands": 12}
SMALL = {"channels": [8, 8, 8, 8], "ranks": [4, 4, 4, 4], "stream_rank": 4, "stream_dim": 16, "condition_dim": DIM}
NETWORK = {"sample_rate": 8000, **SIZES, **SMALL, "tagger": False}
LATENCY = 500 / 8000  # of this network: two hops and a step of two hops more


def live_model(**changes):
    torch.manual_seed(0)
    model = LiveUNet(**NETWORK | changes)
    if model.tags is not None:
        for layer in (model.tags.to_stream, model.tags.to_bottom):
            layer.weight.data.normal_(0, 5.0)
    return lively(model)


@pytest.fixture(scope="module")
def separator():
    return Separator(live_model(), TinyEncoder(), "tiny live", "cpu")


def letting_through():
    """A separator whose targets are the mixture."""
    model = live_model()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([30.0] * 4 + [0.0] * 8))
    return Separator(model, TinyEncoder(), "all", "cpu")


def push_all(stream, wave, sizes):
    """Push (channels, time) in blocks of the sizes, again and again; the targets and the samples before each block."""
    pieces, start, lengths = [], 0, []
    for size in cycle(sizes):
        if start >= wave.shape[1]:
            break
        pieces.append(stream.push(wave[:, start : start + size]))
        start = min(start + size, wave.shape[1])
        lengths.append((start, sum(piece.shape[-1] for piece in pieces)))
    return torch.cat([*pieces, stream.flush()], dim=-1), lengths


@pytest.mark.parametrize("rate", [8000, 16000, 11025, 6000])
@pytest.mark.parametrize("sizes", [(1, 77, 700), (250,), (999, 64)])
def test_push_by_push_equals_the_whole(separator, rate, sizes):
    wave = noise(0.6, rate, channels=2)
    whole = separator(wave, ["dog", "rain"], rate)
    targets, _ = push_all(separator.stream(["dog", "rain"], rate), wave, sizes)
    assert targets.shape == (2, *wave.shape)
    assert min(result.target.std() for result in whole) > 1e-3
    assert max((result.target - each).abs().max() for result, each in zip(whole, targets, strict=True)) < 1e-6
    assert separator.stream("dog", rate).push(wave).shape[0] == 1


def test_with_a_tagger_push_by_push_equals_the_whole():
    sizes = {"sample_rate": 32000, "n_fft": 1600, "hop": 500, "tail": 1500, "tagger": True}
    separator = Separator(live_model(**sizes), TinyEncoder(), "tags", "cpu")
    wave = noise(1.2)
    targets, _ = push_all(separator.stream("dog", 32000), wave, (1000, 3000))
    whole = separator(wave, "dog", 32000).target
    assert whole.std() > 1e-3 and (targets[0] - whole).abs().max() < 1e-6
    separator.model.tags = None
    assert (separator(wave, "dog", 32000).target - whole).abs().max() > 1e-4  # it matters


@pytest.mark.parametrize(("rate", "more"), [(8000, 0.0), (16000, 0.014), (6000, 0.014)])
def test_the_latency_is_what_is_said(rate, more):
    separator = letting_through()
    stream = separator.stream("all", rate)
    wave = torch.zeros(1, rate // 3)
    onset = rate // 10
    wave[0, onset:] = torch.sin(torch.arange(rate // 3 - onset) * 2 * torch.pi * 500 / rate)
    block = 5
    targets, lengths = push_all(stream, wave, (block,))
    # The first sample that is missing after a block has waited for the samples since; what completes it comes later.
    waits = [received - sent for received, sent in lengths[onset // block :]]
    assert LATENCY <= stream.latency <= LATENCY + more
    assert stream.latency - (block + 3) / min(rate, 8000) < max(waits) / rate <= stream.latency
    inner = slice(onset + rate // 50, -rate // 50)
    assert (targets[0] - wave)[:, inner].abs().max() < 0.01  # in place, to a sample
    assert targets[0, 0, : onset - rate // 50].abs().max() < 1e-3


def test_the_future_changes_nothing_of_the_past(separator):
    wave, other = noise(1.0, 8000), noise(1.0, 8000, seed=1)
    other[:, :5000] = wave[:, :5000]
    one, two = (push_all(separator.stream("dog", 8000), each, (250,))[0][0] for each in (wave, other))
    known = 5000 - round(LATENCY * 8000)
    assert torch.equal(one[:, :known], two[:, :known]) and not torch.equal(one[:, 5000:], two[:, 5000:])


def test_a_query_changes_without_a_click(separator):
    time_axis = torch.arange(8000) / 8000
    wave = 0.3 * torch.sin(2 * torch.pi * 220 * time_axis)[None]
    stream, plain = separator.stream("dog", 8000), separator.stream("dog", 8000)
    before = [stream.push(wave[:, :4000])]
    stream.change("rain")
    changed = torch.cat([*before, stream.push(wave[:, 4000:]), stream.flush()], dim=-1)[0, 0]
    dog, rain = (push_all(s, wave, (250,))[0][0, 0] for s in (plain, separator.stream("rain", 8000)))
    done = before[0].shape[-1]
    assert (changed[:done] - dog[:done]).abs().max() < 1e-6
    assert (changed[6000:] - rain[6000:]).abs().max() < 0.1 * (dog - rain)[6000:].abs().max()
    bend = changed.diff().diff().abs()
    assert bend[done - 200 : done + 600].max() < 1.3 * max(each.diff().diff().abs().max() for each in (dog, rain))
    with pytest.raises(ValueError, match="1 queries, not 2"):
        stream.change(["dog", "rain"])


def test_a_stream_starts_anew(separator):
    wave = noise(0.7, 11025)
    stream = separator.stream("dog", 11025)
    first, _ = push_all(stream, wave, (500,))
    stream.push(noise(0.3, 11025, seed=2))
    stream.reset()
    again, _ = push_all(stream, wave, (700,))
    assert (first - again).abs().max() < 1e-6
    assert 0 <= stream.sounding[0] <= stream.presence[0] <= 1


def test_memory_does_not_grow_with_time(separator):
    def held(value, seen):
        if id(value) in seen:
            return 0
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            return value.untyped_storage().size()
        if isinstance(value, torch.nn.Module):
            return 0
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        return sum(held(each, seen) for each in [*inner, *getattr(value, "__dict__", {}).values()])

    stream, sizes = separator.stream("dog", 11025), []
    for seed in range(9):
        stream.push(noise(2.0, 11025, seed=seed))
        sizes.append(held(stream, set()))
    assert max(sizes[-5:]) <= max(sizes[2:7])


def test_levels_matter_little_and_silence_stays_silent(separator):
    wave = noise(1.0, 8000)
    loud, quiet = (push_all(separator.stream("dog", 8000), gain * wave, (250,))[0] for gain in (1.0, 1e-3))
    assert (loud - 1e3 * quiet).abs().max() < 1e-3 * loud.abs().max()
    assert not push_all(separator.stream("dog", 8000), torch.zeros(1, 4000), (250,))[0].any()


def test_filters_of_other_queries_apply(separator):
    wave = noise(0.8, 8000)
    plain, without = (separator(wave, query, 8000) for query in ("dog", Query("dog", negative=["rain"])))
    assert 0.05 < without.target.norm() / plain.target.norm() < 0.95
    assert (without.target + without.residual - wave).abs().max() < 1e-6
    assert separator(wave, remove=["dog", "rain"], sample_rate=8000).target.norm() > plain.target.norm()


def test_any_model_has_streams_without_a_level():
    separator, wave = tiny_separator(), noise(2.0, 16000)
    stream = separator.stream("dog", 16000)
    targets, _ = push_all(stream, wave, (4000,))
    assert (targets[0] - separator(wave, "dog", 16000).target).abs().max() < 1e-6
    assert stream.latency == separator.model.segment_seconds
    stream = separator.stream(["dog"], 16000, 1, separator.level([wave], 16000))  # as it is called with one
    assert (push_all(stream, wave, (4000,))[0] - targets).abs().max() < 1e-6
    with pytest.raises(ValueError, match="Separator"):
        Stream(separator.model, separator.conditions(["dog"]), 16000, 1.0).change("rain")


# The command


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model directory of the small network at 16 kHz, with a joint encoder of random weights."""
    directory = tmp_path_factory.mktemp("models") / "tiny_live"
    torch.manual_seed(0)
    arguments = {"channels": [4, 4, 4, 4], "hidden": 16, "embedding_dim": DIM}
    parts = {
        "model": {"class_path": "separation.models.live_unet.LiveUNet", "init_args": NETWORK},
        "encoder": {"class_path": "separation.encoders.joint.JointEncoder", "init_args": arguments},
    }
    save_model(directory, {"card": {}, **parts}, live_model(), JointEncoder(**arguments))
    return directory


class Pipe:
    """Standard input and output that are pipes; `write` is called in a thread, what arrives is kept with its time."""

    def __init__(self, monkeypatch, write):
        read_end, self.input = os.pipe()
        self.output, write_end = os.pipe()
        self.received = []
        monkeypatch.setattr(sys, "stdin", os.fdopen(read_end, "rb", closefd=False))
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(os.fdopen(write_end, "wb", closefd=False)))
        self.ends = read_end, write_end
        self.threads = [threading.Thread(target=self.feed, args=(write,)), threading.Thread(target=self.collect)]

    def feed(self, write):
        write(lambda data: os.write(self.input, data))
        os.close(self.input)

    def collect(self):
        while data := os.read(self.output, 1 << 16):
            self.received.append((time.monotonic(), data))
        os.close(self.output)

    def run(self, *arguments):
        for thread in self.threads:
            thread.start()
        status = main(["--live", *map(str, arguments)])
        for end in self.ends:
            os.close(end)
        for thread in self.threads:
            thread.join()
        return status, b"".join(data for _, data in self.received)


@pytest.mark.parametrize(
    ("subtype", "kind"),
    [("PCM_16", "WAV"), ("PCM_24", "WAV"), ("PCM_32", "WAV"), ("FLOAT", "WAV"), ("PCM_24", "WAVEX")],
)
def test_wav_files_go_through_a_pipe(subtype, kind, model, tmp_path, monkeypatch):
    wave = noise(0.5, 16000, channels=2).numpy().T
    soundfile.write(tmp_path / "in.wav", wave, 16000, subtype, format=kind)
    data = (tmp_path / "in.wav").read_bytes()
    trailer = b"LIST" + struct.pack("<I", 4) + b"INFO"
    pipe = Pipe(
        monkeypatch, lambda write: [write(data[i : i + 777]) for i in range(0, len(data), 777)] + [write(trailer)]
    )
    status, result = pipe.run("--gain", "rain=0", "--model", model)  # which changes nothing, bit by bit
    assert status == 0
    samples, rate = soundfile.read(io.BytesIO(result), dtype="float64")
    before, _ = soundfile.read(tmp_path / "in.wav", dtype="float64")
    assert rate == 16000 and soundfile.info(io.BytesIO(result)).subtype == subtype
    assert np.array_equal(samples, before)


def test_raw_samples_arrive_in_time(model, monkeypatch):
    """One second at the pace of a clock: each block goes out soon after the one that completes it has come in."""
    wave, block, sent = noise(1.0, 8000).numpy(), 80, []
    data = wave.astype("<f4").tobytes()

    def write(send):
        began = time.monotonic()
        for start in range(0, len(data), 4 * block):
            time.sleep(max(0.0, began + start / 32000 - time.monotonic()))
            sent.append((time.monotonic(), start + 4 * block))
            send(data[start : start + 4 * block])

    pipe = Pipe(monkeypatch, write)
    status, result = pipe.run("--raw", "f32le", "--rate", 8000, "--query", "rain", "--model", model, "-")
    target = Separator.from_pretrained(model)(wave, "rain", 8000).target
    assert status == 0 and np.abs(np.frombuffer(result, "<f4") - target.numpy()[0]).max() < 1e-5
    done, late = 0, []
    for arrived, part in pipe.received:
        done += len(part)
        late.append(arrived - next((t for t, count in sent if count >= done), sent[-1][0]))
    assert sorted(late)[len(late) // 2] < 0.3  # the model is loaded meanwhile; then it keeps up


def test_the_rest_of_a_removal_is_the_input_without_it(model, monkeypatch):
    wave = noise(0.6, 8000, channels=2).numpy()
    data = np.round(wave.T * 2**15).astype("<i2").tobytes()
    pipe = Pipe(monkeypatch, lambda write: write(data))
    status, result = pipe.run("--raw", "s16le", "--rate", 8000, "--channels", 2, "--remove", "dog", "--model", model)
    given = np.frombuffer(data, "<i2").reshape(-1, 2).T / np.float32(2**15)
    expected = Separator.from_pretrained(model)(given, "dog", 8000).residual.numpy()
    assert status == 0 and np.abs(np.frombuffer(result, "<i2").reshape(-1, 2).T / 2**15 - expected).max() < 1e-4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--query", "rain", "--residual"], "--live cannot be combined with --residual."),
        (["--query", "rain", "--sound-only"], "--live cannot be combined with --sound-only."),
        (["--query", "rain", "--from", "1"], "--live cannot be combined with --from or --to."),
        (["--query", "rain", "--query", "dog"], "--live has one result: "),
        (["--query", "rain", "mix.wav"], "--live takes no files: separate mix.wav without it"),
        (["--query", "rain", "--raw", "s16le"], "--raw needs --rate"),
        (["--query", "rain", "--raw", "s16le", "--rate", "0"], "--rate must be at least 1, not 0."),
        (
            ["--query", "rain", "--raw", "s16le", "--rate", "50"],
            "Live sound has 1000 to 768000 Hz and 1 to 1024 channels",
        ),
        (
            ["--query", "rain", "--raw", "s16le", "--rate", "8000", "--channels", "9999"],
            "not 8000 Hz and 9999 channels.",
        ),
        (["--query", "rain", "--jobs", "4"], "--live cannot be combined with --jobs."),
        (
            ["--query", "rain", "--model", "small"],
            "--live needs a model for live sound, such as live; small is not one.",
        ),
    ],
)
def test_what_does_not_go_together_is_said(arguments, sentence, monkeypatch, capsys):
    pipe = Pipe(monkeypatch, lambda write: write(b""))
    raw = [] if "--raw" in arguments or "mix.wav" in arguments else ["--raw", "s16le", "--rate", "8000"]
    status, result = pipe.run(*arguments, *raw)
    error = capsys.readouterr().err
    assert status == 2 and result == b"" and sentence in error and error.count("\n") == 1


def test_options_of_live_sound_need_it(capsys):
    assert main(["--query", "rain", "--rate", "8000", "mix.wav"]) == 2
    assert capsys.readouterr().err == "separate: --rate needs --live.\n"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is not a wav file; say --raw"),
        (b"OggS" + bytes(400), "is not a wav file; say --raw"),
        (b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 1, 1, 8000, 8000, 1, 8), "of another kind than"),
        (b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\1\0", "ends before its samples or is damaged"),
        (b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 1, 1, 9, 18, 2, 16), "1000 to 768000 Hz"),
        (
            b"RIFF\0\0\0\0WAVEfmt \x28\0\0\0"
            + struct.pack("<HHIIHHHHIH", 0xFFFE, 1, 8000, 16000, 2, 16, 22, 16, 0, 1)
            + bytes.fromhex("000021 07d3 1186 44c8 c1ca 0000 00"),  # ambisonics
            "of another kind than",
        ),
    ],
)
def test_what_is_no_wav_file_is_said(data, sentence, model, monkeypatch, capsys):
    status, result = Pipe(monkeypatch, lambda write: write(data)).run("--query", "rain", "--model", model)
    assert status == 1 and result == b"" and sentence in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def sound_card(monkeypatch):
    """A stand-in for sounddevice, whose stream exchanges half a second of blocks and then interrupts the process."""
    card = types.ModuleType("sounddevice")
    card.PortAudioError, card.spoken, card.given = type("PortAudioError", (Exception,), {}), [], []
    card.query_devices = lambda device, kind: {"default_samplerate": 8000.0}
    heard = noise(0.5, 8000).numpy().T

    class Exchange:
        def __init__(self, **given):
            card.given.append(given)
            self.block, self.callback = given["blocksize"], given["callback"]

        def __enter__(self):
            threading.Thread(target=self.exchange, daemon=True).start()

        def __exit__(self, *_):
            pass

        def exchange(self):
            for start in range(0, len(heard), self.block):
                spoken = np.full((len(heard[start : start + self.block]), 1), np.nan, np.float32)
                self.callback(heard[start : start + self.block], spoken, len(spoken), None, None)
                card.spoken.append(spoken)
                time.sleep(0.01)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    card.Stream, card.heard = Exchange, heard
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    monkeypatch.setattr(sys, "stdin", Terminal())
    return card


def test_microphone_to_speaker(sound_card, model, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    status = main(["--live", "--gain", "rain=0", "--model", str(model), "--microphone", "2", "--speaker", "USB"])
    assert status == 130 and sound_card.given[0]["device"] == (2, "USB")
    spoken = np.concatenate(sound_card.spoken)[:, 0]
    start = np.flatnonzero(spoken)[0]
    assert 0.1 * 8000 < start < 0.4 * 8000
    length = len(spoken) - start
    missing = np.count_nonzero(spoken[start:] == 0)
    if not missing:  # no underrun on a busy machine
        assert np.array_equal(spoken[start:], sound_card.heard[:length, 0])
    assert " dB  rain 0." in screen.getvalue() and " underruns" in screen.getvalue()
    assert "interrupted" in screen.getvalue()


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("missing", 'The microphone needs sounddevice: pip install "separation[live]".'),
        ("library", "The microphone needs PortAudio, which is not installed"),
        ("device", "The sound card cannot be used: Error querying device -1."),
    ],
)
def test_a_missing_sound_card_is_said(fault, sentence, sound_card, model, monkeypatch, capsys):
    def fail(*_):
        raise sound_card.PortAudioError("Error querying device -1")

    sound_card.query_devices = fail
    if fault == "missing":
        monkeypatch.setitem(sys.modules, "sounddevice", None)
    if fault == "library":

        class Finder:
            def find_spec(self, name, *_):
                if name == "sounddevice":
                    raise OSError("PortAudio library not found")

        monkeypatch.delitem(sys.modules, "sounddevice")
        monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    assert main(["--live", "--query", "rain", "--model", str(model)]) == 2
    assert sentence in capsys.readouterr().err


def wav_of(data, more=0):
    """A wav file of 32-bit floats at 8 kHz, whose header states more bytes than there are."""
    kind, size = struct.pack("<HHIIHH", 3, 1, 8000, 32000, 4, 32), len(data) + more
    return (
        b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt \x10\0\0\0" + kind + b"data" + struct.pack("<I", size) + data
    )


@pytest.mark.parametrize(
    ("more", "what"), [(16000, "0.500 s of 1.000 s"), (16001, "0.500 s of 1.000 s"), (0, "0.500 s")]
)
def test_sound_that_is_missing_is_said_as_for_files(more, what, model, tmp_path, monkeypatch, capsys):
    wave = noise(0.5, 8000).numpy()[0].astype("<f4").tobytes() + bytes(more == 0)
    (tmp_path / "in.wav").write_bytes(wav_of(wave, more))
    status, result = Pipe(monkeypatch, lambda write: write(wav_of(wave, more))).run("--query", "rain", "--model", model)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"separate: warning: standard input is cut short or damaged: only {what} can be read and are used."
    ]
    assert status == 0 and len(result) == 44 + len(wave) // 4 * 4
    monkeypatch.undo()
    assert main(["--query", "rain", "--model", str(model), "-o", str(tmp_path), str(tmp_path / "in.wav")]) == 0
    said = capsys.readouterr().err.replace(str(tmp_path / "in.wav"), "standard input").splitlines()
    assert not more or lines[0].replace(" of 1.000 s", "") in said


def test_pipes_that_do_not_block(model, monkeypatch, capsys):
    data = np.round(noise(1.0, 8000).numpy() * 2**15).astype("<i2").tobytes()

    def write(send):
        for start in range(0, len(data), 4000):
            send(data[start : start + 4000])
            time.sleep(0.02)

    results = []
    for blocking in (True, False):
        pipe = Pipe(monkeypatch, write)
        for end in pipe.ends:
            os.set_blocking(end, blocking)
        results.append(pipe.run("--raw", "s16le", "--rate", 8000, "--query", "rain", "--model", model))
    assert results[0] == results[1] and results[0][0] == 0 and capsys.readouterr().err == ""


def test_samples_that_are_no_numbers_are_silence(model, monkeypatch, capsys):
    wave = noise(0.5, 8000).numpy()[0].astype("<f4")
    clean, wave[100:103] = wave.copy(), [np.inf, -np.inf, np.nan]
    clean[100:103] = 0
    broken = wave.tobytes().replace(np.float32(np.nan).tobytes(), b"\1\0\x80\x7f")  # a signalling one
    results = [
        Pipe(monkeypatch, lambda write, data=data: write(wav_of(data))).run("--query", "rain", "--model", model)
        for data in (clean.tobytes(), broken)
    ]
    assert results[0] == results[1] and results[0][0] == 0 and capsys.readouterr().err == ""


def test_sound_beyond_the_range_of_numbers_is_said(model, monkeypatch, capsys):
    wave = np.full(8000, 3e38, "<f4")
    wave[::2] *= -1
    status, _ = Pipe(monkeypatch, lambda write: write(wav_of(wave.tobytes()))).run("--query", "rain", "--model", model)
    error = capsys.readouterr().err
    assert status == 1 and "NaN or infinity" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("--rate", "--rate needs --raw"),
        ("--channels", "--channels needs --raw"),
        ("--speaker", "--speaker has no meaning for sound from a pipe"),
    ],
)
def test_options_that_change_nothing_are_refused(option, why, model, monkeypatch, capsys):
    pipe = Pipe(monkeypatch, lambda write: write(wav_of(bytes(400))))
    status, result = pipe.run("--query", "rain", "--model", model, option, "2")
    assert status == 2 and result == b"" and why in capsys.readouterr().err


def test_standard_input_that_cannot_be_read_is_said(model, tmp_path, monkeypatch, capsys):
    (tmp_path / "out").touch()
    folder = os.open(tmp_path, os.O_RDONLY)
    with (tmp_path / "out").open("r+") as out:
        monkeypatch.setattr(sys, "stdout", out)
        for stdin, why in (
            (None, "is closed"),
            (types.SimpleNamespace(fileno=lambda: folder, isatty=bool), "it is a folder"),
        ):
            monkeypatch.setattr(sys, "stdin", stdin)
            assert main(["--live", "--query", "rain", "--model", str(model)]) == 1
            assert f"separate: Standard input {'is' if stdin is None else 'cannot'}" in (
                error := capsys.readouterr().err
            )
            assert why in error and error.count("\n") == 1
    os.close(folder)


def test_a_second_flush_has_the_channels_of_the_blocks(separator):
    for each in (separator, tiny_separator()):
        stream = each.stream("dog", 8000)
        assert torch.cat([stream.push(noise(0.1, 8000, 2)), stream.flush(), stream.flush()], dim=-1).shape == (
            1,
            2,
            800,
        )
