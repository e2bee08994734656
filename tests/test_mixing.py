"""Mixtures: a function of seed, epoch and index; levels, places and chances as promised."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import vectors, write_corpus

from separation.data.corpus import Corpus
from separation.data.mixing import Augment, Mixer
from separation.data.treatment import treated

pytest.importorskip("lightning", reason="needs the extra [train]")

from separation.data import datamodule
from separation.data.datamodule import Batches, ClipData, MixtureData

RATE = 8000
PLAIN = {"speed": 0.0, "tone": 0.0, "gain": 0.0, "level": (0.0, 0.0), "chance": 0.0}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"), labels=6, recordings=3, seconds=0.5)


@pytest.fixture(scope="module")
def corpus(manifest):
    return Corpus(manifest, sample_rate=RATE)


@pytest.fixture
def no_sentence_weights(monkeypatch):
    class Encoder:
        def encode_text(self, texts):
            return vectors(texts, 384)

    monkeypatch.setattr("separation.data.texts.SentenceEncoder", Encoder)


@pytest.fixture
def data(manifest, no_sentence_weights):
    def make(kind=MixtureData, **arguments):
        options = {"batch_size": 5, "seconds": 0.25, "batches": 3, "sample_rate": RATE} | arguments
        module = kind(manifest, **options)
        module.setup()
        return module

    return make


def rng(seed=0):
    return np.random.default_rng(seed)


def same(first, second):
    return all(
        torch.equal(getattr(first, name), getattr(second, name))
        for name in ("sources", "labels", "sentences", "bank", "used")
    )


def decibel(wave):
    return 10 * np.log10(np.mean(np.square(np.asarray(wave, dtype=np.float64)), axis=-1))


# --- One mixture -------------------------------------------------------------------------------


def test_sources_that_sound_have_their_gain_and_the_others_are_silent(corpus):
    augment = Augment(gain=6.0, level=(-14.0, 6.0))
    mixer = Mixer(corpus, 2000, augment)
    levels, spread, numbers = [], [], []
    for seed in range(200):
        sources, labels, used = mixer.mixture(rng(seed))
        assert sources.shape == (3, 2000)
        assert len(set(labels)) == 3
        assert used in (2, 3)
        assert torch.equal(sources[used:], torch.zeros(3 - used, 2000))
        level = decibel(sources[:used])
        levels += level.tolist()
        spread.append(np.ptp(level))
        numbers.append(used)
    assert -20 - 1e-3 <= min(levels) < -17
    assert 9 < max(levels) <= 12 + 1e-3
    assert 8 < max(spread) <= 12 + 1e-3  # plus and minus 6
    assert np.mean(np.array(numbers) == 3) == pytest.approx(0.25, abs=0.08)


def test_the_share_of_three_sources_can_be_chosen(corpus):
    for three, wanted in ((0.0, 2), (1.0, 3)):
        mixer = Mixer(corpus, 500, Augment(), three=three)
        assert {mixer.mixture(rng(seed))[2] for seed in range(20)} == {wanted}
    assert Mixer(corpus, 500, Augment(), slots=2, three=1.0).mixture(rng())[0].shape == (2, 500)


def test_a_source_is_its_label(corpus):
    """Tones: the spectrum's peak says which label was drawn."""
    mixer = Mixer(corpus, 4000, Augment(**PLAIN), double=0.0)
    for seed in range(20):
        sources, labels, used = mixer.mixture(rng(seed))
        for wave, label in zip(sources[:used], labels, strict=False):
            hertz = np.abs(np.fft.rfft(wave)).argmax() * RATE / 4000
            assert hertz == pytest.approx(300 * 1.6**label * 1.02, rel=0.03)
        assert decibel(sources[:used]) == pytest.approx(0.0, abs=1e-3)


def test_clips_are_cut_or_put_into_silence_anywhere(corpus):
    clip = torch.arange(1.0, 101.0)
    longer = Mixer(corpus, 130, Augment())
    starts = set()
    for seed in range(400):
        placed = longer.placed(clip, rng(seed))
        start = int(placed.nonzero()[0])
        starts.add(start)
        assert torch.equal(placed[start : start + 100], clip)
        assert placed.count_nonzero() == 100 and len(placed) == 130
    assert starts == set(range(31))
    shorter = Mixer(corpus, 70, Augment())
    cuts = {tuple(shorter.placed(clip, rng(seed)).tolist()) for seed in range(400)}
    assert cuts == {tuple(float(1 + start + i) for i in range(70)) for start in range(31)}
    assert torch.equal(Mixer(corpus, 100, Augment()).placed(clip, rng()), clip)


def test_labels_are_drawn_by_the_root_of_their_recordings(corpus, monkeypatch):
    monkeypatch.setattr(corpus, "tree", {label: dict.fromkeys(range(4**i)) for i, label in enumerate(corpus.labels)})
    chances = Mixer(corpus, 100, Augment(), balance=0.5).chances
    assert chances == pytest.approx(2.0 ** np.arange(6) / 63)
    assert Mixer(corpus, 100, Augment(), balance=0.0).chances == pytest.approx(np.full(6, 1 / 6))
    assert Mixer(corpus, 100, Augment(), balance=1.0).chances == pytest.approx(4.0 ** np.arange(6) / 1365)


def test_recordings_of_a_label_weigh_the_same_however_many_clips_they_have(corpus, monkeypatch):
    monkeypatch.setattr(corpus, "tree", {"tone 0": {"a": [0], "b": [1, 2, 3, 4]}})
    mixer = Mixer.__new__(Mixer)
    mixer.corpus = corpus
    drawn = [mixer.clip("tone 0", rng(seed)) for seed in range(300)]
    first = np.mean([torch.equal(wave, corpus.waveform(0)) for wave in drawn])
    assert first == pytest.approx(0.5, abs=0.1)


def test_a_second_recording_joins_at_times(corpus):
    mixer = Mixer(corpus, 4000, Augment(**PLAIN), double=1.0)
    peaks = []
    for seed in range(10):
        spectrum = np.abs(np.fft.rfft(mixer.source("tone 3", rng(seed))))
        tones = 300 * 1.6**3 * (1 + 0.02 * np.arange(3))
        peaks.append(sum(spectrum[round(hertz / 2) - 2 : round(hertz / 2) + 3].max() > 300 for hertz in tones))
    assert max(peaks) == 2


def test_cuts_that_hit_a_pause_are_drawn_again(corpus, monkeypatch):
    clip = torch.zeros(8000)
    clip[:3000] = torch.sin(torch.arange(3000.0))
    monkeypatch.setattr(corpus, "waveform", lambda number: clip)
    mixer = Mixer(corpus, 1000, Augment(**PLAIN), double=0.0)
    silent = [not mixer.source("tone 0", rng(seed)).any() for seed in range(300)]
    assert np.mean(silent) < 0.12  # (4000 / 7000) ** 5 = 0.06; with a single draw 0.57
    monkeypatch.setattr(corpus, "waveform", lambda number: 0 * clip)
    assert torch.equal(mixer.source("tone 0", rng()), torch.zeros(1000))


# --- Augmentation ------------------------------------------------------------------------------


def test_speed_moves_length_and_pitch_together(corpus):
    augment = Augment(**PLAIN | {"speed": 0.3, "chance": 1.0})
    wave = corpus.waveform(0)
    factors = []
    for seed in range(50):
        faster = augment.resampled(wave, rng(seed))
        factor = len(faster) / len(wave)
        factors.append(np.log2(factor))
        spectrum = np.abs(np.fft.rfft(faster.numpy() * np.hanning(len(faster)), 1 << 16))
        assert spectrum.argmax() * RATE / (1 << 16) == pytest.approx(300 / factor, rel=0.01)
    assert -0.301 < min(factors) < -0.2
    assert 0.2 < max(factors) < 0.301


def test_without_a_chance_nothing_is_changed(corpus):
    augment = Augment(**PLAIN | {"speed": 0.3, "tone": 8.0})
    wave = corpus.waveform(0)
    for seed in range(10):
        assert torch.equal(augment.resampled(wave, rng(seed)), wave)
        assert augment.equaliser(rng(seed)) is None


def test_the_equaliser_keeps_within_its_gain_but_for_the_low_pass():
    augment = Augment(tone=8.0, chance=1.0)
    drawn = [augment.equaliser(rng(seed)) for seed in range(100)]
    knots = np.array([knots for knots, _ in drawn])
    assert -8 <= knots.min() < -7.8 and 7.8 < knots.max() <= 8
    cutoff = np.array([cutoff for _, cutoff in drawn])
    cut = cutoff <= 1
    assert cut.mean() == pytest.approx(0.4, abs=0.12)
    assert 0.2 <= cutoff[cut].min() < 0.3 and 0.8 < cutoff[cut].max() <= 0.9


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_the_shortest_clips_survive(samples):
    augment = Augment(chance=1.0)
    for seed in range(20):
        clip = augment.resampled(torch.ones(samples), rng(seed))
        assert torch.isfinite(clip).all() and len(clip) >= 1


# --- Batches -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MixtureData, ClipData])
def test_a_batch_is_a_function_of_seed_epoch_and_index(data, kind):
    first, second = data(kind), data(kind)

    def drawn(module, index, seed=7, epoch=2):
        return module.mixed(Batches(module.drawn, 5, 3, seed, epoch)[index])

    batch = drawn(first, 1)
    assert same(batch, drawn(second, 1))
    assert not same(batch, drawn(first, 2))
    assert not same(batch, drawn(first, 1, epoch=3))
    assert not same(batch, drawn(first, 1, seed=8))
    torch.manual_seed(99)
    np.random.seed(99)
    assert same(batch, drawn(first, 1))  # no other generator is asked


@pytest.mark.parametrize("kind", [MixtureData, ClipData])
def test_two_ranks_see_what_one_sees_with_doubled_batches(data, kind):
    module = data(kind)
    whole = Batches(module.drawn, 6, 4, seed=7, epoch=2)[3]
    parts = [Batches(module.drawn, 3, 4, seed=7, epoch=2, rank=rank, world=2)[3] for rank in range(2)]
    for name in ("sources", "labels", "sentences", "used"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts]))
    for name in ("filtered", "knots", "cutoff", "gain"):
        assert torch.equal(getattr(whole.treatment, name), torch.cat([getattr(part.treatment, name) for part in parts]))
    assert torch.equal(whole.bank, parts[0].bank) and torch.equal(whole.bank, parts[1].bank)
    assert not torch.equal(parts[0].sources, parts[1].sources)
    assert not torch.equal(whole.sources[:3], Batches(module.drawn, 6, 4, seed=7, epoch=2)[2].sources[:3])


class Trainer:
    """As much of one as the data asks for; at module level, so that a worker process can unpickle it."""

    def __init__(self, epoch, batch=0):
        self.current_epoch, self.global_rank, self.world_size = epoch, 0, 1
        progress = SimpleNamespace(current=SimpleNamespace(ready=batch))
        self.fit_loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_gives_the_epochs_batches(data, workers, monkeypatch):
    module = data(workers=workers, seed=3)
    assert len(module.train_dataloader()) == 3

    monkeypatch.setattr(module, "trainer", Trainer(0), raising=False)
    first = list(module.train_dataloader())
    monkeypatch.setattr(module, "trainer", Trainer(1), raising=False)
    second = list(module.train_dataloader())
    for epoch, batches in enumerate((first, second)):
        assert len(batches) == 3
        assert all(same(batch, module.epoch(epoch)[index]) for index, batch in enumerate(batches))
    assert not any(torch.equal(a.sources, b.sources) for a in first for b in second)


def test_the_loader_goes_on_at_the_trainings_batch_and_draws_no_other(data, monkeypatch):
    module = data(seed=3)
    monkeypatch.setattr(module, "trainer", Trainer(1, batch=2), raising=False)
    asked = []
    drawn = module.drawn
    monkeypatch.setattr(module, "drawn", lambda *generators: asked.append(1) or drawn(*generators))
    loader = module.train_dataloader()
    state = torch.random.get_rng_state()
    [last] = list(loader)
    assert same(last, module.epoch(1)[2])
    assert len(asked) == 2  # that one, and the one it is compared with
    assert len(loader) == 3
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_batch_of_mixtures(data):
    batch = data(batch_size=7).draw(rng())
    assert batch.sources.shape == (7, 3, 2000)
    assert batch.labels.shape == (7, 3)
    assert batch.sentences.shape == (7, 3, 384)
    assert batch.bank.shape == (6, 384)
    assert batch.used.shape == (7,)
    for row in range(7):
        assert len(set(batch.labels[row].tolist())) == 3
        sounding = batch.sources[row].abs().amax(1) > 0
        assert sounding.tolist() == [slot < batch.used[row] for slot in range(3)]


def test_a_query_asks_for_its_label(data):
    module = data()
    batch = module.draw(rng())
    for row in range(5):
        for slot in range(3):
            own = module.texts.vectors[batch.labels[row, slot]]
            assert (own - batch.sentences[row, slot]).norm(dim=1).min() == 0
    for label, vector in enumerate(batch.bank):
        assert (module.texts.vectors[label] - vector).norm(dim=1).min() == 0


def test_a_batch_of_clips_has_something_quiet_behind_some(data):
    module = data(ClipData, batch_size=64)
    drawn = module.drawn([rng(seed) for seed in range(64)], rng())
    assert drawn.sources.shape == (64, 2, 2000)
    clean = treated(drawn.sources, drawn.treatment)[:, :1]
    batch = module.mixed(drawn)
    assert batch.sources.shape == (64, 1, 2000)
    assert batch.labels.shape == (64, 1)
    assert batch.used.tolist() == [1] * 64
    assert decibel(clean) == pytest.approx(0.0, abs=1e-3)
    behind = (batch.sources - clean)[:, 0]
    level = decibel(behind[behind.abs().amax(1) > 1e-5])
    assert level.min() >= -24.01 and level.max() <= -5.99
    assert 0.2 < len(level) / 64 < 0.6


def test_mixing_is_done_on_the_default_rate():
    module = datamodule.MixtureData(manifest=None)
    assert module.sample_rate == 32000
    assert module.length == 99500 and module.length % 500 == 0
