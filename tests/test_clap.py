import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest
import torch

from separation import ModelError
from separation.encoders import clap, clap_names, roberta
from separation.encoders.base import EncoderError, UnsupportedQueryError

TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "projection_dim": 16,
}
AUDIO = {"patch_embeds_hidden_size": 8, "hidden_size": 64, "depths": [1, 2, 1, 1], "projection_dim": 16}
SMALL = {"text_config": TEXT, "audio_config": {**AUDIO, "num_attention_heads": [1, 1, 2, 2]}}

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)


def vocabulary(size: int = roberta.VOCABULARY, hello: int = 31414) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Tokens and merges that encode the check's sentence as RoBERTa does; the rest are letters and fillers."""
    from tokenizers.pre_tokenizers import ByteLevel

    merges = [("H", "e"), ("He", "l"), ("Hel", "l"), ("Hell", "o")]
    merges += [("Ġ", "w"), ("Ġw", "o"), ("Ġwo", "r"), ("Ġwor", "l"), ("Ġworl", "d")]
    tokens = {**roberta.SPECIAL, "Hello": hello, "Ġworld": 232}
    tokens |= {letter: 300 + i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokens |= {a + b: 1000 + i for i, (a, b) in enumerate(merges) if a + b not in tokens}
    free = (number for number in range(size) if number not in set(tokens.values()))
    return tokens | {f"filler{number}": number for number in free}, merges


def write_vocabulary(folder: Path, **options: int) -> str:
    tokens, merges = vocabulary(**options)
    (folder / "vocab.json").write_text(json.dumps(tokens))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(f"{a} {b}" for a, b in merges))
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_vocabulary(tmp_path_factory.mktemp("roberta"))


@pytest.fixture(scope="module")
def encoder(folder):
    torch.manual_seed(0)
    return clap.ClapEncoder(vocabulary=folder, **SMALL)


def test_tokens_and_mask(folder):
    tokens, mask = roberta.tokenize(["Hello world", "a"], folder, 512)
    assert tokens.tolist() == [[0, 31414, 232, 2], [0, tokens[1, 1], 2, 1]]
    assert mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert roberta.tokenize(["Hello world"], folder, 77, 77)[0].shape == (1, 77)
    cut, _ = roberta.tokenize(["a" * 600], folder, 512)
    assert (cut.shape, cut[0, 0], cut[0, -1]) == ((1, 512), 0, 2)


def test_the_newer_file_gives_the_same_tokens(folder, tmp_path):
    roberta.read_tokenizer(Path(folder)).save(str(tmp_path / "tokenizer.json"))
    texts = ["Hello world", "dog barking"]
    assert torch.equal(roberta.tokenize(texts, str(tmp_path), 512)[0], roberta.tokenize(texts, folder, 512)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 50300}, "has 50300 tokens, RoBERTa's has 50265"),
        ({"hello": 31415}, r"'Hello world' becomes \[0, 31415, 232, 2\], in RoBERTa \[0, 31414, 232, 2\]"),
    ],
)
def test_another_vocabulary_is_refused(tmp_path, options, message):
    with pytest.raises(EncoderError, match=message):
        roberta.load_tokenizer(write_vocabulary(tmp_path, **options))


def test_an_empty_tokenizer_is_refused(tmp_path):
    """What transformers gives offline, without a word: the five special tokens."""
    from tokenizers import Tokenizer, models

    empty = Tokenizer(models.BPE())
    empty.add_special_tokens(list(roberta.SPECIAL))
    empty.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(EncoderError, match="the tokenizer has 5 tokens, RoBERTa's has 50265"):
        roberta.load_tokenizer(str(tmp_path))


def test_special_tokens_must_have_their_numbers(tmp_path):
    tokens, _ = vocabulary()
    tokens["<s>"], tokens["</s>"] = tokens["</s>"], tokens["<s>"]
    write_vocabulary(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps(tokens))
    with pytest.raises(EncoderError, match="token <s> has number 2, in RoBERTa 0"):
        roberta.load_tokenizer(str(tmp_path))


def test_a_missing_vocabulary_says_where_to_get_it(tmp_path, monkeypatch):
    with pytest.raises(EncoderError, match="RoBERTa's vocabulary is missing; get it with: hf download"):
        roberta.load_tokenizer(str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match="vocabulary is missing"):
        roberta.load_tokenizer.__wrapped__()
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(EncoderError, match="holds no readable tokenizer"):
        roberta.load_tokenizer.__wrapped__(str(tmp_path))


def test_without_transformers_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        EncoderError, match=r'CLAP needs the package transformers; install it with: pip install "separation\[clap\]"'
    ):
        clap.ClapEncoder()


def test_without_laion_clap_one_sentence(monkeypatch):
    from separation.encoders import clap_laion

    monkeypatch.setitem(sys.modules, "laion_clap.clap_module.factory", None)
    monkeypatch.setitem(sys.modules, "laion_clap", None)
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    with pytest.raises(
        EncoderError,
        match=r'laion-clap backend needs the package laion_clap; .* pip install "separation\[laion\]"',
    ):
        clap_laion.build_network()


@needs_transformers
def test_texts_become_unit_vectors(encoder):
    vectors = encoder.encode_text(["dog barking", "Hello world", "rain"])
    assert (vectors.shape, encoder.embedding_dim, encoder.unit_length) == ((3, 16), 16, True)
    assert vectors.norm(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-6)
    assert (vectors[0] - vectors[1]).abs().max() > 1e-4
    assert encoder.encode_text([]).shape == (0, 16)


@needs_transformers
def test_padding_does_not_matter(encoder):
    together, alone = encoder.encode_text(["rain", "a much longer sentence about rain"]), encoder.encode_text(["rain"])
    assert torch.allclose(together[:1], alone, atol=1e-6)
    hidden, padded = encoder.encode_text_states(["rain"])
    assert hidden.shape == (1, 77, 32)
    assert torch.allclose(padded, alone, atol=1e-6)


@needs_transformers
def test_recordings_become_unit_vectors(encoder):
    waveform = 0.1 * torch.randn(2, 48000, generator=torch.Generator().manual_seed(0))
    vectors = encoder.encode_audio(waveform, 48000)
    assert vectors.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-6)
    assert torch.equal(vectors, encoder.encode_audio(waveform.repeat(1, 3), 48000)) is False
    assert torch.equal(vectors, encoder.encode_audio(waveform.repeat(1, 10), 48000))  # what repeating makes of 1 s


def test_a_clip_is_repeated_and_padded_or_its_middle():
    assert clap.clip_of(torch.tensor([[1.0, 2.0, 3.0]]), 8).tolist() == [[1, 2, 3, 1, 2, 3, 0, 0]]
    assert clap.clip_of(torch.arange(7.0)[None], 3).tolist() == [[2, 3, 4]]
    assert clap.clip_of(torch.arange(3.0)[None], 3).tolist() == [[0, 1, 2]]


@needs_transformers
def test_one_tower_alone(folder):
    encoder = clap.ClapEncoder(audio=False, vocabulary=folder, **SMALL)
    assert encoder.modalities == {"text"}
    with pytest.raises(UnsupportedQueryError, match="ClapEncoder takes no audio; it takes text"):
        encoder.encode_audio(torch.zeros(1, 48000), 48000)
    with pytest.raises(UnsupportedQueryError, match="takes no text"):
        clap.ClapEncoder(text=False, **SMALL).encode_text(["rain"])
    with pytest.raises(ValueError, match="a text tower, an audio tower"):
        clap.ClapEncoder(text=False, audio=False)


def hugging_face(encoder: clap.ClapEncoder) -> dict[str, torch.Tensor]:
    return {**encoder.text.state_dict(), **encoder.audio.state_dict()}


def laion(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Hugging Face names to LAION's, with what else such a file holds."""
    found = {}
    for name, tensor in tensors.items():
        if name.startswith("audio") and ("attention.self.key" in name or "attention.self.value" in name):
            continue
        new = name.replace("projection.linear1", "projection.0").replace("projection.linear2", "projection.2")
        if name.startswith("text_model."):
            new = name.replace("text_model.", "text_branch.")
        elif name.startswith("audio_model."):
            new = name.replace("audio_model.audio_encoder.", "audio_branch.").replace("batch_norm", "bn0")
            for ours, theirs in (
                ("layernorm_before", "norm1"),
                ("layernorm_after", "norm2"),
                ("attention.self.relative", "attn.relative"),
                ("attention.output.dense", "attn.proj"),
                ("intermediate.dense", "mlp.fc1"),
                ("output.dense", "mlp.fc2"),
            ):
                new = new.replace(ours, theirs)
            if "attention.self.query" in name:
                new = new.replace("attention.self.query", "attn.qkv")
                tensor = torch.cat([tensors[name.replace("query", part)] for part in ("query", "key", "value")])
        found[new] = tensor
    extra = {
        "audio_branch.head.weight": torch.ones(2),
        "logit_scale_a": torch.ones(()),
        "text_transform.w": torch.ones(1),
    }
    extra |= {
        "audio_branch.layers.0.blocks.1.attn_mask": torch.ones(2),
        "text_branch.embeddings.position_ids": torch.ones(3),
    }
    return found | extra


def shifted(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Other weights than random initialisation gives, so that every tensor counts."""
    generator = torch.Generator().manual_seed(5)
    return {
        k: v + 0.1 * torch.rand(v.shape, generator=generator) if v.is_floating_point() else v
        for k, v in tensors.items()
    }


@needs_transformers
@pytest.mark.parametrize("prefix", ["", "module.", "query_encoder.model.", "module.net_clap.model.model."])
def test_published_names_load_with_any_prefix(encoder, folder, prefix, tmp_path):
    weights = shifted(hugging_face(encoder))
    file = tmp_path / "clap.pt"
    other = {"ss_model.pre_conv.weight": torch.ones(1)} if prefix else {}
    torch.save({"state_dict": {**{prefix + k: v for k, v in laion(weights).items()}, **other}}, file)
    from_laion = clap.ClapEncoder.from_file(file, vocabulary=folder, **SMALL)
    assert from_laion.text.state_dict().keys() | from_laion.audio.state_dict().keys() == weights.keys()
    for name, tensor in hugging_face(from_laion).items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, weights[name]), name


@needs_transformers
def test_the_hugging_face_form_loads(encoder, folder, tmp_path):
    from safetensors.torch import save_file

    weights = shifted(hugging_face(encoder))
    extra = {"logit_scale_a": torch.ones(()), "text_model.embeddings.position_ids": torch.ones(1, 514)}
    save_file({**weights, **extra}, tmp_path / "model.safetensors")
    loaded = clap.ClapEncoder.from_file(tmp_path / "model.safetensors", vocabulary=folder, **SMALL)
    same = clap.ClapEncoder.from_tensors(laion(weights), vocabulary=folder, **SMALL)
    assert torch.equal(loaded.encode_text(["rain"]), same.encode_text(["rain"]))
    assert not torch.allclose(loaded.encode_text(["rain"]), encoder.encode_text(["rain"]), atol=1e-3)


@needs_transformers
def test_a_wrong_tensor_is_named(encoder, folder):
    weights = laion(hugging_face(encoder))

    def load(tensors):
        clap.ClapEncoder.from_tensors(tensors, "x.pt", vocabulary=folder, **SMALL)

    with pytest.raises(ModelError, match=r"x\.pt does not fit .*1 missing: text_model\.pooler\.dense\.bias"):
        load({k: v for k, v in weights.items() if k != "text_branch.pooler.dense.bias"})
    with pytest.raises(ModelError, match=r"1 unexpected: audio_model\.audio_encoder\.fusion\.weight"):
        load({**weights, "audio_branch.fusion.weight": torch.ones(1)})
    with pytest.raises(ModelError, match=r"text_projection\.linear1\.bias \(\(7,\) instead of \(16,\)\)"):
        load({**weights, "text_projection.0.bias": torch.ones(7)})
    with pytest.raises(EncoderError, match="holds no CLAP"):
        load({"a": torch.ones(1)})


@needs_transformers
def test_the_state_dict_holds_weights_only_and_rebuilds(encoder, folder):
    state = encoder.state_dict()
    assert not [name for name in state if name.endswith(clap_names.COMPUTED[:4])]
    other = clap.ClapEncoder(vocabulary=folder, **SMALL)
    other.load_state_dict(state)
    assert torch.equal(other.encode_text(["rain"]), encoder.encode_text(["rain"]))


@needs_transformers
def test_every_published_tensor_has_a_place_at_full_size():
    """Names and shapes only. Set SEPARATION_PARITY to the folder with the list of LAION's tensors."""
    if not os.environ.get("SEPARATION_PARITY"):
        pytest.skip("SEPARATION_PARITY is not set: no list of tensors to compare with")
    file = Path(os.environ["SEPARATION_PARITY"]) / "uss/state_dicts/clap_htsat_base_roberta.json"
    listed = json.loads(file.read_text())["tensors"]
    with torch.device("meta"):
        published = {f"query_encoder.model.{k}": torch.empty(v["shape"]) for k, v in listed.items()}
        wanted = {**clap.build_text_tower().state_dict(), **clap.build_audio_tower().state_dict()}
    names = clap_names.transformers_names(published, "list")
    expected = {k: v.shape for k, v in wanted.items() if not k.endswith("num_batches_tracked")}
    assert {k: v.shape for k, v in names.items()} == expected
    assert len(clap_names.tower_tensors(names, "text")) == 203
