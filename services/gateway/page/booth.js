// Where recordings are made: asks for the microphone, shows its level, and hands on what it hears.

import { LIMIT_SECONDS, Recording, refused } from "./microphone.js";
import { Track } from "./track.js";
import { clock } from "./words.js";

/** One recording at a time. */
export class Booth {
  /** `begins(track)`, `ends(track)` and `fails(words)` hear how it goes. */
  constructor(find, queue, { begins, ends, fails }) {
    this.find = find;
    this.queue = queue;
    this.begins = begins;
    this.ends = ends;
    this.fails = fails;
    this.recording = null;
    this.track = null;
    this.opening = false;
  }

  async open(labels) {
    if (this.opening || this.recording) return;
    this.opening = true;
    const time = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
    const track = new Track({ name: `Recording ${time}`, labels, source: "microphone" });
    let socket = null;
    let early = [];
    const heard = ({ samples, peak }) => {
      if (early) early.push(samples);
      else socket?.send(samples);
      this.showLevel(peak);
    };
    try {
      this.recording = await Recording.start({ heard, ended: () => this.close(socket) });
      this.track = track;
      this.show(true);
      this.begins(track);
      socket = await this.queue.hearLive(track, this.recording.format);
      for (const samples of early) socket?.send(samples);
      early = null;
      if (!this.recording) socket?.end();
    } catch (error) {
      this.fails(refused(error));
    } finally {
      this.opening = false;
    }
  }

  stop() {
    this.recording?.stop();
  }

  close(socket) {
    const { track, recording } = this;
    this.recording = null;
    this.track = null;
    this.show(false);
    track.file = recording.file(`${track.name}.wav`);
    track.bytes = track.file.size;
    track.expectedSeconds = recording.seconds;
    this.ends(track);
    socket?.end();
    if (!socket && track.state === "listening") this.queue.add(track);
  }

  show(on) {
    this.find("recording").hidden = !on;
    this.find("record-text").textContent = on ? "Stop" : "Record";
    this.find("record").classList.toggle("on", on);
    this.find("recording-note").textContent = `It ends by itself after ${LIMIT_SECONDS / 60} minutes.`;
  }

  showLevel(peak) {
    const decibels = Math.max(-60, 20 * Math.log10(Math.max(peak, 1e-6)));
    this.find("meter-bar").style.setProperty("transform", `scaleX(${(1 + decibels / 60).toFixed(3)})`);
    this.find("meter").setAttribute("aria-valuenow", decibels.toFixed(0));
    this.find("recording-clock").textContent = clock(this.recording?.seconds ?? 0);
  }
}
