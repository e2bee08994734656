"""Texts to train with: wordings of labels, their sentence vectors, and the phrases of captions."""

import re
import sys
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import read, vectors, write_corpus

from separation.data import texts as module
from separation.data.corpus import Corpus
from separation.data.derived import SEVERAL_SOURCES
from separation.data.foley import SOUNDS
from separation.data.manifest import read_manifest
from separation.data.texts import FRAMES, UNIONS, Texts, draw_mention, fill_slots, phrases, texts_of
from separation.vocabulary.sounds import wordings

# --- Texts of labels ---------------------------------------------------------------------------


def words(text):
    """Lower case, nothing but words."""
    return " ".join(re.findall(r"\w+", text.lower()))


def test_every_class_has_wordings_that_differ_from_its_label_and_from_one_another():
    assert len(wordings()) >= 200
    for label, own in wordings().items():
        assert len(own) >= 5, label
        assert label not in own
        assert len(set(map(words, own))) == len(own), label
        for text in own:
            assert text == text.strip() and text and "{" not in text


def test_a_labels_texts_are_itself_in_frames_its_wordings_and_captions():
    texts = texts_of("dog bark", ("A dog barks.",))
    assert texts[0] == "dog bark"
    for frame in FRAMES:
        assert frame.format("dog bark") in texts
    assert set(wordings()["dog bark"]) <= set(texts)
    assert texts[-1] == "A dog barks."
    assert len(texts) == len(set(texts)) == len(FRAMES) + 2 * len(wordings()["dog bark"]) + 1
    assert {"dog", "dogs", "puppy"} <= set(texts)
    assert texts_of("vuvuzela") == [frame.format("vuvuzela") for frame in FRAMES]  # a label without wordings


def test_captions_of_two_name_both_in_many_ways_none_of_which_is_scored():
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
    from sentences import PHRASINGS

    assert len(set(UNIONS)) == len(UNIONS) >= 50 and all(form.count("{}") == 2 for form in UNIONS)
    scored = [words(form.replace("{}", "")) for each in PHRASINGS.values() for form in each]
    assert not {words(form.replace("{}", "")) for form in UNIONS} & {form for form in scored if form != "and"}
    assert not [form for form in UNIONS if re.search("mixture|next|only but|until|gives way|same time|combined", form)]
    rng, texts = np.random.default_rng(0), texts_of("dog bark", ("A dog barks twice.",))
    drawn = {draw_mention(texts, rng) for _ in range(2000)}
    assert {"dog bark", "two dog barks", "a distant dog bark", "a dog barks twice", "puppy"} <= drawn
    assert not [text for text in drawn if text.endswith(".")]
    assert not [text for _ in range(500) if (text := draw_mention(["wind"], rng)).endswith("winds")]


def test_every_training_class_has_wordings(data_root):
    labels = {clip.label for clip in read_manifest(data_root / "manifest.csv", "train")} | set(SOUNDS)
    assert labels - set(wordings()) == set()


def test_no_phrase_of_the_validation_list_is_trained_on(data_root):
    asked = {words(row["phrase"]) for row in read(data_root / "validation_mixtures.csv")}
    captions = {}
    for clip in read_manifest(data_root / "manifest.csv", "train"):
        captions.setdefault(clip.label, set()).add(clip.caption)
    labels = set(wordings()) | set(captions) | set(SOUNDS)
    trained = {words(t) for label in labels for t in texts_of(label, tuple(captions.get(label, ())))}
    assert len(asked) > 50
    assert trained & asked == set()


# --- Sentence vectors --------------------------------------------------------------------------


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
    assert len(encoded) == 1 and len(texts.pairs) == len(texts.captions) == 0
    for label, own, rows in zip(corpus.labels, texts.texts, texts.vectors.split(texts.counts.tolist()), strict=True):
        captions = sorted({clip.caption for clip in corpus.clips if clip.label == label})
        assert len(captions) == 2
        assert own == texts_of(label, tuple(captions))
        assert own[0] == label
        assert set(captions) <= set(own)
        assert torch.equal(rows, vectors(own))


def test_captions_of_two_labels_name_both(corpus, encoded):
    texts = Texts(corpus, unions=True)
    assert torch.equal(texts.captions, vectors(encoded[1])) and 60 < len(encoded[1]) < 3 * 36
    for pair, caption in zip(texts.pairs.tolist(), encoded[1], strict=True):
        named = [any(text.rstrip(".").lower() in caption.lower() for text in texts.texts[label]) for label in pair]
        assert pair[0] != pair[1] and all(named)
    assert {tuple(pair) for pair in texts.pairs.tolist()} == set(permutations(range(3), 2))


def test_texts_can_wait_until_they_are_drawn(corpus, encoded):
    texts, labels = Texts(corpus, unions=True, ahead=False), torch.tensor([[0, 2], [2, 1]])
    assert not encoded
    drawn, captions = texts.draw(labels, torch.Generator().manual_seed(0)), texts.captions[torch.tensor([3, 0])]
    assert [len(part) for part in encoded] == [4, 2]
    ahead = Texts(corpus, unions=True)
    assert torch.equal(drawn, ahead.draw(labels, torch.Generator().manual_seed(0)))
    assert torch.equal(captions, ahead.captions[[3, 0]])


def test_the_label_itself_is_drawn_a_quarter_of_the_time_and_more(corpus, encoded):
    texts = Texts(corpus)
    own, labels = texts.vectors.split(texts.counts.tolist())[1], torch.full((40, 100), 1)
    drawn = texts.draw(labels, torch.Generator().manual_seed(0)).flatten(0, 1)
    shares = torch.bincount(torch.cdist(drawn, own).argmin(1), minlength=len(own)) / len(drawn)
    others = 0.75 / len(own)
    assert shares.tolist() == pytest.approx([0.25 + others, *[others] * (len(own) - 1)], abs=0.03)
    assert shares.min() > 0


# --- Phrases -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("A dog barks.", ["A dog barks"]),
        ("Birds sing while a man speaks", ["Birds sing", "A man speaks"]),
        ("rain falls followed by thunder", ["Rain falls", "Thunder"]),
        ("A bell is followed by a horn, and then a train passes", ["A bell", "A horn", "A train passes"]),
        ("Wind, insects, and rustling", ["Wind", "Insects", "Rustling"]),
        ("A woman talks as well as laughs as water runs", ["A woman talks", "Laughs", "Water runs"]),
        ("A saw moves back and forth and a man coughs", ["A saw moves back and forth", "A man coughs"]),
        ("Pots and pans clatter", ["Pots and pans clatter"]),
        ("The sound mixture of dog bark and rain", ["Dog bark", "Rain"]),
        ("The sound of a violin", ["A violin"]),
        ("rain and Rain", ["Rain"]),
        ("A handsaw and sandpaper", ["A handsaw", "Sandpaper"]),  # no joint within a word
        ("Over the hills a horn sounds", ["Over the hills a horn sounds"]),
        ("und während es regnet", ["Und während es regnet"]),
        # Points and commas within numbers and abbreviations, and none behind them
        ("A 2.5 hp motor runs, birds sing", ["A 2.5 hp motor runs", "Birds sing"]),
        ("1,000 bees buzz at 7 a.m. while rain falls", ["1,000 bees buzz at 7 a.m.", "Rain falls"]),
        ("A bang.and a river,a stream", ["A bang", "A river", "A stream"]),
        # What says how stays with what sounds
        ("Loud, fast-moving water", ["Loud, fast-moving water"]),
        ("Wind, loud and harsh buzzing", ["Wind", "Loud and harsh buzzing"]),
        ("Humming of engines near and far", ["Humming of engines near and far"]),
        ("A plane gets closer and louder, a man speaks", ["A plane gets closer and louder", "A man speaks"]),
        ("Steps come closer and closer", ["Steps come closer and closer"]),
        ("Water runs softly then quickly", ["Water runs softly then quickly"]),
        (
            "A saw turns slowly and continuously as birds sing",
            ["A saw turns slowly and continuously", "Birds sing"],
        ),
        ("A bee and a fly", ["A bee", "A fly"]),  # which ends in -ly
        ("A drill runs and then stops", ["A drill runs and then stops"]),
        ("A boy cries and a woman talks as well", ["A boy cries", "A woman talks as well"]),
        ("Bubbling water, along with a voice", ["Bubbling water", "A voice"]),
        # Several people who do one thing
        ("Engine hum with man and woman speaking", ["Engine hum", "Man and woman speaking"]),
        ("A man, a young woman and a child talk while it rains", ["A man, a young woman and a child talk", "It rains"]),
        ("Coughing by a woman and child", ["Coughing by a woman and child"]),
        ("A dog barks and a man speaks", ["A dog barks", "A man speaks"]),
        ("A man speaks and a woman laughs", ["A man speaks", "A woman laughs"]),
        ("Distant, loud", ["Distant, loud"]),
        ("Loud", ["Loud"]),
        ("  ", []),
        (" , and .", []),
    ],
)
def test_phrases(caption, found):
    assert phrases(caption) == found


def test_no_phrase_consists_of_joining_words():
    for caption in ("It revs, and then it stops", "Steps and, while, rain", "and", "Then"):
        assert not {"And", "Then", "While", "And then"} & set(phrases(caption))


def test_captions_of_made_mixtures_are_split_into_their_labels():
    for one, other in permutations(sorted(SOUNDS), 2):
        caption = SEVERAL_SOURCES.format(f"{one} and {other}")
        assert [phrase.lower() for phrase in phrases(caption)] == [one.lower(), other.lower()]


@pytest.mark.parametrize(
    ("found", "filled", "weights"),
    [
        (["A", "B"], ["A", "B"], [1.0, 1.0]),
        (["A"], ["A", "A", "A"], [1 / 3] * 3),
        (["A", "B"], ["A", "B", "A"], [0.5, 1.0, 0.5]),
        (["Wind", "Rain", "A Bell", "Steps"], ["Wind", "Rain and a Bell and steps"], [1.0, 1.0]),  # nothing is lost
    ],
)
def test_phrases_fill_the_slots_and_each_weighs_one(found, filled, weights):
    assert fill_slots(found, len(filled)) == (filled, weights)


def test_slots_need_a_phrase():
    with pytest.raises(ValueError, match="at least one phrase"):
        fill_slots([], 2)
