"""Listing of sounds: evidence, spans, near-synonyms, blocks, and the table that joins labels and classes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from tiny import noise, tiny_model, tiny_separator, vectors
from torch.nn import functional as F

from separation import listing
from separation.fitting import fit_listing
from separation.listing import DetectedSound, Detector, ListingRule, context_terms, listing_terms, select_sounds
from separation.presence import PresenceRule
from separation.pretrained import ModelError, load_settings
from separation.vocabulary.ontology import tagger_classes
from separation.vocabulary.sounds import wordings

SOUNDS = ("rain", "siren", "dog bark")
RULE = ListingRule(sounds=SOUNDS)


class Frames(torch.nn.Module):
    """A network whose presence logits and tags, 8 and 2 a second, are the first samples of their times."""

    sample_rate, stride, context, high_pass, input_level = 8000, 1000, 8000, 0.0, 1.0
    lists_sounds, has_tagger, estimates_presence = True, True, True

    def autocast(self, device):
        return torch.autocast(device.type, enabled=False)

    def score_presence(self, mixture, conditions):
        logits = mixture[:, :1, ::1000] + 10 * conditions[:, :, :1] - 10
        return logits, mixture[:, 0, ::4000, None].expand(-1, -1, 521)


def detected(frames, offsets=(1.0,)):
    """Detection of sounds whose logits are these frames, and 10 less for each unit that their offset is below 1."""
    wave = torch.tensor(frames).float().repeat_interleave(1000)[None]
    conditions = torch.tensor([[offset, 0.0] for offset in offsets])
    return Detector(Frames(), conditions, PresenceRule()).run([wave], 8000, 1.0)


def test_evidence_is_the_largest_of_all_frames():
    found = detected([-3.0] * 20 + [2.0] * 4 + [-3.0] * 20, (1.0, 0.9))
    assert found.logits.tolist() == pytest.approx([2.0, 1.0])
    assert found.presence.tolist() == pytest.approx(torch.sigmoid(torch.tensor([2.0, 1.0])).tolist())
    assert found.share.tolist() == pytest.approx(torch.tensor([2.0, 1.0]).log_softmax(0).tolist())
    assert found.tags.shape == (521,) and float(found.tags[0]) == 2.0
    assert found.seconds == 5.5


def test_a_span_has_a_probable_frame_and_extends_over_less_probable_ones():
    low, edge, high = -3.0, -1.0, 1.0  # probabilities 0.05, 0.27, 0.73
    found = detected([low] * 8 + [edge] * 4 + [high] * 2 + [edge] * 2 + [low] * 8 + [edge] * 8)
    assert found.spans(0) == ((1.0, 2.0),)
    assert detected([high] * 8 + [low] * 3 + [high] * 5).spans(0) == ((0.0, 2.0),)  # a gap below half a second
    assert detected([high] * 8 + [low] * 4 + [high] * 4).spans(0) == ((0.0, 1.0), (1.5, 2.0))
    assert detected([high] * 8 + [low] * 8 + [high] + [low] * 7).spans(0) == ((0.0, 1.0),)  # an eighth is too short
    assert detected([low] * 8 + [high] + [low] * 7).spans(0) == ((1.0, 1.125),)  # unless it is all there is
    assert detected([low] * 8).spans(0) == ()


def test_spans_go_on_across_segments():
    frames = [-3.0] * 150 + [2.0] * 300 + [-3.0] * 50
    assert detected(frames).spans(0) == ((18.75, 56.25),)


def test_blocks_do_not_matter_and_segments_equal_the_whole(monkeypatch):
    model, conditions = tiny_model(), vectors(SOUNDS)
    wave = noise(31, 8000)

    def detect(*sizes):
        return Detector(model, conditions, PresenceRule(logit=3.0)).run(wave.split(list(sizes), dim=-1), 8000, 0.1)

    whole = detect(31 * 8000)
    cut = detect(1, 70_000, 31 * 8000 - 70_001)
    assert torch.equal(cut.logits, whole.logits) and cut.runs == whole.runs
    monkeypatch.setattr(listing, "SEGMENT_SECONDS", 40)
    single = detect(31 * 8000)
    assert torch.allclose(single.logits, whole.logits, atol=1e-4)
    assert torch.allclose(single.share, whole.share, atol=1e-4)
    assert [single.spans(number) for number in range(3)] == [whole.spans(number) for number in range(3)]


def found_sounds(logits, conditions, spans=None, tags=None):
    """What a detector found, without a recording."""
    found = Detector(Frames(), conditions, PresenceRule())
    found.logits, found.share, found.seconds = torch.tensor(logits), torch.tensor(logits), 10.0
    found.presence = torch.sigmoid(found.logits)
    found.runs = {number: [(*span, 0.9)] for number, span in enumerate(spans or [(0, 80)] * len(logits))}
    if tags is not None:
        found.tags = torch.full((521,), -9.0)
        for name, value in tags.items():
            found.tags[[each.name for each in tagger_classes()].index(name)] = value
    return found


def select(rule, found, at_least=0.5, most=None):
    return select_sounds(found, rule.candidates(found.tags is not None), rule, at_least, most)


def test_the_most_certain_come_first_and_near_synonyms_once():
    conditions = torch.eye(3)
    conditions[1] = F.normalize(conditions[0] + conditions[1], dim=0)  # cosine 0.71
    found = found_sounds([2.0, 1.5, 0.5], conditions, [(0, 8), (0, 8), (16, 80)])
    assert select(RULE, found) == [
        DetectedSound("rain", pytest.approx(0.8808, abs=1e-4), ((0.0, 1.0),)),
        DetectedSound("dog bark", pytest.approx(0.6225, abs=1e-4), ((2.0, 10.0),)),
    ]
    assert [sound.label for sound in select(RULE, found, most=1)] == ["rain"]
    assert select(RULE, found, 0.9) == []


def test_what_is_heard_in_place_of_a_similar_sound_is_explained_by_it():
    conditions = torch.eye(3)
    conditions[1] = F.normalize(conditions[1] + 0.4 * conditions[0], dim=0)  # cosine 0.37
    alone, explained = replace(RULE, context=(1.0,) + (0.0,) * 6), replace(RULE, context=(1.0, 0, -1.5, 0, -0.5, 0, 0))
    together = found_sounds([2.0, 0.8, 0.1], conditions, [(0, 8), (0, 8), (0, 8)])
    apart = found_sounds([2.0, 0.8, 0.1], conditions, [(0, 8), (16, 24), (0, 8)])
    labels = [[sound.label for sound in select(*each)] for each in (
        (RULE, together), (alone, together), (explained, together), (explained, apart)
    )]  # fmt: skip
    assert labels == [["rain", "siren", "dog bark"]] * 2 + [["rain", "dog bark"], ["rain", "siren", "dog bark"]]
    order, terms = context_terms(together, together.logits)
    likely, similar = torch.sigmoid(together.logits), 0.4 / 1.16**0.5 - 0.1
    assert order.tolist() == [0, 1, 2]
    assert terms[:, 0].tolist() == pytest.approx([2.0, 0.8, 0.1]) and torch.allclose(
        terms[:, 1], terms[:, 0], atol=1e-5
    )
    assert terms[:, 2].tolist() == pytest.approx([0.0, float(similar * likely[0]), 0.0], abs=1e-6)
    assert terms[:, 3].tolist() == pytest.approx([float(similar * likely[1]), 0.0, 0.0], abs=1e-6)
    assert terms[:, 4].tolist() == [0.0, 1.0, 0.0] and terms[0, 5] == pytest.approx(1.0, abs=0.11)
    silent = found_sounds([-2.0] * 3, conditions)
    assert select(explained, silent, 0.0) == []


@pytest.mark.parametrize(("logit", "present"), [(-2.0, np.eye(3) > 0), (2.0, np.zeros((3, 3), bool))])
def test_own_evidence_decides_if_no_right_or_no_wrong_label_was_heard(logit, present):
    detections = [found_sounds([logit] * 3, torch.eye(3)) for _ in range(3)]
    rule = fit_listing(detections, RULE.candidates(False), present)
    assert rule.context == () and rule.sounds == SOUNDS
    assert select(rule, detections[0]) == []


def test_of_a_sound_and_one_that_includes_it_the_narrower_is_listed():
    rule = ListingRule(sounds=("guitar", "electric guitar", "rain"))
    found = found_sounds([2.0, 1.0, -2.0], torch.eye(3))
    assert [sound.label for sound in select(rule, found)] == ["electric guitar"]


def test_classes_that_are_no_labels_are_listed_if_the_tagger_is_certain():
    rule, tags = ListingRule(tag=0.1, sounds=("dog bark",)), {"Dog": 2.0, "Car": 1.5, "Music": 0.5, "Bark": -2.0}
    names = [sound.name for sound in rule.candidates(True)]
    assert names[0] == "dog bark" and {"dog", "car", "music"} < set(names) and not set(names[1:]) & set(wordings())
    found = found_sounds([-9.0] + [1.0] * (len(names) - 1), torch.eye(len(names)), tags=tags)
    assert float(listing_terms(found, rule.candidates(True))[0, 1]) == -2.0
    assert [sound.label for sound in select(rule, found)] == ["dog", "car"]
    found.logits[0], found.presence[0] = 3.0, 0.9  # says more than "dog"
    assert [sound.label for sound in select(rule, found)] == ["dog bark", "car"]


def test_the_list_does_not_depend_on_the_level():
    separator = tiny_separator()
    separator.listing, separator.rule = RULE, PresenceRule(bias=1.0)
    wave = noise(3, 32000, 2)
    found = separator.list_sounds(wave, 32000, at_least=0.0)
    assert found
    quiet = separator.list_sounds(0.01 * wave, 32000, at_least=0.0)
    assert [sound.label for sound in quiet] == [sound.label for sound in found]
    assert [sound.probability for sound in quiet] == pytest.approx([s.probability for s in found], abs=1e-3)
    assert separator.list_sounds(torch.zeros(1, 32000), 32000) == []
    assert separator.list_sounds(torch.zeros(1, 0), 32000) == []
    assert separator.hear(wave, 32000, at_least=0.0) == found  # the earlier name
    assert max(end for sound in found for _, end in sound.times) <= 3.0


def test_a_listed_sound_has_the_presence_and_the_spans_of_a_query_for_it():
    separator = tiny_separator()
    separator.listing, separator.rule = RULE, PresenceRule(bias=1.0, logit=2.0)
    wave = noise(31, 32000)
    found = separator.list_sounds(wave, 32000, at_least=0.0)
    assert found
    for sound in found:
        assert separator(wave, sound.label, 32000).presence == pytest.approx(sound.probability, abs=1e-4)
        assert separator.when(wave, sound.label, 32000) == sound.times
    separator.rule = PresenceRule(bias=-100.0)
    assert separator.when(wave, "rain", 32000) == ()


def test_a_model_that_cannot_list_sounds_is_refused():
    separator = tiny_separator()
    separator.model.lists_sounds = False
    with pytest.raises(ModelError, match="The model tiny cannot list"):
        separator.list_sounds(torch.zeros(1, 100), 8000)


def test_the_rule_comes_from_the_models_config(tmp_path):
    config = {"model": {}, "encoder": {}, "listing": {"slope": 2, "bias": -1, "sounds": ["rain"]}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert load_settings(tmp_path, "listing", ListingRule) == ListingRule(2.0, -1.0, sounds=("rain",))
    del config["listing"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert len(load_settings(tmp_path, "listing", ListingRule).sounds) > 200
    for wrong in ({"steep": 1}, [1], {"slope": "much"}, {"sounds": 3}):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({**config, "listing": wrong}), encoding="utf-8")
        with pytest.raises(ModelError, match="listing must give"):
            load_settings(tmp_path, "listing", ListingRule)
