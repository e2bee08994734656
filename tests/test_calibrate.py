"""Calibration writes a rule into a model directory and leaves the rest of its config alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import yaml

from separation.calibrate import calibrate
from separation.data.corpus import Corpus
from separation.encoders.joint import JointEncoder
from separation.models.band_unet import BandUNet
from separation.pretrained import load_settings, save_model

MODEL = {"channels": [4, 4, 4, 4], "stream_dim": 8, "condition_dim": 16}
ENCODER = {"embedding_dim": 16, "channels": [4, 4, 4, 4], "hidden": 8}


def tiny_corpus(folder: Path) -> Corpus:
    """Three labels with one second of noise each."""
    rows = ["path,split,label,caption,recording_id,source,seconds"]
    for number, label in enumerate(("dog bark", "rain", "siren")):
        soundfile.write(folder / f"{number}.wav", np.random.default_rng(number).normal(0, 0.1, 32000), 32000)
        rows.append(f"{number}.wav,train,{label},A {label}.,r{number},test,1.0")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return Corpus(manifest)


def test_the_rule_is_written_and_read_back(tmp_path: Path) -> None:
    directory, config = tmp_path / "model", {"card": {"licence": "none"}}
    config["model"] = {"class_path": "separation.models.band_unet.BandUNet", "init_args": MODEL}
    config["encoder"] = {"class_path": "separation.encoders.joint.JointEncoder", "init_args": ENCODER}
    save_model(directory, config, BandUNet(**MODEL), JointEncoder(**ENCODER))
    rule = calibrate(directory, tiny_corpus(tmp_path), count=4, seconds=1.0)
    after = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    assert load_settings(directory, "presence", type(rule)) == rule
    assert rule.logit != 1.0
    assert after.pop("presence") == {"bias": rule.bias, "logit": rule.logit, "ratio": rule.ratio}
    assert after == config
