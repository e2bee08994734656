"""The wordings of our own: for every class, and none of the validation list's phrases among them."""

import csv
import re

from separation.data.foley import SOUNDS
from separation.data.manifest import read_manifest
from separation.data.texts import TEMPLATES, texts_of
from separation.wordings import wordings


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
    for frame in TEMPLATES:
        assert frame.format("dog bark") in texts
    assert set(wordings()["dog bark"]) <= set(texts)
    assert texts[-1] == "A dog barks."
    assert len(texts) == len(set(texts)) == len(TEMPLATES) + 2 * len(wordings()["dog bark"]) + 1


def test_a_label_that_nobody_thought_of_has_its_frames():
    assert texts_of("vuvuzela") == [frame.format("vuvuzela") for frame in TEMPLATES]


def test_what_people_type_is_there():
    assert {"dog", "dogs", "puppy"} <= set(texts_of("dog bark"))


def test_every_training_class_has_wordings(data_root):
    labels = {clip.label for clip in read_manifest(data_root / "manifest.csv", "train")} | set(SOUNDS)
    assert labels - set(wordings()) == set()


def test_no_phrase_of_the_validation_list_is_trained_on(data_root):
    with (data_root / "validation_mixtures.csv").open(newline="", encoding="utf-8") as file:
        phrases = {words(row["phrase"]) for row in csv.DictReader(file)}
    captions = {}
    for clip in read_manifest(data_root / "manifest.csv", "train"):
        captions.setdefault(clip.label, set()).add(clip.caption)
    labels = set(wordings()) | set(captions) | set(SOUNDS)
    trained = {words(t) for label in labels for t in texts_of(label, tuple(captions.get(label, ())))}
    assert len(phrases) > 50
    assert trained & phrases == set()
