"""Captions split into phrases, and phrases put into slots."""

from itertools import permutations

import pytest

from separation.data.derived import SEVERAL_SOURCES
from separation.data.foley import SOUNDS
from separation.data.texts import fill_slots, phrases


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


def test_no_phrase_is_a_mere_joint():
    for caption in ("It revs, and then it stops", "Steps and, while, rain", "and", "Then"):
        assert not {"And", "Then", "While", "And then"} & set(phrases(caption))


def test_captions_of_made_mixtures_are_split_into_their_labels():
    for one, other in permutations(sorted(SOUNDS), 2):
        caption = SEVERAL_SOURCES.format(f"{one} and {other}")
        assert [phrase.lower() for phrase in phrases(caption)] == [one.lower(), other.lower()]


def test_slots_are_filled_in_turn():
    assert fill_slots(["A", "B"], 2) == (["A", "B"], [1.0, 1.0])
    assert fill_slots(["A"], 3) == (["A", "A", "A"], [1 / 3] * 3)
    assert fill_slots(["A", "B"], 3) == (["A", "B", "A"], [0.5, 1.0, 0.5])


def test_what_is_too_many_is_joined_so_that_nothing_of_the_caption_is_lost():
    assert fill_slots(["Wind", "Rain", "A Bell", "Steps"], 2) == (["Wind", "Rain and a Bell and steps"], [1.0, 1.0])


def test_every_phrase_weighs_one():
    for count in range(1, 6):
        for number in range(1, 6):
            filled, weights = fill_slots([f"P{i}" for i in range(number)], count)
            assert len(filled) == len(weights) == count
            totals = {phrase: sum(w for p, w in zip(filled, weights, strict=True) if p == phrase) for phrase in filled}
            assert all(total == pytest.approx(1) for total in totals.values())


def test_no_phrase_no_slot():
    with pytest.raises(ValueError, match="at least one phrase"):
        fill_slots([], 2)
