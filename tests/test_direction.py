"""Where sounds come from: covariances to pans and azimuths, arrays, separated recordings, the command."""

import importlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from gains import GainSeparator, run
from tiny import noise, tiny_separator

from separation.inference.direction import Array, Covariances, Direction, estimate_direction, locate_spans
from separation.inference.results import Separation
from separation.listing import DetectedSound, ListingRule
from separation.presence import PresenceRule

RATE = 16000
SQUARE = [[0.05, 0.05], [0.05, -0.05], [-0.05, -0.05], [-0.05, 0.05]]
PAIR = [[0, 0.1], [0, -0.1]]


def panned(pan, seed=0, seconds=2.0):
    """Noise (2, time) with the constant-power law."""
    angle = math.radians(45 * (pan + 1))
    return noise(seconds, RATE, seed=seed) * torch.tensor([[math.cos(angle)], [math.sin(angle)]])


def recorded(layout, azimuth, elevation=0.0, seed=0):
    """Noise (channels, time) from a direction in degrees."""
    wave = noise(2.0, RATE, seed=seed)
    a, e = math.radians(azimuth), math.radians(elevation)
    x, y, z = math.cos(a) * math.cos(e), math.sin(a) * math.cos(e), math.sin(e)
    if layout == "ambix":
        return wave * torch.tensor([[1.0], [y], [z], [x]])
    if layout == "fuma":
        return wave * torch.tensor([[0.5**0.5], [x], [y], [z]])
    hertz = torch.fft.rfftfreq(wave.shape[1], 1 / RATE)
    ahead = torch.tensor([[mic[0] * x + mic[1] * y] for mic in layout]) / 343.0  # seconds before the origin
    return torch.fft.irfft(torch.fft.rfft(wave) * torch.exp(2j * torch.pi * hertz * ahead), wave.shape[1])


def located(target, rest, array="stereo", leak=0.2):
    """The direction when a separation exchanges some of the target for some of the rest."""
    return Separation((1 - leak) * target + leak * rest, leak * target + (1 - leak) * rest, RATE, 1.0).direction(array)


@pytest.mark.parametrize("pan", [-1.0, -0.4, 0.0, 0.73, 1.0])
def test_pan_beside_another_sound(pan):
    found = located(panned(pan), 2 * panned(0.2, seed=1))
    assert found.pan == pytest.approx(pan, abs=0.02)
    assert found.azimuth is None and found.reason is None and found.confidence > 0.9


@pytest.mark.parametrize("layout", [SQUARE, "ambix", "fuma"], ids=["square", "ambix", "fuma"])
@pytest.mark.parametrize("azimuth", [0, 35, 90, -120, 180])
def test_azimuth_beside_another_sound(layout, azimuth):
    found = located(recorded(layout, azimuth), 2 * recorded(layout, -60, seed=1), layout)
    assert abs((found.azimuth - azimuth + 180) % 360 - 180) <= 2
    assert found.pan is None and found.confidence > 0.9
    assert found.elevation is None if layout is SQUARE else found.elevation == 0


def test_elevation_of_ambisonics():
    found = located(recorded("ambix", 30, 45), recorded("ambix", -90, seed=1), "ambix")
    assert (found.azimuth, found.elevation) == (pytest.approx(30, abs=2), pytest.approx(45, abs=5))


@pytest.mark.parametrize(
    ("line", "azimuth", "expected"),
    [
        (PAIR, 50, 50),
        (PAIR, 130, 50),  # behind is not told from in front
        ([[0.1, 0], [-0.1, 0]], 50, 50),
        ([[0.1, 0], [-0.1, 0]], -50, 50),  # nor right from left of a line to the front
        ([[0.1, 0.1], [0, 0], [-0.1, -0.1]], -100, -100),
    ],
)
def test_a_line_of_microphones_tells_one_side(line, azimuth, expected):
    assert located(recorded(line, azimuth), recorded(line, 0, seed=1), line).azimuth == pytest.approx(expected, abs=2)


def test_no_direction_has_a_reason():
    wide, silent = noise(2.0, RATE, channels=2), torch.zeros(2, RATE)
    assert located(wide, 0.1 * panned(0.2, seed=1)).reason == "the sound comes from no single direction"
    nothing = Separation(silent, panned(0.5)[:, :RATE], RATE, 1.0).direction()
    assert (nothing.pan, nothing.confidence, nothing.reason) == (None, 0.0, "the sound is silent")
    assert str(nothing) == "unclear"


def test_covariances_alone_give_the_direction():
    array, hertz = Array.parse(SQUARE), torch.tensor([500.0, 1000.0, 2000.0])
    points, responses = array.responses(hertz)
    place = int((points[:, 0] == 77).nonzero())
    target = responses[:, :, place, None] * responses[:, None, :, place].conj()
    assert estimate_direction(target, 0.01 * torch.eye(4).expand(3, 4, 4).cfloat(), hertz, array).azimuth == 77


def test_silent_rests_and_targets_are_no_obstacle():
    loud, faint = panned(-0.5), 1e-7 * panned(0.9, seed=1)
    assert located(loud, torch.zeros_like(loud), leak=0.0).pan == pytest.approx(-0.5, abs=0.01)
    assert located(faint, loud, leak=0.0).pan == pytest.approx(0.9, abs=0.02)
    assert located(torch.cat([loud, loud]), 1e-9 * torch.cat([loud, loud]), "ambix", leak=0.0).azimuth is not None


def test_pieces_add_up_to_the_whole():
    target, rest = panned(-0.3), panned(0.6, seed=1)
    pieces = Covariances(RATE, 2)
    for a, b in zip(target.split(9000, dim=1), rest.split(9000, dim=1), strict=True):
        pieces.push(a, b)
    assert estimate_direction(*pieces.sums, pieces.hertz, Array()).pan == pytest.approx(-0.3, abs=0.01)


@pytest.mark.parametrize(
    ("direction", "text"),
    [
        (Direction(pan=-0.62, confidence=1), "left 0.6"),
        (Direction(pan=0.04, confidence=1), "centre"),
        (Direction(pan=1.0, confidence=1), "right 1.0"),
        (Direction(azimuth=0.0, confidence=1), "front"),
        (Direction(azimuth=30.0, confidence=1), "left 30°"),
        (Direction(azimuth=-179.0, confidence=1), "right 179°"),
    ],
)
def test_a_direction_in_words(direction, text):
    assert str(direction) == direction.as_json()["text"] == text


def test_arrays_are_read_from_names_rows_texts_and_files(tmp_path):
    expected = Array("microphones", ((0.0, 0.1, 0.0), (0.0, -0.1, 0.0)))
    for suffix, text in (("json", json.dumps(PAIR)), ("yaml", "- [0, 0.1]\n- [0, -0.1, 0]\n")):
        file = tmp_path / f"array.{suffix}"
        file.write_text(text)
        assert Array.parse(file) == Array.parse(str(file)) == expected
    assert Array.parse(PAIR) == Array.parse(np.array(PAIR)) == Array.parse("[[0, 0.1], [0, -0.1]]") == expected
    assert Array.parse("ambix").channels == 4
    assert Array.parse(str([[number / 32, 0.123456789, 0.0] for number in range(32)])).channels == 32


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("surround", "surround: there is no such file; an array is stereo, ambix, fuma, or"),
        ([[0, 0]], "2 to 32 microphones"),
        ([[0, 0], [1]], "two or three numbers"),
        ([[0, 0], ["a", "b"]], "numbers of metres"),
        ("[[0, 0", "an array is"),
        (7, "an array is"),
        ("[['1', '2'], ['3', '4']]", "an array is"),
        ([[True, False], [False, True]], "an array is"),
        ("[&a [0, 1], *a, *a]", "an array is"),
        (f"[[0, 1], [{'9' * 400}, 0]]", "an array is"),
        ("[" * 9000, "an array is"),
        ([[0, math.nan], [0, 1]], "finite"),
        ([[0, 0], [0, 1e6]], "at most 100 metres"),
        ([[0, 0, 0], [0, 0, 1]], "tell no azimuth"),
    ],
)
def test_other_arrays_are_refused_in_one_sentence(value, why):
    with pytest.raises(ValueError, match=why) as caught:
        Array.parse(value)
    assert "\n" not in str(caught.value)


def test_the_channels_must_be_those_of_the_array():
    with pytest.raises(ValueError, match="The array has 4 channels, the recording has 2"):
        Separation(panned(0), panned(0), RATE, 1.0).direction("ambix")


def test_spans_have_their_own_directions_and_long_sounds_are_cut():
    moving = torch.cat([panned(-0.8), panned(0.8, seed=1)], dim=1)
    asked = []

    def separate(numbers, part):
        asked.append((numbers, part.shape[1] / RATE))
        return 0.9 * part[None].expand(len(numbers), -1, -1)

    spans = [((0.0, 2.0), (2.0, 4.0)), ((2.5, 3.0),)]
    [first, second] = locate_spans(spans, [moving[:, :5000], moving[:, 5000:]], RATE, Array(), separate)
    assert [each.pan for each in first[1]] == pytest.approx([-0.8, 0.8], abs=0.02)
    assert second[0].pan == pytest.approx(0.8, abs=0.02)
    assert asked == [([0, 1], 4.0)]  # both at once
    [(whole, parts)] = locate_spans(spans[:1], [moving], RATE, Array(), separate, seconds=1.5)
    assert parts[1] is None and whole == parts[0] and whole.pan == pytest.approx(-0.8, abs=0.02)
    [(alike, _)] = locate_spans([((0.0, 1.0),)], [noise(1, RATE).expand(2, -1)], RATE, Array(), separate=None)
    assert alike.pan == 0 and alike.confidence == 1  # nothing is separated


@pytest.mark.parametrize("kind", ["stereo pan", "two microphones, 20 cm", "four microphones, 10 cm", "ambisonics"])
def test_the_benchmark_places_sounds_where_it_says(kind, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    benchmark = importlib.import_module("direction")
    array = benchmark.KINDS[kind]
    waves = [
        benchmark.place(noise(1.0, 32000, seed=n + 90)[0].numpy(), math.radians(n), array, False) for n in (50, -70)
    ]
    target, rest = (torch.from_numpy(wave).float() for wave in waves)
    found = Separation(0.9 * target, rest + 0.1 * target, 32000, 1.0).direction(array)
    assert benchmark.angle_error(found, 50) <= (0.02 if array == "stereo" else 2)
    assert benchmark.place(np.ones(9), 0.0, array, True).shape == target[:, :9].shape
    assert benchmark.summarise([1.0, None, 3.0]) == {"sounds": 3, "given": 2 / 3, "mean": 2.0, "median": 2.0}


def test_listed_sounds_have_directions():
    separator = tiny_separator()
    separator.listing, separator.rule = ListingRule(sounds=("rain", "siren")), PresenceRule(bias=1.0)
    wave = panned(0.4, seconds=3.0)
    plain = separator.list_sounds(wave, RATE, at_least=0.0)
    found = separator.list_sounds(wave, RATE, at_least=0.0, array="stereo")
    assert plain and [sound.label for sound in found] == [sound.label for sound in plain]
    assert all(sound.direction is None for sound in plain)
    assert [sound.direction.pan for sound in found] == pytest.approx([0.4] * len(found), abs=0.02)
    assert all(len(sound.directions) == len(sound.times) for sound in found)
    with pytest.raises(ValueError, match="The array has 4 channels"):
        separator.list_sounds(wave, RATE, at_least=0.0, array="ambix")


def test_the_command_tells_directions(folder, capsys):
    soundfile.write("mix.wav", panned(-0.6, seconds=4.0).T.numpy(), RATE)
    soundfile.write("mono.wav", panned(0)[0].numpy(), RATE)
    assert run("--list", "mix.wav", "mono.wav") == 0
    assert capsys.readouterr().out.splitlines() == [
        "mix.wav  0.90  rain        left 0.6  0-2 s",
        "mix.wav  0.60  door knock  left 0.6  1-2 s, 3-4 s",
        "mono.wav  0.90  rain        0-2 s",
        "mono.wav  0.60  door knock  1-2 s, 3-4 s",
    ]
    assert run("--list", "--json", "mix.wav") == 0
    [rain, knock] = json.loads(capsys.readouterr().out)["heard"]
    assert rain["direction"]["pan"] == pytest.approx(-0.6, abs=0.02)
    assert rain["direction"]["azimuth"] is None and rain["direction"]["reason"] is None
    assert [span["direction"]["text"] for span in knock["spans"]] == ["left 0.6", "left 0.6"]


def test_the_command_takes_arrays(folder, capsys):
    soundfile.write("field.wav", recorded("ambix", 40).T.numpy(), RATE)
    assert run("--list", "field.wav") == 0
    assert "°" not in capsys.readouterr().out  # four channels tell nothing without an array
    assert run("--list", "--array", "ambix", "field.wav") == 0
    assert "field.wav  0.90  rain        left 40°  0-2 s" in capsys.readouterr().out
    assert run("--list", "--array", "[[0, 0.1], [0, -0.1]]", "field.wav") == 1
    assert capsys.readouterr().err.endswith("field.wav: The array has 2 channels, the recording has 4.\n")
    for words in (["--list", "--array", "circle"], ["--query", "half", "--array", "stereo"]):
        assert run(*words, "field.wav") == 2
        assert "--array" in capsys.readouterr().err


def test_the_double_separates_for_directions(folder):
    sounds = [DetectedSound("half", 1.0, ((0.0, 2.0),))]
    [found] = GainSeparator().locate_sounds(sounds, [panned(0.5)], RATE, 1.0)
    assert found.direction.pan == pytest.approx(0.5, abs=0.02)
