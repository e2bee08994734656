"""Calibration finds known coefficients, writes them into a model directory and leaves the rest of its config alone."""

import csv

import numpy as np
import pytest
import soundfile
import torch
import yaml
from tiny import tiny_separator, write_corpus

from separation import Separator
from separation.calibrate import calibrate_listing, calibrate_presence, fit_listing, fit_presence, score_row
from separation.data.corpus import Corpus
from separation.data.fixed_mixtures import read_rows
from separation.listing import ListingRule
from separation.pretrained import load_settings

SOUNDS = ("rain", "siren", "dog bark")


def test_fit_of_presence_finds_the_boundary():
    rng = np.random.default_rng(0)
    detections, ratios = rng.normal(0, 3, 4000), rng.uniform(-40, 0, 4000)
    present = rng.random(4000) < 1 / (1 + np.exp(-(2.0 * detections + 0.3 * ratios + 6.0)))
    rule = fit_presence(detections, ratios, present)
    assert rule.logit == pytest.approx(2.0, rel=0.15)
    assert rule.ratio == pytest.approx(0.3, rel=0.15)
    assert -rule.bias / rule.ratio == pytest.approx(-20.0, abs=2.0)
    # Present and absent queries have the same weight: without information the probability is one half.
    rule = fit_presence(np.zeros(1000), np.zeros(1000), np.arange(1000) % 10 > 0)
    assert rule(0.0, 0.0) == pytest.approx(0.5, abs=1e-3)


def test_fit_of_the_listing_finds_slope_and_bias():
    """Logits of absent sounds are N(0, 1), of present ones N(4, 1); one in ten is present."""
    rng = np.random.default_rng(0)
    present = rng.random((20_000, 3)) < 0.1
    logits = 4 * present + rng.standard_normal(present.shape)
    slope, bias = fit_listing(torch.from_numpy(logits), torch.from_numpy(present))
    assert slope == pytest.approx(4.0, rel=0.05)  # the logarithm of the ratio of both densities is 4 x - 8
    assert bias == pytest.approx(-8 + np.log(0.1 / 0.9), rel=0.05)
    assert ListingRule(slope, bias, SOUNDS)(torch.tensor([-bias / slope])).tolist() == pytest.approx([0.5])


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """A model directory with a config; what is loaded from it is a small network."""
    config = {"model": {}, "encoder": {}, "card": {"licence": "none"}, "listing": {"sounds": list(SOUNDS)}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    separator = tiny_separator()
    separator.listing = ListingRule(sounds=SOUNDS)
    monkeypatch.setattr(Separator, "from_pretrained", lambda directory: separator)
    return tmp_path


def read_config(directory):
    return yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))


def test_the_presence_rule_is_written(directory):
    before = read_config(directory)
    corpus = Corpus(write_corpus(directory / "clips", labels=3, recordings=1, sample_rate=32000))
    rule = calibrate_presence(directory, corpus, count=4, seconds=1.0)
    after = read_config(directory)
    assert load_settings(directory, "presence", type(rule)) == rule
    assert rule.logit != 1.0
    assert after.pop("presence") == {"bias": rule.bias, "logit": rule.logit, "ratio": rule.ratio}
    assert after == before


def test_the_listing_rule_is_written_and_the_sounds_stay(directory):
    for name, hertz in (("a", 300), ("b", 2000)):
        soundfile.write(directory / f"{name}.wav", np.sin(np.arange(64000) * hertz / 5000), 32000)
    columns = ["id", "kind", "query", "snr_db", "target", "target_label", "target_start", "target_offset"]
    columns += [f"interference{n}{part}" for n in (1, 2) for part in ("", "_label", "_start", "_offset")]
    first = ["0", "pair", "rain", "0", "a.wav", "rain", "0", "1", "b.wav", "siren", "0", "2"]
    second = ["1", "absent", "rain", "0", "b.wav", "siren", "0", "0", "b.wav", "dog bark", "0", "0"]
    with (directory / "list.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, [*first, *[""] * 4], [*second, *[""] * 4]])
    rule = calibrate_listing(directory, directory / "list.csv", directory)
    assert load_settings(directory, "listing", ListingRule) == rule
    assert rule.sounds == SOUNDS
    separator, rows = Separator.from_pretrained(directory), read_rows(directory / "list.csv")
    logits, present = zip(*(score_row(separator, row, directory) for row in rows), strict=True)
    assert torch.stack(present).tolist() == [[True, True, False], [False, True, True]]
    assert (rule.slope, rule.bias) == fit_listing(torch.stack(logits), torch.stack(present))
