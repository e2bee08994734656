"""RoBERTa's tokenizer: found, built, and refused unless it is the published one.

A wrong vocabulary raises nothing later on: every text is then encoded, wrongly, or all alike. So besides its size and
special tokens the tokenizer must give the numbers that are published for one sentence (README of fairseq's RoBERTa and
the documentation of transformers' RobertaTokenizer: "Hello world" is 0, 31414, 232, 2).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation.encoders.base import EncoderError

if TYPE_CHECKING:
    from torch import Tensor

VOCABULARY = 50265
SPECIAL = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 50264}
SENTENCE, NUMBERS = "Hello world", [0, 31414, 232, 2]
HUB_NAMES = ("roberta-base", "FacebookAI--roberta-base", "laion--larger_clap_general", "laion--clap-htsat-unfused")
MISSING = (
    "RoBERTa's vocabulary is missing; get it with: hf download roberta-base tokenizer.json, "
    "or name a folder with tokenizer.json (or vocab.json and merges.txt)."
)


def cached_folders() -> Iterator[Path]:
    """Folders of the local Hugging Face cache that may hold the vocabulary."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    for name in HUB_NAMES:
        yield from sorted(hub.glob(f"models--{name}/snapshots/*"))


def read_tokenizer(folder: Path) -> Any | None:
    """The `tokenizers.Tokenizer` of a folder, unchecked; None where its files are not there."""
    from tokenizers import Tokenizer

    if (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return byte_pair_tokenizer(folder / "vocab.json", folder / "merges.txt")
    return None


def byte_pair_tokenizer(vocabulary: Path, merges: Path) -> Any:
    """RoBERTa's tokenizer from its two older files."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.BPE.from_file(str(vocabulary), str(merges), unk_token="<unk>"))
    tokenizer.add_special_tokens([token for token in SPECIAL if tokenizer.token_to_id(token) is not None])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def check(tokenizer: Any, source: str) -> None:
    """Refuse a tokenizer that is not RoBERTa's.

    Raises:
        EncoderError: says what is wrong with it.
    """
    size = tokenizer.get_vocab_size()
    if size != VOCABULARY:
        raise EncoderError(f"{source}: the tokenizer has {size} tokens, RoBERTa's has {VOCABULARY}.")
    for token, number in SPECIAL.items():
        if tokenizer.token_to_id(token) != number:
            raise EncoderError(
                f"{source}: token {token} has number {tokenizer.token_to_id(token)}, in RoBERTa {number}."
            )
    tokenizer.no_truncation()
    numbers = tokenizer.encode(SENTENCE).ids
    if numbers != NUMBERS:
        raise EncoderError(f"{source}: {SENTENCE!r} becomes {numbers[:8]}, in RoBERTa {NUMBERS}.")


@cache
def load_tokenizer(folder: str | None = None) -> Any:
    """The checked tokenizer of a folder, or of the local Hugging Face cache; read once a process, never downloaded.

    Raises:
        EncoderError: none is there, or it is not RoBERTa's.
    """
    for place in [Path(folder).expanduser()] if folder else cached_folders():
        try:
            tokenizer = read_tokenizer(place)
        except ImportError:
            raise EncoderError("The package tokenizers is missing; install it with: pip install tokenizers") from None
        except Exception as error:  # tokenizers raises plain Exception for a damaged file
            raise EncoderError(f"{place} holds no readable tokenizer: {str(error)[:120]}") from None
        if tokenizer is not None:
            check(tokenizer, str(place))
            return tokenizer
    raise EncoderError(f"{folder}: {MISSING}" if folder else MISSING)


def tokenize(texts: list[str], folder: str | None, longest: int, length: int | None = None) -> tuple[Tensor, Tensor]:
    """Sentences to token numbers and their mask, both (batch, tokens).

    Args:
        texts: at least one.
        folder: as in `load_tokenizer`.
        longest: more tokens than this are cut.
        length: pad to this many tokens instead of the batch's longest.
    """
    import torch

    tokenizer = load_tokenizer(folder)
    tokenizer.enable_truncation(longest)
    tokenizer.enable_padding(pad_id=SPECIAL["<pad>"], pad_token="<pad>", length=length)
    encoded = tokenizer.encode_batch(texts)
    return torch.tensor([e.ids for e in encoded]), torch.tensor([e.attention_mask for e in encoded])
