// Talks to the gateway: the model, uploads, live audio, problems.
//
// Audio goes over the WebSocket, as browsers that speak HTTP/1.1 read no answer to a POST before its body is sent: votes could
// not be shown during the upload, and a server whose answer nobody reads stops reading. Where no socket can be had, a POST with
// server-sent events does the same; it also says why there was none, which a browser does not tell of sockets.

const EVENTS = ["chunk_vote", "progress", "mel", "envelope"];
const PIECE_BYTES = 64 * 1024;
const UNSENT_BYTES = 1024 * 1024;

// A page cannot send headers with a WebSocket; the gateway takes the token as the name of a protocol, of these letters.
const PROTOCOL = "chorale.v1";
const NAMEABLE = /^[\w!#$%&'*+.^`|~-]+$/;

/** The server said no, or could not be reached. */
export class Refusal extends Error {
  /** `problem` as in RFC 9457; `retryAfter` in seconds, or `null`. */
  constructor(problem, retryAfter = null) {
    super(problem.detail || problem.title || problem.reason);
    this.problem = problem;
    this.retryAfter = retryAfter ?? secondsIn(problem);
  }
}

function secondsIn(problem) {
  const said = problem.retry_after_seconds ?? problem.metadata?.retry_after_seconds;
  const seconds = Number.parseFloat(said);
  return Number.isFinite(seconds) ? seconds : null;
}

const offline = () => new Refusal({ reason: "OFFLINE", detail: "" });
const interrupted = () => new Refusal({ reason: "INTERRUPTED", detail: "" });
const cancelled = () => new DOMException("cancelled", "AbortError");

function headers(token, more = {}) {
  return token ? { ...more, authorization: `Bearer ${token}` } : more;
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : offline();
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  const after = Number.parseFloat(response.headers.get("retry-after"));
  const reason = problem.reason ?? (response.status === 401 ? "UNAUTHENTICATED" : "");
  const title = problem.title ?? `HTTP ${response.status}`;
  throw new Refusal({ status: response.status, ...problem, reason, title }, Number.isFinite(after) ? after : null);
}

/** The answer to `GET /v1/model`. */
export async function model(token) {
  const response = await request("/v1/model", { headers: headers(token), cache: "no-store" });
  return response.json();
}

/**
 * Classifies a file; `on(event, data)` hears of every event. Resolves after the verdict, and throws a `Refusal` or, after
 * `signal`, an `AbortError`.
 */
export async function classify(file, { token, signal, on, sent }) {
  if (!token || NAMEABLE.test(token)) {
    let heard = false;
    const listen = (event, data) => {
      heard = true;
      on(event, data);
    };
    try {
      const live = await Live.open({ token, signal, on: listen });
      await live.sendFile(file, sent);
      return await live.finished;
    } catch (error) {
      const hopeless = heard || !(error instanceof Refusal) || error.problem.reason !== "OFFLINE";
      if (hopeless) throw error;
    }
  }
  return post(file, { token, signal, on });
}

async function post(file, { token, signal, on }) {
  const query = new URLSearchParams({ events: EVENTS.join(",") });
  const response = await request(`/v1/classify?${query}`, {
    method: "POST",
    headers: headers(token, { accept: "text/event-stream", "content-type": file.type || "application/octet-stream" }),
    body: file,
    signal,
  });
  let done = false;
  for await (const { event, data } of serverSentEvents(response.body)) {
    done = deliver(event, data, on) || done;
  }
  if (!done) throw interrupted();
}

/** Hands an event on; true for the last one. */
function deliver(event, data, on) {
  if (event === "error") throw new Refusal(data);
  on(event, data);
  return event === "verdict";
}

/** The events of a `text/event-stream`, while they come. */
export async function* serverSentEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  let event = "message";
  let data = [];
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : interrupted();
    });
    if (done) return;
    const lines = (pending + value).split("\n");
    pending = lines.pop();
    for (const raw of lines) {
      const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
      if (line.startsWith("event:")) event = line.slice(6).trim();
      if (line.startsWith("data:")) data.push(line.slice(5).trim());
      if (line === "" && data.length > 0) {
        yield { event, data: JSON.parse(data.join("\n")) };
        event = "message";
        data = [];
      }
    }
  }
}

/** Audio over a WebSocket, and events back at the same time. */
export class Live {
  /** Connects, and says what will come: `options` as in `ClassifyOptions`. */
  static async open({ options = {}, token, signal, on }) {
    if (signal?.aborted) throw cancelled();
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const protocols = token ? [PROTOCOL, `bearer.${token}`] : [PROTOCOL];
    const socket = new WebSocket(`${scheme}//${location.host}/v1/classify/live`, protocols);
    const live = new Live(socket, on);
    signal?.addEventListener("abort", () => live.abort(cancelled()), { once: true });
    await live.opened;
    socket.send(JSON.stringify({ ...options, events: EVENTS }));
    return live;
  }

  constructor(socket, on) {
    this.socket = socket;
    this.over = false;
    this.opened = new Promise((resolve, reject) => {
      socket.addEventListener("open", resolve, { once: true });
      socket.addEventListener("close", () => reject(this.failure ?? offline()), { once: true });
    });
    this.finished = new Promise((resolve, reject) => {
      socket.addEventListener("message", (message) => this.take(message.data, on, resolve));
      socket.addEventListener("close", () => reject(this.failure ?? interrupted()), { once: true });
    });
    // Who waits for the one hears of the failure; the other must not count as unheard.
    this.opened.catch(() => {});
    this.finished.catch(() => {});
  }

  take(text, on, resolve) {
    try {
      const { event, data } = JSON.parse(text);
      if (deliver(event, data, on)) {
        this.over = true;
        resolve();
        this.socket.close();
      }
    } catch (error) {
      this.abort(error);
    }
  }

  abort(error) {
    this.failure ??= error;
    this.over = true;
    this.socket.close();
  }

  /** Sends the next bytes; false if nobody listens any more. */
  send(bytes) {
    if (this.over || this.socket.readyState !== WebSocket.OPEN) return false;
    this.socket.send(bytes);
    return true;
  }

  /** Says that the audio is complete. */
  end() {
    this.send("end");
  }

  /** Sends a file in pieces, no faster than they leave; `sent` hears how many bytes did. */
  async sendFile(file, sent) {
    for (let start = 0; start < file.size; start += PIECE_BYTES) {
      const piece = await file.slice(start, start + PIECE_BYTES).arrayBuffer();
      while (!this.over && this.socket.bufferedAmount > UNSENT_BYTES) {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      if (!this.send(piece)) return;
      sent?.(Math.max(0, Math.min(file.size, start + PIECE_BYTES) - this.socket.bufferedAmount));
    }
    this.end();
  }
}
