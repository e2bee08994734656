"""The benchmark of query forms, on tones and with a separator that finds a tone by its frequency."""

import csv
import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from tiny import write_corpus

from separation import Separator
from separation.encoders.base import QueryEncoder
from separation.models.base import ConditionedModel, Estimate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
query_forms = importlib.import_module("query_forms")

RATE = 32000
HERTZ = [300 * 1.6**label for label in range(3)]  # as `write_corpus` has them


class ByFrequency(ConditionedModel):
    """Takes out what lies within 10 % of the condition's frequency."""

    sample_rate, condition_dim = RATE, 1

    def separate(self, mixture, conditions):
        spectrum, hertz = torch.fft.rfft(mixture), torch.fft.rfftfreq(mixture.shape[-1], 1 / RATE)
        masks = [(hertz / float(centre) - 1).abs() < 0.1 for centre in conditions[0]]
        targets = torch.stack([torch.fft.irfft(spectrum * mask, mixture.shape[-1]) for mask in masks], dim=1)
        return Estimate(targets, mixture.new_zeros(*conditions.shape[:2], 1))


class Frequency(QueryEncoder):
    """The frequency that a label names, or the loudest of a recording."""

    embedding_dim, sample_rate, unit_length = 1, RATE, False
    modalities = frozenset({"text", "audio"})

    def encode_text(self, texts):
        return torch.tensor([[HERTZ[int(text.split()[-1])]] for text in texts])

    def encode_audio(self, waveform, sample_rate):
        loudest = torch.fft.rfft(waveform).abs().argmax(-1, keepdim=True)
        return loudest * (sample_rate / waveform.shape[-1])


@pytest.fixture
def folder(tmp_path):
    write_corpus(tmp_path, labels=3, sample_rate=RATE)
    rows = []
    for number, (kind, sounds) in enumerate(
        (("pair", (0, 1)), ("pair", (2, 0)), ("three", (1, 0, 2)), ("absent", (0, 1)))
    ):
        row = {"id": f"{kind}{number}", "kind": kind, "query": f"tone {sounds[0]}", "snr_db": 0}
        for name, sound in zip(("target", "interference1", "interference2"), (*sounds, None), strict=False):
            path = "" if sound is None else f"audio/made/tone {sound}/0.wav"
            label = "" if sound is None else f"tone {sound}"
            row |= {name: path, f"{name}_label": label, f"{name}_start": 0, f"{name}_offset": 0}
        rows.append(row)
    with (tmp_path / "validation_mixtures.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[2]))
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def test_query_forms_with_known_scores(folder, monkeypatch, capsys):
    separator = Separator(ByFrequency(), Frequency(), "tones", "cpu")
    monkeypatch.setattr(query_forms.Separator, "from_pretrained", lambda name: separator)
    monkeypatch.setattr(sys, "argv", ["query_forms.py", "--data", str(folder), "--json", str(folder / "forms.json")])
    query_forms.main()
    lines = {(line["rows"], line["asked by"]): line for line in json.loads((folder / "forms.json").read_text())}
    assert {rows: lines[rows, "label"]["n"] for rows in ("pair", "three")} == {"pair": 2, "three": 1}
    for name in ("label", "1 example", "3 examples", "label and 3 examples", "label without the others"):
        assert lines["pair", name]["mean"] > 25
        assert lines["three", name]["mean"] > 25
    assert lines["pair", "label"]["gain"] == 0
    wrong = lines["pair", "not used: label minus half the others' conditions"]  # another frequency: nothing is found
    assert wrong["gain"] == pytest.approx(-lines["pair", "label"]["mean"], abs=0.1)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 + len(lines)
    assert printed[2].startswith("| pair | label | 2 | ")
