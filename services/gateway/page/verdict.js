// The verdict in words, with its uncertainty, and as a choir whose singers are shares of the tally.

import { genreColour } from "./colours.js";
import { svg } from "./voices.js";
import { NOTHING, certainty, clock, count, percent, size, span } from "./words.js";

/** Singers in rows, who are coloured by the genres' shares. */
export class Choir {
  constructor(element) {
    const places = [];
    [9, 13, 17, 21].forEach((seats, row) => {
      const radius = 42 + 22 * row;
      for (let seat = 0; seat < seats; seat++) {
        places.push({ angle: Math.PI * (1 - (seat + 0.5) / seats), radius });
      }
    });
    places.sort((one, other) => other.angle - one.angle);
    this.singers = places.map(({ angle, radius }) => {
      const singer = svg("circle", {
        cx: (120 + radius * Math.cos(angle)).toFixed(1),
        cy: (118 - radius * Math.sin(angle)).toFixed(1),
        r: 6.4,
      });
      element.append(singer);
      return singer;
    });
  }

  /** Gives every genre as many singers as its share; the others are silent. */
  show(shares) {
    let sum = 0;
    let next = 0;
    for (const { index, share } of shares) {
      sum += share;
      const end = Math.round(sum * this.singers.length);
      for (; next < end && next < this.singers.length; next++) paint(this.singers[next], index);
    }
    for (; next < this.singers.length; next++) paint(this.singers[next], -1);
  }

  /** All voices alike, as before anything was heard. */
  rest(genres = 10) {
    this.show(Array.from({ length: genres }, (_, index) => ({ index, share: 1 / genres })));
  }
}

function paint(singer, index) {
  singer.style.setProperty("fill", index < 0 ? "var(--silence)" : `var(--genre-${index % 10})`);
}

/** Says what a track is. */
export class VerdictPanel {
  constructor(find) {
    this.parts = Object.fromEntries(
      ["verdict", "genre-label", "genre", "confidence", "certainty", "facts", "warnings", "choir-title"].map((id) => [id, find(id)]),
    );
    this.choir = new Choir(find("choir"));
  }

  /** Shows the verdict, or the tally so far. */
  show(track) {
    const { verdict, scores, labels } = track;
    const { parts } = this;
    this.choir.show(scores.map((score) => ({ index: labels.indexOf(score.genre), share: score.probability })));
    const first = scores[0];
    parts["choir-title"].textContent = scores
      .slice(0, 3)
      .map((score) => `${score.genre} ${percent(score.probability)}`)
      .join(", ");
    parts.verdict.classList.toggle("running", !verdict);
    parts["genre-label"].textContent = verdict ? "The chorus hears" : first ? "So far" : "";
    parts.genre.textContent = verdict ? verdict.genre : (first?.genre ?? "");
    const leader = labels.indexOf(verdict ? verdict.genre : first?.genre);
    parts.genre.style.setProperty("--patch", genreColour(leader));
    parts.confidence.textContent = confidence(track);
    parts.certainty.textContent = verdict ? certainty(verdict) : "";
    this.showFacts(track);
    this.showWarnings(verdict?.warnings ?? []);
  }

  showFacts(track) {
    const { verdict } = track;
    const pairs = verdict ? facts(verdict, track.bytes) : [];
    this.parts.facts.replaceChildren(
      ...pairs.map(([term, text, title]) => {
        const pair = document.createElement("div");
        const name = Object.assign(document.createElement("dt"), { textContent: term });
        const value = Object.assign(document.createElement("dd"), { textContent: text });
        if (title) value.title = title;
        pair.append(name, value);
        return pair;
      }),
    );
  }

  showWarnings(warnings) {
    this.parts.warnings.hidden = warnings.length === 0;
    this.parts.warnings.replaceChildren(
      ...warnings.slice(0, 8).map(({ message, count: times, first_seconds: first }) => {
        const often = times > 1 ? `, ${times} times` : "";
        const where = first > 0 ? `, first at ${clock(first)}` : "";
        return Object.assign(document.createElement("li"), { textContent: `${message}${often}${where}` });
      }),
    );
  }
}

function confidence({ verdict, scores }) {
  if (!verdict) return scores[0] ? `${percent(scores[0].probability)} so far` : "";
  if (verdict.genre !== "unknown") return `${percent(verdict.confidence)} sure`;
  if (!scores[0]) return "";
  return verdict.confidence < NOTHING ? "no music that it knows" : `nearest: ${scores[0].genre}, ${percent(verdict.confidence)}`;
}

function facts(verdict, bytes) {
  const { timing = {}, audio_format: format } = verdict;
  const chunks = count(verdict.chunk_count, "chunk");
  const silent = verdict.silent_chunk_count > 0 ? `, ${verdict.silent_chunk_count} silent` : "";
  const pairs = [["Length", `${clock(verdict.duration_seconds)}, ${chunks}${silent}${verdict.early ? ", ended early" : ""}`]];
  if (format?.codec) {
    const channels = format.channels === 1 ? "mono" : format.channels === 2 ? "stereo" : count(format.channels, "channel");
    const container = format.container === format.codec ? "" : ` in ${format.container}`;
    const rate = `${(format.sample_rate / 1000).toLocaleString("en", { maximumFractionDigits: 2 })} kHz`;
    pairs.push(["Audio", `${format.codec}${container}, ${rate} ${channels}, ${size(bytes)}`]);
  }
  if (timing.total_seconds !== undefined) {
    const parts = ["decode", "mel", "queue", "compute"].filter((part) => timing[`${part}_seconds`] !== undefined);
    const said = parts.map((part) => `${part} ${span(timing[`${part}_seconds`])}`).join(" · ");
    pairs.push([verdict.cached ? "Time, when it was computed" : "Time", span(timing.total_seconds), said], ["Time of the parts", said]);
  }
  if (verdict.cached) pairs.push(["Answer", "from the cache"]);
  pairs.push(["Model", short(verdict.model_version), verdict.model_version]);
  if (verdict.blake3_digest) pairs.push(["BLAKE3", short(verdict.blake3_digest), verdict.blake3_digest]);
  return pairs;
}

const short = (text) => (text.length > 12 ? `${text.slice(0, 12)}…` : text);
