"""Scoring a model on a list: separators whose score is known, on mixtures made here."""

import csv
import json
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from tiny import write_manifest

from separation import evaluate as module
from separation.data.protocol import SAMPLE_RATE
from separation.evaluate import Score, by_class, evaluate, line, summary, table
from separation.metrics import bootstrap


class LowPass:
    """Gives what lies under 2 kHz, and the rest `leak` times; presence says how long the query is."""

    def __init__(self, leak=0.1):
        self.leak, self.asked = leak, []

    def __call__(self, mixture, query, sample_rate):
        assert sample_rate == SAMPLE_RATE
        self.asked.append(query)
        spectrum = torch.fft.rfft(mixture.reshape(1, -1).double())
        above = torch.arange(spectrum.shape[1]) > 2000 * 5
        spectrum[:, above] *= self.leak
        return SimpleNamespace(target=torch.fft.irfft(spectrum, mixture.shape[-1]).float(), presence=len(query) / 100)


@pytest.fixture
def root(tmp_path):
    """Tones as recordings, three pairs (one from ESC-50), one mixture of three, two absent queries."""
    rows = []
    time = np.arange(5 * SAMPLE_RATE) / SAMPLE_RATE
    for folder in ("esc10", "other"):
        (tmp_path / "audio" / folder).mkdir(parents=True)
        for name, hertz in {"low": 300, "lower": 700, "high": 4000, "higher": 7000}.items():
            wave = 0.1 * np.sin(2 * np.pi * hertz * time)
            soundfile.write(tmp_path / "audio" / folder / f"{name}.wav", wave, SAMPLE_RATE, subtype="FLOAT")
    empty = {f"interference2{suffix}": "" for suffix in ("", "_start", "_offset")}
    for number, (kind, query, target, interference, more) in enumerate(
        [
            ("pair", "hum", "audio/esc10/low.wav", "audio/other/high.wav", {}),
            ("pair", "hum", "audio/other/low.wav", "audio/other/high.wav", {}),
            ("pair", "drone", "audio/other/lower.wav", "audio/other/high.wav", {}),
            (
                "three",
                "hum",
                "audio/other/low.wav",
                "audio/other/high.wav",
                {"interference2": "audio/other/higher.wav"},
            ),
            ("absent", "rain", "audio/other/high.wav", "audio/other/higher.wav", {}),
            ("absent", "rain", "audio/other/low.wav", "audio/other/lower.wav", {}),
        ]
    ):
        places = {f"{n}_{s}": "0" for n in ("target", "interference1") for s in ("start", "offset")}
        if more:
            places |= {"interference2_start": "0", "interference2_offset": "0"}
        rows.append(
            {"id": f"{kind}{number}", "kind": kind, "query": query, "phrase": f"a {query} far away", "snr_db": "3"}
            | empty
            | {"target": target, "interference1": interference}
            | places
            | more
        )
    with (tmp_path / "list.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def test_scores_are_sdri_and_suppression(root):
    scores = evaluate(LowPass(leak=0.1), root / "list.csv", root)
    assert [score.kind for score in scores] == ["pair"] * 3 + ["three"] + ["absent"] * 2
    # Interference lies 20 dB lower in the output; an absent query's highs too, its lows not at all.
    assert [score.value for score in scores] == pytest.approx([20, 20, 20, 20, 20, 0], abs=0.05)
    assert [score.esc for score in scores] == [True] + [False] * 5
    assert [score.label for score in scores] == ["hum", "hum", "drone", "hum", "rain", "rain"]
    assert scores[0].recording == "audio/esc10/low.wav"
    assert scores[0].presence == pytest.approx(0.03)


@pytest.mark.parametrize("leak", [0.5, 0.01])
def test_scores_follow_the_separator(root, leak):
    scores = evaluate(LowPass(leak), root / "list.csv", root)
    assert [score.value for score in scores[:5]] == pytest.approx([-20 * np.log10(leak)] * 5, abs=0.05)


def test_the_query_is_the_label_or_the_phrase(root):
    separator = LowPass()
    by_phrase = evaluate(separator, root / "list.csv", root, column="phrase")
    assert separator.asked[0] == by_phrase[0].query == "a hum far away"
    assert by_phrase[0].label == "hum"


def test_every_nth_row(root):
    assert [score.id for score in evaluate(LowPass(), root / "list.csv", root, every=2)] == [
        "pair0",
        "pair2",
        "absent4",
    ]


def score(value, kind="pair", label="dog", recording="a", esc=False):
    return Score("id", kind, label, label, recording, esc, value, 0.5)


def test_a_line_is_mean_median_and_interval():
    scores = [score(v, recording=r) for v, r in [(1.0, "a"), (2.0, "a"), (9.0, "b")]]
    found = line("pair", scores)
    assert found["n"] == 3
    assert found["mean"] == pytest.approx(4.0)
    assert found["median"] == 2.0
    assert (found["low"], found["high"]) == bootstrap(np.array([1.0, 2.0, 9.0]), ["a", "a", "b"])
    assert found["presence"] == 0.5


def test_the_summary_keeps_kinds_and_rare_classes_apart():
    scores = [
        score(1.0, esc=True),
        score(3.0),
        score(5.0, label="owl"),
        score(7.0, kind="three"),
        score(30.0, kind="absent"),
    ]
    found = {entry["rows"]: (entry["n"], entry["mean"]) for entry in summary(scores, Counter({"dog": 4, "owl": 3}))}
    assert found == {
        "pair": (3, 3.0),
        "pair, target from ESC-50": (1, 1.0),
        "pair, class with 4+ train clips": (2, 2.0),
        "pair, class with < 4 train clips": (1, 5.0),
        "three": (1, 7.0),
        "absent (dB under the mixture)": (1, 30.0),
    }
    assert [entry["rows"] for entry in summary(scores[3:])] == ["three", "absent (dB under the mixture)"]


def test_classes_come_worst_first_and_from_pairs_only():
    scores = [score(4.0), score(6.0), score(1.0, label="owl"), score(-9.0, label="owl", kind="three")]
    assert by_class(scores) == [("owl", 1, 1.0), ("dog", 2, 5.0)]


def test_the_table_is_markdown():
    text = table([line("pair", [score(4.0), score(6.0, recording="b")])])
    assert text.splitlines()[0] == "| rows | n | mean dB | 95 % interval | median | presence |"
    assert text.splitlines()[2] == "| pair | 2 | 5.00 | 4.00 to 6.00 | 5.00 | 0.50 |"


def test_the_command_prints_the_table_and_writes_all_rows(root, monkeypatch, capsys):
    monkeypatch.setattr(module.Separator, "from_pretrained", lambda name: LowPass())
    clip = {"path": "x", "split": "train", "caption": "c", "recording_id": "r", "source": "s", "seconds": 1}
    write_manifest(root / "manifest.csv", [clip | {"label": "hum"}] * 4)
    arguments = ["--mixtures", str(root / "list.csv"), "--json", str(root / "rows.json"), "--classes"]
    monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
    module.main()
    printed = capsys.readouterr().out
    assert "| pair | 3 | 20.00 |" in printed
    assert "| pair, class with 4+ train clips | 2 | 20.00 |" in printed
    assert "| pair, class with < 4 train clips | 1 | 20.00 |" in printed
    assert "| hum | 2 | 20.00 |" in printed
    rows = json.loads((root / "rows.json").read_text())
    assert len(rows) == 6
    assert rows[0]["value"] == pytest.approx(20, abs=0.05)
