// One row a genre: what each chunk said, and the tally.

import { genreColour, genreMark, inkOn, swatch, themeColour } from "./colours.js";
import { percent } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

/** Makes an SVG element with attributes. */
export function svg(name, attributes = {}) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

const DENSE = 150;
const STROKES = {
  plain: null,
  rising: "M-1 5L5 -1M2 8L8 2",
  falling: "M-1 2L5 8M2 -1L8 5",
  level: "M0 3.5H7",
  dots: "M3.5 2.2V4.8M2.2 3.5H4.8",
};

/** How strongly a vote is painted: a winner that nobody believes in is pale. */
function sureness({ genre, probabilities }) {
  return Math.min(1, 0.15 + 1.7 * (probabilities[genre] ?? 0));
}

/** The strip of votes, and the rows of the genres below it. */
export class Voices {
  constructor(find) {
    this.names = find("names");
    this.rows = find("tally");
    this.canvas = find("voices");
    this.cells = find("cells");
    this.runs = find("runs");
    this.patterns = find("patterns");
    this.labels = [];
    this.bars = new Map();
  }

  /** Takes the labels of a track. */
  setLabels(labels) {
    if (labels.join("\n") === this.labels.join("\n")) return;
    this.labels = labels;
    this.names.replaceChildren(...labels.map((label, index) => this.nameOf(label, index)));
    this.bars.clear();
    this.rows.replaceChildren(...labels.map((label, index) => this.rowOf(label, index)));
    this.patterns.replaceChildren(...labels.map((_, index) => this.patternOf(index)));
    document.documentElement.style.setProperty("--rows", labels.length);
    this.track = null;
  }

  nameOf(label, index) {
    const name = document.createElement("li");
    const text = document.createElement("span");
    text.textContent = label;
    name.append(swatch(index), text);
    name.title = label;
    return name;
  }

  rowOf(label, index) {
    const row = document.createElement("li");
    const parts = ["unseen", "bar", "share"].map((kind) => {
      const part = document.createElement("span");
      part.className = kind;
      return part;
    });
    parts[1].style.setProperty("--patch", `var(--genre-${index % 10})`);
    parts[1].setAttribute("aria-hidden", "true");
    row.append(...parts);
    this.bars.set(label, { row, spoken: parts[0], bar: parts[1], share: parts[2] });
    return row;
  }

  patternOf(index) {
    const pattern = svg("pattern", { id: `genre-${index}`, width: 7, height: 7, patternUnits: "userSpaceOnUse" });
    const ground = svg("rect", { width: 7, height: 7 });
    ground.style.setProperty("fill", `var(--genre-${index % 10})`);
    pattern.append(ground);
    const stroke = STROKES[genreMark(index)];
    if (stroke) pattern.append(svg("path", { d: stroke, class: "mark" }));
    return pattern;
  }

  /** Moves the bars to where the scores are now. */
  showTally(scores) {
    const known = new Map(scores.map((score) => [score.genre, score]));
    const first = scores[0]?.genre;
    for (const [label, { row, spoken, bar, share }] of this.bars) {
      const score = known.get(label);
      const probability = score?.probability ?? 0;
      bar.style.setProperty("--share", probability.toFixed(4));
      bar.style.setProperty("--spread", Math.min(score?.dispersion ?? 0, probability).toFixed(4));
      share.textContent = score ? percent(probability) : "";
      spoken.textContent = `${label}: `;
      row.title = score
        ? `${label} ${percent(probability, 1)}, ±${Math.round(100 * score.dispersion)} points, ${score.votes} votes`
        : label;
      row.classList.toggle("first", label === first);
    }
  }

  /** One cell a chunk; `seconds` is the length of the whole strip. */
  showVotes(track, seconds) {
    if (this.track !== track || this.cells.childElementCount > track.chunks.length) {
      this.cells.replaceChildren();
      this.track = track;
      this.seconds = null;
    }
    const known = this.cells.childElementCount;
    // Where cells are narrow, patterns and gaps would be all that is seen.
    const dense = track.chunks.length > DENSE;
    const same = this.seconds === seconds && this.dense === dense && !track.verdict;
    const from = same ? Math.max(0, known - 1) : 0;
    for (let index = from; index < track.chunks.length; index++) {
      const cell = this.cells.children[index] ?? this.cells.appendChild(svg("rect", { y: 0, height: "100%" }));
      const chunk = track.chunks[index];
      const start = chunk.start_seconds / seconds;
      cell.setAttribute("x", `${(100 * start).toFixed(4)}%`);
      cell.setAttribute("width", `${Math.max(0, 100 * (track.cellEnd(index) / seconds - start)).toFixed(4)}%`);
      const label = this.labels.indexOf(chunk.genre);
      if (label >= 0) cell.setAttribute("fill", dense ? genreColour(label) : `url(#genre-${label})`);
      else cell.setAttribute("class", "silent");
      cell.setAttribute("fill-opacity", sureness(chunk).toFixed(2));
    }
    this.cells.classList.toggle("dense", dense);
    this.dense = dense;
    this.seconds = seconds;
  }

  /** Names the runs of equal votes that are long enough to be named; `width` of the strip in pixels. */
  nameRuns(track, seconds, width) {
    const names = [];
    let start = 0;
    track.chunks.forEach((chunk, index) => {
      if (track.chunks[index + 1]?.genre === chunk.genre) return;
      const from = (track.chunks[start].start_seconds / seconds) * width;
      const to = (track.cellEnd(index) / seconds) * width;
      start = index + 1;
      const word = chunk.genre || "silence";
      if (to - from < 7.4 * word.length + 12) return;
      const name = svg("text", { x: (from + to) / 2, y: "50%" });
      const label = this.labels.indexOf(chunk.genre);
      name.style.setProperty("fill", label < 0 ? themeColour("--ink") : inkOn(genreColour(label)));
      name.textContent = word;
      if (label >= 0) {
        const plate = svg("rect", { x: (from + to) / 2 - 3.7 * word.length - 5, y: 3, width: 7.4 * word.length + 10, rx: 3 });
        plate.setAttribute("class", "plate");
        plate.style.setProperty("fill", genreColour(label));
        names.push(plate);
      }
      names.push(name);
    });
    this.runs.replaceChildren(...names);
  }

  /** Draws how probable each genre is in each chunk. */
  drawVoices(context, width, height, track, seconds, scale) {
    context.clearRect(0, 0, width, height);
    const rowHeight = height / Math.max(1, this.labels.length);
    context.fillStyle = themeColour("--rule");
    this.labels.forEach((_, row) => {
      context.fillRect(0, Math.round((row + 0.5) * rowHeight), width, Math.max(1, Math.round(scale)));
    });
    const colours = this.labels.map((_, index) => genreColour(index));
    track.chunks.forEach((chunk, index) => {
      const left = (chunk.start_seconds / seconds) * width;
      const right = (track.cellEnd(index) / seconds) * width;
      const gap = right - left > 6 * scale ? scale : 0;
      this.labels.forEach((label, row) => {
        const probability = chunk.probabilities[label] ?? 0;
        if (probability < 0.01) return;
        const thickness = Math.max(scale, (rowHeight - 4 * scale) * Math.sqrt(probability));
        context.globalAlpha = label === chunk.genre ? 1 : 0.35 + 0.5 * probability;
        context.fillStyle = colours[row];
        context.fillRect(left, (row + 0.5) * rowHeight - thickness / 2, Math.max(right - left - gap, 0.5), thickness);
      });
    });
    context.globalAlpha = 1;
  }
}
