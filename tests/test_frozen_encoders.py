"""Embeddings that must not change, recorded in `frozen/encoders.json` with `python tests/test_frozen_encoders.py`."""

import importlib.util
import json
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from separation import Separator
from separation.encoders.clap import ClapEncoder
from separation.encoders.clip import ClipEncoder
from separation.encoders.panns import Cnn14DecisionLevelMax, PannsEncoder
from separation.encoders.sentence import SentenceEncoder
from separation.encoders.table import RandomEncoder
from separation.encoders.taggers import FrameTagger

FILE = Path(__file__).with_name("frozen") / "encoders.json"
TEXTS = ["dog barking", "rain", "a distant church bell, ringing slowly"]
CHANNELS = (4, 4, 8, 8, 8, 16)


def fill(module):
    """Weights that depend on the tensors' names only."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
                if name.endswith("running_var"):
                    values = 1 + values.abs()
                elif tensor.ndim < 2:
                    values = 0.1 * values + name.endswith("weight")
                else:
                    values = values * (2 / tensor[0].numel()) ** 0.5
                tensor.copy_(values)
    return module.eval()


def sound(seconds, rate, rows=1):
    """A chord with slow swells and noise, (rows, time)."""
    time = np.arange(round(seconds * rate)) / rate
    chord = sum(np.sin(2 * np.pi * hertz * time) for hertz in (300, 800, 2100, 3300))
    noise = np.random.default_rng(0).standard_normal((rows, len(time)))
    return torch.tensor(0.1 * chord * np.sin(3 * time) ** 2 + 0.05 * noise, dtype=torch.float32)


def project(vectors):
    """The first two numbers of each row of (rows, dim), and a projection of all."""
    rows = vectors.detach().double().reshape(-1, vectors.shape[-1])
    projected = rows @ torch.cos(torch.arange(rows.shape[1], dtype=torch.float64))
    return [[round(value, 7) for value in row] for row in torch.cat([rows[:, :2], projected[:, None]], 1).tolist()]


def sentence():
    return project(SentenceEncoder().encode_text(TEXTS))


def embedded(name):
    encoder = Separator.from_pretrained(name, device="cpu").encoder
    with torch.no_grad():
        example = encoder.encode_examples([(sound(11.5, 44100, 2), 44100), (sound(0.5, 32000)[0], 32000)])
        return project(torch.cat([encoder.encode_text(TEXTS), encoder.encode_audio(sound(2, 48000), 48000), example]))


def clap():
    text = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    audio = {"patch_embeds_hidden_size": 8, "hidden_size": 64, "depths": [1, 2, 1, 1]}
    encoder = ClapEncoder(
        text_config={**text, "projection_dim": 16},
        audio_config={**audio, "num_attention_heads": [1, 1, 2, 2], "projection_dim": 16},
    )
    fill(encoder.text), fill(encoder.audio)
    tokens = torch.tensor([[0, 31414, 232, 2], [0, 500, 2, 1]])
    return project(
        torch.cat([encoder.encode_tokens(tokens, tokens != 1)[1], encoder.encode_audio(sound(3, 44100, 2), 44100)])
    )


def clip():
    text = {"width": 32, "heads": 2, "layers": 2}
    encoder = ClipEncoder(
        embedding_dim=16, vision={"layers": 2, "width": 64, "head_width": 32, "image_size": 64}, text=text
    )
    fill(encoder.network)
    rows, columns = np.mgrid[:90, :130] / 20
    picture = ((np.stack([np.sin(rows), np.cos(columns), np.sin(rows * columns)], -1) + 1) * 127).astype(np.uint8)
    return project(torch.cat([encoder.encode_text(TEXTS), encoder.encode_image([picture, [picture, picture[::-1]]])]))


def panns():
    vectors = []
    for condition, variant in (("probabilities", "cnn14"), ("embedding", "cnn14_16k")):
        encoder = PannsEncoder(condition, variant, CHANNELS)
        fill(encoder.network)
        vectors += project(encoder.encode_audio(sound(5, 32000, 2), 32000))
        vectors += project(encoder.encode_examples((0.1 * sound(3, 44100)[0], 44100)))
    return vectors + project(PannsEncoder(channels=CHANNELS).encode_label(["Dog", ["Speech", 526]]))


def detector():
    frames = fill(Cnn14DecisionLevelMax(channels=CHANNELS))(sound(5, 32000))
    return project(torch.cat([frames.framewise[0, ::70], frames.clipwise]))


def tagger():
    encoder = fill(FrameTagger(["dog", "rain", "wind"], "embedding", 16000, (4, 4, 8), 16))
    encoder.seen.fill_(1)
    frames = encoder(sound(5, 16000))
    vectors = torch.cat([encoder.encode_audio(sound(5, 32000, 2), 32000), encoder.encode_label(["rain"])])
    return project(torch.cat([frames.framewise[0, ::70], frames.clipwise])) + project(vectors)


def random():
    encoder = RandomEncoder(16)
    return project(torch.cat([encoder.encode_text(TEXTS), encoder.encode_label([3]), encoder.encode_image(["a.png"])]))


RECORDED = {each.__name__: each for each in (sentence, clap, clip, panns, detector, tagger, random)}
RECORDED |= {name: partial(embedded, name) for name in ("default", "small")}
PACKAGES = {"clap": "transformers", "clip": "open_clip"}


@pytest.mark.parametrize("name", RECORDED)
def test_embeddings_have_not_changed(name):
    if name in PACKAGES and not importlib.util.find_spec(PACKAGES[name]):
        pytest.skip(f"{PACKAGES[name]} is not installed")
    np.testing.assert_allclose(RECORDED[name](), json.loads(FILE.read_text())[name], atol=1e-5, rtol=0)


if __name__ == "__main__":
    lines = [f'"{name}": {json.dumps(call())}' for name, call in RECORDED.items()]
    FILE.write_text("{" + ",\n ".join(lines) + "}\n")
