// Mel chunks made into one seamless picture.

import { colourMap, theme } from "./colours.js";
import { BANDS, FRAME_RATE, RANGE } from "./track.js";

// However long the track, the picture has at most this many columns: 2 MB.
const COLUMNS = 4096;

const LOG_STEP = Math.log(6.4) / 27;
const mel = (hertz) => (hertz < 1000 ? (3 * hertz) / 200 : 15 + Math.log(hertz / 1000) / LOG_STEP);
const TOP = mel(11025);

/** How high a frequency is in the picture: 0 at the bottom, 1 at the top. */
export function heightOf(hertz) {
  const band = (mel(hertz) / TOP) * (BANDS + 1) - 1;
  return (band + 0.5) / BANDS;
}

/** Paints a `Spectrum` into columns, as far as it is there. */
export class Painter {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.canvas.height = BANDS;
    this.context = this.canvas.getContext("2d");
    this.forget();
  }

  /** Begins anew with the next `paint`. */
  forget() {
    this.painted = 0;
    this.key = "";
  }

  /** Brings the picture of `seconds` up to date. */
  paint(spectrum, seconds) {
    const frames = Math.max(1, Math.ceil(seconds * FRAME_RATE));
    const stride = Math.ceil(frames / COLUMNS);
    const columns = Math.ceil(frames / stride);
    const loudest = Number.isFinite(spectrum.loudest) ? Math.round(spectrum.loudest) : 0;
    const key = `${stride} ${columns} ${loudest} ${theme()}`;
    if (key !== this.key) {
      this.key = key;
      this.painted = 0;
      if (this.canvas.width !== columns) this.canvas.width = columns;
      else this.context.clearRect(0, 0, columns, BANDS);
    }
    const from = Math.floor(this.painted / stride);
    const known = Math.min(spectrum.frames, frames);
    const to = Math.ceil(known / stride);
    if (to > from) this.paintColumns(spectrum, from, to, stride, loudest, known);
    this.painted = known;
  }

  paintColumns(spectrum, from, to, stride, loudest, known) {
    const image = this.context.createImageData(to - from, BANDS);
    const colours = colourMap();
    for (let column = from; column < to; column++) {
      const first = column * stride;
      const last = Math.min(first + stride, known);
      for (let band = 0; band < BANDS; band++) {
        let sum = 0;
        for (let frame = first; frame < last; frame++) {
          const shift = ((spectrum.levels[frame] - loudest) / RANGE) * 256;
          sum += Math.max(0, spectrum.cells[frame * BANDS + band] + shift);
        }
        const level = Math.max(0, Math.min(255, Math.round(sum / (last - first))));
        const at = ((BANDS - 1 - band) * (to - from) + column - from) * 4;
        image.data[at] = colours[level * 3];
        image.data[at + 1] = colours[level * 3 + 1];
        image.data[at + 2] = colours[level * 3 + 2];
        image.data[at + 3] = 255;
      }
    }
    this.context.putImageData(image, from, 0);
  }
}
