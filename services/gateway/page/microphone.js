// Audio from the microphone, while it is being made.

/** A recording ends by itself after this. */
export const LIMIT_SECONDS = 300;

/** Why there is no recording, in words. */
export function refused(error) {
  if (!globalThis.isSecureContext) {
    return "Browsers lend the microphone to pages from https or localhost only. Open the studio under one of these.";
  }
  const words = {
    NotAllowedError:
      "The microphone was not allowed. Allow it in the browser's settings for this page (the sign beside the address), then record again.",
    NotFoundError: "No microphone was found. Plug one in, then record again.",
    NotReadableError: "The microphone is in use by something else, or the system keeps it from the browser.",
  };
  return words[error.name] ?? `The microphone could not be opened: ${error.message}`;
}

/** A recording in progress. */
export class Recording {
  /** Asks for the microphone. `heard({ samples, peak })` gets 16-bit mono samples as they come, `ended()` is called once after. */
  static async start({ heard, ended }) {
    if (!navigator.mediaDevices) throw new DOMException("no media devices", "NotSupportedError");
    // What makes speech clear makes music unlike itself.
    const untouched = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    const stream = await navigator.mediaDevices.getUserMedia({ audio: untouched });
    const context = new AudioContext();
    try {
      await context.audioWorklet.addModule("/recorder.js");
      await context.resume();
    } catch (error) {
      for (const track of stream.getTracks()) track.stop();
      await context.close();
      throw error;
    }
    return new Recording(stream, context, heard, ended);
  }

  constructor(stream, context, heard, ended) {
    this.stream = stream;
    this.context = context;
    this.ended = ended;
    this.pieces = [];
    this.samples = 0;
    this.rate = context.sampleRate;
    this.node = new AudioWorkletNode(context, "recorder");
    this.node.port.onmessage = ({ data }) => {
      if (data.ended) return this.close();
      this.pieces.push(data.samples);
      this.samples += data.samples.byteLength / 2;
      heard(data);
      if (this.seconds >= LIMIT_SECONDS) this.stop();
    };
    context.createMediaStreamSource(stream).connect(this.node);
    // It is silent, but what leads nowhere may not run.
    this.node.connect(context.destination);
    for (const track of stream.getTracks()) track.addEventListener("ended", () => this.stop());
  }

  get seconds() {
    return this.samples / this.rate;
  }

  /** How `ClassifyOptions.pcm` names these samples. */
  get format() {
    return `s16le,${this.rate},1`;
  }

  /** Ends it; `ended` is called after the last samples. */
  stop() {
    if (this.stopping) return;
    this.stopping = true;
    this.node.port.postMessage("stop");
  }

  close() {
    if (this.closed) return;
    this.closed = true;
    for (const track of this.stream.getTracks()) track.stop();
    this.context.close();
    this.ended();
  }

  /** All of it as a WAV file. */
  file(name) {
    return new File([wavHeader(this.samples, this.rate), ...this.pieces], name, { type: "audio/wav" });
  }
}

function wavHeader(samples, rate) {
  const view = new DataView(new ArrayBuffer(44));
  const text = (at, word) => [...word].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples, true);
  return view.buffer;
}
