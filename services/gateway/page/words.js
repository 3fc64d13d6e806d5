// Numbers, times and problems in words.

/** `1:05`, or `1:02:03` from an hour on; rounded, as on the command line. */
export function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const two = (value) => String(value).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** A probability as `47 %`. */
export function percent(probability, digits = 0) {
  return `${(100 * probability).toFixed(digits)}\u202f%`;
}

/** A size in bytes, as people read it. */
export function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB"];
  const step = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(bytes, 1)) / 3));
  const value = bytes / 1000 ** step;
  return `${step > 0 && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[step]}`;
}

/** A short time in milliseconds or seconds. */
export function span(seconds) {
  if (seconds < 0.0995) return `${(1000 * seconds).toFixed(seconds < 0.00995 ? 1 : 0)} ms`;
  return `${seconds.toFixed(seconds < 9.95 ? 2 : 0)} s`;
}

/** `1 chunk`, `2 chunks`. */
export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

const HELP = {
  AUDIO_EMPTY: ["There is nothing in this file", "It has no bytes. Was it copied completely?"],
  AUDIO_UNSUPPORTED: [
    "This is no audio that Chorale can read",
    "It reads mp3, aac, m4a, alac, flac, ogg vorbis, wav, aiff, caf, mkv, webm with vorbis, and au. " +
      "Convert the file to one of these and drop it again.",
  ],
  AUDIO_UNREADABLE: [
    "Nothing in this file can be decoded",
    "The container is known, but what is in it is damaged, or missing. Try another copy.",
  ],
  AUDIO_TOO_SHORT: ["This is too short to judge", "At least one second of audio is needed; four make a chunk."],
  DIGEST_MISMATCH: ["The audio changed on its way", "Drop the file again."],
  REQUEST_INVALID: ["The server did not understand the page", "Reload the page: it may be older than the server."],
  LIMIT_EXCEEDED: ["This is more than the server takes", "Sending the same again will not help: cut the track first."],
  OVERLOADED: ["The server has too much to do", "It asked to be left alone for a moment."],
  UNAUTHENTICATED: ["The server wants to know who asks", "Enter the token that you were given."],
  DEADLINE_EXCEEDED: ["This took too long", "Try again, or try a shorter track."],
  FEATURE_MISMATCH: ["The server's parts do not fit each other", "Whoever runs it should look at its logs."],
  MODEL_UNKNOWN: ["That model is not served", "Reload the page to see those that are."],
  DEPENDENCY_UNAVAILABLE: ["A part of the server is away", "It usually comes back within seconds."],
  DRAINING: ["This server is shutting down", "Another one will answer in a moment."],
  INTERNAL: ["Something broke on the server", "That is a fault of Chorale's, not of your file."],
  OFFLINE: ["The server does not answer", "Is it running, and is the network there?"],
  INTERRUPTED: ["The connection broke off", "The verdict had not come yet. Try again."],
};

/** What happened and what to do, for a problem as in RFC 9457. */
export function explain(problem) {
  const [title, help] = HELP[problem.reason] ?? [problem.title || "That did not work", ""];
  return { title, help, detail: problem.detail ?? "" };
}

/** A probability too small to name a genre for. */
export const NOTHING = 0.01;

/** How sure a verdict is, as a sentence. */
export function certainty(verdict) {
  const voting = verdict.chunk_count - verdict.silent_chunk_count;
  const [first, second] = verdict.scores;
  if (!first) return "Nothing but silence was heard, and silence does not vote.";
  if (first.probability < NOTHING) return "The model is sure that this is no music: no genre has even one percent.";
  const votes = `${first.votes} of ${count(voting, "voting chunk")}`;
  const next = second ? ` Next is ${second.genre} with ${percent(second.probability)}.` : "";
  if (verdict.genre === "unknown") {
    return (
      `This may be no music, or like nothing that the model knows. It is least unlike ${first.genre} ` +
      `(${percent(first.probability)}, ${votes}), which is below what the model calls sure.${next}`
    );
  }
  return `${votes} heard ${first.genre}.${next} ${agreement(first.dispersion)}`;
}

function agreement(dispersion) {
  const points = `±${Math.round(100 * dispersion)} points from chunk to chunk`;
  if (dispersion < 0.08) return `The chunks agree: ${points}.`;
  if (dispersion < 0.2) return `The chunks differ somewhat: ${points}.`;
  return `The chunks differ a lot: ${points}.`;
}
