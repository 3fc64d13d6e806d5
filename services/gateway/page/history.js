// The tracks of this session: a list on the page, and their verdicts in the browser's storage.

import { swatch } from "./colours.js";
import { Track } from "./track.js";
import { clock, percent } from "./words.js";

const KEY = "chorale.history";
const KEPT_TRACKS = 50;
const KEPT_CHUNKS = 4000;
const PICTURES = 6;

/** The list of tracks, newest first. */
export class History {
  /** `choose(track)` and `remove(track)` hear what the visitor does. */
  constructor(list, { choose, remove }) {
    this.list = list;
    this.choose = choose;
    this.remove = remove;
    this.tracks = [];
    this.items = new Map();
  }

  add(track) {
    this.tracks.unshift(track);
    const item = this.itemOf(track);
    this.items.set(track.id, item);
    this.list.prepend(item.element);
    this.update(track);
  }

  drop(track) {
    const place = this.tracks.indexOf(track);
    if (place < 0) return;
    const { element } = this.items.get(track.id);
    const focused = element.contains(document.activeElement);
    this.tracks.splice(place, 1);
    this.items.delete(track.id);
    element.remove();
    const next = this.tracks[Math.min(place, this.tracks.length - 1)];
    if (focused && next) this.items.get(next.id).open.focus();
    this.save();
  }

  itemOf(track) {
    const make = (name, className) => Object.assign(document.createElement(name), { className });
    const element = make("li", "entry");
    const open = Object.assign(make("button", "entry-open"), { type: "button" });
    const name = Object.assign(make("span", "entry-name"), { textContent: track.name, title: track.name });
    const words = make("span", "entry-words");
    const strip = make("span", "entry-strip");
    strip.setAttribute("aria-hidden", "true");
    open.append(name, words, strip);
    const close = Object.assign(make("button", "entry-remove"), { type: "button", textContent: "×", title: "Remove" });
    close.setAttribute("aria-label", `Remove ${track.name}`);
    open.addEventListener("click", () => this.choose(track));
    close.addEventListener("click", () => this.remove(track));
    element.append(open, close);
    return { element, open, words, strip };
  }

  /** Shows how a track stands. */
  update(track) {
    const item = this.items.get(track.id);
    if (!item) return;
    const { verdict } = track;
    item.element.dataset.state = track.state;
    if (verdict) {
      const index = track.labels.indexOf(verdict.genre);
      const genre = Object.assign(document.createElement("b"), { textContent: verdict.genre });
      const sure = verdict.genre === "unknown" ? "" : `${percent(verdict.confidence)} · `;
      const rest = ` ${sure}${clock(verdict.duration_seconds)}`;
      item.words.replaceChildren(swatch(index), genre, document.createTextNode(rest));
    } else {
      item.words.textContent = STATES[track.state];
    }
    this.paintStrip(item.strip, track);
  }

  /** The segments, as long as they lasted. */
  paintStrip(strip, track) {
    const segments = (track.verdict?.segments ?? []).slice(0, 120);
    strip.replaceChildren(
      ...segments.map((segment) => {
        const patch = swatch(track.labels.indexOf(segment.genre));
        patch.style.setProperty("flex-grow", Math.max(0.01, segment.end_seconds - segment.start_seconds).toFixed(2));
        return patch;
      }),
    );
  }

  /** Marks the track that is shown. */
  mark(track) {
    for (const [id, { element, open }] of this.items) {
      element.classList.toggle("current", id === track?.id);
      if (id === track?.id) open.setAttribute("aria-current", "true");
      else open.removeAttribute("aria-current");
    }
    this.forgetPictures(track);
  }

  /** Keeps the pictures of a few tracks only: those of an hour are 14 MB. */
  forgetPictures(current) {
    const finished = this.tracks.filter((track) => track !== current && track.verdict && track.spectrum.frames > 0);
    for (const track of finished.slice(PICTURES)) track.forgetPictures();
  }

  /** The neighbour of a track: 1 for the next, -1 for the one before. */
  beside(track, step) {
    return this.tracks[this.tracks.indexOf(track) + step];
  }

  /** Writes the verdicts down; without the chunks of the oldest, where there is no room. */
  save() {
    const kept = this.tracks.filter((track) => track.verdict).slice(0, KEPT_TRACKS);
    let room = KEPT_CHUNKS;
    const records = kept.map((track) => {
      room -= track.chunks.length;
      return recordOf(track, room >= 0);
    });
    for (;;) {
      try {
        localStorage.setItem(KEY, JSON.stringify(records));
        return;
      } catch {
        // Full, or forbidden: fewer are better than none.
        if (records.pop() === undefined) return;
      }
    }
  }

  /** Reads back what an earlier visit wrote. */
  restore() {
    let records;
    try {
      records = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    } catch {
      return;
    }
    if (!Array.isArray(records)) return;
    for (const record of records.slice(0, KEPT_TRACKS).reverse()) {
      try {
        this.add(trackOf(record));
      } catch {
        // Another version of this page wrote it.
      }
    }
  }
}

const STATES = {
  waiting: "waiting",
  listening: "listening …",
  done: "",
  failed: "failed",
  cancelled: "cancelled",
};

const rounded = (value) => Number(value.toFixed(4));

function recordOf(track, withChunks) {
  const chunks = withChunks ? track.chunks : [];
  return {
    name: track.name,
    bytes: track.bytes,
    source: track.source,
    when: track.when,
    labels: track.labels,
    verdict: track.verdict,
    chunks: chunks.map((chunk) => [
      chunk.start_seconds,
      chunk.end_seconds,
      track.labels.indexOf(chunk.genre),
      track.labels.map((label) => rounded(chunk.probabilities[label] ?? 0)),
    ]),
  };
}

function trackOf(record) {
  const { labels, verdict } = record;
  const track = new Track({ name: String(record.name), bytes: record.bytes, labels: labels.map(String), source: record.source });
  track.when = record.when;
  record.chunks.forEach(([start, end, genre, probabilities], index) => {
    const silent = genre < 0;
    const shares = silent ? {} : Object.fromEntries(labels.map((label, place) => [label, probabilities[place]]));
    const chunk = { index, start_seconds: start, end_seconds: end, silent, genre: labels[genre] ?? "", probabilities: shares };
    track.chunks.push(chunk);
  });
  track.apply("verdict", verdict);
  if (typeof verdict.genre !== "string" || !Array.isArray(verdict.scores)) throw new TypeError("no verdict");
  track.state = "done";
  track.restored = true;
  return track;
}
