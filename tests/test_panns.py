import math

import numpy as np
import pytest
import soundfile
import torch

from separation import ModelError
from separation.encoders.base import EncoderError, UnsupportedQueryError
from separation.encoders.examples import remove_silence, segments
from separation.encoders.mel import LogMel, hertz_to_mel, mel_to_hertz, slaney_filters
from separation.encoders.panns import Cnn14, Cnn14DecisionLevelMax, PannsEncoder, load_cnn14
from separation.encoders.tagger import class_conditions

SMALL = (4, 4, 8, 8, 8, 16)
RATE = 32000


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return PannsEncoder("probabilities", channels=SMALL)


def noise(seconds: float, batch: int = 1, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(batch, round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def test_slaney_scale():
    hertz = torch.tensor([0.0, 500.0, 1000.0, 6400.0], dtype=torch.float64)
    assert hertz_to_mel(hertz).tolist() == pytest.approx([0, 7.5, 15, 42])
    assert mel_to_hertz(hertz_to_mel(hertz)).tolist() == pytest.approx(hertz.tolist())


def test_filters_have_unit_area_over_hertz():
    filters = slaney_filters(RATE, 1 << 15, 64, 50, 14000)
    assert (filters.sum(0) * RATE / (1 << 15)).tolist() == pytest.approx([1.0] * 64, abs=2e-3)


def test_log_mel_of_a_tone_and_of_silence():
    time = torch.arange(RATE) / RATE
    mel = LogMel(RATE, 1024, 320, 64, 50, 14000)(torch.stack([torch.sin(2 * math.pi * 2000 * time), torch.zeros(RATE)]))
    assert mel.shape == (2, 1, 101, 64)
    edges = mel_to_hertz(torch.linspace(*hertz_to_mel(torch.tensor([50.0, 14000.0])).tolist(), 66))
    band = int(mel[0, 0, 50].argmax())
    assert edges[band] < 2000 < edges[band + 2]
    assert mel[1].unique().tolist() == [-100.0]


def test_the_last_segment_repeats_itself():
    assert segments(torch.arange(5.0)[None], 3).tolist() == [[[0, 1, 2], [3, 4, 3]]]
    assert segments(torch.arange(6.0)[None], 3).tolist() == [[[0, 1, 2], [3, 4, 5]]]
    assert segments(torch.arange(1.0, 3.0)[None], 5).tolist() == [[[1, 2, 1, 2, 1]]]
    with pytest.raises(ValueError, match="at least one sample"):
        segments(torch.zeros(1, 0), 3)


def test_silence_is_removed_by_frames():
    loud, quiet = torch.full((10,), 0.5), torch.full((10,), 0.02)
    assert remove_silence(torch.cat([quiet, loud, quiet, loud[:5]]), 100).tolist() == [0.5] * 10


def test_an_example_is_the_mean_of_its_segments(encoder):
    waveform = noise(5.0)
    last = torch.cat([waveform[:, 4 * RATE :]] * 2, 1)
    parts = [waveform[:, : 2 * RATE], waveform[:, 2 * RATE : 4 * RATE], last]
    expected = torch.stack([encoder.tag(part).probabilities for part in parts]).mean(0)
    assert torch.allclose(encoder.encode_audio(waveform, RATE), expected, atol=1e-6)


def test_another_rate_is_resampled(encoder):
    waveform = noise(1.0)
    assert encoder.encode_audio(waveform[:, ::2], 16000).shape == (1, 527)


def test_a_folder_counts_every_file_alike(encoder, tmp_path, monkeypatch):
    for name, seconds in (("b", 4.0), ("a", 2.0)):
        soundfile.write(tmp_path / f"{name}.wav", noise(seconds, seed=ord(name))[0].numpy(), RATE, subtype="FLOAT")
    (tmp_path / "notes.txt").write_text("no audio")
    each = [encoder.encode_audio(noise(s, seed=ord(n)), RATE) for n, s in (("a", 2.0), ("b", 4.0))]
    monkeypatch.setattr(encoder, "keep_silence", True)
    assert torch.allclose(encoder.encode_examples(tmp_path), (each[0] + each[1]) / 2, atol=1e-6)
    with pytest.raises(EncoderError, match="holds no example recording"):
        encoder.encode_examples([])


def test_a_silent_file_is_refused(encoder, tmp_path):
    soundfile.write(tmp_path / "mute.wav", np.zeros(RATE, np.float32), RATE)
    with pytest.raises(EncoderError, match=r"mute\.wav is silent"):
        encoder.encode_examples(tmp_path / "mute.wav")


def test_labels_are_ones_at_their_classes(encoder):
    rows = encoder.encode_label(["Dog", ["Speech", 526]])
    assert rows.shape == (2, 527)
    assert rows[0].nonzero().flatten().tolist() == [74]
    assert rows[1].nonzero().flatten().tolist() == [0, 526]
    assert rows.sum() == 3


def test_a_label_for_the_embedding_is_refused():
    encoder = PannsEncoder("embedding", channels=SMALL)
    assert (encoder.embedding_dim, encoder.modalities, encoder.unit_length) == (16, {"audio"}, False)
    with pytest.raises(UnsupportedQueryError, match="its 16 condition numbers are no classes"):
        encoder.encode_label(["Dog"])
    with pytest.raises(UnsupportedQueryError, match="PannsEncoder takes no text; it takes "):
        encoder.encode_text(["dog"])


def test_class_conditions_keep_only_the_classes_asked_for():
    probabilities = torch.tensor([[0.1, 0.3, 0.9], [0.2, 0.1, 0.9], [0.19, 0.1, 0.9]])
    conditions, active = class_conditions(probabilities, [0, 1])
    assert torch.equal(conditions, probabilities * torch.tensor([1.0, 1.0, 0.0]))
    assert active.tolist() == [True, True, False]


def test_too_short_for_the_network(encoder):
    with pytest.raises(ValueError, match="needs 9920 samples or more, not 9919"):
        encoder.network(noise(1.0)[:, :9919])
    assert encoder.tag(noise(1.0)[:, :100]).probabilities.shape == (1, 527)


def test_the_detector_repeats_steps_and_pads_with_the_last():
    torch.manual_seed(0)
    detector = Cnn14DecisionLevelMax(channels=SMALL).eval()
    frames = detector(noise(10.0))
    assert frames.framewise.shape == (1, 1001, 527)
    steps = frames.framewise[0, ::32]
    assert torch.equal(frames.framewise[0, :992], steps[:31].repeat_interleave(32, 0))
    assert torch.equal(frames.framewise[0, 992:], steps[30:31].expand(9, -1))
    assert torch.equal(frames.clipwise, frames.framewise.amax(1))


def published(network: Cnn14, bins: int = 513) -> dict:
    kernels = {f"spectrogram_extractor.stft.conv_{p}.weight": torch.zeros(bins, 1, 8) for p in ("real", "imag")}
    return {**network.state_dict(), **kernels, "logmel_extractor.melW": torch.zeros(bins, 64)}


@pytest.mark.parametrize("prefix", ["", "module.", "query_net.base."])
def test_published_names_load_with_any_prefix(encoder, prefix):
    other = Cnn14(channels=SMALL)
    load_cnn14(
        other, {prefix + k: v for k, v in published(encoder.network).items()}, ("", "module.", "query_net.base."), "f"
    )
    waveform = noise(1.0)
    assert torch.equal(other(waveform).probabilities, encoder.network(waveform).probabilities)


def test_a_wrong_tensor_is_named(encoder):
    good = published(encoder.network)
    network = Cnn14(channels=SMALL)

    def load(tensors):
        load_cnn14(network, tensors, ("",), "x.pth")

    with pytest.raises(ModelError, match=r"x\.pth does not fit Cnn14: tensors 1 missing: fc1\.bias\."):
        load({k: v for k, v in good.items() if k != "fc1.bias"})
    with pytest.raises(ModelError, match="1 unexpected: fc2"):
        load({**good, "fc2": torch.zeros(1)})
    with pytest.raises(ModelError, match=r"fc1\.bias \(\(3,\) instead of \(16,\)\)"):
        load({**good, "fc1.bias": torch.zeros(3)})
    with pytest.raises(EncoderError, match="is cnn14_16k, not cnn14"):
        load(published(encoder.network, 257))
    with pytest.raises(EncoderError, match="holds no Cnn14"):
        load({"a": torch.zeros(1)})
