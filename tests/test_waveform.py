"""What `Separator` says to inputs that are not waveforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from separation.waveform import as_rate, as_waveform


@pytest.mark.parametrize("kind", [">i2", "<i2", ">f4", "longdouble"])
def test_any_byte_order_and_width_is_read(kind: str) -> None:
    values = np.array([0, 1, -2, 3]).astype(kind)
    scale = 32768 if np.dtype(kind).kind == "i" else 1
    assert torch.equal(as_waveform(values)[0] * scale, torch.tensor([0.0, 1.0, -2.0, 3.0]))


@pytest.mark.parametrize("values", [np.zeros(4, dtype=complex), np.zeros(4, dtype=bool), np.array(["a"])])
def test_what_holds_no_real_numbers_is_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="floats or integers"):
        as_waveform(values)


def test_time_before_channels_is_refused_and_not_taken_for_channels() -> None:
    with pytest.raises(ValueError, match="transpose"):
        as_waveform(torch.zeros(44100, 2))
    with pytest.raises(ValueError, match="an array of samples, not str"):
        as_waveform("mix.wav")


@pytest.mark.parametrize("rate", [None, 0, -8000, 44100.5, float("nan"), float("inf"), "fast"])
def test_a_rate_that_is_no_whole_number_is_refused(rate: object) -> None:
    with pytest.raises(ValueError, match="sample rate"):
        as_rate(rate)  # type: ignore[arg-type]


def test_a_whole_rate_comes_back_as_an_integer() -> None:
    assert as_rate(44100.0) == 44100
    assert isinstance(as_rate(np.float64(8000)), int)
