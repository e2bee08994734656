"""`separate --live`: sound as it arrives, from standard input to standard output, or from microphone to speaker."""

from __future__ import annotations

import argparse
import math
import os
import queue
import select
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from separation.audio.joining import warn_of_loss
from separation.audio.waveform import MAX_CHANNELS, MAX_RATE, MIN_RATE
from separation.console.messages import Reporter
from separation.console.model import Model
from separation.console.options import UsageError, check_model
from separation.errors import AudioError, ModelError, one_sentence, reason
from separation.outputs.names import Request
from separation.process import DONE, printable, standard_output

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from separation.inference.stream import Stream

READ_BYTES = 1 << 16
UNKNOWN_SIZE = 0xFFFFFFFF  # of a wav file that is written to a pipe
PCM = bytes.fromhex("000000001000800000aa00389b71")  # end of the GUID of a kind that has a number
MAX_HEADER = 1 << 20  # bytes before the samples of a wav file
STATUS_SECONDS = 0.25
BLOCK_SECONDS, LOST_SECONDS = 0.01, 10  # of a sound card; after which it has probably been removed
SPARE_SECONDS = 0.1  # of sound that is computed before the speaker starts, beside the latency


@dataclass(frozen=True)
class Samples:
    """How samples are stored in a pipe.

    Attributes:
        rate: Hz.
        channels: number of channels.
        kind: "s16le", "s24le", "s32le" or "f32le".
    """

    rate: int
    channels: int
    kind: str

    def __post_init__(self) -> None:
        if not (MIN_RATE <= self.rate <= MAX_RATE and self.channels <= MAX_CHANNELS):
            what, rates = f"{self.rate} Hz and {self.channels} channels", f"{MIN_RATE} to {MAX_RATE} Hz"
            raise AudioError(f"Live sound has {rates} and 1 to {MAX_CHANNELS} channels, not {what}.")

    @property
    def frame(self) -> int:
        """Bytes of one sample of all channels."""
        return self.channels * int(self.kind[1:3]) // 8

    def decode(self, data: bytes) -> np.ndarray:
        """Whole frames to floats (channels, n)."""
        import numpy as np

        if self.kind == "s24le":
            data = b"".join(map(bytes, zip(bytes(len(data) // 3), data[::3], data[1::3], data[2::3], strict=False)))
        kind = {"s16le": "<i2", "f32le": "<f4"}.get(self.kind, "<i4")
        samples = np.frombuffer(data, kind).reshape(-1, self.channels).T
        scale = 1.0 if kind == "<f4" else 2.0 ** (1 - 8 * samples.itemsize)
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(samples.astype(np.float32) * np.float32(scale), posinf=0.0, neginf=0.0)

    def encode(self, wave: np.ndarray) -> bytes:
        """Floats (channels, n) to bytes; integers are clipped."""
        import numpy as np

        if self.kind == "f32le":
            return wave.T.astype("<f4").tobytes()
        full = 2.0 ** (int(self.kind[1:3]) - 1)
        whole = np.clip(np.round(wave.T.astype(np.float64) * full), -full, full - 1).astype("<i4")
        if self.kind == "s24le":
            return np.ascontiguousarray(whole).view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
        return whole.astype("<i2" if self.kind == "s16le" else "<i4").tobytes()

    def header(self) -> bytes:
        """Header of a wav file of unknown length."""
        bits = int(self.kind[1:3])
        tag = 3 if self.kind[0] == "f" else 1
        body = struct.pack("<HHIIHH", tag, self.channels, self.rate, self.rate * self.frame, self.frame, bits)
        chunks = b"WAVEfmt " + struct.pack("<I", len(body)) + body + b"data" + struct.pack("<I", UNKNOWN_SIZE)
        return b"RIFF" + struct.pack("<I", UNKNOWN_SIZE) + chunks


def read_header(read: Callable[[int], bytes]) -> tuple[Samples, float]:
    """Read the header of a wav file from a pipe; return how samples are stored, and the bytes of all.

    Raises:
        AudioError: it is another file, or of a kind that cannot be read here.
    """
    if read(4) not in (b"RIFF", b"RF64") or len(read(4)) < 4 or read(4) != b"WAVE":
        raise AudioError("Standard input is not a wav file; say --raw s16le or --raw f32le if it has no header.")
    samples, passed = None, 12
    while passed < MAX_HEADER:
        name, size = read(4), int.from_bytes(read(4), "little")
        if name == b"data" and samples:
            return samples, math.inf if size >= 0x7FFFF000 or size == 0 else size
        body = read(size + size % 2) if size <= MAX_HEADER else b""
        if len(body) < size or not name:
            break
        passed += 8 + len(body)
        if name == b"fmt " and size >= 16:
            tag, channels, rate, _, frame, bits = struct.unpack("<HHIIHH", body[:16])
            if tag == 0xFFFE and body[26:40] == PCM:
                tag = int.from_bytes(body[24:26], "little")
            kind = {(1, 16): "s16le", (1, 24): "s24le", (1, 32): "s32le", (3, 32): "f32le"}.get((tag, bits))
            if kind is None or not channels or not rate or frame != channels * bits // 8:
                raise AudioError("Standard input is a wav file of another kind than 16, 24 or 32 bits or float.")
            samples = Samples(rate, channels, kind)
    raise AudioError("Standard input is a wav file that ends before its samples or is damaged.")


class Effect:
    """What is heard instead of the mixture: a target, or what is left without the sounds to be changed.

    Args:
        model: of the run, with its queries.
        rate: Hz.
        channels: of the sound.

    Attributes:
        stream: separates.
        load: share of the time that the computation took, of the last seconds.
        level: of the input, dB below full scale.
    """

    def __init__(self, model: Model, rate: int, channels: int) -> None:
        import torch

        if not model.separator.model.causal:
            raise UsageError(f"--live needs a model for live sound, such as live; {model.separator.name} is not one.")
        pairs = list(zip(model.queries, model.requests, strict=True))
        changed = [(query, request.gain) for query, request in pairs if request.gain is not None]
        alone = [(query, request) for query, request in pairs if request.gain is None]
        if not changed and alone[0][1].residual:
            changed, alone = [(alone[0][0], -math.inf)], []
        self.names = [request.name for request in model.requests]
        self.stream: Stream
        self.stream, self.weights = model.separator._stream_of_changes(
            [query for query, _ in alone], changed or None, rate, channels, None
        )
        self.rate, self.waiting = rate, torch.zeros(channels, 0)
        self.spent: deque[tuple[float, float]] = deque(maxlen=100)  # seconds of computation and of sound
        self.level = -math.inf

    def push(self, block: np.ndarray) -> np.ndarray:
        """Add (channels, n); return the samples (channels, m) that are ready."""
        import torch

        began = time.perf_counter()
        wave = torch.from_numpy(block)
        result = self._mix(self.stream.push(wave), wave)
        self.spent.append((time.perf_counter() - began, block.shape[1] / self.rate))
        power = float(wave.square().mean()) if wave.numel() else 0.0
        self.level = 10 * math.log10(power) if power > 0 else -math.inf
        return result

    def flush(self) -> np.ndarray:
        """Return the remaining samples."""
        return self._mix(self.stream.flush(), self.waiting[:, :0])

    def _mix(self, targets: Tensor, wave: Tensor) -> np.ndarray:
        import torch

        if self.weights is None:
            return targets[0].numpy()
        self.waiting = torch.cat([self.waiting, wave], dim=1)
        mixture, self.waiting = self.waiting.split([targets.shape[-1], self.waiting.shape[1] - targets.shape[-1]], 1)
        return (mixture - torch.tensordot(self.weights, targets, 1)).numpy()

    @property
    def load(self) -> float:
        """Share of the time that the computation took, of the last seconds."""
        spent, sound = (sum(each) for each in zip(*self.spent, strict=True)) if self.spent else (0.0, 1.0)
        return spent / max(sound, 1e-9)


class Status:
    """A line on a terminal: level of the input, presence of each sound, load, underruns."""

    def __init__(self, quiet: bool) -> None:
        self.shown, self.drawn, self.width = sys.stderr.isatty() and not quiet, 0.0, 0

    def draw(self, effect: Effect, underruns: int | None = None) -> None:
        """Draw it anew, some times a second."""
        now = time.monotonic()
        if not self.shown or now - self.drawn < STATUS_SECONDS:
            return
        self.drawn = now
        parts = [f"{max(effect.level, -99):4.0f} dB"]
        parts += [f"{name} {each:.2f}" for name, each in zip(effect.names, effect.stream.sounding, strict=False)]
        parts += [f"load {effect.load:.0%}"] + ([] if underruns is None else [f"{underruns} underruns"])
        text = printable("  ".join(parts))
        sys.stderr.write("\r" + text.ljust(self.width))
        sys.stderr.flush()
        self.width = len(text)

    def close(self) -> None:
        """Leave the line."""
        if self.width:
            sys.stderr.write("\n")
            sys.stderr.flush()
            self.width = 0


def run(options: argparse.Namespace, requests: Sequence[Request]) -> int:
    """Run `separate --live`; return the exit status."""
    check_model(options.model, options.device)
    model = Model(options, requests, Reporter(options, True))
    status = Status(options.quiet)
    try:
        if options.files or sys.stdin is None or not sys.stdin.isatty():
            run_pipe(options, model, status)
        else:
            run_sound_card(options, model, status)
    except ModelError as error:
        raise AudioError(f"The sound could not be separated: {error}") from None
    finally:
        status.close()
    return DONE


def run_pipe(options: argparse.Namespace, model: Model, status: Status) -> None:
    """Separate standard input to standard output, each sample as soon as its target is ready."""
    if sys.stdout.isatty():
        raise UsageError("Audio cannot go to a terminal. Redirect standard output.")
    if sys.stdin is None:
        raise AudioError("Standard input is closed.")
    given = ("microphone", "speaker") if options.raw else ("microphone", "speaker", "rate", "channels")
    for name in given:
        if getattr(options, name) is not None:
            why = "has no meaning for sound from a pipe" if name in given[:2] else "needs --raw: a wav file has its own"
            raise UsageError(f"--{name} {why}.")
    source, sink = sys.stdin.fileno(), sys.stdout.fileno()

    def read(count: int) -> bytes:
        while True:
            try:
                return os.read(source, count)
            except BlockingIOError:
                select.select([source], [], [])
            except OSError as error:
                raise AudioError(f"Standard input cannot be read: {reason(error)}.") from None

    def read_all(count: int) -> bytes:
        data = b""
        while len(data) < count and (more := read(count - len(data))):
            data += more
        return data

    def write_all(data: bytes) -> None:
        with standard_output():
            while data:
                try:
                    data = data[os.write(sink, data) :]
                except BlockingIOError:
                    select.select([], [sink], [])

    if options.raw:
        try:
            samples, stated = Samples(options.rate, options.channels or 1, options.raw), math.inf
        except AudioError as error:
            raise UsageError(str(error)) from None
    else:
        samples, stated = read_header(read_all)
    effect = Effect(model, samples.rate, samples.channels)
    if not options.raw:
        write_all(samples.header())
    rest, received = b"", 0
    while received < stated and (data := read(int(min(READ_BYTES, stated - received)))):
        received += len(data)
        rest += data
        whole = len(rest) // samples.frame * samples.frame
        write_all(samples.encode(effect.push(samples.decode(rest[:whole]))))
        rest = rest[whole:]
        status.draw(effect)
    write_all(samples.encode(effect.flush()))
    status.close()
    if rest or received < stated < math.inf:
        total = int(stated) // samples.frame if received < stated < math.inf else None
        lost = warn_of_loss("standard input", received // samples.frame, samples.rate, total, True, [])
        model.reporter.notice(str(lost), "warning: ")


def run_sound_card(options: argparse.Namespace, model: Model, status: Status) -> None:
    """Separate the microphone to the speaker until the process is interrupted.

    A callback exchanges blocks with the sound card. Until enough is ready, and where the computation is late, the
    speaker gets silence.
    """
    import numpy as np

    try:
        import sounddevice
    except ImportError:
        raise UsageError('The microphone needs sounddevice: pip install "separation[live]".') from None
    except OSError:
        raise UsageError("The microphone needs PortAudio, which is not installed (libportaudio2).") from None
    try:
        microphone, speaker = (
            int(name) if str(name).isdecimal() else name for name in (options.microphone, options.speaker)
        )
        rate = options.rate or round(sounddevice.query_devices(microphone, "input")["default_samplerate"])
        channels = options.channels or 1
        effect = Effect(model, rate, channels)
        arrived: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        ready: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        speaking = Speaking(channels, round(SPARE_SECONDS * rate), ready)

        def exchange(heard: np.ndarray, spoken: np.ndarray, frames: int, *_: Any) -> None:
            arrived.put(heard.T.copy())
            spoken[:] = speaking.take(frames).T

        with sounddevice.Stream(
            samplerate=rate, blocksize=max(1, round(BLOCK_SECONDS * rate)), channels=channels, dtype="float32",
            device=(microphone, speaker), callback=exchange,
        ):  # fmt: skip
            delay = 1000 * (effect.stream.latency + SPARE_SECONDS)
            model.reporter.notice(f"from microphone to speaker, {delay:.0f} ms late; Ctrl-C ends it; use headphones.")
            while True:
                blocks = [arrived.get(timeout=LOST_SECONDS)]
                while not arrived.empty():
                    blocks.append(arrived.get())
                ready.put(effect.push(np.concatenate(blocks, axis=1)))
                status.draw(effect, speaking.underruns)
    except queue.Empty:
        raise AudioError(f"The microphone has given nothing for {LOST_SECONDS} s.") from None
    except (sounddevice.PortAudioError, ValueError) as error:
        raise UsageError(f"The sound card cannot be used: {one_sentence(error).rstrip('.')}.") from None


class Speaking:
    """Samples that wait for the speaker.

    Args:
        channels: of the sound.
        spare: samples that must be ready before the first is given.
        ready: arrays (channels, n).

    Attributes:
        underruns: how often too few samples were ready.
    """

    def __init__(self, channels: int, spare: int, ready: queue.SimpleQueue[np.ndarray]) -> None:
        import numpy as np

        self.buffer, self.spare, self.ready = np.zeros((channels, 0), np.float32), spare, ready
        self.started, self.underruns = False, 0

    def take(self, frames: int) -> np.ndarray:
        """Return (channels, frames): silence until enough is ready, and where samples are missing."""
        import numpy as np

        while not self.ready.empty():
            self.buffer = np.concatenate([self.buffer, self.ready.get()], axis=1)
        self.started = self.started or self.buffer.shape[1] >= self.spare
        if not self.started:
            return np.zeros((len(self.buffer), frames), np.float32)
        self.underruns += self.buffer.shape[1] < frames
        part, self.buffer = self.buffer[:, :frames], self.buffer[:, frames:]
        return np.pad(part, ((0, 0), (0, frames - part.shape[1])))
