"""Mixtures: a function of seed, epoch and index; levels, places and probabilities as documented."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import vectors, write_corpus

from separation.data.corpus import Corpus
from separation.data.mixing import KNOTS, NO_LOW_PASS, Augment, Mixer, Treatment, draw_excerpt, treat

pytest.importorskip("lightning", reason="needs the extra [train]")

from separation.data.datamodule import ClipData, MixtureData

RATE = 8000
PLAIN = {"speed": 0.0, "tone": 0.0, "gain": 0.0, "level": (0.0, 0.0), "chance": 0.0}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"), labels=6, recordings=3, seconds=0.5)


@pytest.fixture
def corpus(manifest):
    return Corpus(manifest, sample_rate=RATE)


@pytest.fixture
def data(manifest, monkeypatch):
    monkeypatch.setattr("separation.data.texts.SentenceEncoder.encode_text", lambda self, texts: vectors(texts, 384))

    def make(kind=MixtureData, **arguments):
        module = kind(manifest, **{"batch_size": 6, "seconds": 0.25, "batches": 3, "sample_rate": RATE} | arguments)
        module.setup()
        return module

    return make


def rng(seed=0):
    return np.random.default_rng(seed)


def same(first, second):
    names = ("sources", "labels", "sentences", "bank", "used")
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in names)


def decibel(wave):
    return 10 * np.log10(np.mean(np.square(np.asarray(wave, dtype=np.float64)), axis=-1))


# --- Excerpts ----------------------------------------------------------------------------------


def test_excerpts_lie_anywhere():
    clip = torch.arange(1.0, 101.0)
    starts = set()
    for seed in range(400):
        excerpt = draw_excerpt(clip, 130, rng(seed))
        start = int(excerpt.nonzero()[0])
        starts.add(start)
        assert torch.equal(excerpt[start : start + 100], clip)
        assert excerpt.count_nonzero() == 100 and len(excerpt) == 130
    assert starts == set(range(31))
    cuts = {tuple(draw_excerpt(clip, 70, rng(seed)).tolist()) for seed in range(400)}
    assert cuts == {tuple(float(1 + start + i) for i in range(70)) for start in range(31)}
    assert torch.equal(draw_excerpt(clip, 100, rng()), clip)


def test_a_short_clip_is_repeated_or_padded():
    clip = torch.arange(1.0, 31.0)
    assert torch.equal(draw_excerpt(clip, 80, rng(), "repeat"), torch.cat([clip, clip, clip[:20]]))
    assert torch.equal(draw_excerpt(clip, 80, rng(), "pad"), torch.cat([clip, torch.zeros(50)]))


def test_silent_excerpts_are_drawn_again(corpus, monkeypatch):
    clip = torch.zeros(8000)
    clip[:3000] = torch.sin(torch.arange(3000.0))
    monkeypatch.setattr(corpus, "waveform", lambda number: clip)
    mixer = Mixer(corpus, 1000, Augment(**PLAIN), double=0.0)
    # (4000 / 7000) ** 5 = 0.06; with a single attempt 0.57
    assert np.mean([not draw_excerpt(clip, 1000, rng(seed)).any() for seed in range(300)]) < 0.12
    assert np.mean([not mixer.draw_source("tone 0", rng(seed)).any() for seed in range(300)]) < 0.12
    assert np.mean([not draw_excerpt(clip, 1000, rng(seed), attempts=1).any() for seed in range(300)]) > 0.4
    monkeypatch.setattr(corpus, "waveform", lambda number: 0 * clip)
    assert torch.equal(mixer.draw(rng()).sources(), torch.zeros(3, 1000))


# --- One mixture -------------------------------------------------------------------------------


def test_sources_have_their_gain_and_unused_slots_are_silent(corpus):
    mixer = Mixer(corpus, 2000, Augment(gain=6.0, level=(-14.0, 6.0)))
    levels, spread, numbers = [], [], []
    for seed in range(200):
        mixture = mixer.draw(rng(seed))
        sources, used = mixture.sources(), mixture.used
        assert sources.shape == (3, 2000) and used in (2, 3) and len(set(mixture.labels)) == 3
        assert torch.equal(sources[used:], torch.zeros(3 - used, 2000))
        level = decibel(sources[:used])
        levels += level.tolist()
        spread.append(np.ptp(level))
        numbers.append(used)
    assert -20 - 1e-3 <= min(levels) < -17 and 9 < max(levels) <= 12 + 1e-3
    assert 8 < max(spread) <= 12 + 1e-3  # plus and minus 6
    assert np.mean(np.array(numbers) == 3) == pytest.approx(0.25, abs=0.08)


@pytest.mark.parametrize(("slots", "three", "used"), [(3, 0.0, 2), (3, 1.0, 3), (2, 1.0, 2)])
def test_the_share_of_three_sources_can_be_chosen(corpus, slots, three, used):
    mixer = Mixer(corpus, 500, Augment(), slots=slots, three=three)
    assert {mixer.draw(rng(seed)).used for seed in range(20)} == {used}


def test_a_source_is_of_its_label(corpus):
    """Tones: the spectrum's peak shows which label was drawn."""
    mixer = Mixer(corpus, 4000, Augment(**PLAIN), double=0.0)
    for seed in range(20):
        mixture = mixer.draw(rng(seed))
        sources = mixture.sources()[: mixture.used]
        for wave, label in zip(sources, mixture.labels, strict=False):
            hertz = np.abs(np.fft.rfft(wave)).argmax() * RATE / 4000
            assert hertz == pytest.approx(300 * 1.6**label * 1.02, rel=0.03)
        assert decibel(sources) == pytest.approx(0.0, abs=1e-3)


def test_labels_are_drawn_by_a_power_of_their_recordings(corpus, monkeypatch):
    monkeypatch.setattr(corpus, "tree", {label: dict.fromkeys(range(4**i)) for i, label in enumerate(corpus.labels)})
    assert corpus.label_weights(0.5) == pytest.approx(2.0 ** np.arange(6) / 63)
    assert corpus.label_weights(0.0) == pytest.approx(np.full(6, 1 / 6))
    assert Mixer(corpus, 100, Augment(), balance=1.0).label_weights == pytest.approx(4.0 ** np.arange(6) / 1365)


def test_recordings_of_a_label_weigh_the_same_however_many_clips_they_have(corpus, monkeypatch):
    monkeypatch.setattr(corpus, "tree", {"tone 0": {"a": [0], "b": [1, 2, 3, 4]}})
    drawn = [corpus.draw_clip("tone 0", rng(seed)) for seed in range(300)]
    assert np.mean(np.array(drawn) == 0) == pytest.approx(0.5, abs=0.1)
    assert set(drawn) == set(range(5))


def test_a_second_recording_is_added_at_times(corpus):
    mixer = Mixer(corpus, 4000, Augment(**PLAIN), double=1.0)
    tones, peaks = 300 * 1.6**3 * (1 + 0.02 * np.arange(3)), []
    for seed in range(10):
        wave = treat(*mixer.draw_sources([3], 1, rng(seed)))[0]
        spectrum = np.abs(np.fft.rfft(wave))
        peaks.append(sum(spectrum[round(hertz / 2) - 2 : round(hertz / 2) + 3].max() > 300 for hertz in tones))
    assert max(peaks) == 2


# --- Augmentation ------------------------------------------------------------------------------


def test_speed_changes_length_and_pitch_together(corpus):
    mixer = Mixer(corpus, 6000, Augment(**PLAIN | {"speed": 0.3, "chance": 1.0}))
    factors = []
    for seed in range(50):
        faster = mixer.draw_source("tone 0", rng(seed))
        length = int(faster.nonzero()[-1] - faster.nonzero()[0]) + 1
        factors.append(np.log2(length / 4000))
        spectrum = np.abs(np.fft.rfft(faster.numpy(), 1 << 16))
        assert spectrum.argmax() * RATE / (1 << 16) == pytest.approx(300 * 1.02 * 4000 / length, rel=0.03)
    assert -0.301 < min(factors) < -0.2 and 0.2 < max(factors) < 0.301


def test_the_equaliser_is_drawn_within_its_bounds(corpus):
    _, treatment = Mixer(corpus, 500, Augment(tone=8.0, chance=1.0)).draw_sources([0] * 100, 100, rng())
    assert treatment.filtered.all()
    assert -8 <= treatment.knots.min() < -7.8 and 7.8 < treatment.knots.max() <= 8
    cutoff = treatment.cutoff[treatment.cutoff <= 1]
    assert len(cutoff) / 100 == pytest.approx(0.4, abs=0.12)
    assert 0.2 <= cutoff.min() < 0.3 and 0.8 < cutoff.max() <= 0.9
    _, treatment = Mixer(corpus, 500, Augment(tone=8.0, chance=0.0)).draw_sources([0] * 20, 20, rng())
    assert not treatment.filtered.any()


@pytest.mark.parametrize(("samples", "length"), [(1, 10), (2, 10), (3, 10), (3, 2), (4, 3)])
def test_the_shortest_clips_and_mixtures_are_finite(corpus, monkeypatch, samples, length):
    monkeypatch.setattr(corpus, "waveform", lambda number: torch.ones(samples))
    mixer = Mixer(corpus, length, Augment(chance=1.0))
    assert all(torch.isfinite(mixer.draw(rng(seed)).sources()).all() for seed in range(20))


# --- Filters and levels ------------------------------------------------------------------------


def alone(wave, filtered, knots, cutoff, gain):
    """One source, in double precision, by interpolation: an independent computation."""
    wave = wave.numpy().astype(np.float64)
    if filtered:
        spectrum = np.fft.rfft(wave)
        share = np.linspace(0, 1, len(spectrum))
        position = 7 * np.log(np.maximum(share, 0.004) / 0.004) / np.log(250)
        level = np.interp(position, np.arange(8), knots.numpy())
        level -= 60 * np.clip((share - float(cutoff)) / 0.02, 0, 1)
        wave = np.fft.irfft(spectrum * 10 ** (level / 20), len(wave))
    return wave / max(np.sqrt(np.mean(wave**2)), 1e-5) * 10 ** (float(gain) / 20)


@pytest.mark.parametrize("samples", [2000, 2001])
def test_a_batch_equals_one_source_after_the_other(samples):
    waves = torch.randn(5, 3, samples, generator=torch.Generator().manual_seed(0))
    generator, shape = rng(), (5, 3)
    cutoff = np.where(generator.random(shape) < 0.4, generator.uniform(0.2, 0.9, shape), NO_LOW_PASS)
    values = generator.random(shape) < 0.5, generator.uniform(-8, 8, (*shape, KNOTS)), cutoff
    filtered, *numbers = (torch.from_numpy(each) for each in (*values, generator.uniform(-20, 12, shape)))
    treatment = Treatment(filtered, *(each.float() for each in numbers))
    assert 3 < treatment.filtered.sum() < 12 and (treatment.cutoff <= 1).any()
    before = waves.clone()
    found = treat(waves, treatment)
    assert torch.equal(waves, before)
    for row in range(5):
        for slot in range(3):
            one = (getattr(treatment, name)[row, slot] for name in ("filtered", "knots", "cutoff", "gain"))
            wanted = alone(waves[row, slot], *one)
            assert np.abs(found[row, slot].numpy() - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_silence_stays_silent_and_levels_are_decibels():
    waves = torch.randn(2, 3, 1000)
    waves[:, 2] = 0
    treatment = Treatment.stack([Treatment.identity(3)] * 2)
    treatment.gain[:] = torch.tensor([[0.0, -6.0, 12.0], [3.0, 0.0, 0.0]])
    treatment.filtered[1, 2] = True
    found = treat(waves, treatment)
    level = 10 * found[:, :2].square().mean(-1).log10()
    assert torch.allclose(level, treatment.gain[:, :2], atol=1e-4)
    assert not found[:, 2].any()


# --- Batches -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MixtureData, ClipData])
def test_a_batch_is_a_function_of_seed_epoch_and_index(data, kind):
    first, second, other = data(kind, seed=7), data(kind, seed=7), data(kind, seed=8)
    batch = first.mix(first.batch(2, 1))
    assert same(batch, second.mix(second.batch(2, 1)))
    for module, epoch, index in ((first, 2, 2), (first, 3, 1), (other, 2, 1)):
        assert not same(batch, module.mix(module.batch(epoch, index)))
    torch.manual_seed(99)
    np.random.seed(99)
    assert same(batch, first.mix(first.batch(2, 1)))  # no global generator is used


@pytest.mark.parametrize("kind", [MixtureData, ClipData])
def test_two_ranks_see_what_one_sees_with_doubled_batches(data, kind):
    whole = data(kind).batch(2, 3)
    module = data(kind, batch_size=3)
    parts = [module.batch(2, 3, rank, 2) for rank in range(2)]
    for name in ("sources", "labels", "sentences", "used"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts]))
    for name in ("filtered", "knots", "cutoff", "gain"):
        assert torch.equal(getattr(whole.treatment, name), torch.cat([getattr(part.treatment, name) for part in parts]))
    assert torch.equal(whole.bank, parts[0].bank) and torch.equal(whole.bank, parts[1].bank)
    assert not torch.equal(parts[0].sources, parts[1].sources)


class Trainer:
    """What the data module uses of a trainer; at module level, so that a worker process can unpickle it."""

    def __init__(self, epoch, batch=0):
        self.current_epoch, self.global_rank, self.world_size = epoch, 0, 1
        progress = SimpleNamespace(current=SimpleNamespace(ready=batch))
        self.fit_loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_gives_the_epochs_batches(data, workers, monkeypatch):
    module = data(workers=workers, seed=3)
    assert len(module.train_dataloader()) == 3
    for epoch in range(2):
        monkeypatch.setattr(module, "trainer", Trainer(epoch), raising=False)
        batches = list(module.train_dataloader())
        assert len(batches) == 3
        assert all(same(batch, module.batch(epoch, index)) for index, batch in enumerate(batches))


def test_the_loader_continues_at_the_trainings_batch_and_draws_no_other(data, monkeypatch):
    module = data(seed=3)
    wanted = module.batch(1, 2)
    monkeypatch.setattr(module, "trainer", Trainer(1, batch=2), raising=False)
    drawn, draw_batch = [], module.draw_batch
    monkeypatch.setattr(module, "draw_batch", lambda *arguments: drawn.append(1) or draw_batch(*arguments))
    state = torch.random.get_rng_state()
    loader = module.train_dataloader()
    [last] = list(loader)
    assert same(last, wanted) and len(drawn) == 1 and len(loader) == 3
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_batch_of_mixtures(data):
    module = data(batch_size=7)
    batch = module.mix(module.batch(0, 0))
    assert batch.sources.shape == (7, 3, 2000) and batch.labels.shape == (7, 3) and batch.used.shape == (7,)
    assert batch.sentences.shape == (7, 3, 384) and batch.bank.shape == (6, 384)
    for row in range(7):
        assert len(set(batch.labels[row].tolist())) == 3
        assert (batch.sources[row].abs().amax(1) > 0).tolist() == [slot < batch.used[row] for slot in range(3)]
        for slot in range(3):  # a query is a text of its label
            own = module.texts.vectors[batch.labels[row, slot]]
            assert (own - batch.sentences[row, slot]).norm(dim=1).min() == 0
    for label, vector in enumerate(batch.bank):
        assert (module.texts.vectors[label] - vector).norm(dim=1).min() == 0


def test_some_clips_have_a_quiet_background(data):
    module = data(ClipData, batch_size=64)
    drawn = module.batch(0, 0)
    assert drawn.sources.shape == (64, 2, 2000)
    clean = treat(drawn.sources, drawn.treatment)[:, :1]
    batch = module.mix(drawn)
    assert batch.sources.shape == (64, 1, 2000) and batch.labels.shape == (64, 1) and batch.used.tolist() == [1] * 64
    assert decibel(clean) == pytest.approx(0.0, abs=1e-3)
    background = (batch.sources - clean)[:, 0]
    level = decibel(background[background.abs().amax(1) > 1e-5])
    assert level.min() >= -24.01 and level.max() <= -5.99
    assert 0.2 < len(level) / 64 < 0.6


def test_the_default_length_is_a_whole_number_of_frames():
    module = MixtureData(manifest=None)
    assert module.sample_rate == 32000 and module.length == 99500 and module.length % 500 == 0
