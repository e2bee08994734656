"""Saving a loaded model as a model directory, with a card, and sharing it on the Hugging Face Hub."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from separation.errors import ModelError, reason
from separation.pretrained import build_parts, read_card, read_config, read_stored, save_model
from separation.storage.download import replace_when_complete
from separation.storage.hub import NEEDED, USED, upload

UNKNOWN = (None, "", "unknown")
HEADER = """---
{license}library_name: separation
pipeline_tag: audio-to-audio
tags:
- audio source separation
- text-queried source separation
---
"""
CARD = """# {name}

{description}

| | |
|---|---|
| queries | {queries} |
| sample rate | {sample_rate} Hz inside; files of any rate |
| scores | {scores} |
| licence of the weights | {licence} |

## Use

    separate --model {name} --query "..." mix.wav

    from separation import Separator

    result = Separator.from_pretrained("{name}")(mixture, "...", sample_rate=44100)
    result.target, result.residual

## Training data

Not stated yet: sources, licences and authors of the recordings.
"""


class SharedSeparator:
    """The part of a `Separator` that saves and shares it.

    Attributes:
        source: the model directory or checkpoint that it was loaded from.
        trust: packages whose classes may be built.
    """

    source: Path | None = None
    trust: Sequence[str] = ()

    def save_pretrained(
        self, directory: str | Path, licence: str | None = None, description: str | None = None
    ) -> None:
        """Write the model, as it was loaded, as a new model directory with weights, config and card (`README.md`).

        A card that exists is kept, and gets a header for the Hub if it has none.

        Args:
            directory: created if necessary.
            licence: of the weights, such as "CC BY 4.0". The card states none that neither you nor the model state.
            description: one line about the model.

        Raises:
            ModelError: if the directory holds a model or cannot be written, or this separator was not loaded.
        """
        directory = Path(directory)
        if self.source is None:
            raise ModelError(
                "Only models loaded by from_pretrained can be saved; see separation.pretrained.save_model."
            )
        try:
            if any((directory / file).exists() for file in NEEDED):
                raise ModelError(f"{directory} already holds a model; name another directory.")
            write_directory(self.source, directory, {"licence": licence, "description": description}, self.trust)
            write_card(directory, directory.resolve().name)
        except OSError as error:
            raise ModelError(f"{directory} cannot be written: {reason(error)}.") from None

    def push_to_hub(
        self,
        repository: str,
        licence: str | None = None,
        description: str | None = None,
        private: bool = False,
        token: str | None = None,
    ) -> str:
        """Upload the model, as it was loaded, to the Hugging Face Hub as one commit, and return its address.

        `Separator.from_pretrained(repository)` and `separate --model` load it from then on.

        Args:
            repository: "owner/name", created if necessary.
            licence: as in `save_pretrained`.
            description: as in `save_pretrained`.
            private: whether a new repository is private.
            token: of the Hub, by default that of `hf auth login`.

        Raises:
            ValueError: if neither the model nor `licence` states the licence of the weights.
            ModelError: if the upload fails.
        """
        with TemporaryDirectory() as folder:
            copy = Path(folder) / "model"
            self.save_pretrained(copy, licence, description)
            if read_card(copy).licence in UNKNOWN:
                raise ValueError('The licence of the weights is not stated: say it, such as licence="CC BY 4.0".')
            return upload(copy, repository, private, token)


def write_directory(source: Path, directory: Path, given: dict[str, str | None], trust: Sequence[str]) -> None:
    """Write the model of a directory or checkpoint as a model directory whose card has the `given` texts."""
    import yaml

    given = {key: text for key, text in given.items() if text}
    if source.is_dir():
        config = read_config(source)
        config["card"] = {**(config.get("card") or {}), **given}
        directory.mkdir(parents=True, exist_ok=True)
        for file in sorted(source.iterdir(), key=lambda file: file.stat().st_size):  # the weights last
            if USED.fullmatch(file.name) and file.name != "config.yaml":
                with replace_when_complete(directory / file.name) as part:
                    shutil.copyfile(file, part)
        with replace_when_complete(directory / "config.yaml") as part:
            part.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        return
    stored, card = read_stored(source), read_card(source)
    model, encoder = build_parts(stored, source, trust)
    texts = {key: getattr(card, key) for key in ("description", "licence", "scores")} | given
    section = {"queries": list(card.queries), "sample_rate": model.sample_rate}
    section |= {key: text for key, text in texts.items() if text not in UNKNOWN}
    save_model(directory, {"card": section, **stored.description}, model, encoder, half=False)


def write_card(directory: Path, name: str) -> None:
    """Write the `README.md` of a model directory, or add the header for the Hub to one that has none.

    It states no licence that the config does not state.
    """
    card, file = read_card(directory), directory / "README.md"
    stated = card.licence not in UNKNOWN
    if file.exists():
        text = file.read_text(encoding="utf-8")
    else:
        text = CARD.format(
            name=name,
            description=card.description or "Not described yet.",
            queries=", ".join(card.queries),
            sample_rate=card.sample_rate,
            scores="not measured" if card.scores in UNKNOWN else card.scores,
            licence=card.licence if stated else "not stated yet; without one, nobody else may use them",
        )
    if not text.startswith("---\n"):
        identifier = "-".join(card.licence.lower().split())  # the Hub's, such as cc-by-4.0
        text = HEADER.format(license=f"license: {identifier}\n" if stated else "") + text
    with replace_when_complete(file) as part:
        part.write_text(text, encoding="utf-8")
