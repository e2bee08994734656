"""Mixtures: a function of seed, epoch and index; levels, places and probabilities as documented."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import vectors, write_corpus

from separation.data.corpus import Corpus
from separation.data.mixing import KNOTS, NO_LOW_PASS, SILENCE_RMS, Augment, Mixer, draw_excerpt, treat
from separation.data.texts import Texts
from separation.errors import DataError

pytest.importorskip("lightning", reason="needs the extra [train]")

from separation.data.datamodule import ClipData, MixtureData

RATE = 8000
PLAIN = {"speed": 0.0, "tone": 0.0, "gain": 0.0, "level": (0.0, 0.0), "chance": 0.0}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"), labels=6, recordings=3, seconds=0.5)


@pytest.fixture(autouse=True)
def _sentences(monkeypatch):
    monkeypatch.setattr("separation.data.texts.SentenceEncoder.encode_text", lambda self, texts: vectors(texts, 384))


@pytest.fixture
def corpus(manifest):
    return Corpus(manifest, sample_rate=RATE)


@pytest.fixture
def data(manifest):
    def make(kind=MixtureData, **arguments):
        module = kind(manifest, **{"batch_size": 6, "seconds": 0.25, "batches": 3, "sample_rate": RATE} | arguments)
        module.setup()
        return module

    return make


def drawn(corpus, length, augment=None, count=200, seed=0, **arguments):
    """A completed batch of mixtures, and what was drawn for it."""
    mixer = Mixer(corpus, Texts(corpus, arguments.get("union", 0) > 0), length, augment or Augment(), **arguments)
    draw = mixer.draw(count, torch.Generator().manual_seed(seed))
    return mixer.mix(draw), draw


def rng(seed=0):
    return np.random.default_rng(seed)


def same(first, second):
    return all(torch.equal(value, getattr(second, name)) for name, value in vars(first).items() if value is not None)


def decibel(wave):
    return 10 * np.log10(np.mean(np.square(np.asarray(wave, dtype=np.float64)), axis=-1))


def hertz(wave):
    return np.abs(np.fft.rfft(np.asarray(wave), 1 << 16)).argmax() * RATE / (1 << 16)


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


@pytest.mark.parametrize("length", [1000, 4000, 4900])
def test_the_excerpts_of_a_batch_are_parts_of_their_clips(corpus, length):
    batch, draw = drawn(corpus, length, Augment(**PLAIN), double=0.0, count=40)
    starts = set()
    for row, slot in batch.has_source().nonzero().tolist():
        clip, found = corpus.waveform(int(batch.clips[row, slot])), draw.waves[row, slot]
        assert corpus.clips[batch.clips[row, slot]].label == corpus.labels[batch.labels[row, slot]]
        windows = clip.unfold(0, length, 1) if length <= 4000 else found.unfold(0, 4000, 1)
        distance = (windows - (found if length <= 4000 else clip)).abs().amax(1)
        starts.add(int(distance.argmin()))
        assert distance.min() < 1e-6 and (length <= 4000 or found.count_nonzero() <= 4000)
    assert len(starts) > 30 if length != 4000 else starts == {0}
    assert not draw.waves[~batch.has_source()].any()


@pytest.mark.parametrize("share", [0.0, 0.375])
def test_silent_excerpts_are_drawn_again(corpus, monkeypatch, share):
    """A clip that sounds in a part only is silent in 57 % of the excerpts, and after five attempts in 6 %."""
    silent = corpus.samples.clone()
    for start in corpus.starts:
        silent[start + round(share * 4000) : start + 4000] = 0
    monkeypatch.setattr(corpus, "samples", silent)
    batch, draw = drawn(corpus, 500, Augment(**PLAIN), double=0.0)
    quiet = draw.waves.square().mean(-1).sqrt()[batch.has_source()] <= SILENCE_RMS
    assert quiet.float().mean() == (1 if share == 0 else pytest.approx((2000 / 3500) ** 5, abs=0.04))
    assert torch.isfinite(batch.sources).all()
    clip = torch.cat([torch.sin(torch.arange(3000.0)), torch.zeros(5000)])
    assert np.mean([not draw_excerpt(clip, 1000, rng(seed)).any() for seed in range(300)]) < 0.12
    assert np.mean([not draw_excerpt(clip, 1000, rng(seed), attempts=1).any() for seed in range(300)]) > 0.4


# --- One mixture -------------------------------------------------------------------------------


def test_sources_have_their_gain_and_unused_slots_are_silent(corpus):
    batch, _ = drawn(corpus, 2000, Augment(gain=6.0, level=(-14.0, 6.0)))
    on = batch.has_source()
    assert batch.sources.shape == (200, 3, 2000) and set(batch.used.tolist()) == {2, 3}
    assert all(len(set(labels)) == 3 for labels in batch.labels.tolist()) and not batch.sources[~on].any()
    level = torch.from_numpy(decibel(batch.sources + 1e-9))
    spread = [np.ptp(row[:used]) for row, used in zip(level.tolist(), batch.used.tolist(), strict=True)]
    assert -20 - 1e-3 <= level[on].min() < -17 and 9 < level[on].max() <= 12 + 1e-3
    assert 8 < max(spread) <= 12 + 1e-3  # plus and minus 6
    assert (batch.used == 3).float().mean() == pytest.approx(0.25, abs=0.08)


@pytest.mark.parametrize(("slots", "three", "used"), [(3, 0.0, 2), (3, 1.0, 3), (2, 1.0, 2)])
def test_the_share_of_three_sources_can_be_chosen(corpus, slots, three, used):
    batch, _ = drawn(corpus, 500, slots=slots, three=three, count=20)
    assert set(batch.used.tolist()) == {used}


@pytest.mark.parametrize(("least", "options"), [(3, {}), (4, {"union": 0.1}), (2, {"slots": 2})])
def test_a_mixture_needs_enough_labels(corpus, least, options):
    corpus.keep([n for n, clip in enumerate(corpus.clips) if clip.label in corpus.labels[: least - 1]])
    with pytest.raises(DataError, match=f"A mixture needs clips of {least} labels, and there are {least - 1}"):
        drawn(corpus, 500, **options)


def test_a_source_is_of_its_label(corpus):
    """Tones: the spectrum's peak shows which label was drawn."""
    batch, _ = drawn(corpus, 4000, Augment(**PLAIN), double=0.0, count=20)
    for row, slot in batch.has_source().nonzero().tolist():
        assert hertz(batch.sources[row, slot]) == pytest.approx(
            300 * 1.6 ** int(batch.labels[row, slot]) * 1.02, rel=0.03
        )
        assert decibel(batch.sources[row, slot]) == pytest.approx(0.0, abs=1e-3)


def test_labels_are_drawn_by_a_power_of_their_recordings(corpus, monkeypatch):
    monkeypatch.setattr(
        corpus, "tree", {label: {key: [0] for key in range(4**i)} for i, label in enumerate(corpus.labels)}
    )
    assert corpus.label_weights(0.5) == pytest.approx(2.0 ** np.arange(6) / 63)
    assert corpus.label_weights(0.0) == pytest.approx(np.full(6, 1 / 6))
    batch, _ = drawn(corpus, 10, balance=0.5, count=1500, slots=2)
    shares = torch.bincount(batch.labels[:, 0], minlength=6) / 1500
    assert shares.tolist() == pytest.approx((2.0 ** np.arange(6) / 63).tolist(), abs=0.03)


def test_recordings_of_a_label_weigh_the_same_however_many_clips_they_have(corpus, monkeypatch):
    monkeypatch.setattr(corpus, "tree", corpus.tree | {"tone 0": {"a": [0], "b": [1, 2, 3, 4]}})
    monkeypatch.setattr(corpus, "recordings", corpus.recordings | {"tone 0": [[0], [1, 2, 3, 4]]})
    one = np.array([corpus.draw_clip("tone 0", rng(seed)) for seed in range(300)])
    batch, _ = drawn(corpus, 10, balance=0.0, count=1000, double=0.0)
    many = batch.clips[batch.has_source() & (batch.labels == 0)].numpy()
    for clips in (one, many):
        assert np.mean(clips == 0) == pytest.approx(0.5, abs=0.1)
        assert set(clips) == set(range(5))


def test_a_second_clip_is_added_at_times(corpus):
    tones, found = 300 * (1 + 0.02 * np.arange(3)), []
    batch, draw = drawn(corpus, 4000, Augment(**PLAIN), double=0.5, count=100)
    for row, slot in (batch.has_source() & (batch.labels == 0)).nonzero().tolist():
        spectrum = np.abs(np.fft.rfft(draw.waves[row, slot]))
        found.append(sum(spectrum[round(each / 2) - 2 : round(each / 2) + 3].max() > 300 for each in tones))
    assert np.mean(np.array(found) == 2) == pytest.approx(1 / 3, abs=0.2)  # half of them, by two thirds another one
    assert max(found) == 2


def test_unions_ask_for_two_of_three_sources_by_one_caption(corpus):
    texts = Texts(corpus, unions=True)
    batch, _ = drawn(corpus, 500, union=0.5, count=100)
    asked = batch.asked_sources()
    both = asked[:, 0].sum(1) == 2
    assert both.float().mean() == pytest.approx(0.5, abs=0.15)
    assert asked[both].unique(dim=0).tolist() == [[[1, 1, 0], [0, 0, 1], [0, 0, 0]]]
    assert torch.equal(asked[~both], torch.diag_embed(batch.has_source())[~both].float())
    assert (batch.used[both] == 3).all() and all(len(set(labels)) == 3 for labels in batch.labels.tolist())
    for row in both.nonzero()[:, 0].tolist():
        [number] = (texts.captions - batch.sentences[row, 0]).norm(dim=1).eq(0).nonzero()[:, 0].tolist()[:1]
        assert texts.pairs[number].tolist() == batch.labels[row, :2].tolist()
        own = [(texts.vectors - batch.sentences[row, slot]).norm(dim=1).argmin() for slot in (1, 2)]
        labels = torch.searchsorted(texts.first, torch.stack(own), right=True) - 1
        assert labels[0] == batch.labels[row, 2] and labels[1] not in batch.labels[row]


# --- Augmentation ------------------------------------------------------------------------------


def test_speed_changes_length_and_pitch_together(corpus):
    batch, draw = drawn(corpus, 6000, Augment(**PLAIN | {"speed": 0.3, "chance": 1.0}), double=0.0, count=100)
    factors = []
    for row, slot in (batch.has_source() & (batch.labels == 0)).nonzero().tolist():
        wave = draw.waves[row, slot]
        length = int(wave.nonzero()[-1] - wave.nonzero()[0]) + 1
        factors.append(np.log2(length / 4000))
        assert hertz(wave) == pytest.approx(300 * 1.02 * 4000 / length, rel=0.03)
    assert -0.301 < min(factors) < -0.2 and 0.2 < max(factors) < 0.301


def test_the_equaliser_is_drawn_within_its_bounds(corpus):
    _, draw = drawn(corpus, 50, Augment(tone=8.0, chance=1.0))
    assert draw.filtered.all()
    assert -8 <= draw.knots.min() < -7.8 and 7.8 < draw.knots.max() <= 8
    cutoff = draw.cutoff[draw.cutoff <= 1]
    assert len(cutoff) / draw.cutoff.numel() == pytest.approx(0.4, abs=0.06)
    assert 0.2 <= cutoff.min() < 0.3 and 0.8 < cutoff.max() <= 0.9
    assert not drawn(corpus, 50, Augment(tone=8.0, chance=0.0))[1].filtered.any()


@pytest.mark.parametrize(("samples", "length"), [(1, 10), (2, 10), (3, 10), (3, 2), (4, 3)])
def test_the_shortest_clips_and_mixtures_are_finite(corpus, monkeypatch, samples, length):
    monkeypatch.setattr(corpus, "lengths", [samples] * len(corpus))
    assert torch.isfinite(drawn(corpus, length, Augment(chance=1.0))[0].sources).all()


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
    waves[4, 2] = 0
    generator, shape = rng(), (5, 3)
    cutoff = np.where(generator.random(shape) < 0.4, generator.uniform(0.2, 0.9, shape), NO_LOW_PASS)
    values = generator.random(shape) < 0.5, generator.uniform(-8, 8, (*shape, KNOTS)), cutoff
    filtered, *numbers = (torch.from_numpy(each) for each in (*values, generator.uniform(-20, 12, shape)))
    treatment = [filtered, *(each.float() for each in numbers)]
    assert 3 < filtered.sum() < 12 and (cutoff <= 1).any()
    before = waves.clone()
    found = treat(waves, *treatment)
    assert torch.equal(waves, before) and not found[4, 2].any()
    for row in range(5):
        for slot in range(3):
            wanted = alone(waves[row, slot], *(each[row, slot] for each in treatment))
            assert np.abs(found[row, slot].numpy() - wanted).max() <= 1e-4 * np.abs(wanted).max()


# --- Batches -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MixtureData, ClipData])
def test_a_batch_is_a_function_of_seed_epoch_and_index(data, kind):
    first, second, other = data(kind, seed=7), data(kind, seed=7), data(kind, seed=8)
    batch = first.complete(first.batch(2, 1))
    assert same(batch, second.complete(second.batch(2, 1)))
    for module, epoch, index in ((first, 2, 2), (first, 3, 1), (other, 2, 1)):
        assert not same(batch, module.complete(module.batch(epoch, index)))
    torch.manual_seed(99)
    np.random.seed(99)
    assert same(batch, first.complete(first.batch(2, 1)))  # no global generator is used
    apart = data(kind, seed=7, on_device=True)
    waiting = apart.batch(2, 1)
    assert waiting.waves is None and same(batch, apart.complete(waiting))  # cut by the device, not by a worker


@pytest.mark.parametrize("kind", [MixtureData, ClipData])
def test_two_ranks_see_what_one_sees_with_doubled_batches(data, kind):
    whole, module = data(kind), data(kind, batch_size=3)
    one = whole.complete(whole.batch(2, 3))
    parts = [module.complete(module.batch(2, 3, rank, 2)) for rank in range(2)]
    for name in ("sources", "labels", "sentences", "used", "clips"):
        both = torch.cat([getattr(part, name) for part in parts])
        assert torch.allclose(getattr(one, name).float(), both.float(), atol=1e-5)
    assert torch.equal(one.bank, parts[0].bank) and torch.equal(one.bank, parts[1].bank)
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
    drawn, batch = [], module.batch
    monkeypatch.setattr(module, "batch", lambda *arguments: drawn.append(1) or batch(*arguments))
    state = torch.random.get_rng_state()
    loader = module.train_dataloader()
    [last] = list(loader)
    assert same(last, wanted) and len(drawn) == 1 and len(loader) == 3
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_batch_of_mixtures(data):
    module = data(batch_size=7)
    batch, texts = module.complete(module.batch(0, 0)), module.mixer.texts
    assert batch.sources.shape == (7, 3, 2000) and batch.labels.shape == (7, 3) and batch.used.shape == (7,)
    assert batch.sentences.shape == (7, 3, 384) and batch.bank.shape == (6, 384)
    vectors = texts.vectors[torch.arange(int(texts.counts.sum()))]
    own = vectors.split(texts.counts.tolist())  # a query is a text of its label
    for row in range(7):
        assert (batch.sources[row].abs().amax(1) > 0).tolist() == [slot < batch.used[row] for slot in range(3)]
        for slot in range(3):
            assert (own[batch.labels[row, slot]] - batch.sentences[row, slot]).norm(dim=1).min() == 0
    assert all((own[label] - vector).norm(dim=1).min() == 0 for label, vector in enumerate(batch.bank))


def test_some_clips_have_a_quiet_background(data):
    module = data(ClipData, batch_size=64)
    drawn = module.batch(0, 0)
    assert drawn.waves.shape == (64, 2, 2000)
    clean = treat(drawn.waves, drawn.filtered, drawn.knots, drawn.cutoff, drawn.gain)[:, :1]
    batch = module.complete(drawn)
    assert batch.sources.shape == (64, 1, 2000) and batch.labels.shape == (64, 1) and batch.used.tolist() == [1] * 64
    assert decibel(clean) == pytest.approx(0.0, abs=1e-3)
    background = (batch.sources - clean)[:, 0]
    level = decibel(background[background.abs().amax(1) > 1e-5])
    assert level.min() >= -24.01 and level.max() <= -5.99
    assert len(level) / 64 == pytest.approx(0.4, abs=0.2)
