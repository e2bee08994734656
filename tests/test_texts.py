"""Sentence vectors of every label's texts."""

from collections import Counter

import numpy as np
import pytest
import torch
from tiny import vectors, write_corpus

from separation.data import texts as module
from separation.data.corpus import Corpus
from separation.data.texts import Texts, texts_of


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return Corpus(write_corpus(tmp_path_factory.mktemp("corpus"), labels=3, seconds=0.1), sample_rate=8000)


@pytest.fixture
def encoded(monkeypatch):
    """The lists of texts that the encoder was asked for."""
    seen = []

    class Encoder:
        def encode_text(self, texts):
            seen.append(list(texts))
            return vectors(texts)

    monkeypatch.setattr(module, "SentenceEncoder", Encoder)
    return seen


def test_every_label_has_the_vectors_of_its_texts(corpus, encoded):
    texts = Texts(corpus)
    assert len(encoded) == 1
    assert len(texts.vectors) == 3
    for label, own, rows in zip(corpus.labels, texts.texts, texts.vectors, strict=True):
        captions = sorted({clip.caption for clip in corpus.clips if clip.label == label})
        assert len(captions) == 2
        assert own == texts_of(label, tuple(captions))
        assert own[0] == label
        assert set(captions) <= set(own)
        assert torch.equal(rows, vectors(own))


def test_the_cache_spares_the_encoder(corpus, encoded, tmp_path):
    first = Texts(corpus, tmp_path / "cache")
    second = Texts(corpus, tmp_path / "cache")
    assert len(encoded) == 1
    assert all(torch.equal(a, b) for a, b in zip(first.vectors, second.vectors, strict=True))


def test_a_kill_while_the_cache_is_written_does_no_harm(corpus, encoded, tmp_path, monkeypatch):
    def killed(file, array):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            Texts(corpus, tmp_path)
    assert len(Texts(corpus, tmp_path).vectors) == 3


def test_other_texts_are_not_answered_from_the_cache(corpus, encoded, tmp_path, monkeypatch):
    Texts(corpus, tmp_path)
    monkeypatch.setattr(module, "texts_of", lambda label, captions: [label, "something new"])
    texts = Texts(corpus, tmp_path)
    assert len(encoded) == 2
    assert [len(rows) for rows in texts.vectors] == [2, 2, 2]


def test_the_label_itself_is_drawn_a_quarter_of_the_time_and_more(corpus, encoded):
    texts = Texts(corpus)
    own = texts.vectors[1]
    rng = np.random.default_rng(0)
    drawn = Counter(int((own - texts.draw(1, rng)).norm(dim=1).argmin()) for _ in range(4000))
    others = 0.75 / len(own)
    assert drawn[0] / 4000 == pytest.approx(0.25 + others, abs=0.03)
    assert set(drawn) == set(range(len(own)))
    for number in range(1, len(own)):
        assert drawn[number] / 4000 == pytest.approx(others, abs=0.03)


def test_a_draw_follows_its_generator(corpus, encoded):
    texts = Texts(corpus)
    first, second = (
        [texts.draw(i % 3, rng) for i in range(20)] for rng in (np.random.default_rng(5), np.random.default_rng(5))
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
