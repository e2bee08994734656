"""Listing what sounds: seconds, spans, near-synonyms, blocks, the fit."""

import csv

import numpy as np
import pytest
import soundfile
import torch
import yaml
from tiny import noise, tiny_model, tiny_separator, vectors

from separation import Separator, listing
from separation.calibrate import calibrate_listing, listen
from separation.data.fixed_mixtures import read_rows
from separation.listing import Heard, Listener, ListingRule, fit, heard, spans, surest
from separation.pretrained import ModelError, load_settings

SOUNDS = ("rain", "siren", "dog bark")
RULE = ListingRule(sounds=SOUNDS)


def test_runs_of_seconds_become_spans():
    assert spans([False, True, True, False, True]) == ((1.0, 3.0), (4.0, 5.0))
    assert spans([]) == ()


def test_a_second_has_its_surest_steadied_frame():
    logits = torch.full((2, 20), -4.0)
    logits[0, 3:10] = 2.0  # seven frames of an eighth of a second: their mean is 2 at the middle one
    logits[1, 12] = 30.0  # a single frame is averaged with its neighbours
    found = surest(logits, 8.0, 2.5)
    assert found.shape == (3, 2)
    assert found[0, 0] == pytest.approx(2.0)
    assert found[1, 1] == pytest.approx((30 - 6 * 4) / 7)
    assert found[:, 1].argmax() == 1


def test_the_surest_come_first_and_near_synonyms_once():
    conditions = vectors(SOUNDS)
    conditions[1] = torch.nn.functional.normalize(conditions[0] + 0.1 * conditions[1], dim=0)  # cosine about 0.995
    logits = torch.tensor([[2.0, 1.5, -3.0], [-2.0, -2.0, 0.5]])
    found = heard(logits, conditions, RULE, 0.5, None)
    assert [sound.label for sound in found] == ["rain", "dog bark"]
    assert found[0] == Heard("rain", pytest.approx(1 / (1 + np.exp(-2))), ((0.0, 1.0),))
    assert found[1].times == ((1.0, 2.0),)
    assert [sound.label for sound in heard(logits, conditions, RULE, 0.5, 1)] == ["rain"]
    assert heard(logits, conditions, RULE, 0.9, None) == []
    assert heard(torch.zeros(0, 3), conditions, RULE, 0.0, None) == []


def test_blocks_make_no_difference_and_segments_equal_the_whole(monkeypatch):
    model, conditions = tiny_model(), vectors(SOUNDS)
    wave = noise(31, 8000)

    def logits(*sizes):
        listener = Listener(model, conditions, 8000, 0.1)
        for block in wave.split(list(sizes), dim=-1):
            listener.push(block)
        return listener.flush()

    whole = logits(31 * 8000)
    assert whole.shape == (31, 3)
    assert torch.equal(logits(1, 70_000, 31 * 8000 - 70_001), whole)
    monkeypatch.setattr(listing, "SEGMENT_SECONDS", 40)
    assert torch.allclose(logits(31 * 8000), whole, atol=2e-2)  # halves are kept
    assert whole.std() > 0.01


def test_a_recording_is_heard_at_its_level_and_rate():
    separator = tiny_separator()
    separator.listing = RULE
    wave = noise(3, 32000, 2)
    found = separator.hear(wave, 32000, at_least=0.0)
    assert sorted(sound.label for sound in found) == sorted(SOUNDS)
    quiet = separator.hear(0.01 * wave, 32000, at_least=0.0)
    assert [sound.label for sound in quiet] == [sound.label for sound in found]
    assert [sound.probability for sound in quiet] == pytest.approx([s.probability for s in found], abs=1e-3)
    assert separator.hear(torch.zeros(1, 32000), 32000) == []
    assert separator.hear(torch.zeros(1, 0), 32000) == []
    assert max(end for sound in found for _, end in sound.times) == 3.0


def test_a_model_that_cannot_tell_says_so():
    separator = tiny_separator()
    separator.model.lists_sounds = False
    with pytest.raises(ModelError, match="The model tiny cannot list"):
        separator.hear(torch.zeros(1, 100), 8000)


def test_the_fit_finds_slope_and_bias():
    """Logits drawn from a known law: absent N(0, 1), present N(4, 1), one in ten present."""
    random = np.random.default_rng(0)
    present = random.random((20_000, 3)) < 0.1
    logits = 4 * present + random.standard_normal(present.shape)
    slope, bias = fit(torch.from_numpy(logits), torch.from_numpy(present))
    assert slope == pytest.approx(4.0, rel=0.05)  # the log of the two densities' ratio is 4 x - 8
    assert bias == pytest.approx(-8 + np.log(0.1 / 0.9), rel=0.05)
    even = -bias / slope
    assert ListingRule(slope, bias, SOUNDS)(torch.tensor([even])).tolist() == pytest.approx([0.5])


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


def test_calibration_writes_slope_and_bias_and_keeps_the_sounds(tmp_path, monkeypatch):
    config = {"model": {}, "encoder": {}, "listing": {"sounds": list(SOUNDS)}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    separator = tiny_separator()
    separator.listing = RULE
    monkeypatch.setattr(Separator, "from_pretrained", lambda directory: separator)
    for name, hertz in (("a", 300), ("b", 2000)):
        soundfile.write(tmp_path / f"{name}.wav", np.sin(np.arange(64000) * hertz / 5000), 32000)
    columns = ["id", "kind", "query", "snr_db", "target", "target_label", "target_start", "target_offset"]
    columns += [f"interference{n}{part}" for n in (1, 2) for part in ("", "_label", "_start", "_offset")]
    first = ["0", "pair", "rain", "0", "a.wav", "rain", "0", "1", "b.wav", "siren", "0", "2"]
    second = ["1", "absent", "rain", "0", "b.wav", "siren", "0", "0", "b.wav", "dog bark", "0", "0"]
    with (tmp_path / "list.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, [*first, *[""] * 4], [*second, *[""] * 4]])
    rule = calibrate_listing(tmp_path, tmp_path / "list.csv", tmp_path)
    assert load_settings(tmp_path, "listing", ListingRule) == rule
    assert rule.sounds == SOUNDS
    logits, present = zip(*(listen(separator, row, tmp_path) for row in read_rows(tmp_path / "list.csv")), strict=True)
    assert torch.stack(present).tolist() == [[True, True, False], [False, True, True]]
    assert (rule.slope, rule.bias) == fit(torch.stack(logits), torch.stack(present))
