// One track after the other: sends them, tries again when the server asks for it, and asks for a token when it must.

import { Live, Refusal, classify } from "./server.js";
import { secondsOf } from "./player.js";

const TRIES = 5;
const LONGEST_WAIT = 600;

const AGAIN = new Set(["OVERLOADED", "DEPENDENCY_UNAVAILABLE", "DRAINING"]);

/** Waits its turn with every track. */
export class Queue {
  /** `changed(track)` hears of every event and state; `authorise()` resolves to a token; `done(track)` hears of the end. */
  constructor({ changed, authorise, done }) {
    this.changed = changed;
    this.authorise = authorise;
    this.done = done;
    this.token = null;
    this.waiting = [];
    this.stops = new Map();
    this.running = false;
  }

  /** Puts a track at the end. */
  add(track) {
    this.set(track, "waiting");
    this.waiting.push(track);
    if (!this.running) this.run();
  }

  async run() {
    this.running = true;
    for (let track = this.waiting.shift(); track; track = this.waiting.shift()) await this.hear(track);
    this.running = false;
  }

  set(track, state, problem = null) {
    track.state = state;
    track.problem = problem;
    track.retryAt = null;
    this.changed(track);
  }

  /** Stops hearing a track, or takes it out of the line. */
  cancel(track) {
    const place = this.waiting.indexOf(track);
    if (place >= 0) this.waiting.splice(place, 1);
    const stop = this.stops.get(track);
    if (stop) stop.abort();
    else this.finish(track, "cancelled");
  }

  finish(track, state, problem = null) {
    this.stops.delete(track);
    this.set(track, state, problem);
    this.done(track);
  }

  /** Runs `work(signal)` for a track until it ends, one way or another. */
  async settle(track, work, stop = new AbortController()) {
    this.stops.set(track, stop);
    try {
      await work(stop.signal);
      this.finish(track, "done");
    } catch (error) {
      if (stop.signal.aborted) this.finish(track, "cancelled");
      else this.finish(track, "failed", error instanceof Refusal ? error : broken(error));
    }
  }

  hear(track) {
    return this.settle(track, async (signal) => {
      track.expectedSeconds ??= await secondsOf(track.file);
      for (let tries = 1; ; tries++) {
        try {
          return await this.attempt(track, signal);
        } catch (error) {
          if (!(error instanceof Refusal) || signal.aborted) throw error;
          if (error.problem.reason === "UNAUTHENTICATED") this.token = await this.authorise(this.token !== null, signal);
          else if (tries < TRIES && worthAnother(error)) await this.wait(track, error, signal);
          else throw error;
        }
      }
    });
  }

  attempt(track, signal) {
    track.forgetAnswers();
    this.set(track, "listening");
    const on = (event, data) => {
      track.apply(event, data);
      this.changed(track, event);
    };
    const sent = (bytes) => {
      track.bytesSent = bytes;
      this.changed(track, "sent");
    };
    return classify(track.file, { token: this.token, signal, on, sent });
  }

  /** Counts down the time that the server asked for. */
  wait(track, refusal, signal) {
    this.set(track, "waiting", refusal);
    track.retryAt = Date.now() + 1000 * refusal.retryAfter;
    return new Promise((resolve, reject) => {
      const finish = (how) => {
        clearInterval(timer);
        track.hurry = null;
        how();
      };
      const timer = setInterval(() => {
        this.changed(track);
        if (Date.now() >= track.retryAt) finish(resolve);
      }, 250);
      track.hurry = () => finish(resolve);
      signal.addEventListener("abort", () => finish(() => reject(new DOMException("cancelled", "AbortError"))), { once: true });
      this.changed(track);
    });
  }

  /** Hears a recording while it is made; resolves to the socket that takes it, or `null` where there is none. */
  async hearLive(track, format) {
    this.set(track, "listening");
    const stop = new AbortController();
    const on = (event, data) => {
      track.apply(event, data);
      this.changed(track, event);
    };
    try {
      const live = await Live.open({ options: { pcm: format }, token: this.token, signal: stop.signal, on });
      this.settle(track, () => live.finished, stop);
      return live;
    } catch {
      // It will be heard as a file, which also tells what is wrong.
      return null;
    }
  }
}

function worthAnother({ problem, retryAfter }) {
  return retryAfter !== null && retryAfter <= LONGEST_WAIT && (AGAIN.has(problem.reason) || problem.status === 429);
}

function broken(error) {
  console.error(error);
  return new Refusal({ title: "The page stumbled", detail: String(error), reason: "" });
}
