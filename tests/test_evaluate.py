"""Scoring of separators with known scores on generated mixtures, and the command."""

import hashlib
import json
import re
import sys
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from tiny import write_manifest

from separation.data.fixed_mixtures import SAMPLE_RATE, read_rows
from separation.data.manifest import MANIFEST, add_recording_ids, read_recording_ids
from separation.evaluate import command as module
from separation.evaluate.metrics import METRICS, Signals, segmental_snr
from separation.evaluate.protocols.base import ListFile, find_protocol, make_row
from separation.evaluate.scoring import EvaluationError, Plan, Score, score_rows
from separation.evaluate.tables import class_means, compare_systems, format_tables, summarize
from separation.pretrained import find_model


class LowPass:
    """Low-pass at 2 kHz that keeps `leak` of the rest; presence is the length of the query / 100."""

    def __init__(self, leak=0.1):
        self.leak, self.asked = leak, []

    def __call__(self, mixture, query, sample_rate):
        assert sample_rate == SAMPLE_RATE
        self.asked.append(query)
        spectrum = torch.fft.rfft(mixture.reshape(1, -1).double())
        above = torch.arange(spectrum.shape[1]) > 2000 * 5
        spectrum[:, above] *= self.leak
        return SimpleNamespace(target=torch.fft.irfft(spectrum, mixture.shape[-1]).float(), presence=len(query) / 100)


MIXTURES = [
    ("pair", "hum", "esc10/low", "other/high"),
    ("pair", "hum", "other/low", "other/high"),
    ("pair", "drone", "other/lower", "other/high"),
    ("three", "hum", "other/low", "other/high", "other/higher"),
    ("absent", "rain", "other/high", "other/higher"),
    ("absent", "rain", "other/low", "other/lower"),
]


@pytest.fixture
def root(tmp_path):
    """Tones as recordings, three pairs (one from ESC-50), one mixture of three, two absent queries."""
    time = np.arange(5 * SAMPLE_RATE) / SAMPLE_RATE
    for folder in ("esc10", "other"):
        (tmp_path / "audio" / folder).mkdir(parents=True)
        for name, hertz in {"low": 300, "lower": 700, "high": 4000, "higher": 7000}.items():
            wave = 0.1 * np.sin(2 * np.pi * hertz * time)
            soundfile.write(tmp_path / "audio" / folder / f"{name}.wav", wave, SAMPLE_RATE, subtype="FLOAT")
    rows = []
    for number, (kind, query, *names) in enumerate(MIXTURES):
        target, *others = (f"audio/{name}.wav" for name in names)
        more = {"kind": kind, "phrase": f"a {query} far away", "snr_db": "3", "label": ""}
        rows.append(make_row(f"{kind}{number}", query, target, others, **more))
    write_manifest(tmp_path / "list.csv", rows, list(rows[0]))
    return tmp_path


def score(value, kind="pair", label="dog", recording="a", esc=False):
    return Score("id", kind, label, label, recording, esc, value, 0.5)


def test_the_summary_keeps_kinds_and_rare_classes_apart():
    scores = [score(1.0, esc=True), score(3.0), score(5.0, label="owl")]
    scores += [score(7.0, kind="three"), score(30.0, kind="absent")]
    found = {entry["rows"]: (entry["n"], entry["mean"]) for entry in summarize(scores, Counter({"dog": 4, "owl": 3}))}
    assert found == {
        "pair": (3, 3.0),
        "pair, target from ESC-50": (1, 1.0),
        "pair, class with 4+ train clips": (2, 2.0),
        "pair, class with < 4 train clips": (1, 5.0),
        "three": (1, 7.0),
        "absent (dB under the mixture)": (1, 30.0),
    }
    assert [entry["rows"] for entry in summarize(scores[3:])] == ["three", "absent (dB under the mixture)"]


def test_classes_come_worst_first_and_from_pairs_only():
    scores = [score(4.0), score(6.0), score(1.0, label="owl"), score(-9.0, label="owl", kind="three")]
    assert class_means(scores) == [("owl", 1, 1.0), ("dog", 2, 5.0)]


# Beside the model: the mixture, an oracle mask, other metrics


def score_list(root, metrics=("sdr", "sdri"), separator=None, first=None, **plan):
    rows = add_recording_ids(read_rows(root / "list.csv")[:first], read_recording_ids(root / MANIFEST))
    return score_rows(separator or LowPass(), rows, lambda row: root, Plan(metrics=metrics, oracle=True, **plan))


def test_model_mixture_and_oracle_are_scored(root):
    outcome = score_list(root)
    scores = outcome.scores
    assert (outcome.rows, [score.kind for score in scores]) == (6, ["pair"] * 3 + ["three"] + ["absent"] * 2)
    # Interference lies 20 dB lower in the output; an absent query's highs too, its lows not at all.
    assert [score.value for score in scores] == pytest.approx([20, 20, 20, 20, 20, 0], abs=0.05)
    assert [score.esc for score in scores] == [True] + [False] * 5
    assert [score.label for score in scores] == ["hum", "hum", "drone", "hum", "rain", "rain"]
    assert (scores[0].recording, scores[0].presence) == ("audio/esc10/low.wav", pytest.approx(0.03))
    for scored in scores[:3]:
        assert scored.metrics["sdri"] == pytest.approx(scored.value, abs=1e-3) == pytest.approx(20, abs=0.05)
        assert scored.mixture["sdri"] == 0
        assert scored.mixture["sdr"] == pytest.approx(3, abs=0.01)  # the list's SNR
        assert scored.oracle["sdri"] > 30
    assert scores[3].mixture["sdr"] == pytest.approx(0, abs=0.02)
    absent = scores[4]
    assert (absent.mixture, absent.oracle) == ({"suppression": 0.0}, {"suppression": 60.0})


def test_all_metrics_by_name(root):
    pytest.importorskip("pystoi")
    names = tuple(name for name in METRICS if name != "pesq")
    [found] = score_list(root, names, first=1).scores
    assert tuple(found.metrics) == tuple(found.mixture) == tuple(found.oracle) == names
    for name in ("sdr", "si_sdr", "snr", "bss_sdr", "bss_sir"):
        assert found.metrics[name] == pytest.approx(23, abs=0.2), name
    for name in ("sdri", "si_sdri", "bss_sdri"):
        assert found.metrics[name] == pytest.approx(20, abs=0.1), name
    # Swapped, the energy above the error is the output's; here a half per cent more.
    assert found.metrics["bss_sdr_swapped"] - found.metrics["bss_sdr"] == pytest.approx(10 * np.log10(1.005), abs=1e-3)
    assert np.isnan(found.mixture["bss_sdri_swapped"])
    [found] = score_list(root, ("bss_sdr",), first=1, window=1.0).scores
    assert found.metrics["bss_sdr"] == pytest.approx(23, abs=0.2)


def test_silent_signals_are_counted_and_not_averaged(root):
    time = np.arange(5 * SAMPLE_RATE) / SAMPLE_RATE
    soundfile.write(root / "audio/other/low.wav", 0 * time, SAMPLE_RATE)
    outcome = score_list(root)
    silent = ["pair1: the target is silent", "three3: the target is silent", "absent5: the mixture is silent"]
    assert outcome.silent == silent
    assert [scored.id for scored in outcome.scores] == ["pair0", "pair2", "absent4"]
    soundfile.write(root / "audio/other/high.wav", 0 * time, SAMPLE_RATE)
    assert "pair2: the interference is silent" in score_list(root).silent


def test_missing_and_broken_recordings_are_left_out_and_named(root):
    (root / "audio/esc10/low.wav").write_bytes(b"RIFF and nothing else")
    protocol = find_protocol("validation")
    (root / "audio/other/higher.wav").unlink()
    rows = read_rows(root / "list.csv")
    outcome = score_rows(LowPass(), rows, lambda row: protocol.locate(row, root), Plan())
    assert outcome.missing == ["audio/other/higher.wav"] * 2
    assert len(outcome.broken) == 1 and outcome.broken[0].startswith("pair0: ")
    assert [scored.id for scored in outcome.scores] == ["pair1", "pair2", "absent5"]


def test_nan_in_the_output_and_rows_without_the_wanted_text_are_errors(root):
    with pytest.raises(EvaluationError, match="Row pair0, 'hum': the output of the model contains NaN"):
        score_list(root, separator=LowPass(float("nan")))
    separator = LowPass()
    [first, *_] = score_list(root, separator=separator, column="phrase").scores
    assert separator.asked[0] == first.query == "a hum far away" and first.label == "hum"
    text = (root / "list.csv").read_text().replace("a drone far away", "")
    (root / "list.csv").write_text(text)
    with pytest.raises(EvaluationError, match="Row pair2 has no phrase"):
        score_list(root, column="phrase")


# Aggregates


def scored(label, value, recording=None):
    one = score(value, label=label, recording=recording or f"{label}{value}")
    return replace(one, metrics={"sdri": value}, mixture={"sdri": 0.0})


def test_aggregates_over_classes():
    scores = [scored("dog", v) for v in (1.0, 2.0, 9.0)] + [scored("owl", 6.0)]
    found = {a: compare_systems(scores, ("sdri",), a)[-1] for a in ("mean", "class mean", "class median")}
    assert [cell["value"] for cell in found.values()] == [4.5, 5.0, 4.0]
    assert (found["class median"]["low"], found["class median"]["high"]) == (2.0, 6.0)
    assert found["mean"]["median"] == 4.0
    with pytest.raises(ValueError, match="Unknown aggregate"):
        compare_systems(scores, ("sdri",), "mode")


def test_rows_without_a_value_are_counted_but_not_averaged():
    scores = [scored("dog", 1.0), scored("dog", float("nan"))]
    mixture, model = compare_systems(scores, ("sdri",))
    assert (model["n"], model["rows"], model["value"]) == (1, 2, 1.0)
    assert mixture["n"] == 2
    assert format_tables([scored("dog", 4.0), scored("dog", 6.0)], [mixture, model]).splitlines() == [
        "",
        "SDRi of the model (suppression of absent queries), mean over rows, 95 % interval by recording:",
        "",
        "| rows | n | mean dB | 95 % interval | median | presence |",
        "|---|---|---|---|---|---|",
        "| pair | 2 | 5.00 | 4.00 to 6.00 | 5.00 | 0.50 |",
        "",
        "All systems, mean over rows; 95 % interval by recording; behind the semicolon the median of the rows:",
        "",
        "| pair, n = 2 | SDRi |",
        "|---|---|",
        "| mixture (nothing done) | 0.00; 0.00 |",
        "| model | 1.00; 1.00, n = 1 |",
    ]
    [_, nothing] = compare_systems([scored("dog", float("nan"))], ("sdri",))
    assert format_tables(scores[:1], [nothing]).splitlines()[-1] == "| model | none |"


# The command


@pytest.fixture
def run(root, monkeypatch, capsys):
    """Run the command on the list with a known separator; return status, output and error output."""
    monkeypatch.setattr(module.Separator, "from_pretrained", lambda name: LowPass())

    def command(*options, list_of=None):
        try:
            status = module.main([*(list_of or ("--mixtures", str(root / "list.csv"))), *options])
        except SystemExit as stop:
            status = stop.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return command


def test_command_reports_what_was_measured(root, run):
    clip = {"path": "x", "split": "train", "caption": "c", "recording_id": "r", "label": "hum"}
    write_manifest(root / "manifest.csv", [clip] * 4)
    files = ("--report", str(root / "report.json"), "--json", str(root / "rows.json"))
    status, printed, said = run(*files, "--classes")
    assert (status, said) == (0, "")
    report, rows = (json.loads((root / name).read_text()) for name in ("report.json", "rows.json"))
    before = ("id", "kind", "query", "label", "recording", "esc", "value", "presence")
    assert (len(rows), tuple(rows[0])) == (6, (*before, "metrics", "mixture", "oracle", "file"))
    assert (rows[0]["value"], rows[0]["mixture"]["sdri"]) == (pytest.approx(20, abs=0.05), 0)
    assert rows[4]["metrics"] == {"suppression": pytest.approx(20, abs=0.05)}
    for group in ("pair | 3", "pair, class with 4+ train clips | 2", "pair, class with < 4 train clips | 1", "hum | 2"):
        assert f"| {group} | 20.00 |" in printed
    assert "mean over rows, 95 % interval by file:" in printed and "mean over rows; 95 % interval by file;" in printed
    assert report["rows_resampled_by"] == "file"
    assert re.search(r"^Protocol list.csv, version 1, rows' sha256 [0-9a-f]{64}\.$", printed, re.MULTILINE)
    weights = hashlib.sha256((find_model("default") / "model.safetensors").read_bytes()).hexdigest()
    assert f"Model default, weights' sha256 {weights}." in printed
    assert "6 rows: 6 scored, 0 skipped, 0 silent." in printed
    assert "| pair, n = 3 | SDR | SDRi | SI-SDR |" in printed
    assert re.search(r"^\| mixture \(nothing done\) \| 3\.00[^|]*\| 0\.00", printed, re.MULTILINE)
    assert re.search(r"^\| oracle mask \| \d\d\.\d\d", printed, re.MULTILINE)
    assert (report["rows"], report["scored"], report["weights_sha256"]) == (6, 6, weights)
    cell = next(c for c in report["figures"] if (c["kind"], c["system"], c["metric"]) == ("pair", "model", "sdri"))
    assert cell["value"] == pytest.approx(20, abs=0.05)
    assert {row["class"]: row["rows"] for row in report["classes"]} == {"hum": 2, "drone": 1}
    assert str(root) not in (root / "report.json").read_text()


def test_metrics_and_the_oracle_can_be_chosen(run):
    _, printed, _ = run("--metrics", "si_sdri,bss_sdr", "--no-oracle", "--every", "3")
    assert "| pair, n = 1 | SI-SDRi | BSS SDR |" in printed
    assert "oracle mask" not in printed
    assert "6 rows, 1 in 3 taken: 2 scored" in printed


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("--mixtures list.csv --metrics sdr,beauty", 2, "beauty is not a metric; choose from sdr, sdri"),
        ("--mixtures list.csv --metrics ,", 2, "nothing is not a metric"),
        ("--mixtures list.csv --every 0", 2, "0 is not a whole number from 1"),
        ("--mixtures list.csv --protocol validation", 2, "not allowed with argument --mixtures"),
        ("--mixtures list.csv --metrics pesq", 1, "PESQ needs the package pesq: pip install pesq"),
        ("--mixtures list.csv --report list.csv/report.json", 1, "list.csv: file exists.\n"),
        ("--mixtures none", 1, "none: the list of mixtures cannot be read (no such file or directory).\n"),
        (
            "--mixtures clips.csv",
            1,
            "clips.csv: the list of mixtures lacks the column id in the header path,split,",
        ),
        ("--protocol audiosep/esc51", 1, 'Unknown protocol "audiosep/esc51"; did you mean audiosep/esc50'),
    ],
)
def test_errors_of_the_command_are_sentences(root, run, monkeypatch, arguments, status, message):
    monkeypatch.setitem(sys.modules, "pesq", None)
    monkeypatch.chdir(root)
    (root / "clips.csv").write_text("path,split,recording_id,labels\na.wav,train,r,dog\n")
    found, _, said = run(list_of=arguments.split())
    assert found == status and message in said
    assert status == 2 or said.count("\n") == 1


@pytest.mark.parametrize(
    ("column", "cell", "why"),
    [
        ("snr_db", "abc", "snr_db “abc” is not a number"),
        ("snr_db", "nan", "snr_db “nan” is not finite"),
        ("target_start", "x", "target_start “x” is not a number"),
        ("interference1_offset", "-3", "interference1_offset “-3” is negative"),
        ("interference1_start", "inf", "interference1_start “inf” is not finite"),
        ("target", "", "the target is empty"),
        ("kind", "duo", "the kind “duo” is none of pair, three, four, five, absent"),
        (None, None, "the number of cells differs from the header"),
    ],
)
def test_invalid_rows_are_refused(root, run, column, cell, why):
    rows = read_rows(root / "list.csv")[: 3 if column else 2]
    rows[-1] |= {column: cell} if column else {}
    write_manifest(root / "list.csv", rows, list(rows[0]))
    if not column:
        with (root / "list.csv").open("a", encoding="utf-8") as file:
            file.write("pair9,pair,hum\n")
    status, _, said = run()
    assert (status, said) == (1, f"{root / 'list.csv'}, row 4: {why}.\n")


# What intervals resample


def test_intervals_are_by_recording_where_a_manifest_knows_them(root, run):
    known = {"esc10/low": "site:1", "other/low": "site:1", "other/lower": "freesound:?"}
    common = {"split": "test", "label": "hum"}
    clips = [common | {"path": f"audio/{path}.wav", "recording_id": each} for path, each in known.items()]
    write_manifest(root / "manifest.csv", clips)
    status, printed, _ = run("--json", str(root / "rows.json"), "--report", str(root / "report.json"))
    assert status == 0
    by = "95 % interval by recording (by file where that is unknown)"
    assert f"mean over rows, {by}:\n" in printed and f"mean over rows; {by}; behind" in printed
    rows = json.loads((root / "rows.json").read_text())
    low, high = "audio/other/low.wav", "audio/other/high.wav"
    assert [row["recording"] for row in rows] == ["site:1", "site:1", "audio/other/lower.wav", "site:1", high, "site:1"]
    assert [row["file"] for row in rows] == ["audio/esc10/low.wav", low, "audio/other/lower.wav", low, high, low]
    assert json.loads((root / "report.json").read_text())["rows_resampled_by"] == by.split("by ", 1)[1]


def test_recording_ids_are_found_in_the_folders_of_a_protocol(root):
    row = {"target": "low.wav"}
    known = {"audio/other/low.wav": "site:1"}
    assert add_recording_ids([row], known) == [row]
    assert add_recording_ids([row], known, ("", "audio/other")) == [row | {"recording": "site:1"}]
    named = row | {"recording": "mine"}
    assert add_recording_ids([named], known, ("audio/other",)) == [named]


@pytest.mark.parametrize(
    "text", ["path,split,recording_id,labels\na.wav,test,r,dog\n", "file;class\na.wav;dog\n", 'path,split\n"a']
)
def test_an_invalid_manifest_beside_the_list_is_ignored(root, run, text):
    (root / "manifest.csv").write_text(text)
    status, printed, said = run()
    assert (status, said) == (0, "")
    assert "| pair | 3 | 20.00 |" in printed and "train clips" not in printed


def test_segmental_snr_is_at_16_khz():
    target, noise = np.random.default_rng(0).standard_normal((2, 2 * SAMPLE_RATE))
    above = np.fft.rfft(noise)
    above[: 2 * 9000] = 0  # nothing under 9 kHz
    estimate = target + 3 * np.fft.irfft(above)
    signals = Signals(target, target, estimate, target - estimate, SAMPLE_RATE)
    assert METRICS["segmental_snr"].compute(signals) == 35.0  # what lies over 8 kHz is not heard
    assert segmental_snr(target, estimate, SAMPLE_RATE) < 0
    short = Signals(*(wave[:100] for wave in (target, target, estimate, estimate)), SAMPLE_RATE)
    assert np.isnan(METRICS["segmental_snr"].compute(short))


def test_nothing_to_score_is_a_failure(root, run):
    for file in (root / "audio").rglob("*.wav"):
        file.unlink()
    status, printed, _ = run()
    assert status == 1
    assert "6 rows: 0 scored, 6 skipped, 0 silent." in printed
    assert "Left out, 6 rows whose recordings are missing: audio/esc10/low.wav; audio/other/low.wav;" in printed


def test_protocols_are_listed(run):
    status, printed, _ = run(list_of=("--list-protocols",))
    assert status == 0
    assert re.search(r"\n\| audiosep/esc50 \| 1 \| 2000 \| [0-9a-f]{12} \| SEPARATION_ESC50_ROOT \|", printed)
    assert "\n| uss/fsd50k | 1 | as the recordings are |  | SEPARATION_FSD50K_ROOT |" in printed


def test_a_protocol_from_lists_and_recordings(root, run, monkeypatch):
    lists, folder = root / "lists", root / "ESC-50" / "audio"
    lists.mkdir()
    folder.mkdir(parents=True)
    rows = ["0,hum,low.wav,high.wav", "1,drone,lower.wav,high.wav", "2,rain,rain.wav,low.wav"]
    (lists / "esc50_eval.csv").write_text("\n".join(["idx,caption,src_wav,noise_wav", *rows, ""]))
    for file in (root / "audio/other").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    own = replace(find_protocol("audiosep/esc50"), lists=(ListFile(("esc50_eval.csv",)),), sha256=None)
    monkeypatch.setattr("separation.evaluate.command.find_protocol", lambda name: own)
    where = ("--root", str(root / "ESC-50"), "--lists", str(lists))
    status, printed, _ = run(*where, "--classes", list_of=("--protocol", "audiosep/esc50"))
    assert status == 0
    assert "Protocol audiosep/esc50, version 1" in printed
    assert "3 rows: 2 scored, 1 skipped, 0 silent." in printed
    assert "Left out, 1 rows whose recordings are missing: rain.wav." in printed
    assert "| pair, n = 2 | SDR | SDRi | SI-SDR |" in printed
    assert re.search(r"^\| drone \| 1 \| 20\.00 \| 20\.00 \| \d\d\.\d\d \|$", printed, re.MULTILINE)
