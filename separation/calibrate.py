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
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file

from separation.audio.writing import PendingFile, commit
from separation.data.corpus import Corpus
from separation.data.fixed_mixtures import CLIPS, locate_files, read_rows, render
from separation.data.mixing import Augment, Mixer
from separation.data.texts import Texts
from separation.encoders.joint import JointEncoder
from separation.errors import AudioError, DataError, ModelError, one_sentence
from separation.fitting import TOO_FEW, Evidence, cross_fit, fit_background, fit_listing, fit_presence, report
from separation.listing import Detector, ListingRule
from separation.presence import PresenceRule
from separation.pretrained import read_config
from separation.process import call, remove, temporary_path
from separation.separator import Separator
from separation.storage.download import replace_when_complete
from separation.storage.tensors import write_tensors
from separation.vocabulary.sounds import wordings

FILES = ("config.yaml", "model.safetensors", "sounds.safetensors")  # of a model directory that may change
WORDINGS = 3  # of each label, which the background is fitted on beside the label


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
    separator, detections, present = Separator.from_pretrained(directory), [], []
    labels, sounds = separator.listing.sounds, separator.listed_sounds
    conditions = dict(zip([sound.name for sound in sounds], separator.listing_conditions, strict=True))
    write_tensors(directory / "sounds.safetensors", conditions)
    for row in read_rows(mixtures):
        detections.append(detect_row(separator, row, root))
        sounding = {row.get(f"{name}_label") for name in CLIPS}
        present.append([label in sounding for label in labels])
    rule = fit_listing(detections, sounds, np.array(present))
    values = asdict(rule) | {"context": [*rule.context]}
    write_section(directory, "listing", {name: value for name, value in values.items() if name != "sounds"})
    return rule


@contextmanager
def stage_model(directory: Path) -> Iterator[Path]:
    """Yield a hidden copy of a model directory; what changes in it replaces the originals together, or not at all."""
    hidden = temporary_path(directory / FILES[0])
    staged = hidden / directory.resolve().name
    with ExitStack() as stack:
        stack.callback(remove, hidden)
        staged.mkdir(parents=True)
        for file in (directory / name for name in FILES):
            if file.is_file():
                (staged / file.name).symlink_to(file.resolve())
        try:
            yield staged
        except (AudioError, DataError, ModelError) as error:
            error.args = (str(error).replace(str(staged), str(directory)),)
            raise
        changed, gone = [], [name for name in FILES if not (staged / name).exists()]
        for file in (staged / name for name in FILES):
            if file.exists() and not file.is_symlink():
                changed.append(PendingFile(directory / file.name, overwrite=True))
                stack.callback(changed[-1].discard)
                file.replace(changed[-1].temporary)
                changed[-1].finish()
        commit(changed)
        for name in gone:
            (directory / name).unlink(missing_ok=True)


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
        with stage_model(options.directory) as directory:
            if options.labels:
                store_labels(directory)
            separator = Separator.from_pretrained(directory)
            if options.mixtures:
                calibrate_presence(directory, separator, listed_mixtures(options.mixtures, root))
                rule = calibrate_listing(directory, options.mixtures, root)
                own = f"slope {rule.slope}, tag {rule.tag}, share {rule.share}, bias {rule.bias}"
                print(f"listing: {own}, context {', '.join(f'{value:g}' for value in rule.context)}")
            else:
                corpus = Corpus(options.manifest, "train", options.root, foley=options.foley)
                drawn = drawn_mixtures(corpus, separator.sample_rate, options.count)
                calibrate_presence(directory, separator, drawn)
    except (AudioError, DataError, ModelError) as error:
        parser.exit(1, f"{one_sentence(error)}\n")


if __name__ == "__main__":
    sys.exit(call("separation.calibrate", main))
