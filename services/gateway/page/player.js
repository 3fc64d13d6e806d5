// Playback, and the cursor that everything follows.

/** Plays the file of one track at a time. Without a file, or one that the browser cannot play, the cursor moves all the same. */
export class Player {
  /** `moved(seconds)` hears of every position, `changed()` of play, pause, and what can be played. */
  constructor(audio, { moved, changed }) {
    this.audio = audio;
    this.moved = moved;
    this.changed = changed;
    this.playable = false;
    this.position = 0;
    this.url = null;
    this.track = null;
    audio.addEventListener("loadedmetadata", () => this.ready(true));
    audio.addEventListener("error", () => this.ready(false));
    for (const event of ["play", "pause", "ended"]) audio.addEventListener(event, () => this.changed());
    audio.addEventListener("play", () => this.follow());
    audio.addEventListener("seeked", () => this.tell());
  }

  /** Takes up a track, at its beginning. */
  load(track) {
    if (this.track === track && (this.url !== null) === (track.file !== null)) return;
    this.audio.pause();
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = track.file ? URL.createObjectURL(track.file) : null;
    this.track = track;
    this.playable = false;
    this.position = 0;
    if (this.url) this.audio.src = this.url;
    else this.audio.removeAttribute("src");
    this.changed();
    this.moved(0);
  }

  ready(playable) {
    if (!this.url) return;
    this.playable = playable;
    if (playable && this.position > 0) this.audio.currentTime = this.position;
    this.changed();
  }

  get playing() {
    return this.playable && !this.audio.paused && !this.audio.ended;
  }

  toggle() {
    if (!this.playable) return;
    if (this.playing) this.audio.pause();
    else this.audio.play().catch(() => this.ready(false));
  }

  /** Goes to a time within the track. */
  seek(seconds) {
    this.position = Math.max(0, Math.min(seconds, this.track.seconds));
    if (this.playable) this.audio.currentTime = this.position;
    this.moved(this.position);
  }

  /** Goes a number of chunks back or on. */
  step(chunks) {
    const { track, position } = this;
    const here = track.chunkAt(position);
    const target = track.chunks[here + chunks];
    if (target) this.seek(target.start_seconds);
    else if (chunks < 0) this.seek(0);
  }

  tell() {
    this.position = this.audio.currentTime;
    this.moved(this.position);
  }

  follow() {
    if (!this.playing) return;
    this.tell();
    requestAnimationFrame(() => this.follow());
  }
}

/** Seconds of a file, as far as this browser can tell; `null` otherwise. */
export function secondsOf(file) {
  return new Promise((resolve) => {
    const audio = new Audio();
    const url = URL.createObjectURL(file);
    const finish = () => {
      const seconds = audio.duration;
      URL.revokeObjectURL(url);
      audio.removeAttribute("src");
      resolve(Number.isFinite(seconds) && seconds > 0 ? seconds : null);
    };
    audio.preload = "metadata";
    audio.addEventListener("loadedmetadata", finish, { once: true });
    audio.addEventListener("error", finish, { once: true });
    audio.src = url;
  });
}
