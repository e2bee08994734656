"""Hints for queries that the model may not know, and the sounds near a word."""

import json

import pytest
import soundfile
import torch
from gains import GainSeparator
from tiny import noise

from separation import Query, Separator, cli, pretrained
from separation.encoders.sentence import SentenceEncoder
from separation.inference.suggestions import describe_sounds, find_sounds


@pytest.fixture(scope="module")
def separator(default):
    return default


@pytest.mark.parametrize(
    "text",
    ["dog barking", "Speech", "my neighbour's dog", "kids playing", "rain on a tin roof", "a man talks to a crowd",
     "brook flowing over stones", "Bow-wow", "someone typing on a keyboard"],
)  # fmt: skip
def test_known_texts_get_no_hint(separator, text):
    assert separator.suggest(text) == []


@pytest.mark.parametrize(
    "typed, meant",
    [("dog barkng", "dog barking"), ("saxaphone", "saxophone"), ("pinao", "piano"), ("Chruch  bells", "church bells")],
)
def test_a_typing_error_gets_the_word_that_was_meant(separator, typed, meant):
    [hint] = separator.suggest(typed)
    assert (hint.correction, hint.query) == (meant, " ".join(typed.split()))
    assert str(hint) == f"Did you mean “{meant}”? “{hint.query}” is used as typed."


@pytest.mark.parametrize("text", ["hippopotamus", "zzyzx", "Vogelgezwitscher", "собака лает", "狗叫", "philosophy"])
def test_an_unknown_text_gets_the_nearest_sounds(separator, text):
    [hint] = separator.suggest(text)
    assert hint.known < 0.5 and hint.correction is None
    assert len(hint.nearest) == 3 and set(hint.nearest) <= set(separator.listing.sounds)
    assert list(hint.nearest.values()) == sorted(hint.nearest.values(), reverse=True)
    assert str(hint).startswith(f"The model probably does not know “{text}”.")


def test_another_language_is_near_the_sound_that_it_names(separator):
    [hint] = separator.suggest("motor de coche")
    assert "engine" in hint.nearest


def test_every_text_of_a_query_is_judged_and_other_forms_are_not(separator):
    query = Query(["rain", "kazoo"], negative=["dog barking", "narwhal", Query("zzyzx")])
    assert [hint.query for hint in separator.suggest(query)] == ["kazoo", "narwhal", "zzyzx"]
    assert separator.suggest(Query(embedding=torch.ones(256))) == []
    with pytest.raises(ValueError, match="empty"):
        separator.suggest(" ")


def test_encoders_without_a_joint_space_give_no_hint():
    other = GainSeparator()
    other.encoder = SentenceEncoder()
    assert Separator.suggest(other, "zzyzx") == []


def test_the_command_prints_each_hint_once_and_separates_the_text_as_typed(tmp_path, monkeypatch, capsys, separator):
    monkeypatch.setattr(Separator, "from_pretrained", lambda *_, **__: separator)
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.wav"):
        soundfile.write(name, 0.1 * noise(1.0, 32000)[0].numpy(), 32000, "FLOAT")
    assert cli.main(["--query", "dog barkng", "--query", "rain", "a.wav", "b.wav", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err.count("Did you mean “dog barking”?") == err.count("separate: note:") == 1
    for record in map(json.loads, out.splitlines()):
        [hint] = record["hints"]
        assert (hint["query"], hint["correction"]) == ("dog barkng", "dog barking")
        assert 0 < hint["known"] < 1 and max(hint["nearest"], key=hint["nearest"].get) == "dog bark"
        assert [*record["presence"]] == ["dog barkng", "rain"]
    expected = separator(soundfile.read("a.wav", dtype="float32")[0], "dog barkng", sample_rate=32000).target[0]
    assert torch.allclose(torch.from_numpy(soundfile.read("a.dog_barkng.wav", dtype="float32")[0]), expected, atol=1e-5)
    assert cli.main(["--query", "dog barkng", "a.wav", "-q", "--overwrite"]) == 0
    assert capsys.readouterr() == ("", "")


def test_sounds_near_a_word_come_by_name_then_by_wording_then_by_meaning():
    encoder = SentenceEncoder()
    sounds = find_sounds("bells", encoder)
    names = list(sounds)
    assert {"bell", "church bells", "bicycle bell"} <= set(names[:6])
    assert "bell" in sounds["telephone ring"][0]  # a wording with the word comes first
    assert names.index("telephone ring") > names.index("bicycle bell") and len(names) <= 12
    assert next(iter(find_sounds("saxaphone", encoder))) == "saxophone"
    assert "cat meow" in find_sounds("feline pet", encoder)


def test_the_command_shows_sounds_without_loading_a_model(monkeypatch, capsys):
    monkeypatch.setattr(pretrained, "load_model", None)
    assert cli.main(["--sounds"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == list(describe_sounds())
    assert cli.main(["--sounds", "violin", "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert records[0]["sound"] == "violin" and "fiddle" in records[0]["wordings"]


def test_a_hint_about_a_long_text_is_short(separator):
    [hint] = separator.suggest("zzyzx " * 2000)
    assert len(hint.query) > 10_000 and len(str(hint)) < 400
