"""The embedded default itself: lengths around a segment, and the demo's mix."""

import sys
from pathlib import Path

import pytest
import soundfile
import torch

from separation import Separator
from separation.data.foley import synthesise
from separation.separator import Stream

DEMOS = Path(__file__).parents[1] / "demos"
RATE = 32000


@pytest.fixture(scope="module")
def separator():
    return Separator.from_pretrained(device="cpu", precision="float32")


def recording(length):
    """Two procedural sounds in stereo, (2, length)."""
    sounds = [torch.from_numpy(synthesise(name, 13.0, RATE, seed=3)).float() for name in ("dog bark", "rain")]
    dog, rain = (sound.repeat(2)[:length] for sound in sounds)
    return torch.stack([0.6 * dog + 0.2 * rain, 0.2 * dog + 0.6 * rain])


@pytest.mark.parametrize("extra", [-1, 1])
def test_lengths_around_a_segment_equal_one_pass(separator, extra):
    length = separator.model.segment_seconds * RATE + extra
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


def test_offset_rumble_and_silence_change_no_presence(separator):
    mixture = recording(4 * RATE)
    rms = float(mixture.square().mean().sqrt())
    time = torch.arange(mixture.shape[1]) / RATE
    silence = torch.zeros(2, round(1.83 * RATE))
    changed = {
        "offset": mixture + 10 * rms,
        "rumble": mixture + 10 * rms * torch.sin(2 * torch.pi * 9 * time),
        "silence": torch.cat([silence, mixture, silence], dim=1),
    }
    queries = ["dog barking", "rain", "violin"]
    plain = torch.tensor([result.presence for result in separator(mixture, queries, RATE)])
    assert plain[:2].min() > 0.5 > plain[2]
    for name, other in changed.items():
        presence = torch.tensor([result.presence for result in separator(other, queries, RATE)])
        assert (presence - plain).abs().max() < 0.05, name
    level = separator.level([changed["silence"]], RATE)
    found = separator.detect([changed["silence"]], RATE, level, separator.conditions(queries))
    assert torch.allclose(found.presence, plain, atol=0.02)  # asked and listed with one probability
    assert found.spans(0)[0][0] >= 1.8 and found.spans(0)[-1][1] <= 5.9  # seconds of the recording with its silence


def test_every_stem_of_the_demo_gains_eight_decibels(separator, monkeypatch):
    monkeypatch.syspath_prepend(str(DEMOS))
    from score import score

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
