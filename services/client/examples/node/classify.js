#!/usr/bin/env node
// Names the genre of audio files with a Chorale server, and shows each chunk's vote while the upload runs.
//
//     npm ci --prefix services/client/examples/node
//     chorale up &
//     node services/client/examples/node/classify.js song.mp3
//
// The protocol is read when the program starts: nothing is generated or built. A bearer token is taken from the environment
// variable CHORALE_TOKEN. The exit code is 0 if every file has a verdict, else 1.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { setTimeout: sleep } = require('node:timers/promises');
const grpc = require('@grpc/grpc-js');
const { loadSync } = require('@grpc/proto-loader');
const protobuf = require('protobufjs');

const MESSAGE_BYTES = 64 * 1024;
const USAGE = `Usage: classify.js [OPTIONS] FILE...

Options:
  --endpoint URL     default: http://127.0.0.1:50051
  --ca FILE          certificates (PEM) that an https:// server is believed by
  --timeout SECONDS  give up on a file after this long; default: 60
  --attempts N       default: 5
  --proto DIR        default: the folder of this checkout`;

// What errors carry beside their code and message: https://cloud.google.com/apis/design/errors has all of it.
const details = protobuf.parse(
  `
    syntax = "proto3";
    message Any { string type_url = 1; bytes value = 2; }
    message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
    message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
    message Duration { int64 seconds = 1; int32 nanos = 2; }
    message RetryInfo { Duration retry_delay = 1; }
    message FieldViolation { string field = 1; string description = 2; }
    message BadRequest { repeated FieldViolation field_violations = 1; }
  `,
  { keepCase: true },
).root;

// What calls end with when their connection breaks, as it does when a gateway goes. Chorale's own errors have details.
const { CANCELLED, INTERNAL, RESOURCE_EXHAUSTED, UNAVAILABLE, UNKNOWN } = grpc.status;
const BROKEN_CONNECTION = [CANCELLED, INTERNAL, RESOURCE_EXHAUSTED, UNAVAILABLE, UNKNOWN];

/** What the details of an error say: a reason, the field that is wrong, the seconds after which to try again. */
function explain(error) {
  const [bytes] = error.metadata?.get('grpc-status-details-bin') ?? [];
  const broken = bytes === undefined && BROKEN_CONNECTION.includes(error.code);
  const said = { reason: '', field: '', retryAfter: broken ? 1 : undefined };
  for (const { type_url: url, value } of bytes ? decode('Status', bytes).details : []) {
    switch (url) {
      case 'type.googleapis.com/google.rpc.ErrorInfo':
        said.reason = decode('ErrorInfo', value).reason;
        break;
      case 'type.googleapis.com/google.rpc.RetryInfo': {
        const { seconds = 0, nanos = 0 } = decode('RetryInfo', value).retry_delay ?? {};
        said.retryAfter = Number(seconds) + nanos / 1e9;
        break;
      }
      case 'type.googleapis.com/google.rpc.BadRequest':
        said.field = decode('BadRequest', value).field_violations.map((violation) => violation.field).join(', ');
        break;
    }
  }
  return said;
}

function decode(name, bytes) {
  const type = details.lookupType(name);
  return type.toObject(type.decode(bytes), { arrays: true, longs: Number });
}

function describe(error) {
  if (error.code in grpc.status) {
    const code = grpc.status[error.code];
    const { reason, field } = explain(error);
    return `${[code, reason === code ? '' : reason, field].filter(Boolean).join(' ')}: ${error.details}`;
  }
  return error.message;
}

/** One attempt: the options, then the audio as soon as the server has said that it wants it. */
function classifyOnce(client, file, deadline, metadata) {
  return new Promise((resolve, reject) => {
    const audio = fs.createReadStream(file, { highWaterMark: MESSAGE_BYTES });
    audio.on('error', reject);
    audio.once('open', () => {
      const call = client.ClassifyStream(metadata, { deadline });
      let verdict;
      call.on('data', (response) => {
        switch (response.event) {
          case 'accepted':
            if (response.accepted.audio_wanted) {
              upload(call, audio).catch(reject);
            } else {
              call.end();
            }
            break;
          case 'chunk_vote':
            printVote(response.chunk_vote);
            break;
          case 'verdict':
            verdict = response.verdict;
        }
      });
      call.on('error', reject);
      call.on('end', () => (verdict ? resolve(verdict) : reject(new Error('the server ended the call without a verdict'))));
      call.on('close', () => audio.destroy());
      // With `blake3_digest`, the digest of the file, a verdict that the server knows costs no upload.
      const options = { content_type: path.extname(file).slice(1), events: ['EVENT_KIND_CHUNK_VOTE'], top_k: 3 };
      call.write({ options });
    });
  });
}

/** Sends the audio no faster than the server takes it. */
async function upload(call, audio) {
  for await (const block of audio) {
    if (!call.write({ audio: block })) {
      await new Promise((resolve) => call.once('drain', resolve).once('close', resolve));
    }
  }
  call.end();
}

/** Tries again where that helps: no earlier than the server says, later each time, and not all callers at once. */
async function classify(client, file, { timeout, attempts, metadata }) {
  const deadline = Date.now() + 1000 * timeout;
  for (let attempt = 1; ; attempt++) {
    try {
      return await classifyOnce(client, file, deadline, metadata);
    } catch (error) {
      const { retryAfter } = explain(error);
      if (retryAfter === undefined || attempt >= attempts) throw error;
      const delay = Math.max(retryAfter, 0.2 * 2 ** attempt) * (1 + Math.random() / 2);
      if (Date.now() + 1000 * delay > deadline) throw error;
      console.error(`${file}: ${describe(error)}; again in ${delay.toFixed(1)} s`);
      await sleep(1000 * delay);
    }
  }
}

function printVote(vote) {
  const sound = vote.silent
    ? 'silence'
    : `${vote.genre.padEnd(10)}${(100 * Math.max(...vote.probabilities)).toFixed(1).padStart(5)} %`;
  console.log(`  ${clock(vote.start_seconds)} to ${clock(vote.end_seconds)}  ${sound}`);
}

function printVerdict(file, verdict) {
  const known = verdict.cached ? ', known already' : '';
  console.log(
    `${file}: ${verdict.genre}, ${(100 * verdict.confidence).toFixed(0)} % sure (${clock(verdict.duration_seconds)}, ` +
      `${verdict.chunk_count} chunks, model ${verdict.model_version}${known})`,
  );
  for (const warning of verdict.warnings) console.log(`  warning: ${warning.message}`);
}

function clock(seconds) {
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`;
}

/** A client of http://HOST:PORT or https://HOST:PORT. One serves any number of calls at the same time. */
function connect(endpoint, ca, proto) {
  const [, scheme, address] = /^(https?):\/\/([^/]+)\/?$/.exec(endpoint) ?? [];
  if (!scheme) throw new Error(`${endpoint}: expected http://HOST:PORT or https://HOST:PORT`);
  const credentials =
    scheme === 'http'
      ? grpc.credentials.createInsecure()
      : grpc.credentials.createSsl(ca === undefined ? null : fs.readFileSync(ca));
  const loaded = loadSync('chorale/v1/classifier.proto', {
    includeDirs: [proto],
    keepCase: true,
    longs: Number,
    enums: String,
    defaults: true,
    oneofs: true,
  });
  return new (grpc.loadPackageDefinition(loaded).chorale.v1.ClassifierService)(address, credentials);
}

function commandLine() {
  const string = (value) => ({ type: 'string', default: value });
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      endpoint: string('http://127.0.0.1:50051'),
      ca: { type: 'string' },
      timeout: string('60'),
      attempts: string('5'),
      proto: string(path.join(__dirname, '../../../../proto')),
      help: { type: 'boolean' },
    },
  });
  const [timeout, attempts] = [Number(values.timeout), Number(values.attempts)];
  if (!(timeout > 0) || !(attempts >= 1)) throw new Error('expected numbers above zero for --timeout and --attempts');
  return { ...values, timeout, attempts, files: positionals };
}

async function main() {
  const chosen = commandLine();
  if (chosen.help || chosen.files.length === 0) {
    console.log(USAGE);
    process.exitCode = chosen.help ? 0 : 2;
    return;
  }
  const client = connect(chosen.endpoint, chosen.ca, chosen.proto);
  const metadata = new grpc.Metadata();
  const token = process.env.CHORALE_TOKEN?.trim();
  if (token) metadata.set('authorization', `Bearer ${token}`);
  for (const file of chosen.files) {
    try {
      printVerdict(file, await classify(client, file, { ...chosen, metadata }));
    } catch (error) {
      console.error(`${file}: ${describe(error)}`);
      process.exitCode = 1;
    }
  }
  client.close();
}

main().catch((error) => {
  console.error(`error: ${error.message}`);
  process.exitCode = 2;
});
