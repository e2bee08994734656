"""Fits how a model directory tells presence and what it lists, and writes both into its config.

python -m separation.calibrate DIRECTORY --manifest clips/manifest.csv          presence, on mixtures of training clips
python -m separation.calibrate DIRECTORY --mixtures validation_mixtures.csv     listing, on fixed mixtures held out
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import yaml

from separation.data.corpus import Corpus
from separation.data.fixed_mixtures import read_rows, render
from separation.data.mixing import Augment, Mixer
from separation.listing import ListingRule
from separation.listing import fit as fit_listing
from separation.presence import PresenceRule, energy_ratio_db, fit
from separation.pretrained import read_config
from separation.separator import Separator


def observe(separator: Separator, mixer: Mixer, count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detection, energy ratio in dB and truth of `count` mixtures' queries: each source's label, and an absent one."""
    detections, ratios, present = [], [], []
    for number in range(count):
        drawn = mixer.draw(np.random.default_rng((seed, number)))
        sources, labels, used = drawn.sources(), drawn.labels, drawn.used
        mixture = sources.sum(0, keepdim=True)
        queries = [mixer.corpus.labels[label] for label in labels]
        stream = separator.stream(queries, separator.sample_rate, 1, separator.level([mixture]))
        stream.push(mixture)
        stream.flush()
        detections += stream.logits.tolist()
        ratios += [energy_ratio_db(float(energy), stream.mixture_energy) for energy in stream.target_energy]
        present += [slot < used for slot in range(len(queries))]
    return np.array(detections), np.array(ratios), np.array(present)


def calibrate(directory: Path, corpus: Corpus, count: int, seconds: float = 5.0) -> PresenceRule:
    """Fits the rule and writes it to the directory's config."""
    separator = Separator.from_pretrained(directory)
    length = round(seconds * separator.sample_rate)
    mixer = Mixer(corpus, length, Augment(level=(0.0, 0.0)), three=0.0, balance=0.75)
    rule = fit(*observe(separator, mixer, count, seed=1))
    config = read_config(directory) | {"presence": asdict(rule)}
    (directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return rule


def listen(separator: Separator, row: dict[str, str], root: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Surest logit and truth of every sound that is listened for (sounds,) in one row of a list of mixtures."""
    rendered = render(row, root)
    mixture = torch.from_numpy(rendered.mixture).float()[None]
    listener = separator.listener(rendered.sample_rate, separator.level([mixture]))
    listener.push(mixture)
    sounding = {row[name] for name in ("target_label", "interference1_label", "interference2_label")}
    present = [sound in sounding for sound in separator.listing.sounds]
    return listener.flush().amax(0), torch.tensor(present)


def calibrate_listing(directory: Path, mixtures: Path, root: Path) -> ListingRule:
    """Fits the listing on a list of mixtures and writes it to the directory's config; the sounds stay as they are."""
    separator = Separator.from_pretrained(directory)
    observed = [listen(separator, row, root) for row in read_rows(mixtures)]
    slope, bias = fit_listing(*(torch.stack(column) for column in zip(*observed, strict=True)))
    config = read_config(directory)
    config["listing"] = (config.get("listing") or {}) | {"slope": slope, "bias": bias}
    (directory / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return replace(separator.listing, slope=slope, bias=bias)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Fit how a model tells presence and what it lists.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--manifest", type=Path, help="clips, to fit presence on mixtures of them")
    parser.add_argument("--mixtures", type=Path, help="CSV of fixed mixtures held out of training, to fit the listing")
    parser.add_argument("--root", type=Path, help="folder that paths start from (default: the CSV's own)")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--foley", type=int, default=0)
    parser.add_argument("--count", type=int, default=300, help="mixtures for presence")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.manifest:
        corpus = Corpus(arguments.manifest, "train", arguments.root, cache=arguments.cache, foley=arguments.foley)
        print(calibrate(arguments.directory, corpus, arguments.count))
    if arguments.mixtures:
        root = arguments.root or arguments.mixtures.parent
        rule = calibrate_listing(arguments.directory, arguments.mixtures, root)
        print(f"listing: slope {rule.slope}, bias {rule.bias}")


if __name__ == "__main__":
    main()
