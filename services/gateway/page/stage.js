// The picture of a track: waveform, spectrogram, votes, and a cursor over all of them.

import { colourMap, onThemeChange, publishColours, swatch, themeColour } from "./colours.js";
import { Painter, heightOf } from "./spectrogram.js";
import { Voices } from "./voices.js";
import { clock, percent } from "./words.js";

const HERTZ = [100, 500, 1000, 2000, 4000, 8000];
const TICKS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600];

/** Seconds that the picture spans: the track's, or room to grow while nobody knows them. */
export function spanOf(track) {
  if (track.verdict || track.expectedSeconds) return Math.max(track.seconds, 1);
  return Math.max(16, 2 ** Math.ceil(Math.log2(Math.max(track.seconds, 1) + 1)));
}

/** Shows one track at a time. */
export class Stage {
  /** `seek(seconds)` hears where the visitor wants to be. */
  constructor(find, seek) {
    this.seek = seek;
    this.element = find("stage");
    this.reach = find("reach");
    this.cursor = find("cursor");
    this.pointer = find("pointer");
    this.tip = find("tip");
    this.hertz = find("hertz");
    this.seconds = find("seconds");
    this.legend = find("legend");
    this.canvases = ["waveform", "spectrogram", "voices"].map(find);
    this.voices = new Voices(find);
    this.painter = new Painter();
    this.track = null;
    this.position = 0;
    this.scheduled = false;
    this.rest = 0;
    publishColours();
    this.drawScales();
    this.listen();
  }

  listen() {
    new ResizeObserver(() => this.redraw()).observe(this.reach);
    onThemeChange(() => {
      publishColours();
      this.painter.forget();
      this.drawScales();
      this.redraw();
    });
    let dragging = false;
    const secondsAt = (event) => {
      const box = this.reach.getBoundingClientRect();
      return Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)) * spanOf(this.track);
    };
    this.reach.addEventListener("pointerdown", (event) => {
      if (!this.track || event.button !== 0) return;
      dragging = true;
      this.reach.setPointerCapture(event.pointerId);
      this.seek(secondsAt(event));
    });
    this.reach.addEventListener("pointermove", (event) => {
      if (!this.track) return;
      const seconds = secondsAt(event);
      if (dragging) this.seek(seconds);
      // A finger would hide it; what is under the cursor stands below the picture anyway.
      if (event.pointerType !== "touch") this.point(seconds);
    });
    const release = () => (dragging = false);
    this.reach.addEventListener("pointerup", release);
    this.reach.addEventListener("pointercancel", release);
    this.reach.addEventListener("pointerleave", () => this.point(null));
  }

  /** Puts another track on stage. */
  show(track) {
    if (this.track !== track) {
      this.painter.forget();
      this.point(null);
    }
    this.track = track;
    this.voices.setLabels(track.labels);
    this.redraw();
  }

  /** Draws what has changed, with the next frame. */
  redraw() {
    if (this.scheduled || !this.track) return;
    this.scheduled = true;
    // What takes long to draw is drawn seldom: the page must stay quick.
    setTimeout(() => requestAnimationFrame(() => {
      const started = performance.now();
      this.scheduled = false;
      if (this.track) this.draw();
      this.rest = Math.min(400, 5 * (performance.now() - started - 6));
    }), Math.max(0, this.rest));
  }

  draw() {
    const { track } = this;
    const seconds = spanOf(track);
    const scale = Math.min(devicePixelRatio || 1, 3);
    const sized = this.canvases.map((canvas) => {
      const width = Math.max(1, Math.round(canvas.clientWidth * scale));
      const height = Math.max(1, Math.round(canvas.clientHeight * scale));
      if (canvas.width !== width) canvas.width = width;
      if (canvas.height !== height) canvas.height = height;
      return [canvas.getContext("2d"), width, height];
    });
    drawWaveform(...sized[0], track.envelope, seconds, scale);
    this.painter.paint(track.spectrum, seconds);
    const [context, width, height] = sized[1];
    context.clearRect(0, 0, width, height);
    context.drawImage(this.painter.canvas, 0, 0, width, height);
    this.voices.drawVoices(...sized[2], track, seconds, scale);
    this.voices.showVotes(track, seconds);
    this.voices.nameRuns(track, seconds, this.reach.clientWidth);
    this.voices.showTally(track.scores);
    this.drawSeconds(seconds);
    this.moveCursor(this.position);
  }

  drawScales() {
    this.hertz.replaceChildren(
      ...HERTZ.map((hertz) => {
        const tick = document.createElement("span");
        tick.textContent = hertz < 1000 ? `${hertz} Hz` : `${hertz / 1000} kHz`;
        tick.style.setProperty("bottom", `${100 * heightOf(hertz)}%`);
        return tick;
      }),
    );
    const context = this.legend.getContext("2d");
    const colours = colourMap();
    for (let row = 0; row < 128; row++) {
      const at = (255 - 2 * row) * 3;
      context.fillStyle = `rgb(${colours[at]}, ${colours[at + 1]}, ${colours[at + 2]})`;
      context.fillRect(0, row, 1, 1);
    }
  }

  drawSeconds(seconds) {
    const room = Math.max(2, this.reach.clientWidth / 64);
    const step = TICKS.find((tick) => seconds / tick <= room) ?? 7200;
    const key = `${seconds} ${step}`;
    if (key === this.secondsKey) return;
    this.secondsKey = key;
    const ticks = [];
    for (let at = 0; at <= seconds + 1e-6; at += step) {
      const tick = document.createElement("span");
      tick.textContent = clock(at);
      tick.style.setProperty("left", `${(100 * at) / seconds}%`);
      if (at / seconds > 0.96) tick.className = "last";
      ticks.push(tick);
    }
    this.seconds.replaceChildren(...ticks);
  }

  /** Puts the cursor at a time. */
  moveCursor(seconds) {
    this.position = seconds;
    if (!this.track) return;
    const share = Math.max(0, Math.min(1, seconds / spanOf(this.track)));
    this.cursor.style.setProperty("transform", `translateX(${(share * this.reach.clientWidth).toFixed(2)}px)`);
    this.cursor.dataset.seconds = seconds.toFixed(3);
    this.reach.setAttribute("aria-valuemax", spanOf(this.track).toFixed(1));
    this.reach.setAttribute("aria-valuenow", seconds.toFixed(1));
    this.reach.setAttribute("aria-valuetext", this.describe(seconds));
  }

  /** What is known of a time, in words. */
  describe(seconds) {
    const { track } = this;
    const place = `${clock(seconds)} of ${clock(track.seconds)}`;
    const index = track.chunkAt(seconds);
    if (index < 0) return place;
    const said = best(track.chunks[index], 3).map(([label, share]) => `${label} ${percent(share)}`);
    return `${place}, chunk ${index + 1} of ${track.chunks.length}: ${said.join(", ") || "silence"}`;
  }

  /** Shows the chunk at a time in a small box, or none. */
  point(seconds) {
    const index = seconds === null ? -1 : this.track.chunkAt(seconds);
    const heard = index >= 0 && seconds <= this.track.cellEnd(this.track.chunks.length - 1);
    this.pointer.hidden = seconds === null;
    this.tip.hidden = !heard;
    if (seconds === null) return;
    const across = (seconds / spanOf(this.track)) * this.reach.clientWidth;
    this.pointer.style.setProperty("transform", `translateX(${across.toFixed(1)}px)`);
    if (!heard) return;
    this.fillTip(index);
    const left = this.reach.offsetLeft + across;
    const room = this.element.clientWidth - this.tip.offsetWidth - 4;
    const side = left + 14 > room ? left - this.tip.offsetWidth - 14 : left + 14;
    this.tip.style.setProperty("transform", `translateX(${Math.max(4, Math.min(room, side)).toFixed(0)}px)`);
  }

  fillTip(index) {
    const chunk = this.track.chunks[index];
    if (this.tipped === chunk) return;
    this.tipped = chunk;
    const head = document.createElement("p");
    head.textContent = `Chunk ${index + 1} · ${clock(chunk.start_seconds)}–${clock(chunk.end_seconds)}`;
    const rows = best(chunk, 5).map(([label, share]) => {
      const row = document.createElement("p");
      const place = this.track.labels.indexOf(label);
      const name = Object.assign(document.createElement("span"), { textContent: label });
      const number = Object.assign(document.createElement("b"), { textContent: percent(share) });
      row.append(swatch(place), name, number);
      return row;
    });
    if (rows.length === 0) rows.push(Object.assign(document.createElement("p"), { textContent: "Silence: no vote" }));
    this.tip.replaceChildren(head, ...rows);
  }
}

/** The most probable genres of a chunk. */
export function best(chunk, number) {
  const sorted = Object.entries(chunk.probabilities).sort((one, other) => other[1] - one[1]);
  return sorted.slice(0, number).filter(([, share]) => share >= 0.005);
}

function drawWaveform(context, width, height, wave, seconds, scale) {
  context.clearRect(0, 0, width, height);
  const middle = height / 2;
  context.fillStyle = themeColour("--rule");
  context.fillRect(0, Math.round(middle), width, Math.max(1, Math.round(scale / 2)));
  if (wave.length === 0) return;
  let peak = 0.1;
  for (let span = 0; span < wave.length; span++) peak = Math.max(peak, wave.maxima[span], -wave.minima[span]);
  const reach = (middle - scale) / peak;
  const perPixel = seconds / width / wave.spanSeconds;
  context.fillStyle = themeColour("--wave");
  const wide = 1 / perPixel;
  if (wide >= 3 * scale) {
    // As bars: spans that are wider than a pixel would look like steps.
    for (let span = 0; span < wave.length; span++) {
      const [low, high] = [wave.minima[span], wave.maxima[span]];
      context.fillRect(span * wide, middle - high * reach, wide - scale, Math.max(scale, (high - low) * reach));
    }
    return;
  }
  const end = Math.min(width, Math.ceil(wave.length / perPixel));
  for (let column = 0; column < end; column++) {
    const first = Math.min(wave.length - 1, Math.floor(column * perPixel));
    const last = Math.min(wave.length, Math.max(first + 1, Math.floor((column + 1) * perPixel)));
    let low = 0;
    let high = 0;
    for (let span = first; span < last; span++) {
      low = Math.min(low, wave.minima[span]);
      high = Math.max(high, wave.maxima[span]);
    }
    context.fillRect(column, middle - high * reach, 1, Math.max(scale / 2, (high - low) * reach));
  }
}
