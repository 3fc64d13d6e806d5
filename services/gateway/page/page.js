// Wires the page together: what comes in, what is shown.

import { Booth } from "./booth.js";
import { onThemeChange, publishColours, swatch } from "./colours.js";
import { History } from "./history.js";
import { Player } from "./player.js";
import { Queue } from "./queue.js";
import { Refusal, model } from "./server.js";
import { Sheet } from "./sheet.js";
import { Stage, best } from "./stage.js";
import { Track } from "./track.js";
import { Choir, VerdictPanel } from "./verdict.js";
import { clock, explain, percent, size } from "./words.js";

const TOKEN = "chorale.token";
const LETTERS = "chorale.letters";
const PLAY = "M8 5v14l11-7z";
const PAUSE = "M7 5h4v14H7zM13 5h4v14h-4z";

const find = (id) => document.getElementById(id);

/** What the visitor sees and does. */
class Studio {
  constructor() {
    this.labels = [];
    this.limits = {};
    this.current = null;
    // While tracks wait in line, the one that is heard is shown, until the visitor chooses.
    this.following = true;
    publishColours();
    new Choir(find("intake-choir")).rest();
    this.player = new Player(find("audio"), { moved: (at) => this.moved(at), changed: () => this.showTransport() });
    this.stage = new Stage(find, (seconds) => this.player.seek(seconds));
    this.sheet = new Sheet(find);
    this.verdict = new VerdictPanel(find);
    this.history = new History(find("history"), {
      choose: (track) => this.pick(track),
      remove: (track) => this.remove(track),
    });
    this.queue = new Queue({
      changed: (track, event) => this.changed(track, event),
      authorise: (again, signal) => this.authorise(again, signal),
      done: (track) => this.finished(track),
    });
    this.booth = new Booth(find, this.queue, {
      begins: (track) => this.recordingBegins(track),
      ends: (track) => this.recordingEnds(track),
      fails: (words) => this.notice(words),
    });
    this.queue.token = sessionStorage.getItem(TOKEN);
    this.history.restore();
    this.takeFiles();
    this.takeClicks();
    this.takeKeys();
    onThemeChange(() => this.current && this.verdict.show(this.current));
    this.showSession();
    this.meet();
  }

  /** Asks the server what it is. */
  async meet() {
    try {
      const answer = await model(this.queue.token);
      this.labels = answer.model.labels;
      this.limits = answer.limits ?? {};
      find("model").textContent = `${answer.model.name} · ${answer.model.version.slice(0, 8)}`;
      find("model").title = `${answer.model.architecture}, version ${answer.model.version}`;
      find("notice").hidden = true;
      return true;
    } catch (error) {
      if (error.problem?.reason === "UNAUTHENTICATED") {
        this.queue.token = await this.authorise(this.queue.token !== null);
        return this.meet();
      }
      const { title, help } = explain(error.problem ?? {});
      this.notice(`${title}. ${help}`);
      return false;
    }
  }

  takeFiles() {
    find("choose").addEventListener("click", () => find("files").click());
    find("files").addEventListener("change", (event) => {
      this.listenTo(event.target.files);
      event.target.value = "";
    });
    const curtain = (open) => (find("curtain").hidden = !open);
    const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
    addEventListener("dragenter", (event) => carriesFiles(event) && curtain(true));
    addEventListener("dragleave", (event) => event.relatedTarget === null && curtain(false));
    addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
    addEventListener("drop", (event) => {
      curtain(false);
      if (!carriesFiles(event)) return;
      event.preventDefault();
      this.listenTo(event.dataTransfer.files);
    });
    addEventListener("paste", (event) => this.listenTo(event.clipboardData?.files ?? []));
  }

  takeClicks() {
    find("record").addEventListener("click", () => this.record());
    find("stop").addEventListener("click", () => this.booth.stop());
    find("play").addEventListener("click", () => this.player.toggle());
    find("cancel").addEventListener("click", () => this.cancel());
    find("again").addEventListener("click", () => this.again());
    find("download").addEventListener("click", () => this.download());
    find("clear").addEventListener("click", () => {
      for (const track of [...this.history.tracks]) this.remove(track);
      find("choose").focus();
    });
    find("help-open").addEventListener("click", () => find("help").showModal());
    find("help-close").addEventListener("click", () => find("help").close());
    find("letters").checked = localStorage.getItem(LETTERS) !== "off";
    find("letters").addEventListener("change", ({ target }) => localStorage.setItem(LETTERS, target.checked ? "on" : "off"));
  }

  takeKeys() {
    find("reach").addEventListener("keydown", (event) => this.seekByKey(event));
    addEventListener("keydown", (event) => {
      const { target, key } = event;
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || find("help").open) return;
      if (target instanceof HTMLInputElement) return;
      if (key === "Escape") return this.cancel();
      if (this.seekByKey(event) || !find("letters").checked) return;
      const actions = {
        " ": () => target instanceof HTMLButtonElement || target instanceof HTMLAnchorElement || this.player.toggle(),
        o: () => find("choose").click(),
        r: () => this.record(),
        j: () => this.beside(1),
        k: () => this.beside(-1),
        d: () => this.download(),
        "?": () => find("help").showModal(),
      };
      const action = actions[key.length === 1 ? key.toLowerCase() : key];
      if (!action || action() === true) return;
      event.preventDefault();
    });
  }

  seekByKey(event) {
    if (!this.current || event.ctrlKey || event.metaKey || event.altKey) return false;
    const { player } = this;
    const step = event.shiftKey ? (way) => player.seek(player.position + 0.5 * way) : (way) => player.step(way);
    const actions = {
      ArrowLeft: () => step(-1),
      ArrowRight: () => step(1),
      ArrowDown: () => step(-1),
      ArrowUp: () => step(1),
      PageDown: () => player.seek(player.position - 10),
      PageUp: () => player.seek(player.position + 10),
      Home: () => player.seek(0),
      End: () => player.seek(this.current.seconds),
    };
    const scrolls = ["ArrowUp", "ArrowDown", "PageUp", "PageDown", "Home", "End"].includes(event.key);
    if (!actions[event.key] || (scrolls && document.activeElement !== find("reach"))) return false;
    event.preventDefault();
    event.stopPropagation();
    actions[event.key]();
    return true;
  }

  /** Puts files into the queue. */
  async listenTo(files) {
    const chosen = [...files];
    if (chosen.length === 0 || (this.labels.length === 0 && !(await this.meet()))) return;
    this.following = true;
    chosen.forEach((file, place) => {
      const track = new Track({ name: file.name, bytes: file.size, labels: this.labels, file });
      this.history.add(track);
      if (place === 0 && !this.queue.running) this.choose(track);
      const most = Number(this.limits.max_audio_bytes ?? 0);
      if (most > 0 && file.size > most) this.queue.finish(track, "failed", tooLarge(file.size, most));
      else this.queue.add(track);
    });
    this.showSession();
  }

  /** A recording begins to be heard. */
  recordingBegins(track) {
    find("notice").hidden = true;
    this.history.add(track);
    this.choose(track);
    this.showSession();
    this.announce("Recording");
  }

  /** A recording has ended, and can be played. */
  recordingEnds(track) {
    if (this.current === track) this.player.load(track);
  }

  async record() {
    if (this.booth.recording) return this.booth.stop();
    if (this.labels.length > 0 || (await this.meet())) await this.booth.open(this.labels);
  }

  /** Shows another track. */
  choose(track) {
    this.current = track;
    find("track").hidden = !track;
    document.body.classList.toggle("empty", !track);
    this.history.mark(track);
    if (!track) return;
    find("track-name").textContent = track.name;
    this.stage.show(track);
    this.player.load(track);
    this.showTrack(track);
  }

  /** Shows the track that the visitor wants, whatever is heard next. */
  pick(track) {
    this.following = false;
    this.choose(track);
  }

  beside(step) {
    const track = this.history.beside(this.current, step);
    if (track) this.pick(track);
  }

  remove(track) {
    this.cancel(track);
    this.history.drop(track);
    if (track === this.current) this.choose(this.history.tracks[0] ?? null);
    this.showSession();
  }

  cancel(track = this.current) {
    if (!track || !["waiting", "listening"].includes(track.state)) return;
    this.queue.cancel(track);
    if (track === this.booth.track) this.booth.stop();
  }

  again() {
    const { current } = this;
    if (current?.hurry) current.hurry();
    else if (current?.file) this.queue.add(current);
  }

  /** A track has news. */
  changed(track, event) {
    if (!event) this.history.update(track);
    if (!event && this.following && track.state === "listening" && track !== this.current) this.choose(track);
    if (track !== this.current) return;
    if (event !== "sent") this.stage.redraw();
    if (event !== "envelope") this.showTrack(track);
  }

  finished(track) {
    if (track === this.booth.track) this.booth.stop();
    this.history.update(track);
    this.history.save();
    if (track.verdict) {
      const { genre, confidence } = track.verdict;
      this.announce(`${track.name}: ${genre === "unknown" ? "unknown" : `${genre}, ${percent(confidence)} sure`}.`);
    } else if (track.state === "failed") {
      this.announce(`${track.name}: ${explain(track.problem.problem).title}`);
    }
    if (track === this.current) this.choose(track);
  }

  showTrack(track) {
    this.sheet.show(track);
    this.verdict.show(track);
    this.showTransport();
  }

  moved(seconds) {
    this.stage.moveCursor(seconds);
    find("position").textContent = clock(seconds);
    this.showReadout();
  }

  showTransport() {
    const { current, player } = this;
    if (!current) return;
    const action = player.playing ? "Pause" : "Play";
    find("play").disabled = !player.playable;
    find("play").setAttribute("aria-label", action);
    find("play").title = player.playable ? `${action} (Space)` : unplayable(current);
    find("play-icon").setAttribute("d", player.playing ? PAUSE : PLAY);
    find("length").textContent = clock(current.seconds);
    this.showReadout();
  }

  /** What the chunk under the cursor said. */
  showReadout() {
    const { current } = this;
    const index = current ? current.chunkAt(this.player.position) : -1;
    const chunk = current?.chunks[index];
    if (chunk === this.told) return;
    this.told = chunk;
    if (!chunk) return find("readout").replaceChildren();
    const said = best(chunk, 4).map(([label, share]) => {
      const part = document.createElement("span");
      part.append(swatch(current.labels.indexOf(label)), ` ${label} ${percent(share)}`);
      return part;
    });
    const place = Object.assign(document.createElement("span"), { textContent: `Chunk ${index + 1}` });
    find("readout").replaceChildren(place, ...(said.length > 0 ? said : ["silence"]));
  }

  showSession() {
    find("session").hidden = this.history.tracks.length === 0;
    if (!this.current) this.choose(this.history.tracks[0] ?? null);
  }

  download() {
    const { current } = this;
    if (!current?.verdict) return;
    const url = URL.createObjectURL(new Blob([`${JSON.stringify(current.report(), null, 2)}\n`], { type: "application/json" }));
    const link = Object.assign(document.createElement("a"), { href: url, download: `${current.name}.chorale.json` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  /** Asks for a token; resolves when one was entered. */
  authorise(again, signal) {
    const form = find("token-form");
    form.hidden = false;
    if (again) find("token-note").textContent = "That token was not accepted. Is it complete?";
    find("token").focus();
    return new Promise((resolve, reject) => {
      const enter = (event) => {
        event.preventDefault();
        const token = find("token").value.trim();
        if (!token) return;
        sessionStorage.setItem(TOKEN, token);
        find("token").value = "";
        form.hidden = true;
        form.removeEventListener("submit", enter);
        resolve(token);
      };
      form.addEventListener("submit", enter);
      signal?.addEventListener("abort", () => reject(new DOMException("cancelled", "AbortError")), { once: true });
    });
  }

  notice(text) {
    find("notice").textContent = text;
    find("notice").hidden = false;
  }

  announce(text) {
    find("announcer").textContent = text;
  }
}

function tooLarge(bytes, most) {
  return new Refusal({ reason: "LIMIT_EXCEEDED", detail: `${size(bytes)} is more than the ${size(most)} of a call` });
}

function unplayable(track) {
  if (track.restored && !track.file) return "The audio is not kept: drop the file again to hear it";
  return track.file ? "This browser cannot play this format; the pictures are true all the same" : "Nothing to play yet";
}

new Studio();
