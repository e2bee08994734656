"""Fits the presence rule and the listing rule to detections, and scores presence on recordings left out of the fit."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from separation.errors import DataError
from separation.listing import Detector, ListingRule, context_terms, listing_terms
from separation.presence import ABSENT, PRESENT, PresenceRule, presence_word
from separation.vocabulary.sounds import Sound

FOLDS = 10
SHRINKAGE = 0.3  # of the background's coefficients
BINS = 10  # of the reliability table
TOO_FEW = "Calibration needs queries that occur and queries that do not, in several recordings."


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


def fit_listing(detections: Sequence[Detector], sounds: list[Sound], present: np.ndarray) -> ListingRule:
    """Fit the listing rule to detections, first to a label's own evidence, then to that of the labels around it.

    A term that never changes gets no weight; without right and wrong labels among those that may occur, own evidence
    decides alone. All samples have the same weight, so the values hold for recordings with about as many sounds as
    these. The recordings must be held out of training, because a network is too certain about those it was trained on.

    Args:
        detections: one for each recording.
        sounds: what was looked for, the labels first.
        present: whether each label occurs (recordings, labels), booleans.
    """
    count = present.shape[1]

    def fit(terms: np.ndarray, truth: np.ndarray) -> list[float]:
        varies = np.ptp(terms, axis=0) > 0
        fitted = iter(fit_logistic(np.c_[terms[:, varies], np.ones(len(terms))], truth))
        return [next(fitted) if each else 0.0 for each in [*varies, True]]

    terms = torch.stack([listing_terms(found, sounds)[:count] for found in detections])
    slope, tag, share, bias = fit(terms.flatten(0, 1).double().numpy(), present.flatten())
    rule = ListingRule(slope, bias, tag, share, sounds=tuple(sound.name for sound in sounds[:count]))
    around = [context_terms(found, rule.certainty(own)) for found, own in zip(detections, terms, strict=True)]
    truth = np.concatenate([row[order.numpy()] for row, (order, _) in zip(present, around, strict=True)])
    if truth.all() or not truth.any():  # also if nothing was heard: the surroundings teach nothing
        return rule
    return replace(rule, context=tuple(fit(torch.cat([each for _, each in around]).double().numpy(), truth)))
