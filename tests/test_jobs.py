"""Removing several sounds, remixing, and spans of time: the command, Python, and that both give the same."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny import noise, tiny_separator

from separation import Separator, cli
from separation.audio import AudioError
from separation.errors import Cancelled
from separation.inference.changes import Span, parse_gain, parse_time
from separation.models.base import ConditionedModel, Estimate, SharedTargets

RATE = 8000


@pytest.fixture(scope="module")
def separator():
    made = tiny_separator()
    made.model.segment_seconds = 12  # twice what segments share, the least
    return made


@pytest.fixture(scope="module")
def long(separator):
    """A recording of three segments and its target."""
    mixture = noise(22.0, RATE)
    return mixture, separator(mixture, "dog", RATE).target


@pytest.fixture
def folder(folder):
    save("mix.wav", 0.4)
    return folder


def save(name, level, subtype="FLOAT"):
    samples = np.random.default_rng(0).uniform(-level, level, (20000, 2)).astype(np.float32)
    soundfile.write(name, samples, RATE, subtype=subtype)
    return load(name)


def load(name):
    return soundfile.read(name, dtype="float32", always_2d=True)[0]


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def files():
    return sorted(path.name for path in Path().iterdir())


# The command


@pytest.mark.parametrize(
    ("options", "written"),
    [
        (("--remove", "half"), {"not_half": 0.5}),
        (("--remove", "half", "--remove", "half"), {"not_half": 0.5}),
        (("--remove", "half", "--remove", "quarter"), {"without": 0.25}),
        (("--remove", "half", "--remove", "quarter", "--each"), {"not_half": 0.5, "not_quarter": 0.75}),
        (("--remove", "half", "--remove", "quarter", "--query", "half"), {"half": 0.5, "without": 0.25}),
        (("--gain", "half=-inf", "--gain", "quarter=-20dB"), {"remix": 1 - 0.5 - 0.9 * 0.25}),
        (("--gain", "quarter=20", "--remove", "half"), {"remix": 1 + 9 * 0.25 - 0.5}),
        (("--gain", "half=-inf"), {"without": 0.5}),
        (("--gain", "half=0", "--gain", "quarter=0"), {"remix": 1.0}),
    ],
)
def test_files_and_their_samples(folder, options, written):
    assert run(*options, "mix.wav") == 0
    assert files() == sorted(["mix.wav", *(f"mix.{part}.wav" for part in written)])
    for part, share in written.items():
        assert np.abs(load(f"mix.{part}.wav") - share * load("mix.wav")).max() < 1e-6


def test_no_change_is_exactly_the_input(folder):
    samples = load("mix.wav")
    samples[:100] = -0.0
    soundfile.write("mix.wav", samples, RATE, subtype="FLOAT")
    assert run("--gain", "half=0", "--gain", "quarter=+0", "mix.wav") == 0
    assert load("mix.remix.wav").tobytes() == samples.tobytes()


def test_the_record_and_the_line_name_every_sound(folder, capsys):
    sounds = ("--remove", "half", "--remove", "all", "mix.wav")
    assert run(*sounds) == 0
    assert capsys.readouterr().out == (
        "mix.without.wav  removed: half (presence 0.50 - uncertain), all (presence 1.00 - present)\n"
    )
    assert run(*sounds, "--json", "--overwrite") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["rest"], record["outputs"]) == ("mix.without.wav", ["mix.without.wav"])
    assert (record["targets"], record["residuals"]) == ({}, {})
    assert record["presence"] == {"half": 0.5, "all": 1.0}
    assert run("--remove", "half", "--json", "mix.wav") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["rest"] == record["residuals"]["half"] == "mix.not_half.wav"
    assert run("--gain", "half=-3", "--json", "mix.wav") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["remix"], record["rest"]) == ("mix.remix.wav", None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--gain", "speech"), '"speech" is not of the form SOUND=DECIBELS'),
        (("--gain", "=3"), '"=3" is not of the form'),
        (("--gain", "speech=abc"), '"abc" is not a number of decibels'),
        (("--gain", "speech=+nan"), '"+nan" is not a number of decibels'),
        (("--gain", "speech=+200"), "200 dB is more than +60 dB"),
        (("--gain", "speech=inf"), "inf dB is more than +60 dB"),
        (("--gain", "?=3"), '--gain "?" contains no word'),
        (("--gain", "a=3", "--gain", "a=4"), "“a” is changed twice"),
        (("--gain", "a=3", "--remove", "a"), "“a” is changed twice"),
        (("--gain", "Dog=3", "--gain", "dog=-3"), "“Dog” is changed twice"),
        (("--query", "a", "-o", ""), "-o is empty. Name a folder."),
        (("--query", "a", "--model", ""), "--model is empty."),
        (("--query", "a", "-r", ""), "The name of a file is empty."),
        (("--query", "a", "--format", ""), "--format is empty."),
        (("--query-audio", ""), "--query-audio: it is empty."),
        (("--gain", "a=3", "--each"), "--each needs --remove"),
        (("--query", "a", "--each"), "--each needs --remove"),
        (("--gain", "a=3", "--remove", "b", "--each"), "--each cannot be combined with --gain"),
        (("--not", "a"), "--not needs --query"),
        (("--query", "a", "--not", "A"), "“A” is asked for, so --not cannot exclude it."),
        (("--querry", "a"), "Did you mean --query?"),
        (("--query", "a", "--clip", "wrap"), "invalid choice: 'wrap'"),
        (("--query", "a", "--from", "3", "--to", "3"), "--from must lie before --to, but 3 s is not before 3 s."),
        (("--query", "a", "--from", "1:75"), "'1:75' is not a time"),
        (("--query", "a", "--to", "-1"), "'-1' is not a time"),
        (("--all", "--gain", "a=3"), "cannot be combined with --gain"),
    ],
)
def test_wrong_options_cost_one_sentence(folder, capsys, options, words):
    assert run(*options, "mix.wav") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert files() == ["mix.wav"]


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_16", "PCM_24"])
@pytest.mark.parametrize("clip", [None, "rescale", "clamp", "none"])
def test_peaks_over_full_scale_are_never_wrapped(folder, capsys, clip, subtype):
    louder = load("mix.wav") * (1 + 0.5 * (10**0.5 - 1)) * 1.0  # half of it by 10 dB
    options = () if clip is None else ("--clip", clip)
    assert run("--gain", "half=10", "--gain", "quarter=0", *options, "--subtype", subtype, "mix.wav") == 0
    assert np.abs(louder).max() < 1.0 or clip is None
    assert run("--gain", "half=20", *options, "--subtype", subtype, "--overwrite", "mix.wav") == 0
    loud, peak = load("mix.wav") * 5.5, 2.2
    found, kept = load("mix.remix.wav"), subtype == "FLOAT" and clip in (None, "none")
    if clip == "rescale" or (clip is None and not kept):
        assert np.abs(found - loud / np.abs(loud).max()).max() < 1e-4
    else:
        assert np.abs(found - (loud if kept else loud.clip(-1, 1))).max() < 1e-4
    assert (np.abs(found).max() > 0.99 * peak) == kept
    sentence = "turned down by" if clip == "rescale" or (clip is None and not kept) else "exceeds full scale by 6.8"
    assert sentence in capsys.readouterr().err


def test_a_result_of_several_sounds_goes_to_standard_output(folder, capfdbinary):
    assert run("--remove", "half", "--remove", "quarter", "mix.wav", "-o", "-") == 0
    out, err = capfdbinary.readouterr()
    assert out[:4] == b"RIFF"
    assert "“half”: presence 0.50" in err.decode()
    assert run("--remove", "half", "--remove", "quarter", "--each", "mix.wav", "-o", "-") == 2


def test_a_span_limits_the_target(folder, capsys):
    mixture = load("mix.wav")  # 2.5 s
    assert run("--query", "half", "--residual", "--from", "0:01", "--to", "1.5", "mix.wav") == 0
    target, residual = load("mix.half.wav"), load("mix.not_half.wav")
    outside = np.r_[0:8000, 12000:20000]
    assert not target[outside].any()
    assert np.array_equal(residual[outside], mixture[outside])
    assert np.abs(target[8160:11840] - 0.5 * mixture[8160:11840]).max() < 1e-6
    assert np.abs(target[8000:8160]).max() < 0.5 * np.abs(mixture).max()
    assert run("--remove", "all", "--from", "2", "--to", "9", "mix.wav") == 0
    assert "mix.wav ends at 2.5 s, before the span does (9 s)." in capsys.readouterr().err
    assert np.array_equal(load("mix.not_all.wav")[:16000], mixture[:16000])
    assert not load("mix.not_all.wav")[16160:].any()
    assert run("--gain", "all=6", "--from", "7", "mix.wav") == 0
    assert "before the span begins (7 s), so nothing is changed" in capsys.readouterr().err
    for option in ("--list", "--all"):
        assert run(option, "--from", "7", "mix.wav") == 0
        assert "before the span begins (7 s), so nothing is listed" in capsys.readouterr().err
    assert np.array_equal(load("mix.remix.wav"), mixture)


def test_folders_keep_their_tree_and_go_on_after_a_stop(folder, capsys):
    for name in ("in/a.wav", "in/sub/a.wav", "in/sub/deep/b.wav"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        save(name, 0.1)
    command = ("--query", "half", "--residual", "-r", "in", "-o", "out")
    assert run(*command) == 0
    parts = [path for stem in ("a", "sub/a", "sub/deep/b") for path in (f"{stem}.half.wav", f"{stem}.not_half.wav")]
    assert {path.relative_to("out").as_posix() for path in Path("out").rglob("*.wav")} == set(parts)
    for path in Path("out/sub").glob("*.wav"):
        path.unlink()
    before = Path("out/a.half.wav").stat().st_mtime_ns
    capsys.readouterr()
    assert run(*command, "--skip-existing", "--json") == 0
    out, err = capsys.readouterr()
    assert [json.loads(line).get("skipped", False) for line in out.splitlines()] == [True, False, True]
    assert err.endswith(": 1 done, 2 skipped because their outputs exist.\n")
    assert Path("out/a.half.wav").stat().st_mtime_ns == before
    Path("out/a.half.wav").unlink()
    assert run(*command, "--skip-existing") == 1  # half of the outputs: nothing is replaced
    assert "a.not_half.wav already exists" in capsys.readouterr().err
    assert run(*command, "--skip-existing", "--overwrite") == 0


# Parsing


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3.2", 3.2), (7, 7.0), (".5", 0.5), ("90", 90.0), ("1:03.5", 63.5), ("1:00:03", 3603.0), (1e-7, 1e-7)],
)
def test_times(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "a", "-1", "1:60", "1:2:3:4", "nan", "inf", "1e3", "3,2", "1:75:00"])
def test_what_is_no_time(text):
    with pytest.raises(ValueError, match="is not a time"):
        parse_time(text)


def test_gains_take_the_last_equals_sign():
    assert parse_gain("a=b=-3 dB") == ("a=b", -3.0)
    assert parse_gain("wind=-inf") == ("wind", -math.inf)


# Python


def test_removing_in_python(separator):
    mixture = noise(3.0, RATE, 2)
    rest = separator(mixture, remove=["dog", "rain"], sample_rate=RATE)
    dog, both = separator(mixture, "dog", RATE, remove=["dog", "rain"])
    assert torch.allclose(both.residual, rest.residual, atol=1e-6)
    assert torch.allclose(dog.target, separator(mixture, "dog", RATE).target, atol=1e-6)  # does not share
    assert torch.allclose(rest.target + rest.residual, mixture, atol=1e-6)
    one = separator(mixture, remove="dog", sample_rate=RATE)
    assert torch.allclose(one.residual, dog.residual, atol=1e-6)
    removed = separator.remix(mixture, {"dog": -math.inf, "rain": -math.inf}, RATE)
    assert torch.equal(removed.waveform, rest.residual)
    assert max(removed.presence) == pytest.approx(rest.presence)
    [[dog, rain], both] = separator(mixture, ["dog", "rain"], RATE, remove=["dog", "rain"])
    assert not torch.allclose(dog.target + rain.target, both.target, atol=1e-2)  # shares
    with pytest.raises(ValueError, match="Say what to extract"):
        separator(mixture, sample_rate=RATE)
    with pytest.raises(ValueError, match="more than"):
        separator.remix(mixture, {"dog": 200}, RATE)


def test_a_remix_adds_what_its_gains_say(separator):
    mixture = noise(2.0, RATE)
    target = separator(mixture, "dog", RATE).target
    louder = separator.remix(mixture, {"dog": 6.0}, RATE)
    assert torch.allclose(louder.waveform, mixture + (10**0.3 - 1) * target, atol=1e-6)
    assert torch.equal(separator.remix(mixture, [("dog", 0), ("rain", 0.0)], RATE).waveform, mixture)


class TakesAll(ConditionedModel):
    """Every query claims the whole mixture."""

    sample_rate, condition_dim, stride, context = RATE, 16, 1000, 0

    def separate(self, mixture, conditions):
        count = conditions.shape[1]
        logits = torch.zeros(len(mixture), count, mixture.shape[-1] // self.stride + 1)
        return Estimate(mixture[:, None].expand(-1, count, -1, -1), logits)


def test_only_those_that_share_are_turned_down():
    mixture = noise(1.0, RATE)[None]
    shared = SharedTargets(TakesAll(), torch.device("cpu"), [False, True, True, False])
    targets = shared.separate(mixture, torch.zeros(1, 4, 16)).targets
    for number, gain in enumerate((1.0, 0.5, 0.5, 1.0)):
        assert torch.allclose(targets[:, number], gain * mixture, atol=1e-4)


@pytest.mark.parametrize("span", [(3.2, "0:07"), (13, 19.5), (None, 1.0), (21.0, None)])
def test_inside_a_span_the_target_is_that_of_the_whole(separator, long, span):
    (mixture, whole), part = long, separator(long[0], "dog", RATE, span=span)
    envelope = Span.parse(span).envelope(0, mixture.shape[1], RATE)
    assert (part.target - envelope * whole).abs().max() < 1e-5
    outside = envelope == 0
    assert torch.equal(part.residual[:, outside], mixture[:, outside])


def test_presence_is_that_of_the_span():
    class Loud(TakesAll):
        def separate(self, mixture, conditions):
            targets, logits, *_ = super().separate(mixture, conditions)
            power = mixture.abs().amax(1).unfold(-1, 1000, 1000).amax(-1)
            return Estimate(targets, torch.where(power > 0.5, 5.0, -5.0)[:, None].expand(-1, logits.shape[1], -1))

    separator = Separator(Loud(), tiny_separator().encoder, "loud", "cpu")
    mixture = 1e-3 * torch.ones(1, 40 * RATE)
    mixture[:, 20 * RATE : 21 * RATE] = 1.0
    assert separator(mixture, "dog", RATE, span=(15, 25)).presence > 0.9
    assert separator(mixture, "dog", RATE, span=(21.5, 30)).presence < 0.1
    assert separator(mixture, "dog", RATE, span=(5, 19.5)).presence < 0.1


def test_files_from_python(separator, tmp_path):
    path, fractions = tmp_path / "mix.wav", []
    soundfile.write(path, noise(3.0, RATE, 2).T.numpy(), RATE, subtype="FLOAT")
    wave = torch.from_numpy(load(path).T)
    file = separator.separate_file(
        path, ["dog", "rain"], remove=["dog", "rain"], residual=True, output=tmp_path / "out",
        progress=fractions.append,
    )  # fmt: skip
    parts = ("dog", "not_dog", "rain", "not_rain", "without")
    assert [each.name for each in file.outputs] == [f"mix.{part}.wav" for part in parts]
    rest = separator(wave, remove=["dog", "rain"], sample_rate=RATE).residual
    assert np.abs(load(tmp_path / "out" / "mix.without.wav").T - rest.numpy()).max() < 1e-6
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert "mix.wav', 3.0 s at 8000 Hz, dog: presence " in repr(file)
    one = separator.separate_file(path, gains={"dog": 3}, span=(1, 2), output=tmp_path / "one.flac", clip="clamp")
    assert one.outputs == [tmp_path / "one.flac"]
    assert "one.flac" in repr(one)
    assert "<audio" in one._repr_html_()
    blocks = [targets for _, targets in separator.separate_file(str(path), ["dog"])]
    assert torch.allclose(torch.cat(blocks, -1)[0], separator(wave, "dog", RATE).target, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"progress": lambda fraction: False}, Cancelled, "cancelled"),
        ({"progress": lambda fraction: np.bool_(False)}, Cancelled, "cancelled"),
        ({"progress": lambda fraction: torch.tensor(False)}, Cancelled, "cancelled"),
        ({"progress": lambda fraction: fraction < 0.05}, Cancelled, "cancelled"),
        ({"progress": lambda fraction: fraction < 0.3, "output": "new/one.wav"}, Cancelled, "cancelled"),
        ({"residual": True, "output": "one.wav"}, ValueError, "several results"),
        ({"clip": "wrap"}, ValueError, "Unknown clip mode"),
        ({"span": (2, 1)}, ValueError, "begin before it ends"),
        ({"span": 5}, ValueError, r"A span is a pair of times \(from, to\), not 5"),
        ({"gains": [1, 2]}, ValueError, r"Gains are decibels by sound, such as {.speech.: 3.0}, not \[1, 2\]"),
        ({"gains": "dog=3"}, ValueError, "Gains are decibels by sound"),
        ({"gains": {"dog": "loud"}}, ValueError, "loud is not a number of decibels"),
        ({"gains": {"dog": None}}, ValueError, "None is not a number of decibels"),
        ({"output": "mix.wav", "overwrite": True}, AudioError, "one of the inputs"),
        ({"output": "done.wav"}, AudioError, r"done\.wav already exists\. Add overwrite=True to replace it\."),
        ({"output": "x" * 300 + ".wav"}, AudioError, "the name is too long"),
    ],
)
def test_what_fails_leaves_no_file(separator, tmp_path, monkeypatch, options, error, words):
    monkeypatch.chdir(tmp_path)
    soundfile.write("mix.wav", noise(1.0, RATE).T.numpy(), RATE, subtype="FLOAT")
    Path("done.wav").write_bytes(b"kept")
    with pytest.raises(error, match=words):
        separator.separate_file("mix.wav", "dog", **{"output": "out", **options})
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["done.wav", "mix.wav"]
    assert Path("done.wav").read_bytes() == b"kept"


def test_progress_is_told_at_every_second_and_segment(separator, tmp_path):
    soundfile.write(tmp_path / "mix.wav", noise(20.0, RATE).T.numpy(), RATE, subtype="FLOAT")
    fractions = []

    def progress(fraction):
        fractions.append(fraction)
        return fraction < 1.0  # the files are there

    file = separator.separate_file(tmp_path / "mix.wav", "dog", output=tmp_path / "dog.wav", progress=progress)
    assert fractions == sorted(fractions)
    assert len(set(fractions)) > 40
    assert max(np.diff(fractions)) < 0.5
    for stop in (fractions[0], fractions[15], fractions[-2]):
        with pytest.raises(Cancelled):
            separator.separate_file(
                tmp_path / "mix.wav",
                "dog",
                output=tmp_path / "out",
                progress=lambda fraction, stop=stop: fraction < stop,
            )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dog.wav", "mix.wav"]
    silent = separator.separate_file(tmp_path / "mix.wav", "dog", progress=fractions.append)
    assert repr(silent).endswith("20.0 s at 8000 Hz, dog, not separated yet)")
    assert np.abs(load(file.outputs[0]).T - torch.cat([targets[0] for _, targets in silent], -1).numpy()).max() < 1e-6
    assert fractions[-1] == 1.0


def test_results_say_in_a_line_what_they_are(separator):
    mixture = noise(1.0, RATE, 2)
    result, remix = separator(mixture, "dog", RATE), separator.remix(mixture, {"dog": 3}, RATE)
    assert repr(result).startswith(f"Separation(presence {result.presence:.2f} ({result.verdict}), target: 2 channels")
    found = f"dog: presence {remix.presence[0]:.2f} ({result.verdict})"
    assert repr(remix).startswith(f"Remix({found}, 2 channels, 1.0 s at {RATE} Hz, peak ")
    assert (result._repr_html_().count("<audio"), remix._repr_html_().count("<audio")) == (2, 1)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cuda", "cuda is not available here; torch was built for"),
        ("cuda:1", "cuda is not available here"),
        ("mps", "mps is not available here"),
        ("gpu", "No GPU is available here"),
        ("tpu", "Unknown device 'tpu'. Use auto, cpu, gpu, cuda or mps."),
    ],
)
def test_devices_that_are_not_there(separator, monkeypatch, device, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=words):
        Separator.from_pretrained("small", device=device)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    from separation.devices import find_device

    assert find_device("gpu") == find_device(None) == torch.device("mps")
