"""The benchmarks of queries: on tones, with a separator that finds a tone by its frequency, and of hints."""

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
query_forms, example_recordings, typed_queries = map(
    importlib.import_module, ("query_forms", "example_recordings", "typed_queries")
)

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


def test_example_recordings_with_known_scores(folder, monkeypatch, capsys):
    write_corpus(folder, labels=3, sample_rate=RATE, split="validation")
    separator = Separator(ByFrequency(), Frequency(), "tones", "cpu")
    monkeypatch.setattr(example_recordings.Separator, "from_pretrained", lambda name: separator)
    example_recordings.main(["--data", str(folder), "--json", str(folder / "examples.json")])
    figures = json.loads((folder / "examples.json").read_text())
    assert set(figures) == {"label", "as it is", "2 s of silence on both sides", "another sound 10 dB below"}
    for each in figures.values():
        assert each["sdri"] > 25 and abs(each["sdri_loss"]) < 1
    assert capsys.readouterr().out.startswith("2 mixtures\n")


def test_hints_are_rare_for_known_and_usual_for_unknown_texts(tmp_path, monkeypatch, capsys):
    captions = [
        "A man talks while birds sing",
        "Rain falls on a roof",
        "An engine idles nearby",
        "Water runs in a sink",
    ]
    for name, column, texts in (
        ("validation_mixtures.csv", "phrase", ["a brook flowing over stones", "scrunching aluminium wrap"]),
        ("text/audiocaps/test.csv", "caption", captions[:2]),
        ("text/audiosep_eval/clotho_eval.csv", "caption", captions[2:]),
        ("text/vggsound/stat.csv", "dog barking", ["zebra braying", "playing piano"]),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("\n".join([column, *texts]) + "\n", encoding="utf-8")
    monkeypatch.setattr(typed_queries, "CAPTIONS", 2)
    known, unknown, meant = typed_queries.read_lists(tmp_path)
    known["everyday queries"] = known["everyday queries"][:9]
    unknown = {kind: texts[:6] for kind, texts in unknown.items()} | {"typing errors": list(meant)[:12]}
    monkeypatch.setattr(typed_queries, "read_lists", lambda data: (known, unknown, meant))
    typed_queries.main(["--data", str(tmp_path), "--json", str(tmp_path / "hints.json")])
    figures = json.loads((tmp_path / "hints.json").read_text())
    assert figures["all known"]["hints"] <= 0.05 * figures["all known"]["number"]
    assert figures["all unknown"]["hints"] >= 0.8 * figures["all unknown"]["number"]
    assert figures["typing errors"]["as meant"] >= 0.8 * figures["typing errors"]["number"]
    assert "in use: [-1.68, -4.61, -3.04], -4.63" in capsys.readouterr().out
