"""Fits the presence rule and the listing rule of a model directory and writes them to its config.

python -m separation.calibrate DIRECTORY --mixtures validation_mixtures.csv     both, on held-out fixed mixtures
python -m separation.calibrate DIRECTORY --manifest clips/manifest.csv          presence, on mixtures of clips
python -m separation.calibrate DIRECTORY --labels ...      before that, conditions of the labels with all wordings

It prints how well presence tells sounding from absent queries, and a table of predicted and observed shares; both come
from rules that were fitted on other recordings.
"""

from __future__ import annotations

import argparse
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file

from separation.data.corpus import Corpus
from separation.data.fixed_mixtures import CLIPS, locate_files, read_rows, render
from separation.data.mixing import Augment, Mixer
from separation.data.texts import Texts
from separation.encoders.joint import JointEncoder
from separation.errors import AudioError, DataError, ModelError, one_sentence
from separation.listing import Detector, ListingRule, listing_terms
from separation.presence import ABSENT, PRESENT, PresenceRule, presence_word
from separation.pretrained import read_config
from separation.process import call
from separation.separator import Separator
from separation.storage.download import replace_when_complete
from separation.storage.tensors import write_tensors
from separation.vocabulary.wordings import wordings

FOLDS = 10
WORDINGS = 3  # of each label, which the background is fitted on beside the label
SHRINKAGE = 0.3  # of the background's coefficients
BINS = 10  # of the reliability table
TOO_FEW = "Calibration needs queries that occur and queries that do not, in several recordings."


@dataclass
class AskedMixture:
    """A mixture, queries, and whether each occurs.

    Attributes:
        waveform: (time,).
        sample_rate: Hz.
        queries: a text, the form under which its figures are printed, and whether it occurs.
        labels: of all that sounds.
        recordings: names of the recordings in the mixture.
    """

    waveform: np.ndarray
    sample_rate: int
    queries: list[tuple[str, str, bool]]
    labels: set[str]
    recordings: set[str]


@dataclass
class Evidence:
    """Detections of a network in mixtures, and the true answers.

    Attributes:
        responses: largest presence logit of each reference text in each mixture (mixtures, references); -inf where the
            text describes what sounds.
        references: conditions of the reference texts (references, dim).
        detection: largest logit of each query (queries,).
        conditions: of the queries (queries, dim).
        present: whether the query occurs (queries,).
        form, mixture: of each query (queries,).
        recordings: of each mixture.
    """

    responses: np.ndarray
    references: np.ndarray
    detection: np.ndarray
    conditions: np.ndarray
    present: np.ndarray
    form: np.ndarray
    mixture: np.ndarray
    recordings: list[set[str]]


def listed_mixtures(path: Path, root: Path) -> Iterator[AskedMixture]:
    """Mixtures of a list, each asked for by the label and the phrase of its row."""
    for row in read_rows(path):
        rendered, occurs = render(row, root), row["kind"] != "absent"
        queries = [(row[column], form, occurs) for form, column in (("label", "query"), ("phrase", "phrase"))]
        labels = {row.get(f"{name}_label", "") for name in CLIPS}
        recordings = {row[name] for name in CLIPS if row.get(name)}
        yield AskedMixture(rendered.mixture, rendered.sample_rate, [q for q in queries if q[0]], labels, recordings)


def drawn_mixtures(corpus: Corpus, sample_rate: int, count: int, seconds: float = 5.0) -> Iterator[AskedMixture]:
    """Mixtures of two clips, asked for by the labels of both and by an absent one."""
    length, augment = round(seconds * sample_rate), Augment(level=(0.0, 0.0))
    mixer = Mixer(corpus, Texts(corpus), length, augment, three=0.0, balance=0.75)
    for number in range(count):
        drawn = mixer.mix(mixer.draw(1, torch.Generator().manual_seed(number)))
        labels, present = [corpus.labels[label] for label in drawn.labels[0]], drawn.has_source()[0].tolist()
        queries = [(label, "label", occurs) for label, occurs in zip(labels, present, strict=True)]
        sounding = {label for label, _, occurs in queries if occurs}
        yield AskedMixture(drawn.sources[0].sum(0).numpy(), sample_rate, queries, sounding, {str(number)})


def observe(separator: Separator, mixtures: Iterable[AskedMixture]) -> Evidence:
    """Detect queries and reference texts, which are the labels that the model lists and some wordings of each."""
    if not (labels := separator.listing.sounds):
        raise DataError(f"{separator.name} lists no sounds (listing in its config), which calibration needs.")
    texts = [text for label in labels for text in (label, *wordings().get(label, ())[:WORDINGS])]
    owners = np.array([label for label in labels for _ in (label, *wordings().get(label, ())[:WORDINGS])])
    references, asked, logits, recordings = separator.conditions(texts), [], [], []
    queries: list[tuple[str, str, bool]] = []
    for mixture in mixtures:
        wave, rate = torch.from_numpy(mixture.waveform).float()[None], mixture.sample_rate
        asked.append(separator.conditions([text for text, _, _ in mixture.queries]))
        both, level = torch.cat([references, asked[-1]]), separator.level([wave], rate)
        logits.append(separator.detect([wave], rate, level, both).logits.double().numpy())
        logits[-1][: len(texts)][np.isin(owners, list(mixture.labels))] = -np.inf
        queries += mixture.queries
        recordings.append(mixture.recordings)
    if not logits:
        raise DataError(TOO_FEW)
    count = len(texts)
    return Evidence(
        responses=np.stack([each[:count] for each in logits]),
        references=references.double().cpu().numpy(),
        detection=np.concatenate([each[count:] for each in logits]),
        conditions=torch.cat(asked).double().cpu().numpy(),
        present=np.array([present for _, _, present in queries]),
        form=np.array([form for _, form, _ in queries]),
        mixture=np.repeat(np.arange(len(asked)), [len(each) for each in asked]),
        recordings=recordings,
    )


def fit_logistic(features: np.ndarray, truth: np.ndarray, weight: np.ndarray | float = 1.0) -> list[float]:
    """Fit a logistic regression by Newton's method.

    Args:
        features: (samples, features); a column of ones gives a bias.
        truth: (samples,) booleans.
        weight: of each sample.

    Returns:
        One coefficient per feature, rounded to four digits.
    """
    coefficients = np.zeros(features.shape[1])
    for _ in range(30):
        probability = 1 / (1 + np.exp(-np.clip(features @ coefficients, -30, 30)))
        gradient = features.T @ (weight * (truth - probability)) - 1e-3 * coefficients
        curvature = features.T @ (features * (weight * probability * (1 - probability))[:, None])
        coefficients += np.linalg.solve(curvature + 1e-3 * np.eye(len(coefficients)), gradient)
    return [round(float(value), 4) for value in coefficients]


def fit_background(responses: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Fit how strongly a network responds to conditions that do not occur, as a linear function of the condition.

    The response is the logarithm of the mean over mixtures of exp(largest logit).

    Args:
        responses: largest logits (mixtures, texts); -inf where the text occurs.
        references: conditions of the texts (texts, dim).

    Returns:
        Its coefficients and a constant (dim + 1,).

    Raises:
        DataError: if every text occurs in every mixture, or there is none.
    """
    absent = np.isfinite(responses).any(0)
    if not absent.any():
        raise DataError(TOO_FEW)
    responses, references = responses[:, absent], references[absent]
    mean = np.logaddexp.reduce(responses, axis=0) - np.log(np.isfinite(responses).sum(0))
    features = np.c_[references, np.ones(len(references))]
    penalty = SHRINKAGE * np.diag(np.r_[np.ones(references.shape[1]), 0.0])
    coefficients: np.ndarray = np.linalg.solve(features.T @ features + penalty, features.T @ mean)
    return coefficients


def fit_presence(
    detection: np.ndarray, conditions: np.ndarray, background: np.ndarray, present: np.ndarray
) -> PresenceRule:
    """Fit the presence rule; present and absent queries have the same total weight.

    Args:
        detection: largest logit of each query (queries,).
        conditions: of the queries (queries, dim).
        background: from `fit_background` (dim + 1,).
        present: whether the query occurs (queries,), booleans.

    Raises:
        DataError: if there are not both present and absent queries.
    """
    if present.all() or not present.any():
        raise DataError(TOO_FEW)
    weight = np.where(present, 0.5 / present.mean(), 0.5 / (1 - present.mean()))
    response = conditions @ background[:-1] + background[-1]
    features = np.stack([np.ones_like(detection), detection, response], axis=1)
    bias, logit, factor = fit_logistic(features, present, weight)
    vector = tuple(round(float(value), 3) for value in factor * background[:-1])
    return PresenceRule(round(bias + factor * float(background[-1]), 4), logit, background=vector)


def recording_folds(recordings: list[set[str]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Divide mixtures by the names of their recordings; yield masks (mixtures,) to fit on and to test on.

    Mixtures that share a recording with the test are in neither.
    """
    fold = np.array([zlib.crc32(min(names).encode()) % FOLDS for names in recordings])
    for number in np.unique(fold):
        names = set().union(*(recordings[place] for place in np.flatnonzero(fold == number)))
        yield np.array([not names & each for each in recordings]), fold == number


def cross_fit(evidence: Evidence) -> np.ndarray:
    """Probability of each query (queries,) by a rule fitted on mixtures without any of its mixture's recordings."""
    probability = np.zeros(len(evidence.detection))
    for disjoint, held_out in recording_folds(evidence.recordings):
        background = fit_background(evidence.responses[disjoint], evidence.references)
        train, test = disjoint[evidence.mixture], held_out[evidence.mixture]
        detection, conditions = evidence.detection, evidence.conditions
        rule = fit_presence(detection[train], conditions[train], background, evidence.present[train])
        tested = torch.from_numpy(detection[test]), torch.from_numpy(conditions[test])
        probability[test] = rule(*tested).numpy()
    return probability


def area_under_roc(probability: np.ndarray, present: np.ndarray) -> float:
    """Probability that a present query has a larger value than an absent one."""
    difference = probability[present][:, None] - probability[~present]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def report(probability: np.ndarray, present: np.ndarray, form: np.ndarray) -> Iterator[str]:
    """Yield lines: figures for each form of query that is both present and absent, and the reliability table.

    The observed share of a bin counts all present and all absent queries with the same weight, as the fit does.
    """
    for name in dict.fromkeys(form.tolist()):
        values, truth = probability[form == name], present[form == name]
        if truth.all() or not truth.any():
            continue
        sounding, absent = (values[truth] >= 0.5).mean(), (values[~truth] >= 0.5).mean()
        shares = f"{sounding:.1%} of sounding and {absent:.1%} of absent queries"
        yield f"by {name}: AUC {area_under_roc(values, truth):.3f}; presence is at least 0.5 for {shares}"
    weight = np.where(present, 1 / present.sum(), 1 / (~present).sum())
    words = np.array([presence_word(value) for value in probability])
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    groups = [(f"{n / BINS:.1f} to {(n + 1) / BINS:.1f}", bins == n) for n in range(BINS)]
    limits = {"absent": f" (below {ABSENT})", "uncertain": "", "present": f" (from {PRESENT})"}
    groups += [(word + limit, words == word) for word, limit in limits.items()]
    yield f"{'presence':24}{'predicted':>10}{'observed':>10}{'sounding':>10}{'absent':>10}"
    for name, group in groups:
        if group.any():
            predicted = np.average(probability[group], weights=weight[group])
            observed = weight[group & present].sum() / weight[group].sum()
            counts = (group & present).sum(), (group & ~present).sum()
            yield f"{name:24}{predicted:10.2f}{observed:10.2f}{counts[0]:10}{counts[1]:10}"


def calibrate_presence(directory: Path, separator: Separator, mixtures: Iterable[AskedMixture]) -> PresenceRule:
    """Fit the presence rule on mixtures, print its cross-fitted figures and write it to the directory's config.

    Raises:
        DataError: if there are not both present and absent queries.
    """
    evidence = observe(separator, mixtures)
    for line in report(cross_fit(evidence), evidence.present, evidence.form):
        print(line)
    background = fit_background(evidence.responses, evidence.references)
    rule = fit_presence(evidence.detection, evidence.conditions, background, evidence.present)
    write_section(directory, "presence", asdict(rule) | {"background": list(rule.background)})
    return rule


def fit_listing(terms: torch.Tensor, present: torch.Tensor) -> dict[str, Any]:
    """Fit slope, tag, share and bias of the listing rule; a term that never changes gets no weight.

    All samples have the same weight, so the values hold for recordings with about as many sounds as these. The
    recordings must be held out of training, because a network is too certain about those it was trained on.

    Args:
        terms: see `listing.listing_terms` (recordings, labels, 3).
        present: whether the label occurs (recordings, labels), booleans.
    """
    values = terms.flatten(0, 1).double().numpy()
    varies = np.ptp(values, axis=0) > 0
    features = np.concatenate([values[:, varies], np.ones((len(values), 1))], axis=1)
    fitted = iter(fit_logistic(features, present.flatten().numpy()))
    factors = [next(fitted) if each else 0.0 for each in varies]
    return dict(zip(("slope", "tag", "share", "bias"), [*factors, *fitted], strict=True))


def write_section(directory: Path, name: str, values: dict[str, Any]) -> None:
    """Update a section of a model directory's config; the text of the others stays as it is."""
    path, config = directory / "config.yaml", read_config(directory)
    config[name] = (config.get(name) or {}) | values
    section = yaml.safe_dump({name: config[name]}, sort_keys=False, default_flow_style=None, width=120)
    others = re.sub(rf"^{name}:.*\n(?:[ #-].*\n|\n)*", "", path.read_text(encoding="utf-8") + "\n", flags=re.MULTILINE)
    text = others.rstrip("\n") + "\n" + section
    is_same = False
    with suppress(yaml.YAMLError):  # of a config in one pair of braces
        is_same = yaml.safe_load(text) == config
    with replace_when_complete(path) as partial:
        partial.write_text(text if is_same else yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def store_labels(directory: Path) -> None:
    """Store conditions of labels and other sounds in a model's weights, see `JointEncoder.encode_query`.

    Raises:
        ModelError: the model has no joint encoder of its own.
    """
    separator, file = Separator.from_pretrained(directory), directory / "model.safetensors"
    encoder, labels, section = separator.encoder, wordings(), read_config(directory).get("encoder")
    if not isinstance(encoder, JointEncoder) or not section:
        raise ModelError(f"{directory}: only models with a joint encoder of their own have conditions of labels.")
    known = {*labels, *separator.listing.sounds}
    encoder.describe_labels(labels, [each.name for each in separator.listed_sounds if each.name not in known])
    section.setdefault("init_args", {}).update(labels=len(encoder.labels), classes=len(encoder.classes))
    stored = {f"encoder.{name}": getattr(encoder, name).half() for name in ("labels", "classes")}
    write_tensors(file, load_file(file) | {name: rows for name, rows in stored.items() if len(rows)})
    (directory / "sounds.safetensors").unlink(missing_ok=True)  # encoded without them
    write_section(directory, "encoder", section)


def detect_row(separator: Separator, row: dict[str, str], root: Path) -> Detector:
    """Detect all sounds that can be listed in one row of a list of mixtures."""
    rendered = render(row, root)
    mixture = torch.from_numpy(rendered.mixture).float()[None]
    level = separator.level([mixture], rendered.sample_rate)
    labels = len(separator.listing.sounds)
    return separator.detect([mixture], rendered.sample_rate, level, separator.listing_conditions, labels)


def calibrate_listing(directory: Path, mixtures: Path, root: Path) -> ListingRule:
    """Fit the listing rule on a list of mixtures and write it to the directory's config, which keeps its sounds.

    The conditions of all sounds are written to `sounds.safetensors`, so that they need not be encoded for every list.
    """
    (directory / "sounds.safetensors").unlink(missing_ok=True)
    separator, terms, present = Separator.from_pretrained(directory), [], []
    labels = separator.listing.sounds
    names = [sound.name for sound in separator.listed_sounds]
    conditions = dict(zip(names, separator.listing_conditions, strict=True))
    write_tensors(directory / "sounds.safetensors", conditions)
    for row in read_rows(mixtures):
        found = detect_row(separator, row, root)
        terms.append(listing_terms(found, separator.listed_sounds)[: len(labels)])
        sounding = {row.get(f"{name}_label") for name in CLIPS}
        present.append(torch.tensor([label in sounding for label in labels]))
    fitted = fit_listing(torch.stack(terms), torch.stack(present))
    write_section(directory, "listing", fitted)
    return replace(separator.listing, **fitted)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Fit the presence rule and the listing rule of a model directory.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--mixtures", type=Path, help="CSV of held-out fixed mixtures; fits both rules on them")
    parser.add_argument("--manifest", type=Path, help="clips, or a packed corpus; without a list fits presence on them")
    parser.add_argument("--root", type=Path, help="folder that paths are relative to (default: that of the CSV)")
    parser.add_argument("--foley", type=int, default=0, help="procedural clips of each kind to add to the manifest's")
    parser.add_argument("--count", type=int, default=300, help="number of mixtures of the manifest's clips")
    parser.add_argument("--labels", action="store_true", help="first store conditions of the labels with all wordings")
    options = parser.parse_args()
    if not (options.mixtures or options.manifest or options.foley):
        parser.error("give --mixtures, --manifest or --foley")
    torch.manual_seed(0)
    try:
        read_config(options.directory)  # a name is no directory to write to
        root = options.root or (options.mixtures and options.mixtures.parent)
        for row in read_rows(options.mixtures) if options.mixtures else ():  # before anything is written
            if (place := locate_files(row, root)) != root:
                raise DataError(f"{root / place} is missing. --root names the folder that the paths start from.")
        if options.labels:
            store_labels(options.directory)
        separator = Separator.from_pretrained(options.directory)
        if options.mixtures:
            calibrate_presence(options.directory, separator, listed_mixtures(options.mixtures, root))
            rule = calibrate_listing(options.directory, options.mixtures, root)
            print(f"listing: slope {rule.slope}, tag {rule.tag}, share {rule.share}, bias {rule.bias}")
        else:
            corpus = Corpus(options.manifest, "train", options.root, foley=options.foley)
            drawn = drawn_mixtures(corpus, separator.sample_rate, options.count)
            calibrate_presence(options.directory, separator, drawn)
    except (AudioError, DataError, ModelError) as error:
        parser.exit(1, f"{one_sentence(error)}\n")


if __name__ == "__main__":
    sys.exit(call("separation.calibrate", main))
