"""The embedded default itself: lengths around a segment, and the demo's mix."""

import sys
from functools import cache
from pathlib import Path

import pytest
import soundfile
import torch

from separation import Separator
from separation.audio import high_pass
from separation.data.foley import synthesise
from separation.evaluate.metrics import sdr
from separation.separator import Stream

DEMOS = Path(__file__).parents[1] / "demos"
RATE = 32000
QUERIES = ["dog barking", "rain", "violin"]


@pytest.fixture(scope="module")
def separator(default):
    return default


@cache
def render(name):
    """13 seconds of a procedural sound."""
    return torch.from_numpy(synthesise(name, 13.0, RATE, seed=3)).float()


def sources(length):
    """Two procedural sounds in stereo, (2, length) each."""
    dog, rain = (render(name)[:length] for name in ("dog bark", "rain"))
    return torch.stack([0.6 * dog, 0.2 * dog]), torch.stack([0.2 * rain, 0.6 * rain])


def recording(length):
    """Their sum."""
    return sum(sources(length))


@pytest.fixture(scope="module")
def plain(separator):
    """Four seconds of a mixture without rumble, its first source, and the results of all queries."""
    dog, rain = (high_pass(source, RATE, 25.0) for source in sources(4 * RATE))
    mixture = dog + rain
    results = separator(mixture, QUERIES, RATE)
    presence = [result.presence for result in results]
    assert min(presence[:2]) > 0.5 > presence[2]
    return mixture, dog.numpy(), results


@pytest.mark.parametrize("extra", [-1, 1])
def test_lengths_around_a_segment_equal_one_pass(separator, monkeypatch, extra):
    monkeypatch.setattr(separator.model, "segment_seconds", 12)  # twice what segments share, the least
    length = 12 * RATE + extra
    mixture = recording(length)
    result = separator(mixture, "dog barking", RATE)
    condition, level = separator.conditions(["dog barking"]), separator.level([mixture], RATE)
    whole = Stream(separator.model, condition, RATE, level, segment_seconds=1000)
    target = torch.cat([whole.push(mixture), whole.flush()], dim=-1)[0]
    assert target.abs().max() > 0.1
    assert (result.target - target).abs().max() < 1e-4
    assert (result.target + result.residual - mixture).abs().max() < 1e-6


@pytest.mark.parametrize("length", [0, 1])
def test_very_short_recordings(separator, length):
    mixture = recording(100)[:, :length]
    result = separator(mixture, "dog barking", RATE)
    assert result.target.shape == (2, length)
    assert torch.isfinite(result.target).all()
    assert torch.allclose(result.target + result.residual, mixture, atol=1e-7)


def disturb(mixture, name):
    """The mixture with an offset, a tone of 12 or 18 Hz or noise below 20 Hz, several times as loud as itself."""
    rms = float(mixture.square().mean().sqrt())
    spectrum = torch.fft.rfft(torch.randn(mixture.shape[1], generator=torch.Generator().manual_seed(0)))
    spectrum[20 * mixture.shape[1] // RATE :] = 0
    noise = torch.fft.irfft(spectrum, mixture.shape[1])
    phase = 2 * torch.pi * torch.arange(mixture.shape[1], dtype=torch.float64) / RATE
    rumble = {
        "offset 10": torch.tensor(10.0),
        "offset -0.5": torch.tensor(-0.5),
        "3 Hz 0.2": 0.2 * 2**0.5 * torch.sin(3 * phase + 1),
        "12 Hz 1": 2**0.5 * torch.sin(12 * phase + 1),
        "12 Hz 3": 3 * 2**0.5 * torch.sin(12 * phase + 1),
        "18 Hz 0.5": 0.5 * 2**0.5 * torch.sin(18 * phase + 1),
        "18 Hz 10": 10 * 2**0.5 * torch.sin(18 * phase + 1),
        "noise 1.3": 1.3 * noise / noise.square().mean().sqrt(),
        "noise 5": 5 * noise / noise.square().mean().sqrt(),
    }
    return mixture + rms * rumble[name].float()


@pytest.mark.parametrize(
    "name",
    ["offset 10", "offset -0.5", "3 Hz 0.2", "12 Hz 1", "12 Hz 3", "18 Hz 0.5", "18 Hz 10", "noise 1.3", "noise 5"],
)
def test_offsets_and_rumble_change_neither_presence_nor_estimate(separator, plain, name):
    mixture, target, expected = plain
    results = separator(disturb(mixture, name), QUERIES, RATE)
    assert max(abs(r.presence - e.presence) for r, e in zip(results, expected, strict=True)) < 0.01
    assert sdr(target, results[0].target.numpy()) == pytest.approx(sdr(target, expected[0].target.numpy()), abs=0.1)


def test_silence_around_a_recording_changes_no_presence(separator, plain):
    mixture, _, expected = plain
    presence = torch.tensor([result.presence for result in expected])
    silence = torch.zeros(2, round(1.83 * RATE))
    padded = torch.cat([silence, mixture, silence], dim=1)
    results = separator(padded, QUERIES, RATE)
    assert torch.allclose(torch.tensor([result.presence for result in results]), presence, atol=0.05)
    found = separator.detect([padded], RATE, separator.level([padded], RATE), separator.conditions(QUERIES))
    assert torch.allclose(found.presence, presence, atol=0.02)  # asked and listed with one probability
    assert found.spans(0)[0][0] >= 1.8 and found.spans(0)[-1][1] <= 5.9  # seconds of the recording with its silence


def test_every_stem_of_the_demo_gains_eight_decibels(separator, stems, monkeypatch):
    monkeypatch.syspath_prepend(str(DEMOS))
    from score import score

    monkeypatch.setattr("score.stems", lambda: stems)
    results = score(separator)
    assert len(results) == 3
    assert min(result.gain for result in results) > 8
    assert min(result.presence for result in results) > 0.5
    assert max(result.rounding for result in results) < 1e-6
    sys.modules.pop("score")


def test_the_demos_sounds_are_listed_with_the_presence_of_a_query(separator):
    samples, rate = soundfile.read(DEMOS / "mix.wav", dtype="float32", always_2d=True)
    found = {sound.label: sound for sound in separator.list_sounds(samples.T, rate)}
    assert set(found) == {"dog bark", "alarm clock", "engine"}
    presence = separator(samples.T, "alarm clock", rate).presence
    assert found["alarm clock"].probability == pytest.approx(presence, abs=1e-3)
    [(begin, end)] = found["alarm clock"].times  # it sounds from 1.5 to 9 s
    assert abs(begin - 1.5) < 0.5 and abs(end - 9.0) < 0.5
    assert separator.when(samples.T, "alarm clock", rate) == ((begin, end),)
    assert separator.when(samples.T, "violin", rate) == ()


def test_stored_conditions_of_the_sounds_are_those_of_their_names(separator):
    names = [sound.name for sound in separator.listed_sounds]
    assert separator.stored_sounds is not None and len(names) == 557
    fresh = separator.conditions(names[::40]).cpu()
    assert torch.allclose(separator.listing_conditions[::40], fresh, atol=1e-5)


def test_the_live_model_separates_as_it_hears():
    live = Separator.from_pretrained("live", device="cpu")
    size = sum(parameter.numel() for parameter in live.model.parameters())
    assert 2e6 < size < 8e6
    dog, rain = sources(4 * RATE)
    mixture, stream = dog + rain, live.stream("dog barking", RATE)
    assert stream.latency <= 0.064
    pieces = [stream.push(block) for block in mixture.split(1000, dim=1)]
    target = torch.cat([*pieces, stream.flush()], dim=-1)[0]
    whole = live(mixture, ["dog barking", "violin"], RATE)
    assert (target - whole[0].target).abs().max() < 1e-5
    assert sdr(dog.numpy(), target.numpy()) > sdr(dog.numpy(), mixture.numpy()) + 3
    assert stream.presence[0] == pytest.approx(whole[0].presence, abs=1e-4) and whole[1].presence < whole[0].presence
