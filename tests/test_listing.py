"""Listing of sounds: seconds, spans, near-synonyms, and blocks."""

import numpy as np
import pytest
import torch
import yaml
from tiny import noise, tiny_model, tiny_separator, vectors

from separation import listing
from separation.listing import DetectedSound, ListingRule, score_seconds, second_maxima, select_sounds, spans
from separation.pretrained import ModelError, load_settings

SOUNDS = ("rain", "siren", "dog bark")
RULE = ListingRule(sounds=SOUNDS)


def test_runs_of_seconds_become_spans():
    assert spans(torch.tensor([False, True, True, False, True])) == ((1.0, 3.0), (4.0, 5.0))
    assert spans(torch.zeros(0, dtype=torch.bool)) == ()


def test_a_second_has_the_maximum_of_its_smoothed_frames():
    logits = torch.full((2, 20), -4.0)
    logits[0, 3:10] = 2.0  # seven frames of an eighth of a second: their mean is 2 at the middle one
    logits[1, 12] = 30.0  # a single frame is averaged with its neighbours
    found = second_maxima(logits, 8.0, 2.5)
    assert found.shape == (3, 2)
    assert found[0, 0] == pytest.approx(2.0)
    assert found[1, 1] == pytest.approx((30 - 6 * 4) / 7)
    assert found[:, 1].argmax() == 1


def test_the_most_probable_come_first_and_near_synonyms_once():
    conditions = vectors(SOUNDS)
    conditions[1] = torch.nn.functional.normalize(conditions[0] + 0.1 * conditions[1], dim=0)  # cosine about 0.995
    logits = torch.tensor([[2.0, 1.5, -3.0], [-2.0, -2.0, 0.5]])
    found = select_sounds(logits, conditions, RULE, 0.5, None)
    assert [sound.label for sound in found] == ["rain", "dog bark"]
    assert found[0] == DetectedSound("rain", pytest.approx(1 / (1 + np.exp(-2))), ((0.0, 1.0),))
    assert found[1].times == ((1.0, 2.0),)
    assert [sound.label for sound in select_sounds(logits, conditions, RULE, 0.5, 1)] == ["rain"]
    assert select_sounds(logits, conditions, RULE, 0.9, None) == []
    assert select_sounds(torch.zeros(0, 3), conditions, RULE, 0.0, None) == []


def test_blocks_do_not_matter_and_segments_equal_the_whole(monkeypatch):
    model, conditions = tiny_model(), vectors(SOUNDS)
    wave = noise(31, 8000)

    def logits(*sizes):
        return score_seconds(model, conditions, wave.split(list(sizes), dim=-1), 8000, 0.1)

    whole = logits(31 * 8000)
    assert whole.shape == (31, 3)
    assert torch.equal(logits(1, 70_000, 31 * 8000 - 70_001), whole)
    monkeypatch.setattr(listing, "SEGMENT_SECONDS", 40)
    assert torch.allclose(logits(31 * 8000), whole, atol=2e-2)  # halves are kept
    assert whole.std() > 0.01


def test_the_list_does_not_depend_on_the_level():
    separator = tiny_separator()
    separator.listing = RULE
    wave = noise(3, 32000, 2)
    found = separator.list_sounds(wave, 32000, at_least=0.0)
    assert sorted(sound.label for sound in found) == sorted(SOUNDS)
    quiet = separator.list_sounds(0.01 * wave, 32000, at_least=0.0)
    assert [sound.label for sound in quiet] == [sound.label for sound in found]
    assert [sound.probability for sound in quiet] == pytest.approx([s.probability for s in found], abs=1e-3)
    assert separator.list_sounds(torch.zeros(1, 32000), 32000) == []
    assert separator.list_sounds(torch.zeros(1, 0), 32000) == []
    assert separator.hear(wave, 32000, at_least=0.0) == found  # the earlier name
    assert max(end for sound in found for _, end in sound.times) == 3.0


def test_a_model_that_cannot_list_sounds_is_refused():
    separator = tiny_separator()
    separator.model.lists_sounds = False
    with pytest.raises(ModelError, match="The model tiny cannot list"):
        separator.list_sounds(torch.zeros(1, 100), 8000)


def test_the_rule_comes_from_the_models_config(tmp_path):
    config = {"model": {}, "encoder": {}, "listing": {"slope": 2, "bias": -1, "sounds": ["rain"]}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert load_settings(tmp_path, "listing", ListingRule) == ListingRule(2.0, -1.0, ("rain",))
    del config["listing"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert len(load_settings(tmp_path, "listing", ListingRule).sounds) > 200
    for wrong in ({"steep": 1}, [1], {"slope": "much"}, {"sounds": 3}):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({**config, "listing": wrong}), encoding="utf-8")
        with pytest.raises(ModelError, match="listing must give"):
            load_settings(tmp_path, "listing", ListingRule)
