"""Scores what is left of mixtures of three sounds when two of them are removed (`bench.py --only remove`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import interval
from tqdm import tqdm

from separation import Separator
from separation.data.fixed_mixtures import Row, render
from separation.errors import DataError
from separation.evaluate.metrics import bootstrap, sdri
from separation.evaluate.tables import markdown


def measure_removal(separator: Separator, rows: list[Row], root: Path) -> dict[str, Any]:
    """Score what is left of mixtures of three sounds when both interferences are removed, by several rules.

    Returns:
        By rule the mean SDRi with its interval, and the mean difference from asking for the third sound, dB.

    Raises:
        DataError: no row counts.
    """
    rules, clips = ("asked for", "removed together", "without sharing"), []
    values: dict[str, list[float]] = {name: [] for name in rules}
    for row in tqdm([row for row in rows if row["kind"] == "three"], "remove", disable=None):
        rendered = render(row, root)
        mixture, rate = rendered.mixture, rendered.sample_rate
        unwanted = [row["interference1_label"], row["interference2_label"]]
        asked, together = separator(mixture, row["query"], rate, remove=unwanted)
        alone = separator(mixture, unwanted, rate)
        left = alone[0].residual - alone[1].target
        for name, estimate in zip(rules, (asked.target, together.residual, left), strict=True):
            values[name].append(sdri(rendered.target, estimate[0].numpy(), mixture))
        clips.append(row["target"])
    if not clips:
        raise DataError("no mixture has three sounds")
    reference = np.array(values["asked for"])
    figures: dict[str, Any] = {"rows": len(clips), "rules": {}}
    for name, each in values.items():
        change = np.array(each) - reference
        figures["rules"][name] = {
            "mean": np.mean(each), "interval": bootstrap(np.array(each), clips), "median": np.median(each),
            "difference": change.mean(), "difference_interval": bootstrap(change, clips),
        }  # fmt: skip
    return figures


def removal_table(figures: dict[str, Any]) -> str:
    """Format the scores of removing two of three sounds."""
    rows = [
        (name, interval(each["mean"], *each["interval"]), f"{each['median']:.2f}",
         interval(each["difference"], *each["difference_interval"]))
        for name, each in figures["rules"].items()
    ]  # fmt: skip
    return markdown((f"third of three sounds, n = {figures['rows']}", "SDRi, dB", "median", "difference"), rows)
