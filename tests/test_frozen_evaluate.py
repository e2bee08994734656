"""Protocols, procedural sounds, metrics and scores against values recorded before the restructuring.

`python tests/test_frozen_evaluate.py` prints today's values to standard error; `frozen/evaluate.json` has the recorded
ones. Its `scores` are [by label, by phrase] of every 46th row of the validation list, `validation` is [rows, mean,
median] of all rows by label, both printed by `python -m separation.evaluate --mixtures validation_mixtures.csv`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from separation.data.fixed_mixtures import render
from separation.data.foley import SOUNDS, synthesise
from separation.evaluate import metrics
from separation.evaluate.protocols.base import all_protocols, find_protocol, fingerprint, make_row
from separation.evaluate.scoring import oracle_estimate

FROZEN = json.loads((Path(__file__).parent / "frozen" / "evaluate.json").read_text(encoding="utf-8"))
EVERY = 46  # rows of the validation list that are separated again


def measure_protocols():
    """Version, number and hash of the rows, aggregate, metrics and a hash of the mixing of every protocol."""
    row = make_row(0, "dog", "a.wav", ["b.wav"], snr_db="3")
    return {
        name: [p.version, p.count, p.sha256, p.aggregate, p.window, list(p.metrics), fingerprint([row], p.mixing)[:16]]
        for name, p in all_protocols().items()
    }


def measure_sounds():
    """Level of each procedural sound and its projections on two fixed directions."""
    directions = np.random.default_rng(1).standard_normal((2, 16000))
    sounds = {label: synthesise(label, 1.0, 16000, seed=7).astype(float) for label in sorted(SOUNDS)}
    return {label: [float(np.sqrt((w**2).mean())), *(directions @ w).tolist()] for label, w in sounds.items()}


def measure_metrics():
    """Every metric of seeded signals."""
    rng = np.random.default_rng(3)
    target, other, noise = rng.standard_normal((3, 16000))
    target[4000:8000] = 0
    mixture, estimate = target + other, target + 0.3 * other + 0.1 * noise
    found = {
        name: getattr(metrics, name)(target, estimate, *more)
        for name, more in {
            "sdr": (), "sdri": (mixture,), "si_sdr": (), "si_sdri": (mixture,), "snr": (True,),
            "segmental_snr": (16000,),
        }.items()
    }  # fmt: skip
    found["suppression"] = metrics.suppression(mixture, 0.1 * mixture)
    references, estimates = np.stack([target, other]), np.stack([estimate, mixture - estimate])
    for window in (None, 4000):
        bss = metrics.bss_eval(references, estimates, window)
        for name in ("sdr", "isr", "sir", "sar"):
            found[f"bss_{name}, window {window}"] = np.nan_to_num(getattr(bss, name), nan=-999).ravel().tolist()
    found["bootstrap"] = list(metrics.bootstrap(target[:60], [str(n // 3) for n in range(60)]))
    found["oracle"] = metrics.sdr(target, oracle_estimate(target, mixture, 16000))
    return found


def test_protocols():
    assert measure_protocols() == FROZEN["protocols"]


def test_sounds():
    found = measure_sounds()
    assert list(found) == list(FROZEN["sounds"])
    for label, values in FROZEN["sounds"].items():
        assert found[label] == pytest.approx(values, abs=1e-3), label


def test_metrics():
    found = measure_metrics()
    assert list(found) == list(FROZEN["metrics"])
    for name, value in FROZEN["metrics"].items():
        assert found[name] == pytest.approx(value, abs=1e-5), name


def test_scores_of_the_validation_list(data_root):
    from separation import Separator
    from separation.evaluate.scoring import Plan, score_mixture

    rows, separator = (
        find_protocol("validation").rows(data_root),
        Separator.from_pretrained("small", device="cpu", precision="float32"),
    )
    for number in range(0, len(rows), EVERY):
        rendered = render(rows[number], data_root)
        values = [score_mixture(separator, rendered, Plan(column)).value for column in ("query", "phrase")]
        assert values == pytest.approx(FROZEN["scores"][rows[number]["id"]], abs=0.02), rows[number]["id"]


if __name__ == "__main__":
    measured = {"protocols": measure_protocols(), "sounds": measure_sounds(), "metrics": measure_metrics()}
    json.dump(FROZEN | measured, sys.stderr, indent=1)
