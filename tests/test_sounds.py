"""The table that joins labels and AudioSet classes."""

import csv
from collections import Counter
from importlib.resources import files

from separation.vocabulary.ontology import classes, tagger_classes
from separation.vocabulary.sounds import known_sounds, wordings

TABLE = files("separation.vocabulary").joinpath("sounds.csv").read_text(encoding="utf-8")
ROWS = list(csv.DictReader(TABLE.splitlines()))


def test_the_taggers_classes_are_in_the_order_of_its_published_class_map(data_root):
    with (data_root / "text" / "yamnet_class_map.csv").open(newline="", encoding="utf-8") as file:
        published = [(row["mid"], row["display_name"]) for row in csv.DictReader(file)]
    assert [(each.mid, each.name) for each in tagger_classes()] == published
    assert len(published) == 521 and set(tagger_classes()) < set(classes())


def test_every_label_is_a_sound_and_every_class_belongs_to_one_row():
    assert set(wordings()) <= set(known_sounds())
    used = Counter(name for row in ROWS for name in row["classes"].split("; ") if name)
    assert used == Counter(each.name for each in tagger_classes())
    assert len({row["sound"] for row in ROWS}) == len(ROWS)
    assert all(sound.classes for name, sound in known_sounds().items() if name not in wordings())


def test_broader_sounds_are_sounds_and_no_sound_includes_itself():
    for name, sound in known_sounds().items():
        assert name not in sound.broader
        assert sound.broader <= set(known_sounds())


def test_a_sound_is_named_by_itself_and_by_what_includes_it():
    bark = known_sounds()["dog bark"]
    assert [tagger_classes()[index].name for index in bark.classes] == ["Bark", "Yip", "Bow-wow"]
    assert all(bark.is_named_by(name) for name in ("dog bark", "dog", "pet", "canine", "animal"))
    assert not any(bark.is_named_by(name) for name in ("dog growl", "cat", "wild animal"))
    assert not known_sounds()["dog"].is_named_by("dog bark")
