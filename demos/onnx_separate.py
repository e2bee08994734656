"""Separate a file with a model that `separation-convert onnx` wrote. Neither torch nor this project is needed.

pip install numpy soundfile soxr tokenizers onnxruntime
separation-convert onnx default exported/
python demos/onnx_separate.py exported/ mix.wav "dog barking"      # mix.target.wav and mix.residual.wav
"""

import argparse
import json
import math
import os
from pathlib import Path

import numpy as np
import soundfile
import soxr
from tokenizers import Tokenizer

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before it is imported
import onnxruntime


def resample(wave, source, target):
    """(channels, time) at one rate to (channels, ceil(time * target / source)) at another."""
    length = -(-wave.shape[1] * target // source)
    found = soxr.resample(np.ascontiguousarray(wave.T), source, target, quality="VHQ")[:length].T
    return np.pad(found, ((0, 0), (0, length - found.shape[1])))


def high_pass(wave, rate, hertz, first, last):
    """Remove what lies below `hertz`; at the ends of the recording, what low frequencies can fit is removed before."""
    half, time, wave = int(9.6 * rate / hertz), wave.shape[1], wave.copy()
    kernel = np.sinc(2 * hertz / rate * np.arange(-half, half + 1)) * np.kaiser(2 * half + 1, 11.2)
    ends = [end for is_end, end in ((first, wave), (last, wave[:, ::-1])) if is_end]
    n = min(time, int(20 / hertz * rate))
    phase = 2 * np.pi * 0.02 * hertz / rate * np.outer(np.arange(n), np.arange(43)) if ends else np.zeros((1, 43))
    waves = np.concatenate([np.cos(phase), np.sin(phase[:, 1:])], axis=1)
    power, mixing = np.linalg.eigh(waves.T @ waves / n)
    functions, power = waves @ mixing[:, power > 1e-9] / np.sqrt(n * power[power > 1e-9]), power[power > 1e-9]
    for end in ends:
        centred = end[:, :n] - end[:, :n].mean(1, keepdims=True)
        fitted = (centred @ functions * (power / (power + 1e-6))) @ functions.T
        end[:, :n] -= fitted * np.cos(np.arange(n) * (np.pi / 2 / n)) ** 2
    padded = np.pad(wave, ((0, 0), (half, half)), "reflect" if time > 1 else "edge")
    size = 1 << padded.shape[1].bit_length()
    low = np.fft.irfft(np.fft.rfft(padded, size) * np.fft.rfft(kernel / kernel.sum(), size), size)
    return wave - low[:, 2 * half : 2 * half + time].astype(np.float32)


def segments(file, length, overlap, start=0):
    """Yield segments (channels, n) of a file, where each begins, and whether it is the last."""
    for position in range(start, max(file.frames - overlap, start + 1), length - overlap):
        file.seek(position)
        yield file.read(length, dtype="float32", always_2d=True).T.copy(), position, position + length >= file.frames


def frames_of(wave, size):
    """Whole frames (channels, n, size) of a wave and its rest."""
    whole = wave.shape[1] // size * size
    return wave[:, :whole].reshape(len(wave), -1, size), wave[:, whole:]


def measure(file, model):
    """Level of a recording, mean of each channel, whether targets keep low frequencies, and where sound begins."""
    rate, rule, low = file.samplerate, model["level"], model["high_pass"]
    overlap = 2 * math.ceil(low["periods"] / low["hertz"]) * rate if low["hertz"] else 0
    powers, moments, total, energy, passed = [], [], 0.0, 0.0, 0.0
    rest = rumble = np.zeros((file.channels, 0))
    for wave, position, last in segments(file, 12 * overlap or 24 * rate, overlap):
        clean = high_pass(wave, rate, low["hertz"], position == 0, last) if overlap else wave
        use = np.s_[:, overlap // 2 if position else 0 : wave.shape[1] - (0 if last else overlap // 2)]
        total, energy = total + wave[use].sum(1, dtype=float), energy + np.square(wave[use], dtype=float).sum()
        passed += np.square(clean[use], dtype=float).sum()
        frames, rest = frames_of(np.append(rest, clean[use], 1), rule["frame"])
        powers.extend(frames.var(2).sum(0))
        halves, rumble = frames_of(np.append(rumble, (wave - clean)[use], 1), max(rate // 2, 1))
        moments.append([halves.sum(2), np.square(halves).sum(2)])
    powers = np.array([*powers, *([rest.var(1).sum()] if rest.size else [])] if powers else [passed / file.frames])
    level, offset = math.sqrt(powers[powers >= rule["gate"] * powers.max()].mean()), total / file.frames
    share = max(0.0, energy - file.frames * np.square(offset).sum() - passed) / max(passed, 1e-12)
    kept = bool(low["hertz"]) and low["faint_rumble"] < share < low["excessive_rumble"]
    sums, squares = np.concatenate(moments, axis=2)
    if kept and sums.shape[1] >= low["rumble_frames"]:
        each = (squares - 2 * offset[:, None] * sums + max(rate // 2, 1) * offset[:, None] ** 2).sum(0)
        kept = np.quantile(each, 0.1) < low["steady_rumble"] * each.mean()
    loud = ((np.abs(wave).max(0) > rule["silence"] * level, start) for wave, start, _ in segments(file, rate, 0))
    begin = next((start + int(sounds.argmax()) for sounds, start in loud if sounds.any()), 0)
    return level, offset[:, None], kept, begin if begin >= rate // 100 else 0


def encode(folder, model, query):
    """Condition (1, dim) of a text, or of a .npy file with one."""
    if query.endswith(".npy"):
        return np.load(query).astype(np.float32).reshape(1, -1)
    if model["text"] is None:
        raise ValueError(f"{folder} has no text side; name a .npy file that holds the condition.")
    tokenizer = Tokenizer.from_file(str(folder / model["text"]["tokenizer"]))
    encoded = tokenizer.encode_batch([each.format(" ".join(query.split())) for each in model["text"]["templates"]])
    session = onnxruntime.InferenceSession(folder / "text.onnx", providers=["CPUExecutionProvider"])
    given = {"tokens": [[x.ids for x in encoded]], "mask": [[x.attention_mask for x in encoded]]}
    return session.run(None, {name: np.array(value, np.int64) for name, value in given.items()})[0]


def separate(folder, path, query, *outputs):
    """Write target and residual of a file; return the presence of the sound, NaN if the model does not estimate it."""
    file = soundfile.SoundFile(path)
    if not file.frames:
        raise ValueError(f"{path} holds no audio: its length is zero.")
    model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    condition, own, cut = encode(folder, model, query), model["sample_rate"], model["segments"]
    network = onnxruntime.InferenceSession(folder / "separator.onnx", providers=["CPUExecutionProvider"])
    rate, hertz = file.samplerate, model["high_pass"]["hertz"]
    level, offset, keeps_rumble, begin = measure(file, model)
    level = np.float32(level / model["level"]["of_input"])
    margin = cut["margin_seconds"] + cut["resampler_samples"] / min(rate, own)
    overlap = 2 * math.ceil(margin)
    seconds = max(cut["seconds"], 2 * overlap)
    seconds += -(seconds - overlap) % cut["grid_seconds"]
    rise = (np.arange(overlap * rate) - (overlap * rate - 1) / 2) / max(int((overlap - 2 * margin) * rate), 1)
    shared = overlap * own // cut["presence_stride"] // 2  # frames of an overlap; each belongs to one segment
    detected, tail = -math.inf, np.zeros((file.channels, 0), np.float32)
    writers = [soundfile.SoundFile(each, "w", rate, file.channels, "FLOAT") for each in outputs]
    for wave, position, last in segments(file, seconds * rate, overlap * rate, begin):
        length, target = wave.shape[1], np.zeros_like(wave)
        if level:
            clean = high_pass(wave / level, rate, hertz, position == begin, last) if hertz else wave / level
            given = filtered = resample(clean, rate, own)
            if keeps_rumble:  # presence comes from the filtered segment, the target from the whole
                given = resample(clean := (wave - offset.astype(np.float32)) / level, rate, own)
            results = network.run(None, {"mixture": given, "condition": condition})
            found = dict(zip(model["outputs"], results, strict=True))
            target = resample(found["target"][0], own, rate)[:, :length]
            if rate > own and "high_gain" in found:  # the band above the network's
                place, gain = np.arange(length) * (own / rate / cut["gain_stride"]), found["high_gain"][0]
                gain = np.interp(place, np.arange(len(gain)), gain)
                target = target + (clean - resample(given, own, rate)[:, :length]) * gain.astype(np.float32)
            if keeps_rumble and "presence" in found:
                found["presence"] = network.run(["presence"], {"mixture": filtered, "condition": condition})[0]
            logits = found.get("presence", np.zeros((1, 0)))[0][shared * (position > begin) :]
            detected = max(detected, logits[: len(logits) - shared * (not last)].max(initial=-math.inf))
            target = target * level
        head = slice(tail.shape[1])
        target[:, head] = tail + (target[:, head] - tail) * np.clip(rise[head] + 0.5, 0, 1)
        keep = length if last else length - overlap * rate
        tail = target[:, keep:].copy()
        for writer, samples in zip(writers, (target, wave - target), strict=True):
            writer.write(np.pad(samples[:, :keep].T, ((begin * (position == begin), 0), (0, 0))))  # and silence before
    rule = model["presence"] or {"bias": math.nan, "logit": 1.0, "background": [0.0] * condition.shape[1]}
    return 1 / (1 + np.exp(-rule["bias"] - rule["logit"] * detected - condition[0] @ rule["background"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, kind in (("folder", Path), ("file", Path), ("query", str)):
        parser.add_argument(name, type=kind)
    given = parser.parse_args()
    outputs = [given.file.with_suffix(f".{part}.wav") for part in ("target", "residual")]
    if not (given.folder / "model.json").is_file():
        parser.error(f"{given.folder} is not a folder that separation-convert onnx has written.")
    if not given.file.is_file():
        parser.error(f"{given.file} is not a file.")
    if there := [str(path) for path in outputs if path.exists()]:
        parser.error(f"{there[0]} exists.")
    try:
        presence = separate(given.folder, given.file, given.query, *outputs)
    except (OSError, ValueError, RuntimeError) as error:  # of soundfile, too
        for path in outputs:
            path.unlink(missing_ok=True)
        parser.exit(1, f"onnx_separate: {error}\n")
    print(*outputs, f"presence {presence:.4f}")
