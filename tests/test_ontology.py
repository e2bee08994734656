import json
import os
from pathlib import Path

import pytest

from separation.vocabulary.ontology import OntologyError, class_index, classes, read_tree, subtree


def test_classes_stand_in_the_published_order():
    found = classes()
    assert len(found) == 527
    assert [c.index for c in found] == list(range(527))
    assert (found[0].mid, found[0].name) == ("/m/09x0r", "Speech")
    assert found[1].name == "Male speech, man speaking"
    assert (found[526].mid, found[526].name) == ("/m/07hvw1", "Field recording")
    assert len({c.mid for c in found}) == 527
    assert [class_index(c.name) for c in found] == list(range(527))  # a name wins over a synonym of another class


@pytest.mark.parametrize("label", ["Dog", "dog", " DOG ", "/m/0bt9lr", 74, "74"])
def test_a_class_is_found_by_name_id_and_index(label):
    assert class_index(label) == 74
    assert class_index("man speaking") == 1  # a synonym


def test_an_unknown_class_names_close_ones():
    with pytest.raises(OntologyError, match=r"'Violon' is no AudioSet class; close to it: Violin"):
        class_index("Violon")
    with pytest.raises(OntologyError, match=r"'dog barking' is no AudioSet class; close to it: Dog, Bark, "):
        class_index("dog barking")
    with pytest.raises(OntologyError, match="no AudioSet class"):
        class_index(527)


def ontology(folder: Path, nodes: list[tuple[str, str, list[str]]]) -> Path:
    file = folder / "ontology.json"
    file.write_text(json.dumps([{"id": i, "name": n, "child_ids": c} for i, n, c in nodes]))
    return file


def test_a_node_with_two_parents_is_placed_under_the_first(tmp_path):
    nodes = [("/m/0jbk", "Animal", ["/x/pets"]), ("/x/pets", "Pets", ["/m/0bt9lr"]), ("/x/loud", "Loud", ["/m/0bt9lr"])]
    roots = read_tree(ontology(tmp_path, [*nodes, ("/m/0bt9lr", "Dog", [])]))
    assert [r.name for r in roots] == ["Animal", "Loud"]
    assert roots[0].class_indexes() == [72, 74]
    assert roots[1].class_indexes() == []
    assert [n.name for n in roots[0].walk()] == ["Animal", "Pets", "Dog"]


@pytest.mark.parametrize("content", ["no json", "[1]", '{"id": 3}', "[{}]"])
def test_a_file_that_is_no_ontology_is_refused(tmp_path, content):
    file = tmp_path / "ontology.json"
    file.write_text(content)
    with pytest.raises(OntologyError, match=r"ontology\.json is not an AudioSet ontology"):
        read_tree(file)


ANIMALS = [
    ("/x/living", "Living things", ["/m/0jbk", "/x/silent"]),
    ("/m/0jbk", "Animal", ["/m/068hy"]),
    ("/m/068hy", "Domestic animals, pets", ["/m/0bt9lr"]),
    ("/m/0bt9lr", "Dog", []),
    ("/x/silent", "Silent things", []),
]


@pytest.mark.parametrize(
    ("label", "indexes"),
    [
        ("Animal", [72, 73, 74]),
        ("/m/0jbk", [72, 73, 74]),
        (72, [72, 73, 74]),
        ("pets", [73, 74]),  # a synonym
        ("dog", [74]),
        (" Living  THINGS", [72, 73, 74]),  # no class itself
    ],
)
def test_a_class_and_those_below_it(tmp_path, monkeypatch, label, indexes):
    monkeypatch.setenv("AUDIOSET_ONTOLOGY", str(ontology(tmp_path, ANIMALS)))
    assert subtree(label) == indexes


def test_a_node_without_classes_is_an_error(tmp_path, monkeypatch):
    file = ontology(tmp_path, ANIMALS)
    with pytest.raises(OntologyError, match="'Silent things' has no class below it"):
        subtree("Silent things", file)
    with pytest.raises(OntologyError, match="'Cat' is not part of this ontology"):
        subtree("Cat", file)
    with pytest.raises(OntologyError, match="'Dogg' is no AudioSet class; close to it: Dog"):
        subtree("Dogg", file)


def test_without_the_ontology_one_sentence_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.delenv("AUDIOSET_ONTOLOGY", raising=False)
    monkeypatch.setenv("SEPARATION_CACHE", str(tmp_path))
    with pytest.raises(
        OntologyError, match=r"ontology\.json is not there: get .* github\.com/audioset/ontology"
    ) as caught:
        subtree("Animal")
    assert str(tmp_path) in str(caught.value)
    ontology(tmp_path, ANIMALS)
    assert subtree("Animal") == [72, 73, 74]


def test_the_published_tree_gives_the_levels_of_uss():
    """Set AUDIOSET_ONTOLOGY (the published ontology.json) and SEPARATION_PARITY (the fixtures) to run it."""
    file, parity = os.environ.get("AUDIOSET_ONTOLOGY"), os.environ.get("SEPARATION_PARITY")
    if not file or not parity:
        pytest.skip("AUDIOSET_ONTOLOGY or SEPARATION_PARITY is not set")
    expected = json.loads((Path(parity) / "uss/fixtures/ontology_levels.json").read_text())
    found = read_tree(file)
    for level in sorted(expected, key=int):
        ours = [(n.mid, n.name, n.index, n.class_indexes()) for n in found]
        assert ours == [(n["id"], n["name"], n["own_index"], n["class_indexes"]) for n in expected[level]]
        found = [child for node in found for child in node.children]
    assert not found
