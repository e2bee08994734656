// Records from the microphone as a wav file, whose length every program can read.

export class Recorder {
  get active() { return this.recorder?.state === "recording"; }

  /** Ask for the microphone and begin. */
  async start() {
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
    this.recorder = new MediaRecorder(this.stream);
    this.pieces = [];
    this.recorder.addEventListener("dataavailable", (event) => this.pieces.push(event.data));
    this.recorder.start();
  }

  /** End; resolves to a File. */
  async stop() {
    await new Promise((resolve) => { this.recorder.addEventListener("stop", resolve); this.recorder.stop(); });
    for (const track of this.stream.getTracks()) track.stop();
    const context = new AudioContext();
    const buffer = await context.decodeAudioData(await new Blob(this.pieces).arrayBuffer());
    context.close();
    return new File([encodeWav(buffer)], "Your recording.wav", { type: "audio/wav" });
  }
}

/** An AudioBuffer as a 16-bit wav file. */
function encodeWav(buffer) {
  const { numberOfChannels: channels, length, sampleRate: rate } = buffer;
  const size = length * channels * 2, bytes = new DataView(new ArrayBuffer(44 + size));
  const text = (at, word) => [...word].forEach((letter, index) => bytes.setUint8(at + index, letter.charCodeAt(0)));
  text(0, "RIFF"); bytes.setUint32(4, 36 + size, true); text(8, "WAVEfmt ");
  bytes.setUint32(16, 16, true); bytes.setUint16(20, 1, true); bytes.setUint16(22, channels, true);
  bytes.setUint32(24, rate, true); bytes.setUint32(28, rate * channels * 2, true);
  bytes.setUint16(32, channels * 2, true); bytes.setUint16(34, 16, true);
  text(36, "data"); bytes.setUint32(40, size, true);
  const data = Array.from({ length: channels }, (_, channel) => buffer.getChannelData(channel));
  for (let index = 0, at = 44; index < length; index++) {
    for (const wave of data) { bytes.setInt16(at, Math.max(-1, Math.min(1, wave[index])) * 32767, true); at += 2; }
  }
  return bytes.buffer;
}
