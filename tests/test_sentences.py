"""Sentences that name several sounds, and what stays one sound."""

import json
import time

import pytest
import soundfile
import torch
from gains import GainSeparator
from test_models import HIGH, LOW, BandPass
from tiny import noise

from separation import Query, Separator, cli
from separation.encoders.sentence import SentenceEncoder
from separation.inference.sentences import cut, split_sentence
from separation.models.base import SharedTargets
from separation.vocabulary.sounds import known_sounds, wordings

RATE = 32000
SENTENCE = "A man speaks, followed by a toilet flush."
PARTS = ["A man speaks", "a toilet flush"]


@pytest.fixture(scope="module")
def separator():
    return Separator.from_pretrained("default", device="cpu")


@pytest.fixture(scope="module")
def mixture():
    return noise(2, channels=2)


@pytest.mark.parametrize(
    "sentence, parts",
    [
        (SENTENCE, PARTS),
        ("DOG BARK & RAIN", ["DOG BARK", "RAIN"]),
        ("Rain; a siren, then wind", ["Rain", "a siren", "wind"]),
        ("first the sound of a dog and then music in the background", ["a dog", "music"]),
        ("an adult male is speaking, and a crowd is cheering", ["an adult male is speaking", "a crowd is cheering"]),
        ("two men and a woman talk while birds tweet", ["two men and a woman talk", "birds tweet"]),
        ("a dog barks, then it rains, then a dog barks", ["a dog barks", "it rains"]),
        ("a baby crying while, in the background, music plays", ["a baby crying", "music plays"]),
        ("speech over music", ["speech", "music"]),
        ("a voice on top of a piano", ["a voice", "a piano"]),
        ("dog barkng folowed by a car horn", ["dog barkng", "a car horn"]),
        ("dog bark next to rain", ["dog bark", "rain"]),
        ("Not only dog bark but also a siren", ["dog bark", "a siren"]),
        ("piano gives way to snare drum", ["piano", "snare drum"]),
        ("the violin interrupts a barking dog", ["the violin", "barking dog"]),
        ("a crying baby is buried under the noise of a helicopter", ["a crying baby", "a helicopter"]),
        ("loud siren covers up the church bells, then it rains", ["loud siren", "church bells", "it rains"]),
        ("footsteps make room for a train horn", ["footsteps", "train horn"]),
        ("it goes from a dog barking to rain", ["dog barking", "rain"]),
        ("Then the scene changes from traffic to a siren", ["traffic", "siren"]),
    ],
)
def test_a_sentence_names_several_sounds(separator, sentence, parts):
    assert list(separator.understand(sentence).parts) == parts


@pytest.mark.parametrize(
    "text",
    ["cat, meow", "Bell, church bell", "Rain on surface", "rock and roll", "pots and pans", "salt and pepper", "then",
     "dogs barking and growling", "a person asleep and noisy", "knife and fork", "a brook flowing over stones",
     "a door opens and closes", "thunder and rain", "a vehicle engine starts and idles",
     "black and white cat meowing", "blorptastic and zzyzx", "rain, rain, rain", "a man with a cold coughing",
     "a, b, c, d, e, f, g, h, i, j, k, l, m", "not rain but wind",
     "a drum and bass track", "a man speaking over a two-way radio", "a horn honking over and over",
     "a dog barking in the distance", "water running over stones", "rain on a tin roof", "booms and hums",
     "a man speaking through a megaphone", "a phone ringing in an empty office", "a helicopter flying over the sea",
     "a car engine idling outside a church", "a dog's claws clicking on tiles", "a library book stamp",
     "a lion tamer's whip", "somebody hammering a nail into wood", "a fan-tailed bird wailing", "a cat hisses at a dog",
     "rain instead of wind", "dog bark but never rain", "music from a car", "a train going from a tunnel to a bridge",
     "a man walks from grass to gravel", "a hum that goes from low to high", "from rain to thunder"],
)  # fmt: skip
def test_aspects_of_one_sound_stay_one(separator, text):
    assert separator.understand(text).parts == {}


def test_few_texts_are_encoded_to_understand_one(separator, monkeypatch):
    encoded, encode = [], type(separator.encoder).encode_text
    monkeypatch.setattr(
        type(separator.encoder), "encode_text", lambda self, new: encoded.extend(new) or encode(self, new)
    )
    separator.understand("blorptastic")
    separator.understand("rain on a tin roof")
    assert encoded == []
    separator.understand("siren next to rain in between dog bark beside violin")
    assert 0 < len(encoded) <= 20
    separator.understand(" next to ".join(["siren", "rain"] * 50))
    assert len(encoded) <= 20


def test_names_of_own_sounds_are_found(separator):
    sounds = (*separator.listing.sounds, "zingblorp")
    assert [*split_sentence("zingblorp gives way to rain", separator.encoder, sounds)] == ["zingblorp", "rain"]
    assert split_sentence("zingblorp gives way to rain", separator.encoder, sounds[:-1]) == {}


def test_no_name_and_no_wording_of_a_known_sound_is_split(separator):
    texts = [*known_sounds(), *wordings(), *(text for texts in wordings().values() for text in texts)]
    suspects = [text for text in texts if len(cut(text)[0]) > 1]
    assert len(suspects) > 500
    for text in suspects:
        assert split_sentence(text.upper() + ".", separator.encoder, ()) == {}


def test_queries_of_other_forms_and_other_encoders_are_left_alone(separator):
    for query in (Query(SENTENCE, as_one=True), Query([SENTENCE, "rain"]), Query(SENTENCE, embedding=torch.ones(256))):
        assert separator.understand(query).parts == {}
    other = GainSeparator()
    other.encoder = SentenceEncoder()
    assert Separator.understand(other, SENTENCE).parts == {}


def test_targets_whose_sum_counts_have_a_larger_share():
    mixture = (LOW + HIGH)[None, None]
    conditions = torch.tensor([[[0.0, 1000.0], [1000.0, 4000.0], [0.0, 2000.0], [1000.0, 4000.0]]])
    model = SharedTargets(BandPass(), torch.device("cpu"), [2, 2, 1, 1], {2})
    low, high, both, shared = model.separate(mixture, conditions)[0][0]
    middle = slice(1000, -1000)
    assert torch.allclose((low + high)[0, middle], mixture[0, 0, middle], atol=0.02)
    assert torch.allclose((both + shared)[0, middle], mixture[0, 0, middle], atol=0.02)
    model = SharedTargets(Softer(), torch.device("cpu"), [1, 1, 0], {1})
    low, _, alone = model.separate(mixture, conditions[:, [0, 1, 0]])[0][0]
    assert torch.allclose(low[0, middle], (1 - 0.5**1.25) * LOW[middle], atol=0.02)  # of the half that is claimed
    assert torch.allclose(alone[0, middle], 0.5 * LOW[middle], atol=0.02)


class Softer(BandPass):
    """Extracts half of each band."""

    def separate(self, mixture, conditions):
        return super().separate(mixture / 2, conditions)


def test_a_sentence_has_one_target_and_a_presence_for_each_sound(separator, mixture):
    alone = separator(mixture, "rain", RATE)
    one, rain, whole = separator(mixture, [SENTENCE, "rain", Query(SENTENCE, as_one=True)], RATE)
    singly = separator(mixture, PARTS, RATE)
    assert list(one.parts) == PARTS and one.presence == max(one.parts.values())
    assert list(one.parts.values()) == pytest.approx([each.presence for each in singly], abs=1e-4)
    assert torch.allclose(rain.target, alone.target, atol=1e-5) and rain.parts == {} == whole.parts
    assert torch.allclose(one.target + one.residual, mixture, atol=1e-6)
    added = float(sum(each.target for each in singly).norm())
    assert 0.8 * added < float(one.target.norm()) < 1.26 * added
    assert not torch.allclose(one.target, whole.target, atol=1e-3)
    again = separator(mixture, separator.encode(SENTENCE), RATE)
    assert torch.allclose(again.target, one.target, atol=1e-5)


def test_removing_a_sentence_is_removing_its_sounds_and_an_unwanted_one_excludes_both(separator, mixture):
    sentence, sounds = (
        separator(mixture, remove=SENTENCE, sample_rate=RATE),
        separator(mixture, remove=PARTS, sample_rate=RATE),
    )
    assert torch.allclose(sentence.residual, sounds.residual, atol=1e-5)
    assert list(sentence.parts) == PARTS
    queries = [Query("rain", negative=SENTENCE), Query("rain", negative=PARTS), Query(SENTENCE, negative="rain")]
    by_sentence, by_sounds, parts = separator(mixture, queries, RATE)
    assert torch.allclose(by_sentence.target, by_sounds.target, atol=1e-5)
    assert list(parts.parts) == PARTS


def test_files_and_the_command_say_how_a_sentence_was_understood(tmp_path, monkeypatch, capsys, separator, mixture):
    monkeypatch.setattr(Separator, "from_pretrained", lambda *_, **__: separator)
    monkeypatch.chdir(tmp_path)
    soundfile.write("mix.wav", mixture.T.numpy(), RATE, subtype="FLOAT")
    assert cli.main(["--query", SENTENCE, "--query", "rain", "--json", "mix.wav"]) == 0
    out, err = capsys.readouterr()
    record = json.loads(out)
    understood = f"“{SENTENCE}” is understood as two sounds: “{PARTS[0]}”, “{PARTS[1]}”."
    assert f"note: {understood} --as-one takes it as one." in err
    assert list(record["parts"]) == [SENTENCE] and list(record["parts"][SENTENCE]) == PARTS
    assert record["presence"][SENTENCE] == max(record["parts"][SENTENCE].values())
    [hint] = [hint for hint in record["hints"] if hint["parts"]]
    assert (hint["query"], hint["parts"]) == (SENTENCE, PARTS)
    assert str(separator.suggest(SENTENCE)[0]) == understood
    written, _ = soundfile.read(record["targets"][SENTENCE], dtype="float32")
    expected = separator(mixture, SENTENCE, RATE).target
    assert torch.allclose(torch.from_numpy(written.T), expected, atol=1e-5)
    assert cli.main(["--query", SENTENCE, "--as-one", "--overwrite", "mix.wav"]) == 0
    out, err = capsys.readouterr()
    assert "understood" not in err and PARTS[1] not in out
    assert cli.main(["--remove", SENTENCE, "--remove", "rain", "mix.wav"]) == 0
    assert f"({PARTS[0]} 0." in capsys.readouterr().out


def test_a_text_of_any_length_is_understood_at_once(separator):
    began = time.process_time()
    assert split_sentence("and then , rain " * 6000, separator.encoder, ()) == {}
    assert time.process_time() - began < 1.0
