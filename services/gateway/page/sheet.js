// How a track stands: waiting, listening, heard, or what went wrong.

import { clock, explain } from "./words.js";

const PARTS = [
  "track", "track-state", "upload", "cancel", "again", "download", "verdict", "stage", "transport",
  "problem", "problem-title", "problem-help", "problem-detail", "problem-retry",
];

/** The head of a track's panel, and which parts of it are there to see. */
export class Sheet {
  constructor(find) {
    this.parts = Object.fromEntries(PARTS.map((id) => [id, find(id)]));
  }

  show(track) {
    const { parts } = this;
    const listening = track.state === "listening";
    const failed = track.problem !== null;
    parts["track-state"].textContent = stateOf(track);
    parts.track.setAttribute("aria-busy", String(listening));
    parts.cancel.hidden = !listening && track.state !== "waiting";
    parts.again.hidden = !track.file || !(failed || track.state === "cancelled");
    parts.again.textContent = track.retryAt ? "Try now" : "Try again";
    parts.download.hidden = !track.verdict;
    const empty = failed || (track.chunks.length === 0 && !track.verdict && !listening);
    for (const part of [parts.verdict, parts.stage, parts.transport]) part.hidden = empty;
    parts.stage.classList.toggle("without-pictures", track.restored);
    this.showUpload(track, listening && track.source === "file" && !track.verdict);
    this.showProblem(track);
  }

  showUpload(track, sending) {
    this.parts.upload.hidden = !sending;
    const received = Math.max(track.bytesReceived, track.bytesSent ?? 0) / (track.bytes || 1);
    this.parts.upload.value = track.expectedSeconds ? track.secondsHeard / track.seconds : received;
  }

  showProblem(track) {
    const { parts } = this;
    parts.problem.hidden = !track.problem;
    if (!track.problem) return;
    const { title, help, detail } = explain(track.problem.problem);
    const left = track.retryAt ? Math.max(0, Math.ceil((track.retryAt - Date.now()) / 1000)) : null;
    parts["problem-title"].textContent = title;
    parts["problem-help"].textContent = help;
    parts["problem-detail"].textContent = detail && `The server says: ${detail}`;
    parts["problem-retry"].textContent = left === null ? "" : `Trying again in ${left} s.`;
  }
}

function stateOf(track) {
  if (track.state === "listening") {
    const heard = clock(Math.min(track.secondsHeard, track.seconds));
    if (track.source === "microphone" && !track.file) return `Recording · ${heard} heard`;
    if (track.secondsHeard === 0) return "Sending";
    return track.expectedSeconds ? `Listening · ${heard} of ${clock(track.expectedSeconds)}` : `Listening · ${heard}`;
  }
  const words = { waiting: track.retryAt ? "Waiting for the server" : "In line", failed: "Not classified", cancelled: "Cancelled" };
  if (words[track.state]) return words[track.state];
  return track.restored && !track.file ? `Heard on ${new Date(track.when).toLocaleDateString()}` : "Heard";
}
