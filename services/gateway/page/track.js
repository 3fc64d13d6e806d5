// What is known of a track so far.

/** Mel bands of a chunk. */
export const BANDS = 128;
const CHUNK_FRAMES = 96;
/** Mel frames a second. */
export const FRAME_RATE = 24;
/** Decibels from the loudest cell of a chunk down to its floor. */
export const RANGE = 80;
const STEP = RANGE / 256;

let lastId = 0;

/** A track: its votes, its pictures, its verdict. `states`: waiting, listening, done, failed, cancelled. */
export class Track {
  constructor({ name, bytes = 0, labels, source = "file", file = null }) {
    this.id = `track-${++lastId}`;
    this.name = name;
    this.bytes = bytes;
    this.labels = labels;
    this.source = source;
    this.file = file;
    this.when = Date.now();
    this.state = "waiting";
    this.problem = null;
    this.retryAt = null;
    this.expectedSeconds = null;
    /** True if there are votes and a verdict, but no pictures. */
    this.restored = false;
    this.forgetAnswers();
  }

  /** As before anything was heard, for another try. */
  forgetAnswers() {
    this.chunks = [];
    this.scores = [];
    this.verdict = null;
    this.bytesReceived = 0;
    this.secondsHeard = 0;
    this.spectrum = new Spectrum();
    this.envelope = new Waveform();
  }

  /** Lets go of what needs much memory; votes and verdict stay. */
  forgetPictures() {
    this.spectrum = new Spectrum();
    this.envelope = new Waveform();
    this.restored = true;
  }

  /** Takes in an event of the server. */
  apply(event, data) {
    if (event === "accepted") this.requestId = data.request_id;
    if (event === "chunk_vote") this.addChunk(data);
    if (event === "envelope") this.envelope.add(data);
    if (event === "progress") {
      this.bytesReceived = Number(data.bytes_received ?? 0);
      this.secondsHeard = data.seconds_heard ?? 0;
      this.scores = data.scores ?? [];
    }
    if (event === "verdict") {
      this.verdict = data;
      this.scores = data.scores ?? [];
    }
  }

  addChunk(vote) {
    const { mel, ...chunk } = vote;
    chunk.probabilities ??= {};
    this.chunks.push(chunk);
    this.secondsHeard = Math.max(this.secondsHeard, chunk.end_seconds);
    this.spectrum.add(chunk.start_seconds, mel ? bytesOf(mel) : null);
  }

  /** Seconds of the track, as far as they are known. */
  get seconds() {
    if (this.verdict) return this.verdict.duration_seconds;
    return Math.max(this.expectedSeconds ?? 0, this.secondsHeard, this.envelope.seconds);
  }

  /** Where chunk `index` stops being the last word: where the next one begins. */
  cellEnd(index) {
    const next = this.chunks[index + 1];
    if (next) return next.start_seconds;
    const end = this.chunks[index].end_seconds;
    return this.verdict ? Math.min(end, this.verdict.duration_seconds) : end;
  }

  /** The position of the chunk that speaks for a time, or -1. */
  chunkAt(seconds) {
    let low = 0;
    let high = this.chunks.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.chunks[middle].start_seconds <= seconds + 1e-6) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  /** What the download holds. */
  report() {
    return { name: this.name, bytes: this.bytes, verdict: this.verdict, chunks: this.chunks };
  }
}

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index++) bytes[index] = text.charCodeAt(index);
  return bytes;
}

/** Mel frames on one scale. Chunks come each relative to its own loudest cell; where two overlap, they tell how far apart they are. */
export class Spectrum {
  constructor() {
    this.frames = 0;
    /** One byte a cell, frame by frame. */
    this.cells = new Uint8Array(BANDS * CHUNK_FRAMES * 8);
    /** Decibels of each frame's scale above the first chunk's. */
    this.levels = new Float32Array(CHUNK_FRAMES * 8);
    /** The highest of `levels`. */
    this.loudest = -Infinity;
  }

  /** Adds a chunk, `[bands][frames]`, or silence in its place. */
  add(startSeconds, mel) {
    const start = Math.round(startSeconds * FRAME_RATE);
    const end = start + CHUNK_FRAMES;
    if (end > 2 ** 22 || end <= this.frames) return;
    this.reserve(end);
    const heard = mel?.length === BANDS * CHUNK_FRAMES;
    const level = heard ? this.levelOf(start, mel) : this.levels[Math.max(0, this.frames - 1)];
    if (heard) this.loudest = Math.max(this.loudest, level);
    for (let frame = Math.max(start, this.frames); frame < end; frame++) {
      this.levels[frame] = level;
      if (!heard) continue;
      for (let band = 0; band < BANDS; band++) {
        this.cells[frame * BANDS + band] = mel[band * CHUNK_FRAMES + frame - start];
      }
    }
    this.frames = end;
  }

  reserve(frames) {
    if (frames <= this.levels.length) return;
    const capacity = Math.max(frames, Math.ceil(this.levels.length * 1.5));
    const cells = new Uint8Array(capacity * BANDS);
    const levels = new Float32Array(capacity);
    cells.set(this.cells);
    levels.set(this.levels);
    this.cells = cells;
    this.levels = levels;
  }

  /** The median difference to what is known of the same cells, floors left out. */
  levelOf(start, mel) {
    const differences = new Uint32Array(512);
    let total = 0;
    const known = this.levels[Math.max(0, this.frames - 1)];
    for (let frame = start; frame < this.frames; frame++) {
      for (let band = 0; band < BANDS; band++) {
        const before = this.cells[frame * BANDS + band];
        const now = mel[band * CHUNK_FRAMES + frame - start];
        if (before < 4 || now < 4 || this.levels[frame] !== known) continue;
        differences[before - now + 256]++;
        total++;
      }
    }
    if (total < BANDS) return known;
    let seen = 0;
    const middle = differences.findIndex((times) => (seen += times) * 2 >= total);
    return known + (middle - 256) * STEP;
  }
}

/** The lowest and highest sample of each span. */
export class Waveform {
  constructor() {
    this.spanSeconds = 0;
    this.length = 0;
    this.minima = new Float32Array(1024);
    this.maxima = new Float32Array(1024);
  }

  get seconds() {
    return this.length * this.spanSeconds;
  }

  /** Adds a stretch. */
  add({ start_seconds: start, span_seconds: span, minima, maxima }) {
    if (!(span > 0) || minima.length !== maxima.length) return;
    this.spanSeconds ||= span;
    const first = Math.round((start ?? 0) / this.spanSeconds);
    const end = first + minima.length;
    if (end > 2 ** 24) return;
    if (end > this.minima.length) {
      const capacity = Math.max(end, this.minima.length * 2);
      const grown = [this.minima, this.maxima].map((values) => {
        const larger = new Float32Array(capacity);
        larger.set(values);
        return larger;
      });
      [this.minima, this.maxima] = grown;
    }
    this.minima.set(minima, first);
    this.maxima.set(maxima, first);
    this.length = Math.max(this.length, end);
  }
}
