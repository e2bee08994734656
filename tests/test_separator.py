"""`Separator`: exactness over segments, rates, levels and channels, and what it refuses.

Most tests use the default network's geometry with few channels and random weights: what must hold, must hold for any.
"""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny import DIM, TinyEncoder, noise, tiny_model, tiny_separator, vectors

from separation import Query, Separator
from separation.audio import AudioError, Reader, as_waveform, high_pass
from separation.inference.stream import Stream
from separation.models.base import ConditionedModel, Estimate

SEGMENT_SECONDS = 12  # twice what segments share, the least; by default they are twice as long
RATES = [8000, 11025, 22050, 32000, 44100, 44101, 48000, 96000]


class Gain(ConditionedModel):
    """Half of everything, for any query; remembers the level of what it was given."""

    sample_rate, condition_dim, stride, context = 32000, DIM, 4000, 80000
    segment_seconds = SEGMENT_SECONDS

    def __init__(self):
        super().__init__()
        self.seen = []

    def separate(self, mixture, conditions):
        self.seen.append(mixture)
        queries = conditions.shape[1]
        logits = torch.full((len(mixture), queries, mixture.shape[-1] // self.stride + 1), -2.0)
        logits[..., -1] = 1.0
        return Estimate(0.5 * mixture[:, None].expand(-1, queries, -1, -1), logits)


@pytest.fixture(scope="module")
def separator():
    made = tiny_separator()
    made.model.segment_seconds = SEGMENT_SECONDS
    return made


def gain():
    return Separator(Gain(), TinyEncoder(), "gain", "cpu")


def long_noise(seconds, channels=1, sample_rate=8000):
    return noise(seconds, sample_rate, channels)


def sine(hertz, seconds, sample_rate):
    """(time,), computed in double precision."""
    phase = 2 * np.pi * hertz * np.arange(round(seconds * sample_rate)) / sample_rate
    return torch.tensor(np.sin(phase), dtype=torch.float32)


def faded(hertz, sample_rate):
    """1.5 s of a sine that comes and goes smoothly, (time,)."""
    return sine(hertz, 1.5, sample_rate) * sine(1 / 3, 1.5, sample_rate) ** 4


def check(result, mixture):
    """What every result must be."""
    assert result.target.shape == result.residual.shape == mixture.shape
    assert result.target.dtype == result.residual.dtype == torch.float32
    assert torch.isfinite(result.target).all()
    tolerance = 2e-7 * float(mixture.abs().amax() if mixture.numel() else 0)
    assert torch.allclose(result.target + result.residual, mixture, rtol=0, atol=tolerance)
    assert 0 <= result.presence <= 1


class FullBand(Gain):
    """Half of everything, also above the network's Nyquist frequency; presence logits are the power of the mixture."""

    high_pass, gain_stride = 25.0, 500

    def separate(self, mixture, conditions):
        targets, logits = super().separate(mixture, conditions).targets, self.score_presence(mixture, conditions)[0]
        frames = mixture.shape[-1] // self.gain_stride + 1
        return Estimate(targets, logits, high_gain=torch.full((*conditions.shape[:2], frames), 0.5))

    def score_presence(self, mixture, conditions):
        power = mixture[..., 10000:-10000].square().mean()
        return power.expand(*conditions.shape[:2], mixture.shape[-1] // self.stride + 1), None


# --- Rumble and the highest frequencies --------------------------------------------------------


@pytest.mark.parametrize("sample_rate", [44100, 48000])
def test_the_gain_is_carried_on_above_the_networks_band(sample_rate):
    mixture = noise(3.0, sample_rate, 2)
    full, half = Separator(FullBand(), TinyEncoder(), "full", "cpu"), gain()
    inside = slice(sample_rate // 2, -sample_rate // 2)  # the resampler rings at the ends
    left = (full(mixture, "dog", sample_rate).target - 0.5 * high_pass(mixture, sample_rate, 25.0))[:, inside]
    assert left.abs().max() < 1e-3 * mixture.abs().max()
    without = (half(mixture, "dog", sample_rate).target - 0.5 * mixture)[:, inside]
    share = 1 - 32000 / sample_rate
    assert without.square().mean() / (0.5 * mixture[:, inside]).square().mean() == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("seconds", [2.0, 16.0])  # 16 s make two segments
@pytest.mark.parametrize("hertz", [0, 12, 18])
def test_offsets_and_loud_rumble_change_nothing(seconds, hertz):
    mixture, separator = noise(seconds, 44100, 2), Separator(FullBand(), TinyEncoder(), "full", "cpu")
    rumble = 1.4 * sine(hertz, seconds, 44100) if hertz else 1.0  # ten times as loud as the noise
    level = separator.level([mixture], 44100)
    assert separator.level((mixture + rumble).split(10007, dim=1), 44100) == pytest.approx(level, rel=1e-3)
    clean, faulty = (separator(mixture + each, "dog", 44100) for each in (0, rumble))
    change = (faulty.target - clean.target).square() / clean.target.square().mean()
    assert change.mean() < 1e-5 and change.max() < 0.01  # also at the ends of the recording
    assert faulty.presence == pytest.approx(clean.presence, abs=1e-3)


@pytest.mark.parametrize("seconds", [2.0, 16.0])
def test_targets_keep_rumble_that_may_belong_to_them_without_the_offset(seconds):
    mixture, separator = noise(seconds, 44100, 2), Separator(FullBand(), TinyEncoder(), "full", "cpu")
    rumbling = mixture + 0.1 * sine(15, seconds, 44100) * torch.linspace(0, 1, mixture.shape[1])  # not a steady tone
    clean, found = separator(mixture, "dog", 44100), separator(rumbling + torch.tensor([[0.1], [-0.2]]), "dog", 44100)
    inside = slice(10000, -10000)  # the resampler rings at the ends
    assert torch.allclose(found.target[:, inside], 0.5 * rumbling[:, inside], atol=5e-3)
    assert found.presence == pytest.approx(clean.presence, abs=1e-3)


def test_streams_refuse_what_is_not_valid(separator):
    for level in (float("nan"), -1.0):
        with pytest.raises(ValueError, match="must be a finite number from 0 on"):
            separator.stream(["dog"], 8000, 1, level)
    with pytest.raises(ValueError, match="must be a list, not one text"):
        separator.stream("dog", 8000, 1, 0.1)
    stream = separator.stream(["dog"], 8000, 1, 0.1)
    stream.push(np.zeros(100, np.int16))
    with pytest.raises(ValueError, match="The block has 2 channels, those before it had 1"):
        stream.push(torch.zeros(2, 100))
    with pytest.raises(ValueError, match="NaN or infinite"):
        stream.push(torch.full((1, 100), float("nan")))


def test_precision_is_a_name():
    with pytest.raises(ValueError, match="Unknown precision half"):
        Separator.from_pretrained("small", precision="half")


# --- Segments ----------------------------------------------------------------------------------


def whole(model, mixture, texts, sample_rate, level):
    """One pass over everything, without segments."""
    stream = Stream(model, vectors(texts), sample_rate, level, segment_seconds=1000)
    return torch.cat([stream.push(mixture), stream.flush()], dim=-1), stream.presence


@pytest.mark.parametrize("seconds", [12.7, 19.3])  # two segments, three
def test_segments_equal_the_whole(separator, seconds):
    mixture = long_noise(seconds, channels=2)
    results = separator(mixture, ["dog", "rain"], 8000)
    reference, presence = whole(separator.model, mixture, ["dog", "rain"], 8000, separator.level([mixture], 8000))
    assert reference.shape[-1] > SEGMENT_SECONDS * 8000
    for result, target, probability in zip(results, reference, presence, strict=True):
        check(result, mixture)
        assert (result.target - target).abs().max() < 1e-6  # issue 2 asks for 1e-4; at a level of 0.1
        assert result.presence == pytest.approx(probability, abs=1e-4)


@pytest.mark.parametrize("extra", [-1, 0, 1])
@pytest.mark.parametrize("sample_rate", [8000, 44101])
def test_lengths_around_a_segment(sample_rate, extra):
    mixture = noise(SEGMENT_SECONDS, sample_rate)
    mixture = torch.cat([mixture, mixture], dim=1)[:, : SEGMENT_SECONDS * sample_rate + extra]
    check(gain()(mixture, "dog", sample_rate), mixture)


@pytest.mark.parametrize("sample_rate", [8000, 44100, 44101])
def test_no_seam_is_heard_between_segments(sample_rate):
    tone = 0.3 * sine(440, 21, sample_rate)[None]
    model = Gain()
    result = Separator(model, TinyEncoder(), "gain", "cpu")(tone, "dog", sample_rate)
    assert result.presence == pytest.approx(1 / (1 + np.exp(-1.0)))  # of the largest logit over time
    assert len(model.seen) == 3
    inside = slice(sample_rate, -sample_rate)  # the filters ring where the tone begins and ends
    assert (result.target - 0.5 * tone)[:, inside].abs().max() < 2e-6


def test_pushes_of_any_size_give_the_same(separator):
    mixture = long_noise(15.7, channels=2)
    level = separator.level(mixture.split(12345, dim=1), 8000)
    stream = separator.stream(["dog", "rain"], 8000, 2, level)
    rng = np.random.default_rng(0)
    cuts = np.sort(rng.integers(0, mixture.shape[1], 25)).tolist()
    pieces = [stream.push(block) for block in torch.tensor_split(mixture, cuts, dim=1)] + [stream.flush()]
    assert all(piece.shape[:2] == (2, 2) for piece in pieces)
    joined = torch.cat(pieces, dim=-1)
    results = separator(mixture, ["dog", "rain"], 8000)
    for target, presence, result in zip(joined, stream.presence, results, strict=True):
        assert torch.allclose(target, result.target, atol=1e-7)
        assert presence == pytest.approx(result.presence, abs=1e-6)


def test_a_stream_gives_output_while_it_is_fed_and_holds_no_more_than_a_segment():
    stream = gain().stream(["dog"], 8000, 1, 0.1)
    given = taken = 0
    for _ in range(60):
        taken += stream.push(torch.full((1, 8000), 0.1)).shape[-1]
        given += 8000
        assert given - taken <= SEGMENT_SECONDS * 8000
        assert stream.runner.segmenter.length <= SEGMENT_SECONDS * 8000
    assert taken + stream.flush().shape[-1] == given
    empty = gain().stream(["dog", "rain"], 44100, 1, 0.1)
    assert empty.flush().shape == (2, 1, 0)
    assert empty.presence == [0.0, 0.0]


# --- Rates, bands, lengths ---------------------------------------------------------------------


@pytest.mark.parametrize("sample_rate", RATES)
def test_any_sample_rate(separator, sample_rate):
    mixture = noise(1.3, sample_rate, channels=2)
    result = separator(mixture, "dog", sample_rate)
    check(result, mixture)
    assert result.sample_rate == sample_rate
    assert result.target.square().sum() > 0.001 * mixture.square().sum()


@pytest.mark.parametrize("sample_rate", RATES)
def test_resampling_there_and_back_shifts_nothing(sample_rate):
    mixture = torch.stack([faded(hertz, sample_rate) for hertz in (50, 997, 3100)])
    result = gain()(mixture, "dog", sample_rate)
    assert (result.target - 0.5 * mixture).abs().max() < 2e-5


@pytest.mark.parametrize("sample_rate", [44100, 44101, 48000, 96000])
def test_frequencies_above_the_band_stay_in_the_residual(sample_rate):
    low, high = faded(1000, sample_rate), faded(18500, sample_rate)
    result = gain()((low + high)[None], "dog", sample_rate)
    assert (result.target - 0.5 * low).abs().max() < 2e-5
    assert (result.residual - 0.5 * low - high).abs().max() < 2e-5


@pytest.mark.parametrize("sample_rate", [8000, 32000, 44100, 96000])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 100, 1601])
def test_any_length(separator, sample_rate, length):
    mixture = noise(length / sample_rate, sample_rate, channels=2)
    assert mixture.shape[1] == length
    check(separator(mixture, "dog", sample_rate), mixture)
    results = separator(mixture, ["dog", "rain"], sample_rate)
    assert [r.target.shape for r in results] == [(2, length)] * 2


# --- Levels, polarity, channels ----------------------------------------------------------------


@pytest.mark.parametrize("decibel", [-60, -40, -20, -6, 20])
def test_gain_does_not_matter(separator, decibel):
    mixture = noise(2.0, channels=2, level=0.1)
    plain = separator(mixture, "dog", 32000)
    factor = 10 ** (decibel / 20)
    other = separator(factor * mixture, "dog", 32000)
    check(other, factor * mixture)
    assert (other.target / factor - plain.target).abs().max() < 1e-5 * plain.target.abs().max()
    assert other.presence == pytest.approx(plain.presence, abs=1e-5)


def test_the_network_always_receives_the_same_level():
    for factor, level in ((1e-3, 0.1), (1.0, 1.0), (30.0, 1.0)):
        for channels in (1, 2, 5):
            model = Gain()
            model.input_level = level
            Separator(model, TinyEncoder(), "gain", "cpu")(factor * noise(1.0, channels=channels), "dog", 32000)
            power = model.seen[0].square().sum(1).mean()
            assert power.item() == pytest.approx(
                level**2, rel=0.05
            )  # the last, incomplete frame weighs as much as others


def test_left_minus_right_does_not_vanish(separator):
    left = noise(2.0)
    same = separator(torch.cat([left, left]), "dog", 44100).target
    opposite = separator(torch.cat([left, -left]), "dog", 44100).target
    assert torch.equal(opposite[0], -opposite[1])
    assert torch.allclose(opposite[0], same[0], atol=1e-6)
    assert opposite.square().sum() > 0.01 * 2 * left.square().sum()


@pytest.mark.parametrize("length", [0, 1, 32000, 16 * 8000])
def test_silence_gives_silence(separator, length):
    for result in separator(torch.zeros(2, length), ["dog", "rain"], 8000):
        assert torch.equal(result.target, torch.zeros(2, length))
        assert torch.equal(result.residual, torch.zeros(2, length))
        assert result.presence == 0.0


@pytest.mark.parametrize("length", [5, 800, 8000, 16 * 8000])
def test_an_offset_alone_is_silence(length):
    separator = Separator(FullBand(), TinyEncoder(), "full", "cpu")
    constant = torch.tensor([[0.5], [-1.0]]).expand(2, length)
    assert separator.level([constant], 8000) == 0.0
    for result in separator(constant, ["dog", "rain"], 8000):
        assert not result.target.any() and torch.equal(result.residual, constant)
        assert result.presence == 0.0


def test_silence_around_a_sound_stays_silent_and_does_not_change_it(separator):
    sound = noise(2.0)
    pause = torch.zeros(1, 3 * 32000)
    padded = separator(torch.cat([pause, sound, pause], dim=1), "dog", 32000).target
    assert padded[:, : 3 * 32000 - 1600].abs().max() == 0
    alone = separator(sound, "dog", 32000).target
    # The middle is the same sound at the same level, though the network sees silence instead of nothing around.
    assert (padded[:, 4 * 32000 : 4 * 32000 + 800] - alone[:, 32000:32800]).norm() < 0.2 * alone[:, 32000:32800].norm()


# --- Types of input ----------------------------------------------------------------------------


def test_shapes_of_input(separator):
    mixture = noise(0.5)
    expected = separator(mixture, "dog", 32000).target
    for same in (mixture[0], mixture.numpy(), mixture[0].numpy(), mixture.double(), mixture.clone().requires_grad_()):
        result = separator(same, "dog", 32000)
        assert torch.equal(result.target, expected)
        assert not result.target.requires_grad
    integers = (32768 * mixture).round().to(torch.int16)
    assert torch.equal(
        separator(integers, "dog", 32000).target, separator(integers.float() / 32768, "dog", 32000).target
    )


@pytest.mark.parametrize(
    "dtype", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.float16, np.float32, np.float64]
)
def test_integers_are_scaled_by_full_scale(dtype):
    floats = np.array([-1.0, -0.5, 0.0, 0.25, 0.5])
    if np.issubdtype(dtype, np.floating):
        samples = floats.astype(dtype)
    else:
        half = 2 ** (np.iinfo(dtype).bits - 1)
        middle = half if np.issubdtype(dtype, np.unsignedinteger) else 0
        samples = (floats * half + middle).astype(dtype)
    assert torch.allclose(as_waveform(samples), torch.tensor(floats, dtype=torch.float32)[None], atol=1e-7)
    assert torch.equal(as_waveform(torch.from_numpy(samples)), as_waveform(samples))


def test_views_and_read_only_arrays():
    samples = np.random.default_rng(0).standard_normal((100, 3)).astype(np.float32)
    wanted = torch.from_numpy(samples.T.copy())
    assert torch.equal(as_waveform(samples.T), wanted)
    assert torch.equal(as_waveform(samples[::-1].T), wanted.flip(1))
    samples.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(as_waveform(samples.T.copy()), wanted)
        assert torch.equal(as_waveform(np.broadcast_to(np.float32(0.5), (2, 9))), torch.full((2, 9), 0.5))
        frozen = np.ascontiguousarray(samples.T)
        frozen.setflags(write=False)
        assert torch.equal(as_waveform(frozen), wanted)


def test_the_input_is_left_as_it_was(separator):
    for mixture in (noise(0.5, channels=2), noise(0.5, channels=2).numpy()):
        before = mixture.copy() if isinstance(mixture, np.ndarray) else mixture.clone()
        result = separator(mixture, "dog", 32000)
        result.target.zero_()
        result.residual.zero_()
        assert (mixture == before).all()


@pytest.mark.parametrize(
    ("mixture", "rate", "words"),
    [
        *((torch.full((2, 99), bad), 8000, "NaN or infinite") for bad in (torch.nan, torch.inf, -torch.inf)),
        (np.full((2, 99), 1e300), 8000, "NaN or infinite"),
        *((torch.zeros(shape), 8000, r"must be \(time,\)") for shape in [(), (2, 3, 4), (0, 100)]),
        (np.zeros((2, 3, 4), np.float32), 8000, r"must be \(time,\) or \(channels, time\)"),
        *((torch.zeros(99), rate, "sample rate must be a positive whole number") for rate in (0, -1, 44100.5)),
        *((torch.zeros(99), rate, f"must be from 1000 to 768000 Hz, not {rate}") for rate in (1, 999, 2_000_000)),
        (torch.zeros(99), None, "sample_rate is missing"),
        ([[0.0], [0.0, 0.0]], 8000, "must be an array of samples, not list"),
    ],
)
def test_invalid_mixtures_and_rates_are_refused(separator, mixture, rate, words):
    with pytest.raises(ValueError, match=words):
        separator(mixture, "dog", rate)


@pytest.mark.parametrize("rate", [44100.0, np.int64(44100), np.float32(44100)])
def test_whole_rates_of_any_type_are_accepted(separator, rate):
    assert separator(noise(0.1), "dog", rate).target.shape == (1, 3200)


# --- Queries -----------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["", "  ", "\n\t", [], [""], ["dog", " "]])
def test_empty_queries_are_refused(separator, query):
    with pytest.raises(ValueError, match="query is empty"):
        separator(noise(0.1), query, 32000)


@pytest.mark.parametrize("query", [Path("bark.wav"), b"dog", 1.5, Ellipsis, True, {"dog": 1}, {"dog"}, Separator])
def test_queries_of_another_type_are_refused(separator, query):
    words = rf"A query is a text, a class number, an embedding or a Query, not {type(query).__name__}[^\n]*\.$"
    words = words.replace("PosixPath", r"PosixPath; a recording is Query\(audio=...\)")
    for ask in (
        lambda: separator(noise(0.1), query, 32000),
        lambda: separator(noise(0.1), ["dog", query], 32000),
        lambda: separator(noise(0.1), remove=[query], sample_rate=32000),
        lambda: separator(noise(0.1), Query("dog", negative=[query]), 32000),
        lambda: separator.stream(query, 32000),
        lambda: separator.when(noise(0.1), query, 32000),
        lambda: separator.encode(query),
    ):
        with pytest.raises(ValueError, match=words):
            ask()
    with pytest.raises(ValueError, match="An embedding is an array of numbers"):
        separator(noise(0.1), np.array(["dog", "rain"]), 32000)


def test_a_list_gives_in_its_order_what_single_queries_give(separator):
    mixture = noise(1.0, 44100, channels=2)
    texts = ["rain", "dog", "bell", "dog"]
    results = separator(mixture, texts, 44100)
    assert len(results) == 4
    for text, result in zip(texts, results, strict=True):
        with torch.inference_mode():
            single = separator(mixture, f" {text}\n", 44100)
        check(result, mixture)
        assert torch.allclose(result.target, single.target, atol=1e-7)
        assert result.presence == pytest.approx(single.presence, abs=1e-6)
    assert (results[0].target - results[1].target).norm() > 0.05 * results[0].target.norm()
    assert len(separator(mixture, ["dog"], 44100)) == 1
    assert len(separator(mixture, ("dog", "rain"), 44100)) == 2


def test_queries_share_the_analysis_of_the_mixture(monkeypatch):
    model = tiny_model()
    model.segment_seconds, calls = SEGMENT_SECONDS, []
    analyse = model.analyse
    monkeypatch.setattr(model, "analyse", lambda *given: calls.append(given[0].shape) or analyse(*given))
    separator = Separator(model, TinyEncoder(), "tiny", "cpu")
    mixture = long_noise(15)
    separator(mixture, "dog", 8000)
    once = list(calls)
    assert len(once) == 2  # segments
    calls.clear()
    separator(mixture, [f"sound {i}" for i in range(8)], 8000)
    assert calls == once


def test_separations_do_not_share_memory(separator):
    first, second = separator(noise(0.3), ["dog", "rain"], 32000)
    kept = second.target.clone()
    first.target.zero_()
    assert torch.equal(second.target, kept)
    assert first.target.untyped_storage().nbytes() == 4 * first.target.numel()


# --- The rest ----------------------------------------------------------------------------------


def test_the_network_is_in_inference_mode_and_no_gradient_is_kept():
    model = tiny_model().train()
    separator = Separator(model, TinyEncoder(), "tiny", "cpu")
    assert not model.training
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert not separator(noise(0.5), "dog", 32000).target.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_repr_names_model_rate_and_device(separator):
    assert "tiny" in repr(separator)
    assert "32000 Hz, on cpu" in repr(separator)
    assert separator.sample_rate == 32000


@pytest.mark.parametrize("device", ["cpu", torch.device("meta"), None, "auto"])
def test_devices(device):
    found = Separator(tiny_model(), TinyEncoder(), device=device).device
    assert found == torch.device(device) if device not in (None, "auto") else found.type in ("cpu", "cuda", "mps")


# --- Files -------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    """A stereo recording of 15.7 s as a file, and its samples."""
    mixture = long_noise(15.7, channels=2)
    soundfile.write(tmp_path / "mix.wav", mixture.T.numpy(), 8000, "FLOAT")
    return tmp_path / "mix.wav", mixture


def test_a_file_is_separated_block_by_block_in_two_passes(separator, file):
    path, mixture = file
    stages = []

    def watch(blocks, stage, frames):
        stages.append((stage, frames))
        return blocks

    found = separator.separate_file(Reader(path), ["dog", "rain"], watch)
    assert (found.frames, found.level) == (mixture.shape[1], pytest.approx(separator.level([mixture], 8000)))
    pieces = list(found)
    assert len(pieces) > 1
    assert stages == [("measuring", mixture.shape[1]), ("separating", mixture.shape[1])]
    assert torch.equal(torch.cat([piece for piece, _ in pieces], dim=-1), mixture)
    targets = torch.cat([targets for _, targets in pieces], dim=-1)
    for target, presence, result in zip(
        targets, found.presence, separator(mixture, ["dog", "rain"], 8000), strict=True
    ):
        assert torch.allclose(target, result.target, atol=1e-7)
        assert presence == pytest.approx(result.presence, abs=1e-6)


def test_a_file_that_changes_between_the_passes_is_refused(separator, file):
    found = separator.separate_file(Reader(file[0]), ["dog"])
    found.frames += 1
    with pytest.raises(AudioError, match=r"mix\.wav changed while it was being read"):
        list(found)


LEVEL_OF_MINUTES = """
import os, torch
from separation.inference.levels import measure_level_and_rumble
sizes, noise = [], 0.1 * torch.randn(2, 441000)
def blocks():
    for number in range(30):
        if number % 6 == 5:
            sizes.append(int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 10**6)
        yield noise.clone()
measure_level_and_rumble(blocks(), 44100, 25.0)
print(max(sizes[1:]) - sizes[0])
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux")
def test_memory_does_not_grow_while_the_level_is_measured():
    done = subprocess.run([sys.executable, "-c", LEVEL_OF_MINUTES], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200  # MB from the first minute to the fifth; small tensors between large ones took 400
